package vsync

import (
	"context"
	"sync"
)

// Offload carries work from handlers to a goroutine of its own, in order, through a buffer of bounded length: a handler
// that puts work in returns at once while there is room, and waits, so that its group's senders wait, when the worker
// is behind for good.
type Offload[T any] struct {
	work   chan T
	closed chan struct{}
	done   chan struct{}
	once   sync.Once
	puts   sync.RWMutex // held for reading while something is put in
}

// NewOffload starts a worker that calls f for each thing that is put in, one at a time. The buffer holds n things.
func NewOffload[T any](n int, f func(v T)) *Offload[T] {
	o := &Offload[T]{work: make(chan T, max(0, n)), closed: make(chan struct{}), done: make(chan struct{})}
	go func() {
		defer close(o.done)
		for v := range o.work {
			f(v)
		}
	}()
	return o
}

// Put gives the worker a thing to do. It waits while the buffer is full, until ctx ends, and returns ErrNotRunning
// after Close.
func (o *Offload[T]) Put(ctx context.Context, v T) error {
	o.puts.RLock()
	defer o.puts.RUnlock()
	select {
	case <-o.closed:
		return ErrNotRunning
	default:
	}
	select {
	case o.work <- v:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-o.closed:
		return ErrNotRunning
	}
}

// Len returns how many things wait.
func (o *Offload[T]) Len() int { return len(o.work) }

// Close takes no more work, and returns when the worker has done what was put in. Closing twice is no error.
func (o *Offload[T]) Close() {
	o.once.Do(func() {
		close(o.closed)
		o.puts.Lock() // those that wait in Put are gone
		defer o.puts.Unlock()
		close(o.work)
	})
	<-o.done
}
