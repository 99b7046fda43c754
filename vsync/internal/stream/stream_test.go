package stream

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/khamsin-io/khamsin/dataplane"
	"github.com/khamsin-io/khamsin/dataplane/clock"
	"github.com/khamsin-io/khamsin/dataplane/wire"
	"github.com/khamsin-io/khamsin/vsync/core"
	"github.com/khamsin-io/khamsin/vsync/internal/pdu"
)

// Under loss, doubling and reordering, with applications that pause: each stream is delivered in its order, once, and
// in the end everywhere; nothing is called stable that somebody lacks; and at rest nobody keeps a packet.
func TestStreams(t *testing.T) {
	// rows: MC-01, MC-05, MC-06, MC-07
	for _, ch := range []dataplane.Channel{0, 5000} {
		rapid.Check(t, func(t *rapid.T) {
			w := newNet(t, rapid.IntRange(1, 4).Draw(t, "n"), 8, ch)
			for range rapid.IntRange(0, 120).Draw(t, "steps") {
				w.step(t)
				w.check()
			}
			for _, x := range w.nodes {
				x.slow = false
				x.deliver()
				x.drain()
			}
			w.settle()
			w.check()
			for _, x := range w.nodes {
				for r, y := range w.nodes {
					if uint64(len(x.taken[r])) != y.sent {
						t.Fatalf("member %d delivered %d of the %d packets of rank %d", x.self, len(x.taken[r]),
							y.sent, r)
					}
				}
				if got := x.out.Arena().Outstanding(); got != 0 {
					t.Fatalf("member %d holds %d frames at rest: %s", x.self, got, x.st.Dump())
				}
				if x.st.StableTo() != x.st.NumberedTo() {
					t.Fatalf("member %d at rest: %s", x.self, x.st.Dump())
				}
			}
			w.close()
		})
	}
}

// A sender runs no further ahead of a member that does not answer than its window, and of an application that takes
// nothing no further than RoomFactor windows.
func TestWindow(t *testing.T) {
	const window = 8
	for _, c := range []struct {
		name string
		harm func(w *net)
		want int
	}{
		{"a member that nothing reaches", func(w *net) { w.dropped[1] = true }, window},
		{"an application that takes nothing", func(w *net) { w.nodes[1].slow = true }, RoomFactor * window},
		{"own application that takes nothing", func(w *net) { w.nodes[0].slow = true }, RoomFactor * window},
	} {
		w := newNet(t, 3, window, 0)
		c.harm(w)
		n := 0
		for range 10 * window {
			if w.nodes[0].send() {
				n++
			}
			w.arriveAll()
			w.tick(w.now.Add(syncEvery))
		}
		if n != c.want {
			t.Errorf("%s: sent %d, want %d", c.name, n, c.want)
		}
		w.close()
	}
}

// HeldBy counts the members that hold a packet; the sender is one.
func TestHeldBy(t *testing.T) {
	// rows: FLU-02
	w := newNet(t, 4, 8, 0)
	x := w.nodes[0]
	w.dropped[3] = true
	x.send()
	if x.st.HeldBy(1) != 1 {
		t.Errorf("held by %d before anyone has it", x.st.HeldBy(1))
	}
	w.dropped[2] = true
	w.nodes[0].st.AskNow(w.now)
	x.drain()
	for range 3 {
		for len(w.under) > 0 {
			p := w.under[0]
			w.under = w.under[1:]
			if p.to != 2 {
				w.arrive(p)
			}
		}
		w.tick(w.now.Add(ack))
	}
	if got := x.st.HeldBy(1); got != 2 || x.st.StableTo() != 0 {
		t.Errorf("held by %d, stable to %d; one of three has it", got, x.st.StableTo())
	}
	w.dropped[2], w.dropped[3] = false, false
	w.settle()
	if got := x.st.HeldBy(1); got != 4 || x.st.StableTo() != 1 || x.st.HeldBy(2) != 1 {
		t.Errorf("held by %d, stable to %d in the end", got, x.st.StableTo())
	}
	w.close()
}

