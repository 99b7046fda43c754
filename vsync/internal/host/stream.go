package host

import (
	"runtime"
	"sync/atomic"
	"time"

	"github.com/khamsin-io/khamsin/dataplane/clock"
)

// Constants of streams.
const (
	streamGap   = 10 * time.Microsecond // sends that follow each other faster than this are a stream,
	streamAfter = 16                    // when there were so many of them
)

// streams makes the Combining model batch when one goroutine sends faster than the engine's turns are worth: then sends
// only leave their messages in the inbox, and the sweeper takes them along, many in one turn, until none are left. A
// lone message, or a short burst, still leaves in the caller's own turn.
type streams struct {
	on     atomic.Bool // senders leave their messages
	parked atomic.Bool
	bell   chan struct{}
	last   clock.Time // the owner's: of the last send in its caller's turn
	streak int        // the owner's: such sends that followed each other fast
}

// note counts a send in its caller's turn. Owner only.
func (s *streams) note(now clock.Time) {
	fast := now.Sub(s.last) < streamGap
	s.last = now
	if !fast {
		s.streak = 0
		return
	}
	if s.streak++; s.streak >= streamAfter {
		s.streak = 0
		s.on.Store(true)
	}
}

// kick wakes the sweeper if it sleeps.
func (s *streams) kick() {
	if s.parked.Load() && s.parked.CompareAndSwap(true, false) {
		s.bell <- struct{}{} // never blocks: the sweeper takes the stroke before it parks again
	}
}

// sweep is the sweeper: it runs turns as long as there is something in the inbox, then sleeps until the next stream.
func (h *Host) sweep() {
	defer h.workers.Done()
	h.label("sweep")
	s := &h.streams
	for !h.stopping.Load() {
		if h.pending() && h.tryOwn() {
			h.finish(h.begin())
			runtime.Gosched() // to those who fill the inbox, and to the executors that were woken
			continue
		}
		s.on.Store(false)
		s.parked.Store(true)
		// Dekker with stage, which publishes, then looks for the sweeper. What is pending while somebody owns the
		// engine is that owner's.
		if (h.pending() && h.owner.Load() == ownFree || h.stopping.Load()) && s.parked.CompareAndSwap(true, false) {
			continue
		}
		<-s.bell
	}
}
