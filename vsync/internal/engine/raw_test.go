package engine

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/khamsin-io/khamsin/dataplane/wire"
	"github.com/khamsin-io/khamsin/vsync/core"
)

// rawPackets loses every packet of raw traffic whose place among them is in lost, and counts them.
func (w *net) rawPackets(lost ...int) *int {
	n := new(int)
	w.drop = func(_, _ int, b []byte) bool {
		var h wire.Header
		if h.Peek(b) != nil || h.Kind != wire.KindRaw {
			return false
		}
		*n++
		return slices.Contains(lost, *n)
	}
	return n
}

func pairOf(t *testing.T) (w *net, a, b *node, h [2]Handle) {
	w, hs := form(t, 2)
	return w, w.nodes[0], w.nodes[1], [2]Handle{hs[0], hs[1]}
}

// rows: RAW-02, RAW-05, RAW-07
func TestRawToOne(t *testing.T) {
	w, a, b, h := pairOf(t)
	n := w.rawPackets(2)
	before := a.e.Counters()
	for _, text := range []string{"one", "two", "three"} {
		if r := a.e.SubmitRawTo(w.now, h[0], b.e.cfg.Self, []byte(text), false); r != Accepted {
			t.Errorf("%q: %v", text, r)
		}
		a.collect()
		w.run(10 * time.Millisecond)
	}
	w.run(5 * time.Second)
	if got := b.peers(); !slices.Equal(got, []string{"peer 1: one", "peer 1: three"}) {
		t.Errorf("delivered %q", got)
	}
	after := a.e.Counters()
	if *n != 3 || after.Streams.AcksReceived != before.Streams.AcksReceived {
		t.Errorf("%d raw packets for 3 messages, %d acknowledgements", *n,
			after.Streams.AcksReceived-before.Streams.AcksReceived)
	}
	if r := a.e.SubmitRawTo(w.now, h[0], a.e.cfg.Self, []byte("me"), true); r != Accepted {
		t.Error(r)
	}
	if r := a.e.SubmitRawTo(w.now, h[0], b.e.cfg.Self, []byte("you"), true); r != Accepted {
		t.Error(r)
	}
	a.collect()
	w.run(time.Second)
	for _, x := range w.nodes {
		if !slices.ContainsFunc(x.deliveries, func(d Delivery) bool { return d.Kind == DeliverReply }) {
			t.Errorf("node %d got no reply", x.id)
		}
	}
	if r := a.e.SubmitRawTo(w.now, h[0], core.Address{PID: 9}, nil, false); r != NotMember {
		t.Errorf("to a stranger: %v", r)
	}
	long := make([]byte, a.e.cfg.Limits.Message+1)
	if r := a.e.SubmitRawTo(w.now, h[0], b.e.cfg.Self, long, false); r != TooLarge {
		t.Errorf("too long: %v", r)
	}
}

func (x *node) peers() []string {
	return slices.DeleteFunc(slices.Clone(x.msgs), func(s string) bool { return !strings.HasPrefix(s, "peer ") })
}

// Long raw messages come whole or not at all, and what came of those that did not is given up.
//
// rows: RAW-09
func TestRawFragments(t *testing.T) {
	w, a, b, h := pairOf(t)
	long := func(c byte) []byte { return bytes.Repeat([]byte{c}, 5000) } // four packets each
	send := func(c byte, to bool) {
		if to {
			a.e.SubmitRawTo(w.now, h[0], b.e.cfg.Self, long(c), false)
		} else {
			a.e.Submit(w.now, h[0], core.Raw, nil, long(c))
		}
		a.collect()
	}
	w.rawPackets(6, 13)
	send('a', false)
	w.run(time.Millisecond)
	send('b', false) // its second packet is lost
	w.run(time.Millisecond)
	send('c', false) // ends b
	w.run(time.Millisecond)
	send('d', true) // its first packet is lost
	w.run(time.Millisecond)
	send('e', true)
	w.run(time.Millisecond)
	for _, c := range []byte{'a', 'c'} {
		if !slices.Contains(b.msgs, string(long(c))) || !slices.Contains(a.msgs, string(long(c))) {
			t.Errorf("%c is missing", c)
		}
	}
	if slices.Contains(b.msgs, string(long('b'))) || !slices.Contains(a.msgs, string(long('b'))) {
		t.Error("b came though a packet of it was lost, or not to its sender")
	}
	if got := b.peers(); len(got) != 1 || got[0] != "peer 1: "+string(long('e')) {
		t.Errorf("%d messages to one, want the last", len(got))
	}
	w.rawPackets(4)
	send('f', false) // its last packet is lost, and nothing follows
	w.run(time.Millisecond)
	g := b.e.group(h[1])
	if g.raws.bytesHeld() == 0 {
		t.Error("nothing is held of a message in pieces")
	}
	w.run(2 * b.e.cfg.Timing.Suspect)
	if n := g.raws.bytesHeld(); n != 0 {
		t.Errorf("%d bytes are still held", n)
	}
	if n := b.e.Counters().RawLost; n != 3 {
		t.Errorf("%d messages in pieces counted as lost, want 3", n)
	}
}

func (r *raws) bytesHeld() (n int) {
	for i := range r.parts {
		for _, b := range r.parts[i].pieces {
			n += len(b)
		}
	}
	return n
}