// After Freeze what is reported stays true: nothing is delivered, acknowledged or discarded, packets are still taken in
// and given to those who ask.
func TestFreeze(t *testing.T) {
	// rows: VIEW-15
	w := newNet(t, 3, 8, 0)
	sender, late := w.nodes[0], w.nodes[1]
	for range 6 {
		sender.send()
	}
	w.under = slices.DeleteFunc(w.under, func(p flight) bool {
		q := p.data[24]
		return p.to == 1 && (q == 2 || q == 5) || p.to == 2 && q == 6
	})
	w.arriveAll()
	for _, x := range w.nodes {
		x.st.Freeze()
		if !x.st.Frozen() || x.st.Deadline() != clock.Never || x.st.Open() {
			t.Errorf("member %d: deadline %v, open %v", x.self, x.st.Deadline(), x.st.Open())
		}
	}
	w.under = nil
	to, islands := late.st.Holdings(0)
	if want := []Range{{3, 4}, {6, 6}}; to != 1 || !slices.Equal(islands, want) {
		t.Errorf("holds to %d and %v, want 1 and %v", to, islands, want)
	}
	if q, missing := late.st.FirstMissing(0, 0, 6); !missing || q != 2 {
		t.Errorf("first missing %d, %v", q, missing)
	}
	if q, missing := late.st.FirstMissing(0, 2, 4); missing {
		t.Errorf("missing %d between 3 and 4", q)
	}
	if n := late.st.Ask(0, 6, endpoint(2)); n != 2 {
		t.Errorf("asks for %d packets, lacks 2", n)
	}
	late.st.Inquire(2)
	late.st.AckNow(w.now)
	late.st.Hasten()
	late.st.AskNow(w.now)
	late.drain()
	w.settle()
	if q, missing := late.st.FirstMissing(0, 0, 6); missing {
		t.Errorf("%d was not given by the member that was asked", q)
	}
	if late.st.ReceivedTo(0) != 1 || len(late.taken[0]) != 1 {
		t.Errorf("received to %d, delivered %v after Freeze", late.st.ReceivedTo(0), late.taken[0])
	}
	if late.st.Ask(0, 6, endpoint(2)) != 0 {
		t.Error("asks for what it holds")
	}
	late.st.Extend(0, 5)
	late.deliver()
	if late.st.ReceivedTo(0) != 5 || len(late.taken[0]) != 5 {
		t.Errorf("received to %d, delivered %v of a cut at 5", late.st.ReceivedTo(0), late.taken[0])
	}
	w.close()
}

func TestNumberAfterFreeze(t *testing.T) {
	w := newNet(t, 1, 8, 0)
	x := w.nodes[0]
	f, _ := x.out.Alloc()
	x.st.Freeze()
	defer func() {
		if recover() == nil {
			t.Error("no assertion")
		}
		x.out.Arena().Tx().Release(f)
		w.close()
	}()
	x.st.Number(f, pdu.Flags(core.FIFO))
}

func TestDeliveredBeyondReceived(t *testing.T) {
	w := newNet(t, 2, 8, 0)
	defer w.close()
	defer func() {
		if recover() == nil {
			t.Error("no assertion")
		}
	}()
	w.nodes[0].st.Delivered(1, 1, 1)
}

// A member that lost the last packet of a stream, and every acknowledgement, catches up by the owner's Sync and its own
// Nak; nobody else has to send anything.
func TestLastPacketLost(t *testing.T) {
	// rows: MC-05
	w := newNet(t, 2, 8, 0)
	w.nodes[0].send()
	w.under = nil
	start := w.now
	for len(w.nodes[1].taken[0]) == 0 && w.now < start.Add(time.Second) {
		w.tick(start.Add(time.Second))
		w.arriveAll()
	}
	if took := w.now.Sub(start); took > syncEvery+nak {
		t.Errorf("caught up after %v", took)
	}
	w.settle()
	if c := w.nodes[0].st.Count; c.Resent != 1 || c.Sent != 1 || c.NaksGot != 1 {
		t.Errorf("counted %+v", c)
	}
	w.close()
}

// What one packet costs at each end, once buffers have grown: nothing on the heap.
func TestNoAllocation(t *testing.T) {
	w := newNet(t, 2, 64, 0)
	a, b := w.nodes[0], w.nodes[1]
	payload := make([]byte, 100)
	turn := func() {
		f, _ := a.out.Alloc()
		a.st.Number(a.out.Extend(f, payload), pdu.Flags(core.FIFO))
		a.st.Delivered(w.now, 0, a.st.NumberedTo())
		a.st.Pump(w.now)
		a.hand(b)
		b.st.Delivered(w.now, 0, b.st.ReceivedTo(0))
		b.st.Tick(w.now)
		b.hand(a)
		w.now = w.now.Add(time.Microsecond)
	}
	for range 1000 {
		turn()
	}
	if n := testing.AllocsPerRun(1000, turn); n != 0 {
		t.Errorf("%v allocations for a packet", n)
	}
	if b.st.ReceivedTo(0) < 2000 {
		t.Fatalf("received %d", b.st.ReceivedTo(0))
	}
	w.close()
}

