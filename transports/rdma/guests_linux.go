//go:build cgo && rdma

package rdma

// #include "verbs.h"
import "C"

import (
	"errors"
	"sync"
	"sync/atomic"

	"github.com/khamsin-io/khamsin/dataplane"
	"github.com/khamsin-io/khamsin/dataplane/clock"
	"github.com/khamsin-io/khamsin/dataplane/frame"
)

// largeBuffers is the receiver's part of large frames: a second shared receive queue, whose buffers hold the longest.
// One that is used up holds the senders up, so nothing is taken out of it but what is handed to Receive's caller.
type largeBuffers struct {
	srq    handle
	board  *board
	depth  int
	posted int    // buffers with the device
	first  uint32 // chunk of the arena's large pools; without them there is none

	drained atomic.Uint64 // how often the receiver found no more completions
}

// empty tells whether the device has no buffer, and so no completion will come.
func (b *largeBuffers) empty() bool { return b.depth > 0 && b.posted == 0 }

// topUp lends the device as many large buffers as are missing, when a quarter is.
func (r *receiver) topUp() error {
	b := &r.large
	if b.depth-b.posted < max(1, b.depth/4) {
		return nil
	}
	c := r.t.arena.Config()
	n := 0
	for n < batchMax && b.posted+n < b.depth {
		f, ok := r.t.arena.LargeRx().Get()
		if !ok {
			break
		}
		from := uintptr(f.Chunk)*uintptr(c.ChunkSize) + uintptr(c.Headroom)
		b.board.room[n] = C.kh_rr{
			id: C.uint64_t(f.Chunk), addr: C.uint64_t(address(r.t.arena.Memory()) + from),
			len: C.uint32_t(r.t.cfg.Large), lkey: r.lkey,
		}
		r.lent[f.Chunk] = true
		n++
	}
	if n == 0 {
		return nil
	}
	r.calls.Inc()
	posted, _, err := b.board.refill(b.srq, r.queue.cq, n, 0)
	b.posted += posted
	r.buffers.Add(uint64(posted))
	return err
}

// readLarge makes a packet of a large frame's completion; false when it is none, which is counted.
func (r *receiver) readLarge(wc *C.kh_wc, chunk uint32, p *dataplane.Packet) bool {
	r.large.posted--
	r.lent[chunk] = false
	f := frame.Frame{Chunk: chunk, Off: uint32(r.t.cfg.Arena.Headroom), Len: uint32(wc.len)}
	from, known := r.t.keeper.guests.find(uint32(wc.pair))
	switch {
	case wc.status != statusSuccess:
		if wc.status == statusLength {
			r.oversize.Inc()
		}
		r.t.keeper.receive(letter{number: uint32(wc.pair)})
	case !known: // of a rail that was given up
		r.foreign.Inc()
	case wc.len == 0:
		r.undersize.Inc()
	default:
		r.largeCame.Inc()
		*p = dataplane.Packet{Frame: f, From: from}
		return true
	}
	r.t.arena.LargeRx().Release(frame.Frame{Chunk: chunk})
	return false
}

// guest is the receiving end of another process's rail.
type guest struct {
	from   dataplane.Endpoint
	pair   handle
	number uint32
	ask    railWord // what it was made for
	answer railWord
	used   uint64

	leaving bool
	drained uint64     // of the receiver when the queue pair was put into error
	since   clock.Time // when that was
}

// guests are the receiving ends. The keeper makes and ends them; the receiver looks them up.
//
// A queue pair on a shared receive queue is put into error first, and destroyed when the receiver has taken its
// completions: some drivers throw away those that are left, and the buffers that they are of would be lost.
type guests struct {
	t        *Transport
	mu       sync.Mutex
	byNumber map[uint32]*guest
	byPeer   map[dataplane.Endpoint]*guest
	turn     uint64
	leaving  []*guest // the keeper's
}

func (g *guests) init(t *Transport) {
	g.t = t
	g.byNumber, g.byPeer = make(map[uint32]*guest), make(map[dataplane.Endpoint]*guest)
}

// find returns the process that sends by a queue pair.
func (g *guests) find(number uint32) (from dataplane.Endpoint, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	one := g.byNumber[number]
	if one == nil {
		return from, false
	}
	g.turn++
	one.used = g.turn
	return one.from, true
}

