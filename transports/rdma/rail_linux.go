//go:build cgo && rdma

package rdma

// #include <stdlib.h>
// #include "verbs.h"
import "C"

import (
	"time"

	"github.com/khamsin-io/khamsin/dataplane"
	"github.com/khamsin-io/khamsin/dataplane/clock"
	"github.com/khamsin-io/khamsin/dataplane/frame"
)

const (
	railDepth = 16 // frames that are on one rail at a time

	// railTimer is the retransmission timer: 67 ms, so that after six retries a rail breaks in half a second, which
	// costs less than waiting longer, for it is made anew. railPatience is longer: how long a full rail without
	// progress, or the want of room for another rail, holds the sender up before frames are dropped.
	railTimer    = 14
	railPatience = 600 * time.Millisecond

	// railStall is how long a rail may make no progress until it is given up. A device alone never does when the
	// receiver lives but takes nothing; who is dead is for others to say.
	railStall = 10 * time.Second
)

// States of a rail.
const (
	railWanted = iota // the keeper shall make its queue pair
	railAsking        // the other side has been asked for one
	railReady
	railBroken // the keeper shall take it down
	railNone   // there was no answer, or it broke; not tried again for a while
)

// rail is the way of large frames to one process: a reliable queue pair, connected when it is first needed. The frames
// from head up to posted are with the device, those from there up to tail wait until the rail is ready.
type rail struct {
	to      dataplane.Endpoint
	serial  uint32 // in the upper half of work requests' numbers
	state   int
	why     error // it is broken
	pair    handle
	psn     uint32
	attempt uint64
	large   int // longest frame that the other side takes; 0 while not known

	flight             [railDepth]frame.Frame
	head, posted, tail uint32
	dirty              bool // in rails.fresh

	moved clock.Time // its last progress, or change of state
	asked clock.Time // when the other side was last asked
	until clock.Time // of railNone
	used  uint64     // rails.turn of the last frame
}

func (l *rail) busy() bool {
	return l.head != l.tail || l.state == railWanted || l.state == railAsking || l.state == railBroken
}

// rails are a sender's rails. All of it is guarded by the sender's mu; the keeper makes queue pairs and takes them
// down.
type rails struct {
	s        *sender
	queue    queue
	board    *board
	table    map[dataplane.Endpoint]*rail
	bySerial map[uint32]*rail
	last     *rail
	fresh    []*rail // with frames to post
	serial   uint32
	turn     uint64
	inFlight int        // frames with the device
	watched  bool       // the keeper looks again soon
	full     clock.Time // since when there has been no room for a rail that was wanted; 0: there was
	leaving  bool       // a rail is being given up for another
	keeper   *keeper
	stall    time.Duration // railStall, but in a test
	letter   handle        // railWordBytes in the memory of C
}

func (ls *rails) init(s *sender, max int) {
	ls.s, ls.stall = s, railStall
	ls.board = newBoard(railDepth, 0)
	ls.letter = C.calloc(1, railWordBytes)
	ls.table, ls.bySerial = make(map[dataplane.Endpoint]*rail), make(map[uint32]*rail)
	ls.fresh = make([]*rail, 0, max)
}

// find returns the rail to a process, nil when there is no room for another now.
func (ls *rails) find(to dataplane.Endpoint) *rail {
	if ls.last != nil && ls.last.to == to {
		return ls.last
	}
	l := ls.table[to]
	if l == nil {
		if len(ls.table) >= ls.s.t.cfg.Rails {
			if ls.reap(); !ls.evict() {
				return nil
			}
		}
		ls.serial++
		l = &rail{to: to, serial: ls.serial, moved: ls.s.t.clock.Now()}
		ls.table[to], ls.bySerial[l.serial] = l, l
		ls.keeper.poke()
	}
	ls.last = l
	return l
}

// ofAttempt returns the rail of an attempt, if it is to that host.
func (ls *rails) ofAttempt(from dataplane.Endpoint, attempt uint64) *rail {
	for _, l := range ls.table {
		if l.attempt == attempt && l.to.IP == from.IP && l.pair != nil {
			return l
		}
	}
	return nil
}

// evict has the rail taken down that has been without work for longest, or forgets one at once that has no queue pair.
// It returns true when there is room now.
func (ls *rails) evict() bool {
	var oldest *rail
	for _, l := range ls.table {
		if !l.busy() && (oldest == nil || l.used < oldest.used) {
			oldest = l
		}
	}
	switch {
	case oldest == nil:
		return false
	case oldest.state == railNone:
		ls.forget(oldest)
		return true
	}
	if !ls.leaving {
		ls.leaving = true
		ls.fail(oldest, nil)
	}
	return false
}

// forget ends a rail without a queue pair and without frames.
func (ls *rails) forget(l *rail) {
	delete(ls.table, l.to)
	delete(ls.bySerial, l.serial)
	if ls.last == l {
		ls.last = nil
	}
}

// fail leaves a rail to the keeper, who takes it down. Without an error it was not at fault.
func (ls *rails) fail(l *rail, why error) {
	if l.state == railBroken {
		return
	}
	l.state, l.why, l.moved = railBroken, why, ls.s.t.clock.Now()
	ls.keeper.poke()
}

