package host

import (
	"context"
	"sync"
	"sync/atomic"
)

// room is where goroutines wait after the engine said Full. The owner shuts it when the engine says so and opens it
// when the engine reports room again; nobody who came in between sleeps on.
type room struct {
	shut    atomic.Bool
	mu      sync.Mutex
	waiting []chan struct{} // one per waiter, capacity 1
	free    []chan struct{}
}

// close makes later waiters sleep. Owner only.
func (r *room) close() { r.shut.Store(true) }

// open lets all waiters go on. Owner only.
func (r *room) open() {
	if !r.shut.Swap(false) {
		return
	}
	r.mu.Lock()
	for i, w := range r.waiting {
		w <- struct{}{}
		r.waiting[i] = nil
	}
	r.waiting = r.waiting[:0]
	r.mu.Unlock()
}

// wait sleeps until the room opens, ctx ends or over is closed. It returns nil when the caller should try again, and
// also when over was closed: the next try says why.
func (r *room) wait(ctx context.Context, over <-chan struct{}) error {
	w := r.enter()
	if w == nil {
		return nil
	}
	select {
	case <-w:
		r.giveBack(w)
		return nil
	case <-over:
		r.leave(w)
		return nil
	case <-ctx.Done():
		r.leave(w)
		return context.Cause(ctx)
	}
}

// enter notes a waiter, or returns nil when the room is open.
func (r *room) enter() chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.shut.Load() {
		return nil
	}
	var w chan struct{}
	if n := len(r.free); n > 0 {
		w, r.free = r.free[n-1], r.free[:n-1]
	} else {
		w = make(chan struct{}, 1)
	}
	r.waiting = append(r.waiting, w)
	return w
}

func (r *room) giveBack(w chan struct{}) {
	r.mu.Lock()
	r.free = append(r.free, w)
	r.mu.Unlock()
}

// leave takes back a waiter that did not sleep to the end.
func (r *room) leave(w chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range r.waiting {
		if r.waiting[i] == w {
			r.waiting = append(r.waiting[:i], r.waiting[i+1:]...)
			r.free = append(r.free, w)
			return
		}
	}
	<-w // opened meanwhile
	r.free = append(r.free, w)
}
