package engine

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/khamsin-io/khamsin/dataplane/wire"
	"github.com/khamsin-io/khamsin/vsync/core"
)

// joinLate adds a process to a net and lets it join the group.
func (w *net) joinLate() (*node, Handle) {
	x := w.add()
	w.run(500 * time.Millisecond)
	h := x.join(JoinRequest{Name: "inventory"})
	return x, h
}

// A state in pieces, more than may wait at once: the maker is told to wait and when to go on, and the joiner gets all
// of it, in order, before its first view.
func TestStateInPieces(t *testing.T) {
	// rows: XFR-02, XFR-03, XFR-07, XFR-09, VIEW-16
	w := newNetOf(t, 1, func(c *Config) { c.Limits.Transfer = 40_000 })
	w.run(time.Second)
	x := w.nodes[0]
	x.join(JoinRequest{Name: "inventory"})
	w.run(100 * time.Millisecond)
	const pieces = 200
	var transfer uint64
	made, waits := 0, 0
	more := func() {
		for made < pieces {
			piece := strings.Repeat(string('a'+rune(made%26)), 2900)
			if r := x.e.StateChunk(w.now, transfer, []byte(piece), false); r == Full {
				waits++
				return
			}
			made++
		}
		x.e.StateChunk(w.now, transfer, []byte("end"), true)
	}
	x.makeState = func(x *node, d Delivery) {
		if d.View == nil || d.View.Size() != 2 {
			t.Errorf("the maker is shown the view %v", d.View)
		}
		transfer = d.Transfer
		more()
	}
	y, _ := w.joinLate()
	seen := 0
	for range 2000 {
		w.run(time.Millisecond)
		for ; seen < len(x.events); seen++ {
			if e := x.events[seen]; e.Kind == EventStateRoom && e.Token == transfer {
				more()
				x.collect()
			}
		}
	}
	if waits == 0 || len(y.state) != pieces+1 || y.state[pieces] != "end" || y.state[1] != strings.Repeat("b", 2900) {
		t.Errorf("%d waits, %d pieces came of %d", waits, len(y.state), pieces+1)
	}
	kinds := []DeliveryKind{}
	for _, d := range y.deliveries {
		if len(kinds) == 0 || kinds[len(kinds)-1] != d.Kind {
			kinds = append(kinds, d.Kind)
		}
	}
	if want := []DeliveryKind{DeliverState, DeliverStateEnd, DeliverView}; !slices.Equal(kinds, want) {
		t.Errorf("deliveries of kinds %v, want %v", kinds, want)
	}
}

// A state that cannot be made: the joiner is told, and the group goes on without it.
func TestStateAborted(t *testing.T) {
	w, hs := form(t, 2)
	w.nodes[0].makeState = func(x *node, d Delivery) { x.e.StateAbort(w.now, d.Transfer) }
	y, h := w.joinLate()
	w.run(500 * time.Millisecond)
	if err, over := y.ended(h); !over || !errors.Is(err, ErrTransferAborted) || len(y.state) != 0 {
		t.Errorf("over %v, error %v, state %q", over, err, y.state)
	}
	if r := w.nodes[0].submit(hs[0], core.FIFO, "on"); r != Accepted {
		t.Errorf("Submit returns %d", r)
	}
	w.run(500 * time.Millisecond)
	if got := onlyMessages(w.nodes[1].msgs); !slices.Equal(got, []string{"on"}) {
		t.Errorf("the others delivered %v", got)
	}
}

// The group's first member makes nothing and loads nothing.
func TestInit(t *testing.T) {
	// rows: INI-01, INI-02, XFR-08
	w, _ := form(t, 1)
	for range 2 {
		w.add()
	}
	w.run(time.Second)
	for _, y := range w.nodes[1:] {
		y.join(JoinRequest{Name: "inventory"})
	}
	w.run(time.Second)
	count := func(x *node, k DeliveryKind) (n int) {
		for _, d := range x.deliveries {
			if d.Kind == k {
				n++
			}
		}
		return n
	}
	for i, x := range w.nodes {
		first := 0
		if i == 0 {
			first = 1
		}
		if got := count(x, DeliverInit); got != first {
			t.Errorf("node %d: told %d times to begin from nothing", x.id, got)
		}
		if got := count(x, DeliverStateEnd); got != 1-first {
			t.Errorf("node %d: got %d states", x.id, got)
		}
	}
	if v := w.nodes[0].e.View(1); len(v.Joined) != 2 || count(w.nodes[0], DeliverMakeState) != 1 {
		t.Errorf("made %d states for the joiners of %v", count(w.nodes[0], DeliverMakeState), v)
	}
}

