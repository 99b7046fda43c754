package member

import (
	"slices"
	"strings"
	"testing"

	"github.com/khamsin-io/khamsin/vsync/core"
	"github.com/khamsin-io/khamsin/vsync/internal/pdu"
)

func TestJoinRefused(t *testing.T) {
	// rows: GRP-11
	for _, c := range []struct {
		name string
		cmd  Command
		want Refusal
	}{
		{"create what exists", Command{Op: opJoin, By: addr(3), Group: "g", Create: true}, RefusedExists},
		{"other handlers", Command{Op: opJoin, By: addr(3), Group: "g", Signature: 9}, RefusedSignature},
		{"a name without end", Command{Op: opJoin, By: addr(3), Group: strings.Repeat("n", groupNameMax+1)},
			RefusedFull},
	} {
		w := newTwins(t)
		w.form("g", 1, 2)
		w.add(3)
		out := w.do(c.cmd)
		if got := said(out, EffectRefused); len(got) != 1 || got[0].Refusal != c.want || got[0].Who != addr(3) {
			t.Errorf("%s: %+v, want refusal %d", c.name, out, c.want)
		}
		if done := said(out, EffectDone); len(done) != 1 || done[0].Number != 2 {
			t.Errorf("%s: the request is not done: %+v", c.name, out)
		}
		again := w.apply(Command{Op: opJoin, By: addr(3), Group: c.cmd.Group, Number: 2})
		if got := said(again, EffectRefused); len(got) != 1 || got[0].Refusal != c.want {
			t.Errorf("%s: asked again, told %+v", c.name, again)
		}
		if w.a.byName["g"].pending != nil || len(w.a.byName["g"].joining) != 0 {
			t.Errorf("%s: the group changes", c.name)
		}
	}
	w := newTwins(t)
	w.add(1, 2)
	w.do(Command{Op: opJoin, By: addr(1), Group: "new", Create: true, Signature: 4})
	if out := w.do(Command{Op: opJoin, By: addr(2), Group: "new", Create: true}); len(said(out, EffectRefused)) != 1 {
		t.Errorf("two processes create one group: %+v", out)
	}
}

// A request is applied once, however often it is asked, and only for a process of the system.
func TestRequestsCountOnce(t *testing.T) {
	w := newTwins(t)
	w.form("g", 1, 2)
	stranger := w.do(Command{Op: opJoin, By: addr(9), Group: "g"})
	if len(stranger) != 0 {
		t.Errorf("a stranger's request does %+v", stranger)
	}
	w.do(Command{Op: opLeave, By: addr(2), Group: "g", Through: 99})
	before := w.a.byName["g"].lastView
	for range 2 {
		out := w.apply(Command{Op: opTerminate, By: addr(2), Group: "g", Number: w.numbers[addr(2)]})
		if len(out) != 1 || out[0].Kind != EffectDone || w.a.byName["g"].lastView != before {
			t.Errorf("an old request does %+v", out)
		}
	}
}

// Joins that come together make one view; those that come while a view is agreed on make the next.
func TestJoinsAreGathered(t *testing.T) {
	// rows: VIEW-04, VIEW-05, VIEW-17, GRP-10
	w := newTwins(t)
	w.form("g", 3, 1, 2)
	w.add(4, 5, 6)
	if out := w.do(Command{Op: opJoin, By: addr(5), Group: "g"}); len(said(out, EffectGather)) != 1 {
		t.Fatalf("the first join does %+v", out)
	}
	if out := w.do(Command{Op: opJoin, By: addr(4), Group: "g"}); len(out) != 1 {
		t.Fatalf("the second join does %+v", out)
	}
	w.do(Command{Op: opJoin, By: addr(4), Group: "g"}) // twice is once
	w.apply(Command{Op: opGather, Group: "g"})
	w.do(Command{Op: opJoin, By: addr(6), Group: "g"})
	w.check()
	out := w.commit("g")
	v := w.a.byName["g"].current.View
	if !slices.Equal(v.Members, addrs(3, 1, 2, 5, 4)) || !slices.Equal(v.Joined, addrs(5, 4)) {
		t.Errorf("joined %v in %v", v.Joined, v)
	}
	if p := said(out, EffectPropose); len(p) != 1 || !slices.Equal(p[0].Propose.Next.Joined, addrs(6)) {
		t.Errorf("the late join waits: %+v", out)
	}
	if out := w.do(Command{Op: opJoin, By: addr(1), Group: "g"}); len(said(out, EffectDecided)) != 1 {
		t.Errorf("who is a member already is told %+v", out)
	}
}

