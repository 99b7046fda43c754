package host

import (
	"context"

	"github.com/khamsin-io/khamsin/dataplane/clock"
)

// flushWait is one Flush in progress.
type flushWait struct {
	done chan struct{}
	err  error // valid when done is closed
}

func (w *flushWait) finish(err error) {
	w.err = err
	close(w.done)
}

// Flush waits until k members hold all that this process sent to the group before; k = 0 means all members. Inside a
// handler of the group it returns ErrWouldBlock.
func (g *Group) Flush(ctx context.Context, k int) error {
	if g.inside(ctx) {
		return ErrWouldBlock
	}
	h := g.host
	w := &flushWait{done: make(chan struct{})}
	var token uint64
	active := false
	ok := h.doFunc(func(now clock.Time) {
		if active = h.group(g.handle) == g && g.life.Load() == groupActive; !active {
			return
		}
		h.own.token++
		token = h.own.token
		h.own.flushes[token] = w
		h.engine.Flush(now, g.handle, k, token)
	})
	if !ok || !active {
		return g.notMember()
	}
	select {
	case <-w.done:
		return w.err
	case <-g.ending:
	case <-ctx.Done():
	}
	h.doFunc(func(clock.Time) { delete(h.own.flushes, token) })
	if err := g.Err(); err != nil {
		return err
	}
	return context.Cause(ctx)
}
