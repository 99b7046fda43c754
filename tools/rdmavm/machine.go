package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// machine is one virtual machine.
type machine struct {
	number int
	dir    string // shared with the guest: script, binaries, logs
	wire   string // the socket that joins the machines
	kernel kernel
	root   string
	memory int
}

// bootLimit is how long a guest may take until it is ready: many times what it needs.
const bootLimit = 90 * time.Second

// errNeverBooted is why a run is tried a second time: QEMU's emulation now and then hangs before the kernel's first
// word.
var errNeverBooted = errors.New("a guest never booted") // immutable: an error

// errSteps is the verdict on a machine that ran to its end.
var errSteps = errors.New("steps failed") // immutable: an error

func machines(dir string, k kernel, root string, memory int) []*machine {
	var list []*machine
	for n := 1; n <= 2; n++ {
		list = append(list, &machine{
			number: n, dir: filepath.Join(dir, fmt.Sprintf("machine%d", n)), wire: filepath.Join(dir, "wire"),
			kernel: k, root: root, memory: memory,
		})
	}
	return list
}

// runMachines runs both machines and reports. It tries again once, when a guest never booted.
func runMachines(ctx context.Context, o options, list []*machine, p *plan) error {
	bin := filepath.Join(filepath.Dir(list[0].dir), "bin")
	err := attempt(ctx, list, p, bin)
	if errors.Is(err, errNeverBooted) {
		fmt.Printf("rdmavm: %v; trying once more\n", err)
		err = attempt(ctx, list, p, bin)
	}
	failures := []error{err}
	for _, m := range list {
		failures = append(failures, m.report(p, o.Verbose))
	}
	return errors.Join(failures...)
}

// attempt runs both machines to their end.
func attempt(ctx context.Context, list []*machine, p *plan, bin string) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if err := os.RemoveAll(list[0].wire); err != nil {
		return err
	}
	var wait sync.WaitGroup
	errs := make([]error, len(list))
	for i, m := range list {
		if err := m.prepare(p, bin); err != nil {
			return err
		}
		wait.Go(func() {
			if errs[i] = m.run(ctx); errs[i] != nil && !errors.Is(errs[i], errSteps) {
				cancel(errs[i]) // the other one would wait in vain
			}
		})
	}
	wait.Wait()
	for _, err := range errs {
		if errors.Is(err, errNeverBooted) {
			return err
		}
	}
	return errors.Join(errs...)
}

// prepare makes the directory that the guest sees.
func (m *machine) prepare(p *plan, bin string) error {
	if err := errors.Join(os.RemoveAll(m.dir), os.MkdirAll(m.dir, 0o755)); err != nil {
		return err
	}
	return errors.Join(
		os.CopyFS(filepath.Join(m.dir, "bin"), os.DirFS(bin)),
		os.WriteFile(m.path("run.sh"), []byte(p.script(m.number)), 0o644),
	)
}

func (m *machine) path(name string) string { return filepath.Join(m.dir, name) }

// args returns QEMU's arguments: no device but the wire, the directory, the console and the port for the exit code.
func (m *machine) args() []string {
	wire := "stream,id=wire,addr.type=unix,addr.path=" + m.wire
	if m.number == 1 {
		wire += ",server=on"
	} else {
		wire += ",server=off"
	}
	return []string{
		"-M", "q35", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", strconv.Itoa(m.memory) + "M",
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-serial", "file:" + m.path("console.log"),
		"-device", "isa-debug-exit,iobase=0xf4,iosize=0x01",
		"-virtfs", "local,path=" + m.dir + ",mount_tag=share,security_model=none,multidevs=remap",
		"-netdev", wire, "-device", fmt.Sprintf("virtio-net-pci,netdev=wire,mac=52:54:00:77:00:%02x", m.number),
		"-kernel", filepath.Join(m.kernel.dir, "vmlinuz"), "-initrd", m.root,
		"-append", "console=ttyS0 panic=-1 mitigations=off nokaslr random.trust_cpu=on tsc=reliable no_timer_check " +
			"net.ifnames=0",
	}
}

// run runs the machine to its end. Nil means that the guest's file and QEMU's exit code both say that all is well.
func (m *machine) run(ctx context.Context) error {
	if m.number != 1 {
		if err := waitFor(ctx, bootLimit, func() bool { _, err := os.Stat(m.wire); return err == nil }); err != nil {
			return fmt.Errorf("machine %d: no wire: %w", m.number, err)
		}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64", m.args()...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("machine %d: %w: run make deps as root", m.number, err)
	}
	go func() {
		if waitFor(ctx, bootLimit, m.booted) != nil {
			cancel(errNeverBooted)
		}
	}()
	err := cmd.Wait()
	var exit *exec.ExitError
	switch {
	case !m.booted():
		return fmt.Errorf("machine %d: %w: %v %s", m.number, errNeverBooted, err, stderr.String())
	case context.Cause(ctx) != nil:
		return fmt.Errorf("machine %d: %w", m.number, context.Cause(ctx))
	case err != nil && !errors.As(err, &exit):
		return fmt.Errorf("machine %d: %w", m.number, err)
	}
	return m.verdict(cmd.ProcessState.ExitCode())
}

// verdict compares the two witnesses. QEMU's own 0 is no success: a guest that panics ends with it.
func (m *machine) verdict(exit int) error {
	text, err := os.ReadFile(m.path("rc"))
	if err != nil {
		return fmt.Errorf("machine %d ended without a verdict (qemu exit %d): see its console.log", m.number, exit)
	}
	rc, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || exit != (rc<<1|1)&0xff {
		return fmt.Errorf("machine %d: its file says %q and qemu's exit code %d", m.number, text, exit)
	}
	if rc != 0 {
		return fmt.Errorf("machine %d: %w (exit code %d)", m.number, errSteps, rc)
	}
	return nil
}

// booted tells whether the guest has reached its script.
func (m *machine) booted() bool {
	text, _ := os.ReadFile(m.path("console.log"))
	return strings.Contains(string(text), "RIG-READY")
}

// waitFor looks until something is so.
func waitFor(ctx context.Context, limit time.Duration, ok func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for !ok() {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}