// A failure overtakes the change that is under way; the overtaken one can be committed no more.
func TestProposalsAreSuperseded(t *testing.T) {
	// rows: FD-10, FD-20, FD-21, VIEW-06, VIEW-12, VIEW-13
	w := newTwins(t)
	w.form("g", 1, 2, 3, 4)
	w.do(Command{Op: opRemove, By: addr(2), Who: addr(4), Reason: "silent"})
	old := w.a.byName["g"].pending
	out := w.do(Command{Op: opRemove, By: addr(2), Who: addr(1), Reason: "silent"})
	r := said(out, EffectRemoved)
	if len(r) != 1 || r[0].Who != addr(1) || r[0].By != addr(2) || r[0].Reason != "silent" {
		t.Errorf("told %+v", out)
	}
	p := w.a.byName["g"].pending
	if p == old || p.Coordinator != addr(2) || !slices.Equal(p.Flushers, addrs(2, 3)) || p.Next.ID <= old.Next.ID {
		t.Fatalf("proposed %+v behind %+v", p, old)
	}
	for _, c := range []struct {
		name string
		by   core.Address
		d    *pdu.Decision
	}{
		{"the overtaken proposal", addr(2), decisionFor(old)},
		{"by another than the coordinator", addr(3), decisionFor(p)},
		{"with a cut of another view", addr(2), &pdu.Decision{Name: "g", View: p.Next, Cut: make([]core.Seq, 3)}},
		{"of no group", addr(2), &pdu.Decision{Name: "h", View: p.Next, Cut: make([]core.Seq, 4)}},
	} {
		if out := w.do(Command{Op: opCommit, By: c.by, Decision: c.d}); len(out) != 1 || out[0].Kind != EffectDone {
			t.Errorf("%s is committed: %+v", c.name, out)
		}
	}
	out = said(w.commit("g"), EffectDecided)
	d := w.a.byName["g"].current
	if !slices.Equal(d.View.Members, addrs(2, 3)) || !slices.Equal(d.View.Left, addrs(1, 4)) ||
		!slices.Equal(d.Failed, addrs(1, 4)) || len(out) != 1 || !slices.Equal(out[0].Members, addrs(2, 3)) {
		t.Errorf("decided %+v, told %+v", d, out)
	}
	if out := w.apply(Command{Op: opCommit, By: addr(2), Decision: decisionFor(p)}); out != nil {
		t.Errorf("committed twice: %+v", out)
	}
}

// A process that was removed does not come back under its old identity.
func TestRemovedForGood(t *testing.T) {
	// rows: FD-14
	w := newTwins(t)
	w.add(1, 2)
	w.do(Command{Op: opRemove, By: addr(1), Who: addr(2)})
	out := w.do(Command{Op: opAdd, By: addr(2), Who: addr(2)})
	if len(said(out, EffectAdded)) != 0 || w.a.Alive(addr(2)) {
		t.Errorf("added again: %+v", out)
	}
	if !w.a.Removed(addr(2).Incarnation) || w.a.Removed(addr(1).Incarnation) ||
		!slices.Equal(w.a.Processes(), addrs(1)) {
		t.Errorf("processes %v", w.a.Processes())
	}
	if out := w.do(Command{Op: opRemove, By: addr(1), Who: addr(2)}); len(said(out, EffectRemoved)) != 0 {
		t.Errorf("removed twice: %+v", out)
	}
	if out := w.do(Command{Op: opAdd, By: addr(1), Who: core.NoAddress}); len(said(out, EffectAdded)) != 0 {
		t.Errorf("nobody is added: %+v", out)
	}
	for i := range removedMax + 5 {
		w.a.Apply(&Command{Op: opAdd, Who: addr(100 + i)})
		w.a.Apply(&Command{Op: opRemove, Who: addr(100 + i)})
	}
	if len(w.a.removed) != removedMax {
		t.Errorf("remembers %d removed processes", len(w.a.removed))
	}
}

