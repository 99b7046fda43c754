package oob

import (
	"context"
	"sync"
)

// Request is a call of Replicate or Delete.
type Request struct {
	name string
	done chan struct{}
	once sync.Once
	err  error
}

func newRequest(name string) *Request { return &Request{name: name, done: make(chan struct{})} }

// Name returns the object's name.
func (r *Request) Name() string { return r.name }

// Done is closed when the pattern is reached, or never will be.
func (r *Request) Done() <-chan struct{} { return r.done }

// Err returns nil while the request is under way and when its pattern was reached, else why not: ErrNotFound,
// ErrSuperseded, ErrLastCopy, ErrLost, or a *PartialError.
func (r *Request) Err() error {
	select {
	case <-r.done:
		return r.err
	default:
		return nil
	}
}

// Wait waits until the request is done, or ctx ends, and returns Err.
func (r *Request) Wait(ctx context.Context) error {
	select {
	case <-r.done:
		return r.err
	case <-ctx.Done():
		return named(r.name, context.Cause(ctx))
	}
}

// Then calls f on a goroutine of its own when the request is done.
func (r *Request) Then(f func(err error)) {
	go func() {
		<-r.done
		f(r.err)
	}()
}

func (r *Request) end(err error) {
	r.once.Do(func() {
		r.err = named(r.name, err)
		close(r.done)
	})
}
