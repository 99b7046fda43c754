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

// What users see of an engine follows a group from its joining through a change of views to its end.
func TestStatus(t *testing.T) {
	w := newNetOf(t, 3, func(c *Config) { c.Limits.Window, c.Limits.Queue = 8, 4 })
	w.run(time.Second)
	x := w.nodes[0]
	h := x.join(JoinRequest{Name: "inventory"})
	if s, ok := x.e.GroupStatus(h); !ok || s.View != nil || s.Changing {
		t.Errorf("joining: %+v, %v", s, ok)
	}
	for _, y := range w.nodes[1:] {
		y.join(JoinRequest{Name: "inventory"})
	}
	w.run(200 * time.Millisecond)
	leaders := 0
	for _, y := range w.nodes {
		s := y.e.Status()
		if !s.Attached || len(s.Oracle) != 3 || s.Suspects != 0 || s.Counters.Received == 0 {
			t.Errorf("node %d: %+v", y.id, s)
		}
		if s.Leader {
			leaders++
		}
	}
	if leaders != 1 {
		t.Errorf("%d lead the ORACLE", leaders)
	}
	x.slow = true
	w.nodes[2].dead = true
	for range 40 {
		x.submit(h, core.FIFO, strings.Repeat("m", 1000))
	}
	s, _ := x.e.GroupStatus(h)
	if s.View.Size() != 3 || s.Unstable != 8 || s.Queued != 4 || s.Waiting != 32 || s.WaitingBytes != 32_000 {
		t.Errorf("with one member dead and slow handlers: %+v", s)
	}
	if err := x.e.Report(w.now, h, w.nodes[2].e.cfg.Self, "dead"); err != nil {
		t.Fatal(err)
	}
	x.collect()
	changing := false
	for range 20_000 {
		w.run(10 * time.Microsecond)
		s, _ := x.e.GroupStatus(h)
		changing = changing || s.Changing
	}
	if s := x.e.Status(); !changing || x.e.View(h).Size() != 2 {
		t.Errorf("changing %v, then %v; %+v", changing, x.e.View(h), s)
	}
	x.e.Leave(w.now, h)
	if s, ok := x.e.GroupStatus(h); !ok || !s.Leaving {
		t.Errorf("leaving: %+v, %v", s, ok)
	}
	x.e.Release()
	if s, ok := x.e.GroupStatus(h); ok || x.e.Status().Attached {
		t.Errorf("over: %+v, %+v", s, x.e.Status())
	}
}

// A person who looks at a change that is stuck sees who holds it up, and what a transfer waits for.
func TestDumpOfAChange(t *testing.T) {
	w, _ := form(t, 3)
	members := w.nodes[0].e.View(1).Members
	at := func(rank int) *node { return w.nodes[members[rank].PID-1] }
	silent := at(2)
	w.drop = func(from, _ int, b []byte) bool { return from == silent.id && wire.Kind(b[2]) == wire.KindLink }
	at(1).e.Leave(w.now, 1)
	at(1).collect()
	w.run(500 * time.Millisecond)
	d := at(0).e.Dump()
	for _, want := range []string{"changing to view 2", "coordinates view 2, late: [" + members[2].String() + "]"} {
		if !strings.Contains(d, want) {
			t.Errorf("%q is not in\n%s", want, d)
		}
	}
	w.drop = nil
	w.run(time.Second)
	at(0).makeState = func(*node, Delivery) {} // takes its time
	w.joinLate()
	w.run(500 * time.Millisecond)
	if d := at(0).e.Dump(); !strings.Contains(d, "of view 3, full false: "+w.nodes[3].e.cfg.Self.String()) {
		t.Errorf("no transfer in\n%s", d)
	}
}

// Replies have a lane of their own; they come in order, to members only, and a queue that is too long is refused.
func TestReplies(t *testing.T) {
	w, hs := form(t, 2)
	a, b := w.nodes[0], w.nodes[1]
	a.e.cfg.Limits.Transfer = 10_000
	b.slow = true // handlers do not hold a reply up
	for _, m := range []string{"one", "two"} {
		for _, to := range []*node{a, b} {
			if r := a.e.SubmitReply(w.now, hs[0], to.e.cfg.Self, []byte(m)); r != Accepted {
				t.Fatalf("SubmitReply returns %d", r)
			}
		}
	}
	a.collect()
	w.run(100 * time.Millisecond)
	for _, x := range w.nodes {
		var got []string
		for _, d := range x.deliveries {
			if d.Kind == DeliverReply && d.From == a.e.cfg.Self {
				got = append(got, string(d.Data))
			}
		}
		if !slices.Equal(got, []string{"one", "two"}) {
			t.Errorf("node %d got %q", x.id, got)
		}
	}
	b.dead = true
	r := Accepted
	for i := 0; r == Accepted && i < 1000; i++ {
		r = a.e.SubmitReply(w.now, hs[0], b.e.cfg.Self, make([]byte, 1000))
	}
	if r != Full {
		t.Errorf("a thousand replies to who takes none: %d", r)
	}
	for _, h := range []Handle{0, 99} {
		if r := a.e.SubmitReply(w.now, h, b.e.cfg.Self, nil); r != NotMember {
			t.Errorf("group %d: SubmitReply returns %d", h, r)
		}
	}
	a.collect()
}

// A causal record that is malformed is counted and holds nothing up.
func TestMalformedCauses(t *testing.T) {
	w, hs := form(t, 2)
	x := w.nodes[0]
	g := x.e.group(hs[0])
	other := uint32(1 - g.self)
	h := wire.Header{Kind: wire.KindData, Group: g.lid, View: uint64(g.view.ID), Rank: other, Seq: 1, Aux: 1,
		Flags: pdu.Flags(core.FIFO) | pdu.FlagCause}
	w.nodes[1].dead = true
	before := x.e.Counters().Malformed
	x.receive(h, []byte{99, 1}, nil)
	h.Seq, h.Aux, h.Flags = 2, 2, pdu.Flags(core.Causal)
	x.receive(h, []byte("\x02hi"), nil)
	if got := onlyMessages(x.msgs); !slices.Equal(got, []string{"hi"}) || x.e.Counters().Malformed != before+1 {
		t.Errorf("delivered %v, counted %+v", got, x.e.Counters())
	}
}