// Who leaves is out of the next view; who only waited to join is out at once.
func TestLeave(t *testing.T) {
	// rows: GRP-12, VIEW-06
	w := newTwins(t)
	w.form("g", 1, 2, 3)
	w.add(4, 5)
	w.do(Command{Op: opJoin, By: addr(4), Group: "g"})
	out := w.do(Command{Op: opLeave, By: addr(4), Group: "g"})
	if e := said(out, EffectEnded); len(e) != 1 || !slices.Equal(e[0].Members, addrs(4)) {
		t.Errorf("a joiner that leaves is told %+v", out)
	}
	w.apply(Command{Op: opGather, Group: "g"})
	w.do(Command{Op: opJoin, By: addr(5), Group: "g"})
	w.apply(Command{Op: opGather, Group: "g"})
	w.do(Command{Op: opLeave, By: addr(5), Group: "g"}) // it is in the proposal already
	w.check()
	if p := w.a.byName["g"].pending; p == nil || p.Next.Contains(addr(5)) {
		t.Errorf("proposed %+v with a joiner that left", p)
	}
	w.commit("g")
	for _, by := range []int{4, 9} {
		if out := w.do(Command{Op: opLeave, By: addr(by), Group: "g"}); len(said(out, EffectPropose)) != 0 {
			t.Errorf("%d, who is no member, leaves: %+v", by, out)
		}
	}
	if out := w.do(Command{Op: opLeave, By: addr(1), Group: "h"}); len(out) != 1 {
		t.Errorf("left what does not exist: %+v", out)
	}
	w.do(Command{Op: opLeave, By: addr(1), Group: "g", Through: 99})
	if p := w.a.byName["g"].pending; p == nil || p.Coordinator != addr(2) {
		t.Fatalf("proposed %+v: who leaves should not coordinate", p)
	}
	w.commit("g")
	d := w.a.byName["g"].current
	if !slices.Equal(d.View.Members, addrs(2, 3)) || !slices.Equal(d.View.Left, addrs(1)) || d.Failed != nil {
		t.Errorf("decided %+v", d)
	}
}

// A member that owes its state to joiners leaves when it has said that they have it; when the last one with the state
// leaves, the coordinator has it kept for another view.
func TestDebts(t *testing.T) {
	// rows: XFR-12
	w := newTwins(t)
	w.form("g", 1)
	w.add(2, 3)
	w.do(Command{Op: opJoin, By: addr(2), Group: "g"})
	w.apply(Command{Op: opGather, Group: "g"})
	w.commit("g") // 1 owes its state to 2
	g := w.a.byName["g"]
	if out := w.do(Command{Op: opLeave, By: addr(1), Group: "g", Through: g.current.View.ID - 1}); len(out) != 1 {
		t.Fatalf("left with a debt: %+v", out)
	}
	w.do(Command{Op: opLeave, By: addr(1), Group: "g", Through: g.current.View.ID})
	if g.pending == nil || g.pending.Next.Contains(addr(1)) {
		t.Fatalf("stays without a debt: %+v", g.pending)
	}
	keep := Command{Op: opKeep, By: g.pending.Coordinator, Group: "g", Who: addr(1), Through: g.pending.Next.ID}
	for _, c := range []func(c *Command){
		func(c *Command) { c.Through-- }, func(c *Command) { c.By = addr(3) }, func(c *Command) { c.Who = addr(2) },
		func(c *Command) { c.Group = "h" },
	} {
		wrong := keep
		c(&wrong)
		if out := w.do(wrong); len(out) != 1 {
			t.Errorf("%+v does %+v", wrong, out)
		}
	}
	w.do(keep)
	if g.pending == nil || !g.pending.Next.Contains(addr(1)) || g.pending.Next.ID <= keep.Through {
		t.Fatalf("kept, and proposed %+v", g.pending)
	}
	w.commit("g")
	w.do(Command{Op: opLeave, By: addr(1), Group: "g", Through: g.current.View.ID})
	w.commit("g")
	if !slices.Equal(g.current.View.Members, addrs(2)) {
		t.Errorf("ends as %v", g.current.View)
	}
}