// push takes a large frame to a process. It returns held when the frame may be taken soon, and otherwise false when the
// frame is not, and is to be dropped.
func (ls *rails) push(to dataplane.Endpoint, f frame.Frame) (ok, held bool) {
	now := ls.s.t.clock.Now()
	l := ls.find(to)
	if l == nil {
		if ls.full == 0 {
			ls.full = now
		}
		return false, now < ls.full.Add(railPatience)
	}
	ls.full = 0
	if l.state == railNone {
		if now < l.until {
			return false, false
		}
		l.state, l.moved = railWanted, now
		ls.keeper.poke()
	}
	if l.large > 0 && int(f.Len) > l.large {
		return false, false
	}
	if l.tail-l.head == railDepth && l.state == railReady {
		ls.reap()
	}
	if l.tail-l.head == railDepth || l.state == railBroken {
		return false, now < l.moved.Add(railPatience)
	}
	if l.head == l.tail {
		l.moved = now
		if !ls.watched {
			ls.keeper.poke()
		}
	}
	ls.turn++
	l.used = ls.turn
	l.flight[l.tail%railDepth] = f
	l.tail++
	ls.mark(l)
	return true, false
}

// mark notes that a rail has frames to post.
func (ls *rails) mark(l *rail) {
	if !l.dirty && l.state == railReady && l.posted != l.tail {
		l.dirty = true
		ls.fresh = append(ls.fresh, l)
	}
}

// flush posts what was pushed.
func (ls *rails) flush() {
	for _, l := range ls.fresh {
		l.dirty = false
		if l.state == railReady {
			ls.post(l)
		}
	}
	ls.fresh = ls.fresh[:0]
}

// post posts the frames of a rail that is ready, in one call, and handles completions of all rails.
func (ls *rails) post(l *rail) {
	n := 0
	for at := l.posted; at != l.tail; at++ {
		payload := ls.s.t.arena.Bytes(l.flight[at%railDepth])
		ls.board.work[n] = C.kh_wr{
			id: C.uint64_t(uint64(l.serial)<<32 | uint64(at)), addr: C.uint64_t(address(payload)),
			len: C.uint32_t(len(payload)), lkey: ls.s.lkey, op: C.KH_FRAME,
		}
		n++
	}
	if n == 0 {
		return
	}
	ls.board.work[n-1].flags = C.KH_SIGNALED
	ls.s.posts.Inc()
	ls.s.signalled.Inc()
	ls.s.calls.Inc()
	posted, completed, errno, err := ls.board.post(l.pair, ls.queue.cq, n)
	l.posted += uint32(posted)
	ls.inFlight += posted
	ls.s.requests.Add(uint64(posted))
	ls.s.largeSent.Add(uint64(posted))
	if posted < n {
		ls.fail(l, fault("post a large frame", C.int(errno)))
	}
	if err != nil {
		ls.fail(l, err)
	}
	ls.complete(completed)
}

// reap handles the completions that are there.
func (ls *rails) reap() {
	if ls.inFlight == 0 {
		return
	}
	ls.s.calls.Inc()
	_, completed, _, err := ls.board.post(nil, ls.queue.cq, 0)
	if err != nil {
		ls.s.t.log.Warn("rdma: completions of large frames", "error", err)
	}
	ls.complete(completed)
}

// complete handles the first n completions of the board.
func (ls *rails) complete(n int) {
	for i := range n {
		wc := &ls.board.done[i]
		l := ls.bySerial[uint32(wc.id>>32)]
		at := uint32(wc.id)
		if l == nil || at-l.head >= l.posted-l.head {
			continue // of a rail that was taken down
		}
		if wc.status != statusSuccess {
			ls.fail(l, failure(uint32(wc.status)))
			continue // the frame is lost, or not; the keeper counts it
		}
		for l.head != at+1 {
			ls.land(l)
		}
		l.moved = ls.s.t.clock.Now()
	}
}

// land releases the first frame of a rail.
func (ls *rails) land(l *rail) {
	slot := &l.flight[l.head%railDepth]
	if ls.s.owner {
		ls.s.t.arena.LargeTx().Release(*slot)
	} else {
		ls.s.t.arena.Release(*slot)
	}
	*slot = frame.Frame{}
	if l.head == l.posted {
		l.posted++
	} else {
		ls.inFlight--
	}
	l.head++
}

// drop releases all frames of a rail whose queue pair is gone, and counts them as lost.
func (ls *rails) drop(l *rail) {
	for l.head != l.tail {
		ls.s.dropped.Inc()
		ls.land(l)
	}
}

// close releases what is left. All queue pairs are gone.
func (ls *rails) close() {
	for _, l := range ls.table {
		ls.drop(l)
	}
	clear(ls.table)
	clear(ls.bySerial)
	ls.last = nil
	if ls.board != nil {
		ls.board.close()
		C.free(ls.letter)
		ls.board = nil
	}
}

// dropLonger drops the waiting frames that the other side, now that it has said what it takes, does not take.
func (ls *rails) dropLonger(l *rail) {
	waiting := l.flight
	head, tail := l.head, l.tail
	l.tail = l.head
	for at := head; at != tail; at++ {
		f := waiting[at%railDepth]
		if int(f.Len) > l.large {
			ls.s.dropped.Inc()
			ls.s.t.arena.Release(f)
			continue
		}
		l.flight[l.tail%railDepth] = f
		l.tail++
	}
}
