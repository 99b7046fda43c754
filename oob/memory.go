package oob

import (
	"maps"
	"slices"
	"time"

	"github.com/khamsin-io/khamsin/oob/internal/memory"
)

// leaveWithin is how long an object waits for the memory of transfers that have just been stopped. They leave it at
// once, but on a thread that gives way to others.
const leaveWithin = 20 * time.Millisecond

// awaitMemory waits until transfers that are stopped have left their memory, but not for long: what an object can have
// of that is there already, and fresh memory is slow.
func (s *Store) awaitMemory(x *session) {
	s.mu.Lock()
	leaving := slices.Collect(maps.Keys(s.leaving))
	s.mu.Unlock()
	if len(leaving) == 0 {
		return
	}
	late := time.NewTimer(leaveWithin)
	defer late.Stop()
	for _, other := range leaving {
		select {
		case <-other.released:
		case <-late.C:
			return
		case <-x.ctx.Done():
			return
		}
	}
}

// spares says how much memory is kept.
func (s *settings) spares() memory.Spares {
	heavy := func(work func()) { _ = s.do(func() error { work(); return nil }) }
	return memory.Spares{Most: s.spare, Linger: s.linger, Heavy: heavy}
}
