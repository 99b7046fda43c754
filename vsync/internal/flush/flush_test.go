package flush

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/khamsin-io/khamsin/dataplane"
	"github.com/khamsin-io/khamsin/dataplane/clock"
	"github.com/khamsin-io/khamsin/vsync/core"
	"github.com/khamsin-io/khamsin/vsync/internal/canary"
	"github.com/khamsin-io/khamsin/vsync/internal/pdu"
)

const retry = 2 * time.Millisecond

func process(i int) core.Address {
	return core.Address{PID: uint32(i), Port: uint16(1000 + i), Incarnation: uint64(i) + 1}
}

func processes(list ...int) (out []core.Address) {
	for _, i := range list {
		out = append(out, process(i))
	}
	return out
}

// streams is what one member holds of the ending view: by rank, which packets. It is flush.Streams.
type streams struct {
	held   []map[core.Seq]bool
	frozen int
	asked  func(r core.Rank, q core.Seq, holder dataplane.Endpoint)
}

func (s *streams) Freeze() { s.frozen++ }

func (s *streams) has(r core.Rank, q core.Seq) bool { return s.held[r][q] }

func (s *streams) Report() []pdu.Holding {
	list := make([]pdu.Holding, len(s.held))
	for r := range list {
		h := &list[r]
		for s.has(core.Rank(r), h.ReceivedTo+1) {
			h.ReceivedTo++
		}
		for q := h.ReceivedTo + 1; q <= longest; q++ {
			if n := len(h.Islands); !s.has(core.Rank(r), q) {
				continue
			} else if n > 0 && h.Islands[n-1].Last == q-1 {
				h.Islands[n-1].Last = q
			} else {
				h.Islands = append(h.Islands, pdu.Island{First: q, Last: q})
			}
		}
	}
	return list
}

func (s *streams) FirstMissing(r core.Rank, after, q core.Seq) (core.Seq, bool) {
	for a := after + 1; a <= q; a++ {
		if !s.has(r, a) {
			return a, true
		}
	}
	return 0, false
}

func (s *streams) Ask(r core.Rank, q core.Seq, holder dataplane.Endpoint) int {
	s.asked(r, q, holder)
	return 1
}

// longest is the number of packets of every stream.
const longest = 8

// change is a change of view among survivors of a view of n.
type change struct {
	t       *rapid.T
	prop    *pdu.Propose
	co      *Coordinator
	members []*Member
	streams []*streams
	reports []*pdu.Report
}

func newChange(t *rapid.T, n int) *change {
	base := &pdu.Decision{Name: "g", Lid: 3, Channel: 9, SafeCopies: 2, View: &core.View{ID: 4}}
	for i := range n {
		base.View.Members = append(base.View.Members, process(i))
	}
	c := &change{t: t, prop: &pdu.Propose{Base: base, Flushers: slices.Clone(base.View.Members)}}
	for range rapid.IntRange(0, n-1).Draw(t, "crashes") {
		i := rapid.IntRange(0, len(c.prop.Flushers)-1).Draw(t, "crashed")
		c.prop.Flushers = slices.Delete(c.prop.Flushers, i, i+1)
	}
	gone := map[core.Address]bool{}
	for _, m := range base.View.Members {
		gone[m] = !slices.Contains(c.prop.Flushers, m)
	}
	c.prop.Next = base.View.Next(7, gone, processes(n, n+1))
	c.prop.Coordinator = c.prop.Flushers[0]
	c.co = NewCoordinator(c.prop, 100)
	for i := range c.prop.Flushers {
		c.streams = append(c.streams, c.drawStreams(n))
		m, report := NewMember(c.prop, c.streams[i], retry, canary.None)
		c.members, c.reports = append(c.members, m), append(c.reports, report)
	}
	return c
}

// drawStreams lets a survivor hold anything, of streams that have packets up to longest.
func (c *change) drawStreams(n int) *streams {
	s := &streams{held: make([]map[core.Seq]bool, n)}
	for r := range n {
		s.held[r] = map[core.Seq]bool{}
		for q := core.Seq(1); q <= longest; q++ {
			s.held[r][q] = rapid.Bool().Draw(c.t, "held")
		}
	}
	return s
}

// union returns the longest prefix that the survivors together hold: the slow reference of the cut.
func (c *change) union(r core.Rank) core.Seq {
	for q := core.Seq(1); ; q++ {
		if !slices.ContainsFunc(c.streams, func(s *streams) bool { return s.has(r, q) }) {
			return q - 1
		}
	}
}

// Whatever the survivors hold, the cut is what they together hold without a gap; each can fetch what it lacks from who
// is named, round by round; and when all have done so, the view is decided with this cut.
func TestChange(t *testing.T) {
	// rows: MC-08, VIEW-15, FD-20, FD-21
	rapid.Check(t, func(t *rapid.T) {
		c := newChange(t, rapid.IntRange(1, 4).Draw(t, "n"))
		cut := c.report()
		for r, q := range cut.Cut {
			if want := c.union(core.Rank(r)); q != want {
				t.Fatalf("the cut of rank %d is %d, the survivors hold %d", r, q, want)
			}
		}
		d := c.fetchAll(cut)
		if d == nil || !slices.Equal(d.Cut, cut.Cut) || d.View != c.prop.Next || d.Prev != 4 || d.Lid != 3 ||
			d.Channel != 9 || d.SafeCopies != 2 || d.Name != "g" {
			t.Fatalf("decided %+v, cut %v", d, cut.Cut)
		}
		if late := c.co.Late(); late != nil {
			t.Fatalf("late after the end: %v", late)
		}
	})
}

