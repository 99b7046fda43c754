package engine

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/khamsin-io/khamsin/dataplane/wire"
	"github.com/khamsin-io/khamsin/vsync/core"
)

// dataPackets counts, in a net of two, the data packets that one of them sends the other; it loses none.
func (w *net) dataPackets(from int) *int {
	n := new(int)
	w.drop = func(f, _ int, b []byte) bool {
		var h wire.Header
		if f == from && h.Peek(b) == nil && h.Kind == wire.KindData {
			*n++
		}
		return false
	}
	return n
}

// The fast flavours are one packet, and delivered when it arrives: the sender's call has returned before, and nothing
// else is exchanged first. At rank 0 OrderedSend is no different.
//
// rows: MC-02, MC-10, MC-14, MC-20, MC-28
func TestFastFlavoursAreOnePacket(t *testing.T) {
	for _, c := range []struct {
		rank    int
		flavour core.Flavour
	}{{0, core.FIFO}, {1, core.FIFO}, {0, core.Causal}, {1, core.Causal}, {1, core.Unordered}, {0, core.Total}} {
		t.Run(fmt.Sprintf("%v of rank %d", c.flavour, c.rank), func(t *testing.T) {
			w, hs := form(t, 2)
			w.run(time.Second)
			a, b := w.nodes[c.rank], w.nodes[1-c.rank]
			n := w.dataPackets(a.id)
			if r := a.submit(hs[c.rank], c.flavour, "x"); r != Accepted || slices.Contains(b.msgs, "x") {
				t.Errorf("result %v, delivered %v", r, b.msgs)
			}
			w.run(w.delay + 2*time.Microsecond)
			if !slices.Contains(b.msgs, "x") || *n != 1 {
				t.Errorf("after one way delivered %q with %d data packets", b.msgs, *n)
			}
		})
	}
}

// With one sender Send gives the same sequence at every member as OrderedSend does.
//
// rows: MC-29
func TestOneSenderIsOneOrder(t *testing.T) {
	for _, f := range []core.Flavour{core.FIFO, core.Total} {
		w, hs := form(t, 3)
		w.loss = 0.2
		for i := range 200 {
			w.nodes[1].submit(hs[1], f, fmt.Sprint(i))
			w.run(time.Duration(w.rng.IntN(50)) * time.Microsecond)
		}
		w.run(2 * time.Second)
		for _, x := range w.nodes {
			got := onlyMessages(x.msgs)
			for i := range 200 {
				if len(got) != 200 || got[i] != fmt.Sprint(i) {
					t.Fatalf("%v at node %d: %d messages, not %d in its place", f, x.id, len(got), i)
				}
			}
		}
	}
}

// With steady traffic both ways, the word on what is stable and the acknowledgements travel with it, or for many
// packets at once.
//
// rows: FLC-06
func TestStabilityRidesOnMessages(t *testing.T) {
	w, hs := form(t, 2)
	before := w.nodes[0].e.Counters().Streams
	const rounds = 2000
	for i := range rounds {
		x := i % 2
		w.nodes[x].submit(hs[x], core.FIFO, "m")
		w.run(20 * time.Microsecond)
	}
	after := w.nodes[0].e.Counters().Streams
	if n := after.SyncsSent - before.SyncsSent; n > rounds/2/20 {
		t.Errorf("%d packets that only say what is stable, for %d messages", n, rounds/2)
	}
	if n := after.AcksSent - before.AcksSent; n > rounds/2/4 {
		t.Errorf("%d packets that only acknowledge, for %d messages received", n, rounds/2)
	}
}

// A Flush waits for what was sent to its own group, and for all of it.
//
// rows: FLU-03, FLU-07
func TestFlushIsAboutOneGroup(t *testing.T) {
	w, hs := form(t, 2)
	a, b := w.nodes[0], w.nodes[1]
	var other [2]Handle
	for i, x := range w.nodes {
		other[i] = x.e.Join(w.now, JoinRequest{Name: "other"})
		x.collect()
	}
	w.run(time.Second)
	lid := a.e.group(other[0]).lid
	w.drop = func(_, _ int, data []byte) bool {
		var h wire.Header
		return h.Peek(data) == nil && h.Group == lid && h.Kind != wire.KindLink && h.Kind != wire.KindLinkAck
	}
	a.submit(other[0], core.FIFO, "held up")
	backlog := 0
	for a.submit(hs[0], core.FIFO, string(make([]byte, 1000))) == Accepted {
		backlog++
	}
	a.e.Flush(w.now, hs[0], 0, 7)
	a.e.Flush(w.now, other[0], 0, 8)
	a.collect()
	flushed := func(token uint64) bool {
		return slices.ContainsFunc(a.events, func(e Event) bool { return e.Kind == EventFlushed && e.Token == token })
	}
	for !flushed(7) {
		if got := len(onlyMessages(b.msgs)); got > backlog {
			t.Fatalf("all %d messages came, and the flush goes on", got)
		}
		w.run(100 * time.Microsecond)
	}
	if got := len(onlyMessages(b.msgs)); got < backlog {
		t.Errorf("the flush was over with %d of %d messages delivered", got, backlog)
	}
	if flushed(8) {
		t.Error("the flush of the group that is cut off is over")
	}
}

// What stands around a small message in a packet is bounded, whatever its flavour.
//
// rows: MSG-20
func TestHeadersAreSmall(t *testing.T) {
	const bound = 64 // the manual allows 1,000 bytes
	for _, f := range []core.Flavour{core.Unordered, core.FIFO, core.Causal, core.Total, core.Safe, core.Raw} {
		w, hs := form(t, 3)
		largest := 0
		w.drop = func(_, _ int, b []byte) bool {
			var h wire.Header
			if h.Peek(b) == nil && (h.Kind == wire.KindData || h.Kind == wire.KindRaw) {
				largest = max(largest, len(b))
			}
			return false
		}
		w.nodes[1].submit(hs[1], f, "x")
		w.run(time.Second)
		if largest == 0 || largest > 1+bound {
			t.Errorf("%v: a message of one byte makes a packet of %d", f, largest)
		}
	}
}