// A terminated group loses everyone, also those who wait to join; they found it anew, under a fresh number.
func TestTerminate(t *testing.T) {
	// rows: GRP-13
	w := newTwins(t)
	w.form("g", 1, 2)
	w.add(3)
	if out := w.do(Command{Op: opTerminate, By: addr(3), Group: "g"}); len(out) != 1 {
		t.Errorf("a stranger ends the group: %+v", out)
	}
	w.do(Command{Op: opJoin, By: addr(3), Group: "g"})
	w.do(Command{Op: opTerminate, By: addr(2), Group: "g"})
	w.check()
	g, lid := w.a.byName["g"], w.a.byName["g"].lid
	if p := g.pending; p == nil || p.Next.Size() != 0 || !slices.Equal(p.Flushers, addrs(1, 2)) {
		t.Fatalf("proposed %+v", p)
	}
	out := said(w.commit("g"), EffectDecided)
	if len(out) != 2 || out[0].Decision.View.Size() != 0 || !slices.Equal(out[1].Decision.View.Members, addrs(3)) {
		t.Fatalf("told %+v", out)
	}
	if g.lid == lid || out[1].Decision.View.ID <= out[0].Decision.View.ID || out[1].Decision.Prev != 0 {
		t.Errorf("number %d after %d, decided %+v", g.lid, lid, out[1].Decision)
	}
}

// When all members leave while others wait to join, the joiners come first, so that the state is not lost.
func TestLastLeaversWaitForJoiners(t *testing.T) {
	w := newTwins(t)
	w.form("g", 1)
	w.add(2)
	w.do(Command{Op: opJoin, By: addr(2), Group: "g"})
	w.do(Command{Op: opLeave, By: addr(1), Group: "g", Through: 99})
	g := w.a.byName["g"]
	if p := g.pending; p == nil || !slices.Equal(p.Next.Members, addrs(1, 2)) {
		t.Fatalf("proposed %+v", p)
	}
	w.commit("g")
	w.do(Command{Op: opLeave, By: addr(1), Group: "g", Through: g.current.View.ID})
	w.commit("g")
	if !slices.Equal(g.current.View.Members, addrs(2)) {
		t.Errorf("ends as %v", g.current.View)
	}
}

// A group whose members all failed is founded anew by those who wait, in a view that has nothing of the old one.
func TestEveryoneFails(t *testing.T) {
	w := newTwins(t)
	w.form("g", 1)
	w.add(2)
	w.do(Command{Op: opJoin, By: addr(2), Group: "g"})
	out := w.do(Command{Op: opRemove, By: addr(2), Who: addr(1), Reason: "silent"})
	d := said(out, EffectDecided)
	if len(d) != 1 || !slices.Equal(d[0].Decision.View.Members, addrs(2)) || d[0].Decision.Source != addr(2) ||
		len(d[0].Decision.Stateless) != 0 {
		t.Errorf("told %+v", out)
	}
	w.check()
}

// A new leader tells again what is decided and what is proposed.
func TestOutstanding(t *testing.T) {
	w := newTwins(t)
	w.form("g", 1, 2)
	w.form("h", 3)
	w.add(4)
	w.do(Command{Op: opRemove, By: addr(1), Who: addr(2), Reason: "silent"})
	w.do(Command{Op: opJoin, By: addr(4), Group: "h"})
	w.form("gone", 5)
	w.do(Command{Op: opLeave, By: addr(5), Group: "gone", Through: 99})
	w.commit("gone")
	var got []string
	for _, e := range w.a.Outstanding() {
		switch e.Kind {
		case EffectDecided:
			got = append(got, "decided "+e.Decision.Name)
		case EffectPropose:
			got = append(got, "proposed "+e.Propose.Base.Name)
		case EffectGather:
			got = append(got, "gather "+e.Group)
		}
	}
	want := []string{"decided g", "proposed g", "decided h", "gather h", "decided gone"}
	if !slices.Equal(got, want) {
		t.Errorf("told again: %v, want %v", got, want)
	}
}
