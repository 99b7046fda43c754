package member

import (
	"slices"

	"github.com/khamsin-io/khamsin/vsync/core"
	"github.com/khamsin-io/khamsin/vsync/internal/pdu"
)

// advance proposes a group's next view when there is something to change. A proposal that is pending is overtaken when
// urgent, else it is waited for.
func (r *Registry) advance(g *group, out []Effect, urgent bool) []Effect {
	if g.pending != nil && !urgent {
		return out
	}
	withdrawn := g.pending != nil // members have stopped for it: they need a next view even if nothing changes any more
	g.pending = nil
	if g.current == nil {
		return r.found(g, out)
	}
	survivors := make([]core.Address, 0, g.current.View.Size())
	for _, m := range g.current.View.Members {
		if r.Alive(m) {
			survivors = append(survivors, m)
		}
	}
	if len(survivors) == 0 {
		return r.end(g, out)
	}
	gone, joining := r.gone(g, survivors), g.joining
	if g.terminated {
		joining = nil
	}
	if len(gone) == 0 && len(joining) == 0 && !withdrawn {
		return out
	}
	g.lastView++
	p := &pdu.Propose{
		Base: g.current, Next: g.current.View.Next(g.lastView, gone, joining), Flushers: survivors,
	}
	p.Coordinator = survivors[0]
	for _, s := range survivors {
		if !gone[s] {
			p.Coordinator = s
			break
		}
	}
	g.pending = p
	return append(out, Effect{Kind: EffectPropose, Propose: p})
}

// gone returns the members that will not be in the next view: the failed, and those who leave, unless the group would
// lose its state with them. Who owes its state to joiners leaves when it has handed it over; and when all members leave
// while others wait to join, the joiners come first. A terminated group loses everyone.
func (r *Registry) gone(g *group, survivors []core.Address) map[core.Address]bool {
	gone := make(map[core.Address]bool)
	leavers := 0
	for _, m := range g.current.View.Members {
		switch {
		case !r.Alive(m) || g.terminated:
			gone[m] = true
		case slices.Contains(g.leaving, m):
			leavers++
		}
	}
	if leavers == len(survivors) && len(g.joining) > 0 {
		return gone
	}
	for _, a := range g.leaving {
		if !slices.ContainsFunc(g.debts, func(d debt) bool { return d.who == a }) {
			gone[a] = true
		}
	}
	return gone
}

// found makes a group's first view of everyone who waits to join; there is nothing to flush, so it is decided at once.
func (r *Registry) found(g *group, out []Effect) []Effect {
	if len(g.joining) == 0 {
		return out
	}
	g.lastView++
	none := &core.View{Group: core.GroupIDOf(g.name)}
	v := none.Next(g.lastView, nil, g.joining)
	d := &pdu.Decision{
		Name: g.name, Lid: g.lid, Channel: g.channel, SafeCopies: g.safeCopies, View: v,
		Source: v.Members[0], Stateless: v.Members[1:],
	}
	r.install(g, d)
	return append(out, Effect{Kind: EffectDecided, Decision: d, Members: v.Members})
}

// end dissolves a group that has no members any more. Whoever still waits to join founds it anew, under a fresh number,
// so that packets of the old life are not taken for packets of the new one.
func (r *Registry) end(g *group, out []Effect) []Effect {
	g.current, g.pending, g.leaving, g.debts, g.terminated = nil, nil, nil, nil, false
	g.lid = r.nextLid
	r.nextLid++
	return r.found(g, out)
}

// Outstanding returns, for a new leader, everything that should be told again: the newest decision of every group and
// the pending proposals. What was told before is told twice; everyone ignores what he knows.
func (r *Registry) Outstanding() []Effect {
	var out []Effect
	for _, g := range r.groups {
		if g.final != nil {
			out = append(out, Effect{Kind: EffectDecided, Decision: g.final})
		}
		if g.current != nil {
			out = append(out, Effect{Kind: EffectDecided, Decision: g.current, Members: g.current.View.Members})
		}
		if g.pending != nil {
			out = append(out, Effect{Kind: EffectPropose, Propose: g.pending})
		}
		if g.gathering {
			out = append(out, Effect{Kind: EffectGather, Group: g.name})
		}
	}
	return out
}