// report hands the reports in, in any order, with some twice and some of strangers, and returns the cut.
func (c *change) report() *pdu.Cut {
	n := len(c.members)
	order := rapid.Permutation(indices(n)).Draw(c.t, "order")
	for k, i := range order {
		if c.streams[i].frozen != 1 {
			c.t.Fatalf("member %d is frozen %d times", i, c.streams[i].frozen)
		}
		if late := c.co.Late(); len(late) != n-k || !slices.Contains(late, c.prop.Flushers[i]) {
			c.t.Fatalf("%d of %d have reported, late: %v", k, n, late)
		}
		c.noise()
		cut := c.co.OnReport(c.prop.Flushers[i], c.reports[i])
		if (cut != nil) != (k == n-1) {
			c.t.Fatalf("a cut after %d of %d reports: %v", k+1, n, cut)
		}
		if k < n-1 && c.co.OnReport(c.prop.Flushers[i], c.reports[i]) != nil {
			c.t.Fatalf("a cut by a report that came twice")
		}
		if cut != nil {
			return cut
		}
	}
	return nil
}

func indices(n int) []int {
	list := make([]int, n)
	for i := range list {
		list[i] = i
	}
	return list
}

// noise is what must change nothing.
func (c *change) noise() {
	stranger := process(90)
	for _, cut := range []*pdu.Cut{
		c.co.OnReport(stranger, c.reports[0]),
		c.co.OnReport(c.prop.Flushers[0], &pdu.Report{Next: 6, Holdings: c.reports[0].Holdings}),
		c.co.OnReport(c.prop.Flushers[0], &pdu.Report{Next: 7, Holdings: make([]pdu.Holding, 9)}),
	} {
		if cut != nil {
			c.t.Fatal("a cut by a report that does not count")
		}
	}
	ready := &pdu.Ready{Lid: 3, Next: 7}
	if c.co.OnReady(stranger, ready) != nil || c.co.OnReady(c.prop.Flushers[0], &pdu.Ready{Lid: 3, Next: 6}) != nil {
		c.t.Fatal("decided by who is not asked")
	}
}

// fetchAll lets every survivor fetch what it lacks, with some answers lost, and hands the readies in.
func (c *change) fetchAll(cut *pdu.Cut) *pdu.Decision {
	var decided *pdu.Decision
	ready := 0
	for i, m := range c.members {
		now, asks := clock.Time(1), 0
		c.streams[i].asked = func(r core.Rank, q core.Seq, holder dataplane.Endpoint) {
			if asks++; asks > 200 {
				c.t.Fatalf("member %d asks for ever; it lacks something of rank %d up to %d", i, r, q)
			}
			if !rapid.Bool().Draw(c.t, "lost") {
				c.answer(i, r, q, holder)
			}
		}
		done := m.OnCut(now, &pdu.Cut{Lid: 3, Next: 6, Cut: cut.Cut})
		done = m.OnCut(now, cut) || done
		if m.OnCut(now, cut) {
			c.t.Fatalf("member %d takes a cut twice", i)
		}
		for ; !done; done = m.OnData(now) {
			if d := m.Deadline(); d <= now || d == clock.Never {
				c.t.Fatalf("member %d lacks something, and its deadline is %v at %v", i, d, now)
			}
			m.Tick(now)
			now = m.Deadline()
			m.Tick(now)
		}
		if m.OnData(now) || m.Deadline() != clock.Never {
			c.t.Fatalf("member %d is ready twice", i)
		}
		for r, q := range cut.Cut {
			if a, missing := c.streams[i].FirstMissing(core.Rank(r), 0, q); missing {
				c.t.Fatalf("member %d is ready and lacks %d of rank %d", i, a, r)
			}
		}
		ready++
		d := c.co.OnReady(c.prop.Flushers[i], &pdu.Ready{Lid: 3, Next: 7})
		if (d != nil) != (ready == len(c.members)) {
			c.t.Fatalf("%d of %d are ready, decided: %v", ready, len(c.members), d)
		}
		if c.co.OnReady(c.prop.Flushers[i], &pdu.Ready{Lid: 3, Next: 7}) != nil {
			c.t.Fatal("decided by a readiness that came twice")
		}
		if d != nil {
			decided = d
		}
	}
	return decided
}

// answer gives a member what the named holder has of a stream.
func (c *change) answer(i int, r core.Rank, q core.Seq, holder dataplane.Endpoint) {
	for k, a := range c.prop.Flushers {
		if a.Endpoint() != holder {
			continue
		}
		for s := core.Seq(1); s <= q; s++ {
			if c.streams[k].has(r, s) {
				c.streams[i].held[r][s] = true
			}
		}
		return
	}
	c.t.Fatalf("member %d asks %v, who is no survivor", i, holder)
}
