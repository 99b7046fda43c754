package udp

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/khamsin-io/khamsin/dataplane/frame"
	"github.com/khamsin-io/khamsin/dataplane/transporttest"
)

// twoHosts makes two network namespaces joined by a pair of virtual Ethernet interfaces, and returns the ends. They
// are gone when the test ends. It skips where they cannot be made, unless KHAMSIN_REQUIRE lists netns.
func twoHosts(t *testing.T) [2]where {
	t.Helper()
	var hosts [2]where
	var names [2]string
	for i := range names {
		names[i] = fmt.Sprintf("khamsin-udp-%d-%d", os.Getpid(), i)
	}
	if out, err := exec.Command("ip", "netns", "add", names[0]).CombinedOutput(); err != nil {
		if slices.Contains(strings.Split(os.Getenv("KHAMSIN_REQUIRE"), ","), "netns") {
			t.Fatalf("network namespaces are required: %v: %s", err, out)
		}
		t.Skipf("no network namespaces (ip netns add: %v: %s)", err, out)
	}
	t.Cleanup(func() { ip(t, "netns", "del", names[0]) })
	ip(t, "netns", "add", names[1])
	t.Cleanup(func() { ip(t, "netns", "del", names[1]) })
	ip(t, "link", "add", "veth0", "netns", names[0], "type", "veth", "peer", "name", "veth0", "netns", names[1])
	for i, name := range names {
		addr := netip.AddrFrom4([4]byte{10, 99, 0, byte(1 + i)})
		ip(t, "-n", name, "addr", "add", addr.String()+"/24", "dev", "veth0")
		ip(t, "-n", name, "link", "set", "lo", "up")
		ip(t, "-n", name, "link", "set", "veth0", "up")
		hosts[i] = where{ifName: "veth0", ip: addr, do: inNamespace(t, name)}
	}
	return hosts
}

func ip(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		t.Fatalf("ip %s: %v: %s", strings.Join(args, " "), err, out)
	}
}

// inNamespace returns a function that runs others in a network namespace. The thread that is there dies with the test.
func inNamespace(t *testing.T, name string) func(func()) {
	t.Helper()
	work, done := make(chan func()), make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the runtime ends the thread with the goroutine
		fd, err := unix.Open("/run/netns/"+name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err == nil {
			err = unix.Setns(fd, unix.CLONE_NEWNET)
			_ = unix.Close(fd)
		}
		done <- err
		for fn := range work {
			fn()
			done <- nil
		}
		close(done)
	}()
	if err := <-done; err != nil {
		t.Fatalf("enter namespace %s: %v", name, err)
	}
	t.Cleanup(func() {
		close(work)
		<-done
	})
	return func(fn func()) {
		work <- fn
		<-done
	}
}

// The suite over an Ethernet between two hosts: every second transport is on the other one.
func TestConformanceBetweenHosts(t *testing.T) {
	hosts := twoHosts(t)
	transporttest.Run(t, factory(hosts[:]...), offloads...)
}

// A line that is slower than the sender fills the socket buffer: Send waits a little, then drops and counts, and never
// blocks for long.
func TestSlowLine(t *testing.T) {
	hosts := twoHosts(t)
	hosts[0].do(func() {
		out, err := exec.Command("tc", "qdisc", "add", "dev", "veth0", "root", "tbf",
			"rate", "100kbit", "burst", "2kb", "limit", "1mb").CombinedOutput()
		if err != nil {
			t.Errorf("tc: %v: %s", err, out)
		}
	})
	cfg := Config{Interface: "veth0", SendBuffer: 8 << 10, Arena: frame.Config{TxChunks: 300}}
	var a, b *Transport
	hosts[0].do(func() { a = openUntilEnd(t, cfg) })
	hosts[1].do(func() { b = openUntilEnd(t, cfg) })
	start := time.Now()
	sendAll(t, a, burst(t, a, b.Local(), 200, 500))
	st := a.Stats()
	if st.SentPackets != 200 || st.SendDropped < 100 || st.SendDropped == 200 {
		t.Errorf("sent %d, dropped %d; want some of 200 to go and most to be dropped", st.SentPackets, st.SendDropped)
	}
	if took := time.Since(start); took > testTimeout/2 {
		t.Errorf("Send took %v", took)
	}
	if free := a.Arena().Tx().Free(); free != 300 {
		t.Errorf("%d of 300 frames are free", free)
	}
}
