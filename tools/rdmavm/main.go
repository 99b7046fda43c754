// Rdmavm runs what needs RDMA in two small virtual machines, which see each other over a wire of their own.
//
// The kernel of most machines that run tests has no RDMA. A kernel of Debian with the software device rdma_rxe, booted
// under QEMU without any help from the processor, has: rdmavm fetches that kernel once, builds a memory file system of
// busybox, the tools and libraries of this machine and the kernel's modules, and boots it twice. The machines share
// a directory each with this program, and a wire that is a socket on this host's loopback; no packet leaves the host.
// A test counts as passed only when the guest's file and QEMU's exit code both say so.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"time"

	"github.com/alecthomas/kong"
)

type options struct {
	Kernel  string        `default:"linux-image-amd64" help:"Debian package of the kernel; the one it depends on is taken."`
	Cache   string        `type:"path" placeholder:"DIR" help:"Where kernels are kept; default: khamsin below the user's cache."`
	Limit   time.Duration `default:"30m" help:"How long the machines may run."`
	Memory  int           `default:"1536" help:"MiB of each machine."`
	Only    string        `placeholder:"REGEXP" help:"Run only the steps whose name matches."`
	Run     string        `placeholder:"REGEXP" help:"In the steps that run one machine's tests, run only those that match."`
	Race    bool          `help:"Build with the race detector."`
	Keep    bool          `help:"Keep the machines' directories even when all is well."`
	Verbose bool          `short:"v" help:"Show all that the tests print, not only what failed."`
}

func main() {
	var o options
	kong.Parse(&o, kong.Name("rdmavm"), kong.Description("Run the RDMA tests in two virtual machines."))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, o)
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "rdmavm: %v\n", err)
		os.Exit(1)
	}
}

// run builds what the machines need, runs them, and tells what came of it.
func run(ctx context.Context, o options) (err error) {
	began := time.Now()
	if runtime.GOARCH != "amd64" {
		return fmt.Errorf("the machines are x86-64, and this one is %s: it cannot build for them", runtime.GOARCH)
	}
	if o.Cache == "" {
		dir, err := os.UserCacheDir()
		if err != nil {
			return fmt.Errorf("no place for the kernel: %w; name one with --cache", err)
		}
		o.Cache = filepath.Join(dir, "khamsin")
	}
	dir, err := os.MkdirTemp("", "khamsin-rdmavm-")
	if err != nil {
		return err
	}
	defer func() {
		if err == nil && !o.Keep {
			err = os.RemoveAll(dir)
		} else {
			fmt.Printf("rdmavm: logs are in %s\n", dir)
		}
	}()
	plan, err := newPlan(o.Only, o.Run)
	if err != nil {
		return err
	}
	plan.race = o.Race
	if err := plan.build(ctx, filepath.Join(dir, "bin")); err != nil {
		return err
	}
	k, err := fetchKernel(ctx, o.Cache, o.Kernel)
	if err != nil {
		return err
	}
	root := filepath.Join(dir, "root.cpio.gz")
	if err := buildRoot(ctx, root, k); err != nil {
		return err
	}
	fmt.Printf("rdmavm: kernel %s, prepared in %.1fs\n", k.version, time.Since(began).Seconds())
	ctx, cancel := context.WithTimeoutCause(ctx, o.Limit, errLimit)
	defer cancel()
	err = runMachines(ctx, o, machines(dir, k, root, o.Memory), plan)
	fmt.Printf("rdmavm: %.1fs in all\n", time.Since(began).Seconds())
	return err
}

// errLimit is why machines are ended that run too long.
var errLimit = errors.New("the machines ran longer than --limit") // immutable: an error
