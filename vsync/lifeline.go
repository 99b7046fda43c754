package vsync

import (
	"github.com/khamsin-io/khamsin/dataplane"
	"github.com/khamsin-io/khamsin/vsync/internal/lifeline"
)

// lineKeeper is the keeper of lifelines as the host sees it.
type lineKeeper struct{ *lifeline.Keeper }

// Start begins to let watchers in.
func (k lineKeeper) Start(report func(incarnation uint64, alive bool)) { k.Keeper.Start(report) }

// openLines makes the keeper of lifelines, nil when there are none: they are turned off, or the transport has no
// addresses of a network, or the process may not listen there. Then silence alone tells that a process is dead.
func (s *System) openLines(caps dataplane.Caps) *lifeline.Keeper {
	if s.config.NoLifelines || caps.Name == memName {
		return nil
	}
	k, err := lifeline.Open(s.self)
	if err != nil {
		s.log.Warn("no lifelines: dead processes will be noticed by their silence", "err", err)
		return nil
	}
	return k
}

// memName is what the transport inside a process calls itself.
const memName = "mem"

// closeLines closes a keeper that was never started.
func closeLines(k *lifeline.Keeper) {
	if k != nil {
		k.Close(false)
	}
}
