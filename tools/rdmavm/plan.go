package main

import (
	"context"
	"debug/elf"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// step is one command that a machine runs, or both of them at once.
type step struct {
	name    string
	machine int           // 1 or 2; 0: both
	runs    binary        // or nothing
	command string        // in the shell of the guest; PROGRAM stands for the binary
	limit   time.Duration // in the guest
}

// binary is what is built of a package: its tests, or the program that it is.
type binary struct {
	pkg     string
	program bool
}

func testsOf(pkg string) binary { return binary{pkg: pkg} }

// name returns the name of the binary's directory.
func (b binary) name() string {
	name := strings.ReplaceAll(strings.TrimPrefix(b.pkg, "./"), "/", "-")
	if b.program {
		name += "-program"
	}
	return name
}

// plan is what the machines do. Steps of one machine run one after the other.
type plan struct {
	steps  []step
	builds map[binary]bool
	race   bool // build with the race detector
}

// testCall is how most steps call a test binary.
const testCall = "PROGRAM -test.v -test.timeout=480s "

// noLibrary shows that a binary with RDMA inside runs where libibverbs is not installed, and says so.
const noLibrary = `libraries=$(ls /usr/lib/*/libibverbs.so.1 /lib/*/libibverbs.so.1)
for file in $libraries; do mv $file $file.hidden; done
PROGRAM demo --transport rdma 2>&1 | grep "no RDMA device: libibverbs.so.1: cannot open shared object file"
rc=$?
for file in $libraries; do mv $file.hidden $file; done
exit $rc`

// allSteps lists what is run. Each machine's steps keep their order; those of both machines meet by themselves.
func allSteps() []step {
	rdma, vsync, oob, commands := testsOf("./transports/rdma"), testsOf("./vsync"), testsOf("./oob"),
		testsOf("./cmd/khamsin")
	program := binary{pkg: commands.pkg, program: true}
	return []step{
		{"peers", 0, rdma, testCall + "-test.run ^TestPeers", 9 * time.Minute},
		{"virtual-synchrony", 0, vsync, testCall + "-test.run ^TestRDMAPeers", 9 * time.Minute},
		{"objects", 0, oob, testCall + "-test.run ^TestRDMA", 5 * time.Minute},
		{"loss-on", 0, binary{}, "/usr/sbin/tc qdisc add dev eth0 root netem loss 1%", time.Minute},
		{"peers-1%-loss", 0, rdma, "env KHAMSIN_RDMA_LOSS=1 " + testCall + "-test.run ^TestPeers", 9 * time.Minute},
		{"virtual-synchrony-1%-loss", 0, vsync, testCall + "-test.run ^TestRDMAPeers", 9 * time.Minute},
		{"objects-1%-loss", 0, oob, "env KHAMSIN_RDMA_LOSS=1 " + testCall + "-test.run ^TestRDMA", 5 * time.Minute},
		{"loss-off", 0, binary{}, "/usr/sbin/tc qdisc del dev eth0 root", time.Minute},
		{"transport", 1, rdma, testCall + "-test.skip ^TestPeers", 9 * time.Minute},
		{"work", 1, vsync, testCall + "-test.run ^TestRDMAWork", 5 * time.Minute},
		{"checkers", 1, testsOf("./vsync/field"), "env KHAMSIN_FIELD=3 " + testCall +
			"-test.run ^TestRDMACheckers", 9 * time.Minute},
		{"demo", 1, commands, testCall + "-test.run ^TestRDMADemo", 3 * time.Minute},
		{"daemons", 1, commands, testCall + "-test.run ^TestRDMADaemon", 5 * time.Minute},
		{"perf-bulk", 1, commands, testCall + "-test.run ^TestRDMAPerfBulk", 5 * time.Minute},
		{"perf-local", 1, commands, testCall + "-test.run ^TestRDMAPerfLocal", 5 * time.Minute},
		{"bpf", 1, testsOf("./bpf"), testCall, 3 * time.Minute},
		{"no-library", 2, program, noLibrary, time.Minute},
		{"no-device", 2, program, "PROGRAM demo --transport rdma 2>&1 | grep \"no RDMA device: interface .lo.\"",
			time.Minute},
		// The suite takes half a minute in each mode here: it runs in the driver, without, and with jumbo frames.
		{"xdp", 2, testsOf("./transports/xdp"), "PROGRAM -test.v -test.timeout=1080s " +
			"-test.skip \"TestConformance/(ipv6|all_options|exclusive)\"", 19 * time.Minute},
		{"memory", 2, testsOf("./oob/internal/memory"), testCall, 3 * time.Minute}, // its kernel heeds signals
		{"small-limit", 2, testsOf("./cmd/khamsin/internal/tuning"), "env KHAMSIN_DISPOSABLE=1 " + testCall +
			"-test.run ^TestSmallLimit", 5 * time.Minute},
	}
}

// newPlan returns the steps whose names match.
func newPlan(only, run string) (*plan, error) {
	match, err := regexp.Compile(only)
	if err != nil {
		return nil, fmt.Errorf("--only: %w", err)
	}
	p := &plan{builds: map[binary]bool{}}
	for _, s := range allSteps() {
		if !match.MatchString(s.name) {
			continue
		}
		if pkg := s.runs.pkg; pkg != "" {
			if _, err := os.Stat(pkg); err != nil {
				return nil, fmt.Errorf("step %s: %w: run it from the root of the tree", s.name, err)
			}
			p.builds[s.runs] = true
		}
		if run != "" && s.machine != 0 && !s.runs.program {
			s.command += ` -test.run "` + run + `"`
		}
		p.steps = append(p.steps, s)
	}
	if len(p.steps) == 0 {
		return nil, fmt.Errorf("no step matches %q", only)
	}
	return p, nil
}

// build makes the binaries of all steps, each in a directory of its own together with its test data.
func (p *plan) build(ctx context.Context, dir string) error {
	for b := range p.builds {
		into := filepath.Join(dir, b.name())
		if err := os.MkdirAll(into, 0o755); err != nil {
			return err
		}
		args := []string{"test", "-c", "-tags", "rdma", "-o", filepath.Join(into, "run"), b.pkg}
		if b.program {
			args = []string{"build", "-tags", "rdma", "-o", filepath.Join(into, "run"), b.pkg}
		}
		if p.race {
			args = slices.Insert(args, len(args)-1, "-race")
		}
		if _, err := command(ctx, "", "go", args...); err != nil {
			return err
		}
		if err := checkLinks(filepath.Join(into, "run")); err != nil {
			return err
		}
		for _, data := range []string{"testdata", "src"} { // what tests read
			from := filepath.Join(b.pkg, data)
			if _, err := os.Stat(from); err != nil {
				continue
			}
			if err := os.CopyFS(filepath.Join(into, data), os.DirFS(from)); err != nil {
				return err
			}
		}
	}
	return nil
}

// checkLinks checks that a binary does not need libibverbs to start, and prints what it needs.
func checkLinks(path string) error {
	f, err := elf.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	libraries, err := f.ImportedLibraries()
	if err != nil {
		return err
	}
	for _, name := range libraries {
		if strings.Contains(name, "verbs") {
			return fmt.Errorf("%s is linked with %s: it would not start on a host without it", path, name)
		}
	}
	fmt.Printf("rdmavm: %s is linked with %v\n", filepath.Base(filepath.Dir(path)), libraries)
	return nil
}

// Names and addresses inside the machines' network, which no other machine is in.
const (
	guestDevice = "rxe0"
	guestSubnet = "10.77.0."
)

// scriptHead prepares a guest: %[1]d is its number, %[2]d the other's.
const scriptHead = `set -u
/usr/sbin/ip addr add ` + guestSubnet + `%[1]d/24 dev eth0 || exit 97
/usr/sbin/ip link set eth0 mtu 4200 up || exit 97
/usr/sbin/rdma link add ` + guestDevice + ` type rxe netdev eth0 || { echo "no RDMA device could be made"; exit 98; }
export KHAMSIN_REQUIRE=rdma,rdma-peer,netns,xdp KHAMSIN_RDMA_DEV=` + guestDevice + `
export KHAMSIN_RDMA_SELF=` + guestSubnet + `%[1]d KHAMSIN_RDMA_PEER=` + guestSubnet + `%[2]d
ulimit -l unlimited
failed=0
step() {
	name=$1 limit=$2 dir=$3 command=$4
	echo "STEP $name"
	began=$(cut -d' ' -f1 /proc/uptime)
	(cd "$dir" && exec timeout "$limit" sh -c "$command")
	rc=$?
	[ "$rc" = 0 ] || failed=1
	echo
	echo "STEP-END $name $rc $began $(cut -d' ' -f1 /proc/uptime)"
}
`

// script returns what a machine runs.
func (p *plan) script(machine int) string {
	var b strings.Builder
	fmt.Fprintf(&b, scriptHead, machine, 3-machine)
	for _, s := range p.steps {
		if s.machine != 0 && s.machine != machine {
			continue
		}
		dir := "."
		if s.runs.pkg != "" {
			dir = "bin/" + s.runs.name()
		}
		fmt.Fprintf(&b, "step '%s' %d '%s' '%s'\n", s.name, int(s.limit.Seconds()), dir,
			strings.ReplaceAll(s.command, "PROGRAM", "./run"))
	}
	b.WriteString("exit $failed\n")
	return b.String()
}
