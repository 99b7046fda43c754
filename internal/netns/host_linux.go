package netns

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Interface is the name of each host's interface.
const Interface = "veth0"

// Host is a network namespace with an interface.
type Host struct {
	Name string     // of the namespace
	IP   netip.Addr // of Interface
	IPv6 netip.Addr // likewise, with Options.IPv6

	// Bridge is the host with the bridge, to which this one is joined by the interface Port there; nil in a Pair.
	Bridge *Host
	Port   string

	tb   testing.TB
	work chan func()
}

// Options of links.
type Options struct {
	MTU    int // default 1500
	Queues int // in each direction, default 1

	// IPv6 gives each host an IPv6 address as well. Without it hosts know no IPv6 at all: there is no traffic then that
	// no test asked for.
	IPv6 bool

	// Snooping makes a bridge forward multicasts only where somebody has joined. It asks who has.
	Snooping bool
}

// Pair returns two hosts joined by one link.
func Pair(tb testing.TB, prefix string, o Options) [2]*Host {
	tb.Helper()
	a, b := newHost(tb, prefix, 0), newHost(tb, prefix, 1)
	link(tb, o, end{a.Name, Interface}, end{b.Name, Interface})
	a.setUp(o)
	b.setUp(o)
	a.awaitIPv6(Interface)
	b.awaitIPv6(Interface)
	return [2]*Host{a, b}
}

// Bridged returns n hosts joined by a bridge.
func Bridged(tb testing.TB, prefix string, n int, o Options) []*Host {
	tb.Helper()
	bridge := newHost(tb, prefix, n)
	snooping := "0"
	if o.Snooping {
		snooping = "1"
	}
	bridge.ip("link", "add", "br0", "type", "bridge", "mcast_snooping", snooping, "mcast_querier", snooping)
	bridge.ip("link", "set", "br0", "up")
	var hosts []*Host
	for i := range n {
		h, port := newHost(tb, prefix, i), "port"+strconv.Itoa(i)
		link(tb, o, end{h.Name, Interface}, end{bridge.Name, port})
		h.Bridge, h.Port = bridge, port
		bridge.ip("link", "set", port, "mtu", strconv.Itoa(o.mtu()), "master", "br0", "up")
		h.setUp(o)
		hosts = append(hosts, h)
	}
	for _, h := range hosts {
		h.awaitIPv6(Interface)
	}
	return hosts
}

func (o Options) mtu() int {
	if o.MTU == 0 {
		return 1500
	}
	return o.MTU
}

// end is one end of a link.
type end struct{ namespace, name string }

func link(tb testing.TB, o Options, a, b end) {
	tb.Helper()
	queues := strconv.Itoa(max(1, o.Queues))
	run(tb, "ip", "link", "add", a.name, "netns", a.namespace, "numtxqueues", queues, "numrxqueues", queues,
		"type", "veth", "peer", "name", b.name, "netns", b.namespace, "numtxqueues", queues, "numrxqueues", queues)
}

// newHost makes a namespace, and a thread in it.
func newHost(tb testing.TB, prefix string, number int) *Host {
	tb.Helper()
	h := &Host{
		Name: fmt.Sprintf("%s-%d-%08x-%d", prefix, os.Getpid(), rand.Uint32(), number),
		IP:   netip.AddrFrom4([4]byte{10, 99, 0, byte(1 + number)}),
		tb:   tb,
	}
	if out, err := exec.Command("ip", "netns", "add", h.Name).CombinedOutput(); err != nil {
		Require(tb, "netns", fmt.Errorf("ip netns add: %w: %s", err, out))
	}
	tb.Cleanup(func() { run(tb, "ip", "netns", "del", h.Name) })
	h.enter()
	h.ip("link", "set", "lo", "up")
	return h
}