// A member that lives and does not answer in a change of views is accused, and the change goes on without it.
func TestLateInAChange(t *testing.T) {
	// rows: FD-04, FD-19
	w, hs := form(t, 5)
	members := w.nodes[0].e.View(hs[0]).Members
	silent := w.nodes[members[4].PID-1]
	w.drop = func(from, to int, b []byte) bool {
		return from == silent.id && wire.Kind(b[2]) == wire.KindLink // its heartbeats come, its answers do not
	}
	w.nodes[members[0].PID-1].e.Leave(w.now, 1)
	w.nodes[members[0].PID-1].collect()
	w.run(6 * time.Second)
	if v := w.nodes[members[1].PID-1].e.View(1); v.Size() != 3 || v.Contains(silent.e.cfg.Self) {
		t.Errorf("view %v", v)
	}
	said := slices.ContainsFunc(w.nodes, func(x *node) bool {
		e, ok := x.event(EventSuspect)
		return ok && e.Peer == silent.e.cfg.Self && strings.Contains(e.Text, "does not answer in the change")
	})
	if !said {
		t.Error("nobody accused it for that")
	}
}

// A coordinator whose signs of life come, and nothing else, is accused when it has acknowledged nothing for
// Timing.Stuck: the change goes on under another one.
func TestDeafCoordinator(t *testing.T) {
	// rows: FD-06
	w := newNet(t, 5)
	w.run(time.Second)
	order := []int{4, 0, 1, 2, 3} // the first to join coordinates; it is no member of the ORACLE
	for _, i := range order {
		w.nodes[i].join(JoinRequest{Name: "inventory"})
		w.run(200 * time.Millisecond)
	}
	node := func(rank int) *node { return w.nodes[order[rank]] }
	coordinator := node(0)
	w.drop = func(from, _ int, b []byte) bool {
		kind := wire.Kind(b[2])
		return from == coordinator.id && (kind == wire.KindLink || kind == wire.KindLinkAck)
	}
	node(4).e.Leave(w.now, 1)
	node(4).collect()
	w.run(60 * time.Second)
	for rank := 1; rank < 4; rank++ {
		if v := node(rank).e.View(1); v == nil || v.Size() != 3 || v.Contains(coordinator.e.cfg.Self) {
			t.Errorf("rank %d: view %v", rank, v)
		}
	}
}

// A member whose handlers take nothing, but which lives, slows its senders; after Timing.Stuck it is accused.
func TestStuckMember(t *testing.T) {
	// rows: FD-03
	w := newNetOf(t, 3, func(c *Config) {
		c.Limits.Queue, c.Limits.Window, c.Limits.Pending, c.Timing.Stuck = 8, 8, 2000, 5*time.Second
	})
	w.run(time.Second)
	var hs []Handle
	for _, x := range w.nodes {
		hs = append(hs, x.join(JoinRequest{Name: "inventory"}))
	}
	w.run(200 * time.Millisecond)
	w.nodes[2].slow = true
	x := w.nodes[0]
	sent := 0
	for range 4 * 1000 {
		if x.submit(hs[0], core.FIFO, strings.Repeat("m", 500)) == Accepted {
			sent++
		}
		w.run(time.Millisecond)
	}
	if v := x.e.View(hs[0]); v.Size() != 3 {
		t.Fatalf("accused before its time: %v", v)
	}
	if sent > 100 {
		t.Errorf("%d messages sent past a member that takes nothing", sent)
	}
	w.run(4 * time.Second)
	if v := x.e.View(hs[0]); v.Size() != 2 {
		t.Errorf("not accused: %v", v)
	}
	if e, ok := x.event(EventRoom); !ok || e.Group != hs[0] {
		t.Errorf("not told of room: %v", x.events)
	}
}