// ask gives another process a queue pair to send to, in the place of the one that it had.
func (g *guests) ask(from dataplane.Endpoint, w railWord) {
	g.mu.Lock()
	old := g.byPeer[from]
	if old != nil && old.ask == w {
		g.mu.Unlock()
		g.t.keeper.answer(from, w, old.answer)
		return
	}
	if old != nil {
		g.remove(old)
	}
	full := len(g.byPeer)+len(g.leaving) >= g.t.cfg.Rails
	g.mu.Unlock()
	if full {
		g.evict()
		return // it asks again
	}
	one, err := g.open(from, w)
	if err != nil {
		g.t.log.Warn("rdma: no rail for a process that asks for one", "from", from, "error", err)
		g.t.keeper.answer(from, w, railWord{kind: railEnd, attempt: w.attempt})
		return
	}
	g.mu.Lock()
	g.turn++
	one.used = g.turn
	g.byNumber[one.number], g.byPeer[from] = one, one
	g.mu.Unlock()
	g.t.keeper.answer(from, w, one.answer)
}

func (g *guests) open(from dataplane.Endpoint, w railWord) (*guest, error) {
	qp, err := g.t.openRailPair(1)
	if err != nil {
		return nil, err
	}
	psn := randomPSN()
	if err := g.t.connectPair(qp, psn, pairInfo{gid: from.IP, number: w.number, psn: w.psn}, railTimer); err != nil {
		return nil, errors.Join(err, closePair(qp))
	}
	number := uint32(C.kh_qp_num(qp))
	answer := railWord{kind: railAnswer, attempt: w.attempt, number: number, psn: psn, large: uint32(g.t.caps.Large)}
	return &guest{from: from, pair: qp, number: number, ask: w, answer: answer}, nil
}

// evict ends the guest that has sent nothing for longest.
func (g *guests) evict() {
	if len(g.leaving) > 0 {
		return // there will be room soon
	}
	g.mu.Lock()
	var oldest *guest
	for _, one := range g.byPeer {
		if oldest == nil || one.used < oldest.used {
			oldest = one
		}
	}
	if oldest != nil {
		g.remove(oldest)
	}
	g.mu.Unlock()
	if oldest != nil {
		g.t.keeper.answer(oldest.from, oldest.ask, railWord{kind: railEnd, attempt: oldest.ask.attempt})
	}
}

// remove ends a guest, which has not been ended before. What it sent is still received. The caller holds mu.
func (g *guests) remove(one *guest) {
	if err := failPair(one.pair); err != nil {
		g.t.log.Warn("rdma: end of a rail", "from", one.from, "error", err)
	}
	if g.byPeer[one.from] == one {
		delete(g.byPeer, one.from)
	}
	one.leaving = true
	one.drained, one.since = g.t.receiver.large.drained.Load(), g.t.clock.Now()
	g.leaving = append(g.leaving, one)
}

// end ends the guest of an attempt.
func (g *guests) end(from dataplane.Endpoint, attempt uint64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if one := g.byPeer[from]; one != nil && one.ask.attempt == attempt {
		g.remove(one)
	}
}

// failed ends the guest whose queue pair failed, and tells its process.
func (g *guests) failed(number uint32) {
	g.mu.Lock()
	one := g.byNumber[number]
	fresh := one != nil && !one.leaving
	if fresh {
		g.remove(one)
	}
	g.mu.Unlock()
	if fresh {
		g.t.log.Warn("rdma: the rail of large frames from a process failed", "from", one.from)
		g.t.keeper.answer(one.from, one.ask, railWord{kind: railEnd, attempt: one.ask.attempt})
	}
}

// bury destroys the queue pairs whose completions the receiver has taken, and tells whether some are left.
func (g *guests) bury() bool {
	if len(g.leaving) == 0 {
		return false
	}
	drained, now := g.t.receiver.large.drained.Load(), g.t.clock.Now()
	left := g.leaving[:0]
	for _, one := range g.leaving {
		if drained < one.drained+2 || now < one.since.Add(keeperTick) {
			left = append(left, one)
			continue
		}
		g.mu.Lock()
		delete(g.byNumber, one.number)
		g.mu.Unlock()
		if err := closePair(one.pair); err != nil {
			g.t.log.Warn("rdma: end of a rail", "from", one.from, "error", err)
		}
	}
	clear(g.leaving[len(left):])
	g.leaving = left
	return len(left) > 0
}

// close destroys all. The keeper has ended.
func (g *guests) close() error {
	var errs []error
	for _, one := range g.byPeer {
		errs = append(errs, closePair(one.pair))
	}
	for _, one := range g.leaving {
		errs = append(errs, closePair(one.pair))
	}
	clear(g.byPeer)
	clear(g.byNumber)
	g.leaving = nil
	return errors.Join(errs...)
}
