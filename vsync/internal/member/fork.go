package member

import (
	"slices"
	"time"

	"github.com/khamsin-io/khamsin/dataplane/clock"
	"github.com/khamsin-io/khamsin/vsync/core"
)

// partShift is where a view's number names the part of a divided system in which it was proposed.
const partShift = 32

// fork makes this ORACLE member go on alone when no majority of the ORACLE can be reached and the configuration says
// that partitions are to be ignored. The processes that it knows of and can reach are its part of the system; others
// are removed as failed. Several parts may go on so, and their groups' states diverge. To keep them apart for good,
// even when the network is whole again, each part has a number that stands in the views it proposes: a packet of one
// part belongs to no view of another, and no part listens to what another says of failures.
func (m *Machine) fork(now clock.Time) {
	reg := m.cons.Registry
	reg.fork(nextPart(reg.part, m.cfg.Self), m.lead.epoch+1)
	m.cons = found(m.cfg.Self, reg)
	m.lead = idle()
	m.part, m.oracle, m.turn = reg.part, []core.Address{m.cfg.Self}, 0
	m.heardAt = now
	m.hooks.Warn("no majority of the ORACLE can be reached and partitions are ignored: this part goes on alone")
}

// nextPart returns a number for the part that an ORACLE member founds: a generation and some bits of its incarnation.
func nextPart(part uint32, self core.Address) uint32 {
	x := self.Incarnation * 0x9e3779b97f4a7c15
	return (part>>16+1)<<16 | uint32(x>>48)
}

// enter makes this process follow a part that was founded by another ORACLE member on its side, and tells whether a
// Welcome of that part counts.
func (m *Machine) enter(part uint32, oracle []core.Address) bool {
	if part < m.part {
		return false
	}
	if part > m.part && m.cons != nil && !slices.Contains(oracle, m.cfg.Self) {
		m.cons, m.lead = nil, idle()
	}
	m.part = part
	return true
}

// forkAfter returns the silence of the ORACLE after which this process gives up, or goes on alone: a member of the
// ORACLE when it may, the elder ones sooner; others wait for one of them to do so.
func (m *Machine) forkAfter() time.Duration {
	switch {
	case !m.cfg.IgnoreCut:
		return m.cfg.OracleLost
	case m.cons != nil && m.cons.Electable():
		return m.cfg.OracleLost + 2*m.cfg.Request*(m.place()+1)
	}
	return 2*m.cfg.OracleLost + 16*m.cfg.Request
}

// lost is called when the ORACLE's majority was not heard of for too long.
func (m *Machine) lost(now clock.Time) {
	if m.cfg.IgnoreCut && m.cons != nil && m.cons.Electable() {
		m.fork(now)
		return
	}
	m.state = over
	m.hooks.Lost(now)
}

// fork renumbers the registry for a part of a divided system. Changes of views that were under way are proposed anew.
func (r *Registry) fork(part uint32, base uint64) {
	r.part, r.base = part, base
	for _, g := range r.groups {
		g.lastView = core.ViewID(part)<<partShift | g.lastView&(1<<partShift-1)
		if g.pending != nil {
			r.advance(g, nil, true)
		}
	}
}

// Part returns the number of the part of a divided system that this process is in; 0 while it is whole.
func (m *Machine) Part() uint32 { return m.part }

// SamePart tells whether a later view may follow a present one: it was proposed in the same part of the system, or in
// the one that this process is in.
func (m *Machine) SamePart(later, present core.ViewID) bool {
	part := uint32(later >> partShift)
	return part == uint32(present>>partShift) || part == m.part
}
