package frame

import (
	"sync/atomic"

	"github.com/khamsin-io/khamsin/dataplane/invariant"
	"github.com/khamsin-io/khamsin/dataplane/ring"
)

// Pool holds the free chunks (runs) of one direction. One goroutine at a time owns it and calls its methods; the chunk
// freed last is got first, since it is warm in the cache.
type Pool struct {
	arena *Arena
	name  string
	first uint32 // the pool's chunks are first, first+step, … of which there are count
	step  uint32
	count int

	stack []uint32 // stack[:top] are the chunks that can be got
	top   int
	home  *ring.MPSC[uint32] // chunks that other goroutines released; its capacity is at least count, so it never fills
}

// init makes every chunk of the pool free, the lowest on top.
func (p *Pool) init(a *Arena, name string, first, step uint32, count int) {
	*p = Pool{arena: a, name: name, first: first, step: step, count: count, top: count}
	p.stack = make([]uint32, count)
	p.home = ring.NewMPSC[uint32](max(1, count))
	for i := range count {
		chunk := first + uint32(count-1-i)*step
		p.stack[i] = chunk
		a.refs[chunk] = 0
	}
}

// Get returns a frame with one reference, Off at the headroom and Len 0; false when none is free.
func (p *Pool) Get() (Frame, bool) {
	if p.top == 0 && !p.reclaim() {
		return Frame{}, false
	}
	p.top--
	chunk := p.stack[p.top]
	p.arena.checkPoison(chunk)
	p.arena.setRefs(chunk, 1)
	return Frame{Chunk: chunk, Off: uint32(p.arena.cfg.Headroom)}, true
}

// Release drops one reference of f, a frame of either pool. With the last one a chunk of this pool becomes free at
// once, and one of the other pool goes home over its ring.
func (p *Pool) Release(f Frame) {
	a := p.arena
	if a.poolOf(f.Chunk) != p {
		a.Release(f)
		return
	}
	if uint(f.Chunk) >= uint(len(a.refs)) {
		a.failFree("release", f)
	}
	switch refs := &a.refs[f.Chunk]; atomic.LoadInt32(refs) {
	case 1: // ours is the only reference: nobody else can change the count
		a.setRefs(f.Chunk, 0)
	default:
		if n := atomic.AddInt32(refs, -1); n > 0 {
			return
		} else if n < 0 {
			a.failFree("release", f)
		}
	}
	a.poison(f.Chunk)
	if p.top == len(p.stack) {
		invariant.Fail("frame: %s pool got %+v home with all its %d chunks free", p.name, f, p.count)
	}
	p.stack[p.top] = f.Chunk
	p.top++
}

// Free returns how many frames could be got now. It first takes in what other goroutines released, so calling it once
// per batch keeps the frames in use few and warm.
func (p *Pool) Free() int {
	p.reclaim()
	return p.top
}

// Cap returns how many frames the pool has, free or not. Any goroutine may call it.
func (p *Pool) Cap() int { return p.count }

// reclaim takes in what other goroutines released and tells whether a frame can be got.
func (p *Pool) reclaim() bool {
	p.top += p.home.PopN(p.stack[p.top:])
	return p.top > 0
}

// sendHome hands a chunk without references back to the pool's owner. Any goroutine.
func (p *Pool) sendHome(chunk uint32) {
	if !p.home.Push(chunk) {
		invariant.Fail("frame: %s pool's ring of %d is full at chunk %d of %d", p.name, p.home.Cap(), chunk, p.count)
	}
}

// outstanding counts the chunks in use.
func (p *Pool) outstanding() int {
	n := 0
	for i := range p.count {
		if atomic.LoadInt32(&p.arena.refs[p.first+uint32(i)*p.step]) > 0 {
			n++
		}
	}
	return n
}