// A packet that comes again when it was delivered and forgotten long ago is counted, and no more.
func TestOldDuplicate(t *testing.T) {
	// rows: MC-06
	w := newNet(t, 2, 8, 0)
	w.nodes[0].send()
	again := w.under[0]
	w.settle()
	x := w.nodes[1]
	w.arrive(again)
	if x.st.Count.Duplicates != 1 || x.st.ReceivedTo(0) != 1 || len(x.taken[0]) != 1 ||
		x.out.Arena().Outstanding() != 0 {
		t.Errorf("received to %d, delivered %v, %d frames kept, counted %+v", x.st.ReceivedTo(0), x.taken[0],
			x.out.Arena().Outstanding(), x.st.Count)
	}
	w.settle()
	w.close()
}

// Acknowledgements wait for company, but not when a quarter of the window is owed, nor when somebody hurries.
func TestAcknowledgements(t *testing.T) {
	const window = 16
	for _, c := range []struct {
		name  string
		sends int
		hurry func(st *Stream)
		want  uint64
	}{
		{"a few", window/4 - 1, func(st *Stream) { st.Tick(2) }, 0},
		{"a quarter of the window, when the turn is over", window / 4, func(st *Stream) { st.Tick(2) }, 1},
		{"one, at once", 1, func(st *Stream) { st.AckNow(2) }, 1},
		{"one, hastened", 1, func(st *Stream) { st.Hasten(); st.Tick(2) }, 1},
		{"none, at once", 0, func(st *Stream) { st.AckNow(2) }, 0},
	} {
		w := newNet(t, 2, window, 0)
		for range c.sends {
			w.nodes[0].send()
		}
		w.arriveAll()
		c.hurry(w.nodes[1].st)
		if got := w.nodes[1].st.Count.AcksSent; got != c.want {
			t.Errorf("%s: %d acknowledgements, want %d", c.name, got, c.want)
		}
		w.settle()
		w.close()
	}
}

// One question asks for a bounded number of packets, however many are missing.
func TestAskIsBounded(t *testing.T) {
	w := newNet(t, 2, 100, 0)
	for range 100 {
		w.nodes[0].send()
	}
	w.under = w.under[99:]
	w.arriveAll()
	x := w.nodes[1].st
	if n := x.Ask(0, 99, endpoint(0)); n != 99 {
		t.Errorf("asks for %d packets of 99", n)
	}
	if n := x.Ask(0, 5000, endpoint(0)); n != nakPackets {
		t.Errorf("asks for %d packets, the limit is %d", n, nakPackets)
	}
	w.settle()
	w.close()
}

// What an owner calls stable counts only as far as it was received here.
func TestStableBeyondReceived(t *testing.T) {
	w := newNet(t, 2, 8, 0)
	w.nodes[0].send()
	w.nodes[0].send()
	data := w.under[1].data
	data[36] = 0 // nothing of it is unstable
	wire.Seal(data)
	w.under = nil
	w.arrive(flight{1, 0, data})
	if got := w.nodes[1].st.StableAt(0); got != 0 {
		t.Errorf("stable to %d, received to %d", got, w.nodes[1].st.ReceivedTo(0))
	}
	w.settle()
	w.close()
}

// A member is stuck when its application has taken nothing for long while something waits for it.
func TestStuck(t *testing.T) {
	// rows: FD-03
	w := newNet(t, 3, 8, 0)
	x := w.nodes[0]
	const limit = time.Second
	look := func(after time.Duration) []core.Rank {
		w.now = w.now.Add(after)
		return x.st.Stuck(w.now, limit)
	}
	if got := look(10 * limit); got != nil {
		t.Fatalf("stuck %v, and nothing waits", got)
	}
	w.nodes[1].slow = true
	x.send()
	w.settle()
	if got := look(0); got != nil {
		t.Fatalf("stuck %v at the first look", got)
	}
	if got := look(limit - 1); got != nil {
		t.Fatalf("stuck %v before the limit", got)
	}
	if got := look(1); !slices.Equal(got, []core.Rank{1}) {
		t.Fatalf("stuck %v after the limit", got)
	}
	w.nodes[1].slow = false
	w.nodes[1].deliver()
	w.nodes[1].drain()
	w.settle()
	if got := look(limit); got != nil {
		t.Fatalf("stuck %v, and all was taken", got)
	}
	w.close()
}
