package engine

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/khamsin-io/khamsin/vsync/core"
)

// underWay submits messages at once, with nothing acknowledged yet, and returns how many packets of streams leave, and
// how long the longest is.
func underWay(t *testing.T, w *net, h Handle, messages, size int) (packets, longest int) {
	t.Helper()
	x := w.nodes[0]
	before := x.e.Counters().Streams.Sent
	for i := range messages {
		msg := fmt.Sprintf("%08d %s", i, strings.Repeat("x", size))
		if r := x.e.Submit(w.now, h, core.FIFO, nil, []byte(msg)); r != Accepted {
			t.Fatalf("submit: %v", r)
		}
	}
	for _, p := range x.e.Output().Packets {
		longest = max(longest, int(p.Frame.Len))
	}
	packets = int(x.e.Counters().Streams.Sent - before)
	x.collect()
	w.run(500 * time.Millisecond)
	return packets, longest
}

// Tune bounds what is under way and how long packets are, from now on and in later views, and takes the bounds away
// again; no message is lost by it.
func TestTune(t *testing.T) {
	w, hs := form(t, 2)
	x := w.nodes[0]
	const messages, size = 100, 1000
	want := 0
	for _, c := range []struct{ window, packet, packets, longest int }{
		{1 << 20, 1 << 20, messages, 1400},
		{16, 600, 16, 600},
		{1, 1, 26, 2 * 40}, // a message in fragments leaves whole
		{1024, 1400, messages, 1400},
	} {
		x.e.Tune(w.now, c.window, c.packet)
		x.collect()
		packets, longest := underWay(t, w, hs[0], messages, size)
		if packets > c.packets || longest > c.longest || packets == 0 {
			t.Errorf("%+v: %d packets under way, the longest of %d", c, packets, longest)
		}
		w.run(5 * time.Second)
		want += messages
		for _, y := range w.nodes {
			if got := len(onlyMessages(y.msgs)); got != want {
				t.Fatalf("%+v: node %d delivered %d of %d", c, y.id, got, want)
			}
		}
	}
	x.e.Tune(w.now, 4, 1400)
	late := w.add()
	w.run(300 * time.Millisecond)
	late.e.Join(w.now, JoinRequest{Name: "inventory"})
	late.collect()
	w.run(500 * time.Millisecond)
	if v := x.e.View(hs[0]); v.Size() != 3 {
		t.Fatalf("view %v", v)
	}
	if packets, _ := underWay(t, w, hs[0], messages, size); packets > 4 {
		t.Errorf("in the next view %d packets are under way", packets)
	}
	if sent, resent := x.e.Losses(); sent == 0 || resent > sent {
		t.Errorf("losses: %d sent, %d again", sent, resent)
	}
}