// setUp gives the interface its address and waits for nothing: both ends of the link are up when it is.
func (h *Host) setUp(o Options) {
	h.tb.Helper()
	if o.IPv6 {
		h.IPv6 = netip.AddrFrom16([16]byte{0: 0xfd, 1: 0x99, 15: h.IP.As4()[3]})
		h.ip("addr", "add", h.IPv6.String()+"/64", "dev", Interface, "nodad")
	} else {
		h.Do(func() { // without IPv6 in the kernel there is nothing to turn off
			_ = os.WriteFile("/proc/sys/net/ipv6/conf/all/disable_ipv6", []byte("1"), 0)
		})
	}
	h.ip("addr", "add", h.IP.String()+"/24", "dev", Interface)
	h.ip("link", "set", Interface, "mtu", strconv.Itoa(o.mtu()), "up")
}

// awaitIPv6 waits until the kernel has seen that an interface is up and has a route for IPv6 multicast, on hosts with
// IPv6.
func (h *Host) awaitIPv6(name string) {
	h.tb.Helper()
	const patience = 10 * time.Second
	for deadline := time.Now().Add(patience); h.IPv6.IsValid(); <-time.After(5 * time.Millisecond) {
		if strings.Contains(h.Run("ip", "-6", "route", "show", "table", "local", "dev", name), "ff00::/8") {
			return
		}
		if time.Now().After(deadline) {
			h.tb.Fatalf("%s: no route for IPv6 multicast within %v", h.Name, patience)
		}
	}
}

// Do runs fn on a thread that is in the namespace. What fn starts on other goroutines is not.
func (h *Host) Do(fn func()) {
	done := make(chan struct{})
	h.work <- func() { defer close(done); fn() }
	<-done
}

// enter starts the thread. It ends with the test.
func (h *Host) enter() {
	h.tb.Helper()
	h.work = make(chan func())
	ready, over := make(chan error), make(chan struct{})
	go func() {
		defer close(over)
		runtime.LockOSThread() // never unlocked: the runtime ends the thread with the goroutine
		fd, err := unix.Open("/run/netns/"+h.Name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err == nil {
			err = unix.Setns(fd, unix.CLONE_NEWNET)
			_ = unix.Close(fd)
		}
		ready <- err
		for fn := range h.work {
			fn()
		}
	}()
	if err := <-ready; err != nil {
		h.tb.Fatalf("enter namespace %s: %v", h.Name, err)
	}
	h.tb.Cleanup(func() {
		close(h.work)
		<-over
	})
}

// Run runs a command in the namespace, which must succeed, and returns what it prints.
func (h *Host) Run(args ...string) string {
	h.tb.Helper()
	return run(h.tb, append([]string{"ip", "netns", "exec", h.Name}, args...)...)
}

// Ready is what a process that StartSelf started prints, on a line of its own, when it has done what it was started
// for.
const Ready = "ready"

// StartSelf starts the running test binary again, as a process in the namespace with the environment variable mark set,
// by which TestMain tells it. It returns when the process is Ready, and fails the test when it prints anything else.
func (h *Host) StartSelf(mark string) *exec.Cmd {
	h.tb.Helper()
	self, err := os.Executable()
	if err != nil {
		h.tb.Fatal(err)
	}
	cmd := exec.Command("ip", "netns", "exec", h.Name, self)
	cmd.Env = append(os.Environ(), mark+"=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		h.tb.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		h.tb.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || strings.TrimSpace(line) != Ready {
		_ = cmd.Process.Kill()
		h.tb.Fatalf("the process on %s says %q, %v", h.Name, line, err)
	}
	return cmd
}

// Kill9 kills a process of StartSelf as a crash would, and waits for its end.
func Kill9(tb testing.TB, cmd *exec.Cmd) {
	tb.Helper()
	if err := cmd.Process.Kill(); err != nil {
		tb.Fatal(err)
	}
	_ = cmd.Wait() // it says that it was killed
}

func (h *Host) ip(args ...string) {
	h.tb.Helper()
	run(h.tb, append([]string{"ip", "-n", h.Name}, args...)...)
}

func run(tb testing.TB, args ...string) string {
	tb.Helper()
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	if err != nil {
		tb.Fatalf("%s: %v: %s", strings.Join(args, " "), err, out)
	}
	return string(out)
}
