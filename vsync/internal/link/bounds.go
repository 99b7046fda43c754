package link

import "slices"

// lanesMax is how many lanes one peer may open.
const lanesMax = 1 << 16

// tooMany tells whether a lane is new, and its peer has opened as many as it may.
func (l *Links) tooMany(id laneID) bool {
	p := l.peers[id.peer]
	return p != nil && len(p.lanes) >= lanesMax &&
		!slices.ContainsFunc(p.lanes, func(x *lane) bool { return x.id == id })
}
