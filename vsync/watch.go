package vsync

import (
	"context"
	"slices"
	"sync"
)

// Change says what happened to a member.
type Change uint8

// The changes.
const (
	Joined Change = iota
	Left          // it left or failed: a view does not tell these apart
)

// String returns the change's name.
func (c Change) String() string {
	if c == Joined {
		return "joined"
	}
	return "left"
}

// watches are a group's watches, by process.
type watches struct {
	mu   sync.Mutex
	by   map[Address][]*watch
	next uint64
}

type watch struct {
	number uint64 // order of registration
	f      func(who Address, c Change)
}

// Watch calls f each time that a process joins or leaves the group, behind the handlers of the view that says so and on
// their goroutine, until cancel is called. A process that is a member already has joined before. It can be called at
// any time; f may belong to several watches.
func (g *Group) Watch(who Address, f func(who Address, c Change)) (cancel func()) {
	w := &g.watches
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.by == nil {
		w.by = make(map[Address][]*watch)
	}
	w.next++
	x := &watch{w.next, f}
	w.by[who] = append(w.by[who], x)
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		rest := slices.DeleteFunc(slices.Clone(w.by[who]), func(y *watch) bool { return y == x })
		if w.by[who] = rest; len(rest) == 0 {
			delete(w.by, who)
		}
	}
}

// fire calls the watches that a view concerns.
func (w *watches) fire(v *View) {
	w.each(v.Left, Left)
	w.each(v.Joined, Joined)
}

func (w *watches) each(who []Address, c Change) {
	for _, a := range who {
		for _, x := range w.of(a) {
			if w.live(a, x) { // another one may have cancelled it
				x.f(a, c)
			}
		}
	}
}

func (w *watches) of(a Address) []*watch {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.by[a]
}

func (w *watches) live(a Address, x *watch) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Contains(w.by[a], x)
}

// viewWaits are the goroutines that wait for a view.
type viewWaits struct {
	mu   sync.Mutex
	list []*viewWait
}

type viewWait struct {
	want func(v *View) bool
	got  chan *View // capacity 1
}

// pass offers a view to those who wait.
func (w *viewWaits) pass(v *View) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.list = slices.DeleteFunc(w.list, func(x *viewWait) bool {
		if !x.want(v) {
			return false
		}
		x.got <- v
		return true
	})
}

// WaitForView returns the first view for which want is true, the present one included, when it has been handled. want
// must be quick: the group's goroutine calls it, too. Inside a handler of the group it returns ErrWouldBlock when the
// present view is not the one.
func (g *Group) WaitForView(ctx context.Context, want func(v *View) bool) (*View, error) {
	if g.inner == nil {
		return nil, g.fail("wait for view", ErrNotRunning)
	}
	x := &viewWait{want: want, got: make(chan *View, 1)}
	g.waits.mu.Lock()
	if v := g.view.Load(); v != nil && g.inner.Err() == nil && want(v) {
		g.waits.mu.Unlock()
		return v, nil
	}
	g.waits.list = append(g.waits.list, x)
	g.waits.mu.Unlock()
	defer g.waits.drop(x)
	if g.inner.OnHandler() {
		return nil, g.fail("wait for view", ErrWouldBlock)
	}
	select {
	case v := <-x.got:
		return v, nil
	case <-ctx.Done():
		return nil, g.fail("wait for view", context.Cause(ctx))
	case <-g.inner.Ending():
		return nil, g.fail("wait for view", g.inner.Err())
	}
}

func (w *viewWaits) drop(x *viewWait) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.list = slices.DeleteFunc(w.list, func(y *viewWait) bool { return y == x })
}

// WaitForSize waits for a view of at least n members: see WaitForView.
func (g *Group) WaitForSize(ctx context.Context, n int) (*View, error) {
	return g.WaitForView(ctx, func(v *View) bool { return v.Size() >= n })
}
