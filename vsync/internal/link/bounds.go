package link

import (
	"slices"

	"github.com/khamsin-io/khamsin/dataplane/wire"
)

// lanesMax is how many lanes one peer may open.
const lanesMax = 1 << 16

// tooMany tells whether a lane is new, and its peer has opened as many as it may.
func (l *Links) tooMany(id laneID) bool {
	p := l.peers[id.peer]
	return p != nil && len(p.lanes) >= lanesMax &&
		!slices.ContainsFunc(p.lanes, func(x *lane) bool { return x.id == id })
}

// Mine tells whether a packet of a lane is meant for this incarnation and comes from one that is not closed.
func (l *Links) Mine(h *wire.Header) bool {
	if h.Rank != uint32(l.cfg.Incarnation&incMask) || h.View == 0 || l.dead[h.View] || h.Aux >= uint32(kinds) {
		l.Count.Foreign++
		return false
	}
	return true
}
