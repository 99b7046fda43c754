package flush

import (
	"slices"

	"github.com/khamsin-io/khamsin/dataplane/clock"
	"github.com/khamsin-io/khamsin/vsync/core"
	"github.com/khamsin-io/khamsin/vsync/internal/pdu"
)

// Coordinator leads one view change: it hears every flusher's Report, fixes the Cut, hears that every flusher holds all
// of it, and asks the ORACLE to commit. It is the lowest-ranked survivor of the ending view and lives until the
// decision or a newer proposal.
type Coordinator struct {
	prop    *pdu.Propose
	reports []*pdu.Report // by place in prop.Flushers
	ready   []bool
	missing int // reports, then readies, still to come
	cut     *pdu.Cut
	done    bool
	// Due is when the protocol step should be over; the engine reports those who are late.
	Due clock.Time
}

// NewCoordinator begins a view change. The caller sends the proposal to every flusher, itself included.
func NewCoordinator(p *pdu.Propose, due clock.Time) *Coordinator {
	n := len(p.Flushers)
	return &Coordinator{prop: p, reports: make([]*pdu.Report, n), ready: make([]bool, n), missing: n, Due: due}
}

// Proposal returns what is being agreed.
func (c *Coordinator) Proposal() *pdu.Propose { return c.prop }

// Late returns the flushers that have not answered the present step.
func (c *Coordinator) Late() []core.Address {
	var late []core.Address
	for i, a := range c.prop.Flushers {
		if c.done {
			break
		}
		if (c.cut == nil && c.reports[i] == nil) || (c.cut != nil && !c.ready[i]) {
			late = append(late, a)
		}
	}
	return late
}

// OnReport takes a flusher's report. When it was the last one it returns the Cut to send to every flusher.
func (c *Coordinator) OnReport(from core.Address, m *pdu.Report) *pdu.Cut {
	i := slices.Index(c.prop.Flushers, from)
	if i < 0 || c.cut != nil || c.reports[i] != nil || m.Next != c.prop.Next.ID ||
		len(m.Holdings) != c.prop.Base.View.Size() {
		return nil
	}
	c.reports[i] = m
	if c.missing--; c.missing > 0 {
		return nil
	}
	c.missing = len(c.prop.Flushers)
	c.cut = c.fix()
	return c.cut
}

// Keep returns a member that must not leave yet: nobody who stays has the group's state, and it does. It is known once
// all have reported; the zero address means that the change can go on.
func (c *Coordinator) Keep() core.Address {
	keep := core.NoAddress
	for i, a := range c.prop.Flushers {
		rep := c.reports[i]
		if c.prop.Next.Size() == 0 || rep == nil || !rep.HasState {
			continue
		}
		if c.prop.Next.Contains(a) {
			return core.NoAddress
		}
		if keep.IsZero() {
			keep = a
		}
	}
	return keep
}

// fix computes, for each stream, the longest prefix that the flushers together hold, and who holds what others lack.
func (c *Coordinator) fix() *pdu.Cut {
	n := c.prop.Base.View.Size()
	cut := &pdu.Cut{
		Lid: c.prop.Base.Lid, Next: c.prop.Next.ID, Cut: make([]core.Seq, n), Segments: make([][]pdu.Segment, n),
	}
	ranks := make([]core.Rank, len(c.prop.Flushers))
	for i, a := range c.prop.Flushers {
		ranks[i] = c.prop.Base.View.Rank(a)
	}
	for r := range n {
		least := c.reports[0].Holdings[r].ReceivedTo
		for _, rep := range c.reports {
			least = min(least, rep.Holdings[r].ReceivedTo)
		}
		at := least
		for {
			best, holder := at, core.NoRank
			for i, rep := range c.reports {
				if to := reach(&rep.Holdings[r], at); to > best {
					best, holder = to, ranks[i]
				}
			}
			if holder == core.NoRank {
				break
			}
			cut.Segments[r] = append(cut.Segments[r], pdu.Segment{Last: best, Holder: holder})
			at = best
		}
		cut.Cut[r] = at
	}
	return cut
}

// reach returns how far a member's holding goes without a gap from just above at; at itself when it lacks the next
// packet.
func reach(h *pdu.Holding, at core.Seq) core.Seq {
	if h.ReceivedTo > at {
		at = h.ReceivedTo
	}
	for _, i := range h.Islands {
		if i.First > at+1 {
			break
		}
		at = max(at, i.Last)
	}
	return at
}

// OnReady takes a flusher's readiness. When it was the last one it returns the decision to ask the ORACLE to commit.
func (c *Coordinator) OnReady(from core.Address, m *pdu.Ready) *pdu.Decision {
	i := slices.Index(c.prop.Flushers, from)
	if i < 0 || c.cut == nil || c.ready[i] || m.Next != c.prop.Next.ID {
		return nil
	}
	c.ready[i] = true
	if c.missing--; c.missing > 0 {
		return nil
	}
	c.done = true
	return c.decision()
}

// decision completes the proposal: the cut, and who gets its state from whom. A member whose state is on its way from a
// member that stays goes on waiting for it.
func (c *Coordinator) decision() *pdu.Decision {
	b := c.prop.Base
	d := &pdu.Decision{
		Name: b.Name, Lid: b.Lid, Channel: b.Channel, SafeCopies: b.SafeCopies, Prev: b.View.ID,
		View: c.prop.Next, Cut: c.cut.Cut,
	}
	has := make(map[core.Address]*pdu.Report, len(c.reports))
	for i, a := range c.prop.Flushers {
		has[a] = c.reports[i]
	}
	for _, m := range c.prop.Next.Members {
		if rep := has[m]; rep != nil && rep.HasState {
			d.Source = m
			break
		}
	}
	for _, m := range c.prop.Next.Members {
		rep := has[m]
		if rep != nil && (rep.HasState || c.prop.Next.Contains(rep.Source)) {
			continue
		}
		d.Stateless = append(d.Stateless, m)
	}
	if d.Source.IsZero() && len(d.Stateless) > 0 { // nobody has any state: the eldest makes a new one
		d.Source, d.Stateless = d.Stateless[0], d.Stateless[1:]
	}
	return d
}
