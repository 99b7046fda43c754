package udp

import (
	"os/exec"
	"testing"
	"time"

	"github.com/khamsin-io/khamsin/dataplane/frame"
	"github.com/khamsin-io/khamsin/dataplane/transporttest"
	"github.com/khamsin-io/khamsin/internal/netns"
)

// twoHosts returns the ends of a link between two hosts.
func twoHosts(t *testing.T) [2]where {
	t.Helper()
	var places [2]where
	for i, h := range netns.Pair(t, "khamsin-udp", netns.Options{}) {
		places[i] = where{ifName: netns.Interface, ip: h.IP, do: h.Do}
	}
	return places
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
	if st.SentPackets != 200 || st.SendDropped < 100 || st.SendDropped == 200 ||
		st.SendNoRoom != st.SendDropped {
		t.Errorf("sent %d, dropped %d, %d of them for want of room; want some of 200 to go and most to be dropped",
			st.SentPackets, st.SendDropped, st.SendNoRoom)
	}
	if took := time.Since(start); took > testTimeout/2 {
		t.Errorf("Send took %v", took)
	}
	if free := a.Arena().Tx().Free(); free != 300 {
		t.Errorf("%d of 300 frames are free", free)
	}
}