// A sender never has more packets unacknowledged than the cap allows. While nobody acknowledges it is refused; when
// they do again it is told of room, and all that was taken arrives.
//
// rows: FLC-01
func TestUnacknowledgedMessagesHoldTheSenderUp(t *testing.T) {
	const limit, bytes = 16, 1000
	w := newNetOf(t, 3, func(c *Config) { c.Limits.Window, c.Limits.Pending = limit, 4*bytes })
	w.run(time.Second)
	var hs []Handle
	for _, x := range w.nodes {
		hs = append(hs, x.join(JoinRequest{Name: "g"}))
		w.run(time.Second)
	}
	x := w.nodes[0]
	st := x.e.groups[hs[0]-1].st
	taken := 0
	fill := func() {
		t.Helper()
		for refused := 0; refused < 3; w.run(100 * time.Microsecond) { // what waits for company goes
			if x.submit(hs[0], core.FIFO, string(make([]byte, bytes))) == Accepted {
				taken, refused = taken+1, 0
			} else {
				refused++
			}
			if n := st.NumberedTo() - st.StableTo(); n > limit {
				t.Fatalf("%d packets are unacknowledged, the cap is %d", n, limit)
			}
			if taken > 1000 {
				t.Fatal("nobody acknowledges, and 1,000 messages were taken")
			}
		}
	}
	w.drop = func(from, _ int, b []byte) bool { return from == 2 && wire.Kind(b[2]) == wire.KindAck }
	fill() // one that is silent is enough
	first := taken
	if first < limit/2 {
		t.Errorf("choked after %d messages, the cap is %d packets", first, limit)
	}
	x.events, w.drop = nil, nil
	w.run(time.Second)
	if _, ok := x.event(EventRoom); !ok {
		t.Error("all was acknowledged, and the sender does not learn that there is room")
	}
	w.drop = func(_, _ int, b []byte) bool { return wire.Kind(b[2]) == wire.KindAck }
	fill()
	if taken < 2*first-limit/2 {
		t.Errorf("%d messages were taken before the first choke, and %d before the second", first, taken-first)
	}
	w.drop = nil
	w.run(time.Second)
	for _, y := range w.nodes {
		if got := len(onlyMessages(y.msgs)); got != taken {
			t.Errorf("node %d delivered %d messages of %d", y.id, got, taken)
		}
	}
}

// The cap on what is not stable decides when a sender must wait.
//
// rows: FLC-02
func TestLowerCapBlocksEarlier(t *testing.T) {
	accepted := func(window int) (n int) {
		w := newNetOf(t, 2, func(c *Config) { c.Limits.Window, c.Limits.Pending = window, 2000 })
		w.run(time.Second)
		var hs []Handle
		for _, x := range w.nodes {
			hs = append(hs, x.join(JoinRequest{Name: "g"}))
			w.run(time.Second)
		}
		w.drop = func(_, _ int, b []byte) bool { return wire.Kind(b[2]) == wire.KindAck }
		for refused := 0; refused < 2; w.run(100 * time.Microsecond) { // once: those that wait for company go now
			if w.nodes[0].submit(hs[0], core.FIFO, string(make([]byte, 1000))) == Accepted {
				n, refused = n+1, 0
			} else {
				refused++
			}
		}
		return n
	}
	low, high := accepted(8), accepted(32)
	if low < 4 || low > 16 || high < 2*low || high > 48 {
		t.Errorf("with caps of 8 and 32 packets %d and %d were taken", low, high)
	}
}

// A sender that was refused while packets wait for company is told of room only when some of them have gone: it would
// try again and again for nothing.
//
// rows: FLC-02
func TestRoomIsToldWhenThereIsSome(t *testing.T) {
	const pending = 100_000
	w := newNetOf(t, 2, func(c *Config) { c.Limits.Pending = pending })
	w.run(time.Second)
	var hs []Handle
	for _, x := range w.nodes {
		hs = append(hs, x.join(JoinRequest{Name: "g"}))
		w.run(time.Second)
	}
	w.drop = func(_, _ int, b []byte) bool { return wire.Kind(b[2]) == wire.KindAck }
	x := w.nodes[0]
	g := x.e.groups[hs[0]-1]
	for g.pack.Bytes() < 2000 || g.st.Room() >= g.st.Company() {
		if r := x.submit(hs[0], core.FIFO, string(make([]byte, 1000))); r != Accepted {
			t.Fatalf("with %d bytes waiting and room for %d packets: %v", g.pack.Bytes(), g.st.Room(), r)
		}
	}
	x.events = nil
	taken := g.pack.Taken()
	if r := x.submit(hs[0], core.FIFO, string(make([]byte, pending-1000))); r != Full || g.pack.Bytes() > pending/2 {
		t.Fatalf("a long message behind %d bytes: %v", g.pack.Bytes(), r)
	}
	w.run(100 * time.Microsecond)
	if e, ok := x.event(EventRoom); ok || g.pack.Taken() != taken {
		t.Errorf("told of room (%v), with %d packets gone: %+v", ok, g.pack.Taken()-taken, e)
	}
	w.drop = nil
	w.run(time.Second)
	if _, ok := x.event(EventRoom); !ok || g.pack.Len() > 0 {
		t.Errorf("told of room (%v), with %d packets waiting", ok, g.pack.Len())
	}
}
