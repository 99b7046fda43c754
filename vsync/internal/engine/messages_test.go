package engine

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/khamsin-io/khamsin/dataplane/wire"
	"github.com/khamsin-io/khamsin/vsync/core"
	"github.com/khamsin-io/khamsin/vsync/internal/pdu"
)

func TestPeerMessages(t *testing.T) {
	// rows: P2P-01, P2P-03, P2P-10
	w, hs := form(t, 2)
	w.loss = 0.1
	a, b := w.nodes[0], w.nodes[1]
	long := strings.Repeat("long", 20_000)
	var want []string
	for _, m := range []string{"one", "two", long, "four"} {
		for _, to := range []*node{a, b} {
			if r := a.e.SubmitTo(w.now, hs[0], to.e.cfg.Self, []byte(m)); r != Accepted {
				t.Fatalf("SubmitTo returns %d", r)
			}
			a.collect()
		}
		want = append(want, "peer 1: "+m)
	}
	w.run(2 * time.Second)
	for _, x := range w.nodes {
		if got := onlyMessages(x.msgs); !slices.Equal(got, want) {
			t.Errorf("node %d got %d messages, want %d in order", x.id, len(got), len(want))
		}
	}
}

// A receiver whose handlers take nothing closes the lane; the sender is refused in the end, and told when there is
// room.
func TestPeerBackPressure(t *testing.T) {
	w := newNetOf(t, 2, func(c *Config) { c.Limits.Pending, c.Limits.PeerQueue = 20_000, 20_000 })
	w.run(time.Second)
	var hs []Handle
	for _, x := range w.nodes {
		hs = append(hs, x.join(JoinRequest{Name: "inventory"}))
	}
	w.run(200 * time.Millisecond)
	a, b := w.nodes[0], w.nodes[1]
	for _, to := range []*node{b, a} {
		to.slow = true
		sent := 0
		for r := Accepted; r == Accepted && sent < 1000; sent++ {
			r = a.e.SubmitTo(w.now, hs[0], to.e.cfg.Self, make([]byte, 1000))
			a.collect()
			w.run(time.Millisecond)
		}
		if sent > 200 {
			t.Fatalf("%d messages sent to a member that takes nothing", sent)
		}
		a.events, to.slow = nil, false
		to.e.ConsumedPeers(w.now, hs[0], countPeers(to), 1000*countPeers(to))
		to.msgs = nil
		to.collect()
		w.run(time.Second)
		if _, ok := a.event(EventPeerRoom); !ok {
			t.Errorf("node %d: not told of room: %v", to.id, a.events)
		}
	}
}

func countPeers(x *node) (n int) {
	for _, m := range x.msgs {
		if strings.HasPrefix(m, "peer ") {
			n++
		}
	}
	return n
}

// Raw messages are delivered when they come, and neither acknowledged nor repaired.
func TestRaw(t *testing.T) {
	// rows: RAW-01, RAW-07, RAW-08
	w, hs := form(t, 2)
	a, b := w.nodes[0], w.nodes[1]
	a.submit(hs[0], core.Raw, "heard")
	w.run(time.Millisecond)
	before := a.e.Counters().Streams
	lose := true
	w.drop = func(_, _ int, data []byte) bool { return lose && wire.Kind(data[2]) == wire.KindRaw }
	a.submit(hs[0], core.Raw, "lost")
	w.run(time.Second)
	lose = false
	a.submit(hs[0], core.FIFO, "control goes on")
	w.run(time.Second)
	if got := onlyMessages(b.msgs); !slices.Equal(got, []string{"heard", "control goes on"}) {
		t.Errorf("delivered %v", got)
	}
	if got := onlyMessages(a.msgs); !slices.Equal(got, []string{"heard", "lost", "control goes on"}) {
		t.Errorf("the sender delivered %v", got)
	}
	if after := a.e.Counters().Streams; after.Resent != before.Resent || after.Sent != before.Sent+1 {
		t.Errorf("counted %+v, before %+v", after, before)
	}
	b.slow = true
	w.run(time.Millisecond)
	w.nodes[1].e.cfg.Limits.Queue = 0
	a.submit(hs[0], core.Raw, "no room")
	w.run(time.Millisecond)
	if slices.Contains(b.msgs, "no room") {
		t.Error("a raw message is delivered without room")
	}
}

// A flush is over when what was sent before it is where it should be, and not before.
func TestFlush(t *testing.T) {
	// rows: FLU-01, FLU-02, FLU-05, FLU-10
	w, hs := form(t, 4)
	x := w.nodes[0]
	flush := func(k int, token uint64) {
		x.e.Flush(w.now, hs[0], k, token)
		x.collect()
	}
	done := func(token uint64) bool {
		return slices.ContainsFunc(x.events, func(e Event) bool {
			return e.Kind == EventFlushed && e.Token == token && e.Err == nil
		})
	}
	flush(0, 1)
	if !done(1) {
		t.Error("a flush of nothing is not over at once")
	}
	cut := w.nodes[3]
	w.drop = func(from, to int, _ []byte) bool { return from == cut.id || to == cut.id }
	x.submit(hs[0], core.FIFO, "m")
	flush(0, 2)
	flush(3, 3)
	flush(4, 4)
	if done(2) || done(3) {
		t.Error("a flush is over before anyone else has the message")
	}
	w.run(100 * time.Millisecond)
	if !done(3) || done(2) || done(4) {
		t.Errorf("three of four have it: over for 3: %v, for all: %v and %v", done(3), done(2), done(4))
	}
	w.run(4 * time.Second) // until the one that is cut off is out
	if !done(2) || !done(4) || x.e.View(hs[0]).Size() != 3 {
		t.Errorf("over %v, %v in %v", done(2), done(4), x.e.View(hs[0]))
	}
}

// Fragments that no sender makes are dropped and counted; the streams go on.
func TestMalformedFragments(t *testing.T) {
	w, hs := form(t, 1)
	g := w.nodes[0].e.group(hs[0])
	g.e.cfg.Limits.Message = 10
	first, more := uint8(pdu.FlagFirst|pdu.FlagFragment), uint8(pdu.FlagMore)
	for _, c := range []struct {
		name  string
		parts []string
		flags []uint8
		want  string
		bad   uint64
	}{
		{"whole", []string{"\x05ab", "cde"}, []uint8{first | more, pdu.FlagFragment}, "abcde", 0},
		{"no length", []string{""}, []uint8{first}, "", 1},
		{"longer than messages are", []string{"\x0babc"}, []uint8{first | more}, "", 1},
		{"filled up", []string{"\x05ab", "cde\x00\x00"}, []uint8{first | more, pdu.FlagFragment}, "abcde", 0},
		{"shorter than it said", []string{"\x05ab", "cd"}, []uint8{first | more, pdu.FlagFragment}, "", 1},
		{"longer than it said", []string{"\x0aabcdefgh", "ij"}, []uint8{first | more, pdu.FlagFragment | more}, "", 1},
		{"an end without a beginning", []string{"abc"}, []uint8{pdu.FlagFragment}, "", 1},
	} {
		before := g.e.count.Malformed
		var got []byte
		for i, part := range c.parts {
			if m := g.assemble(0, c.flags[i]|pdu.Flags(core.FIFO), []byte(part)); m != nil {
				got = m.Bytes()
			}
		}
		if string(got) != c.want || g.e.count.Malformed != before+c.bad {
			t.Errorf("%s: %q, counted %d", c.name, got, g.e.count.Malformed-before)
		}
	}
}
