package vsync

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/khamsin-io/khamsin/vsync/core"
	"github.com/khamsin-io/khamsin/vsync/internal/engine"
	"github.com/khamsin-io/khamsin/vsync/internal/host"
)

// Group is this process's membership in one group: made by NewGroup, given handlers, then joined, once. After it has
// ended a new Group of the same name can be made.
type Group struct {
	sys      *System
	name     string
	settings groupSettings
	inner    *host.Group // nil when the system does not run
	secret   *secret     // nil when the group has no key; written before it is joined

	mu       sync.Mutex // guards sealed; what follows is written before it is set and only read afterwards
	sealed   bool
	handlers map[Code][]*handler
	onView   []func(*View)
	onMake   func(context.Context, *View, *StateWriter) error
	onLoad   []*loader
	onInit   func(context.Context) error
	services []*service // by code, the greatest first

	table   table // the handlers as messages find them; written before bound is set
	bound   atomic.Bool
	lanes   [lanes]lane // each its executor's
	pending pending
	watches watches
	waits   viewWaits
	view    atomic.Pointer[View]
	tracer  atomic.Pointer[func(TraceEvent)]
	limiter atomic.Pointer[limiter]
	trials  trials // of compression

	unhandled   atomic.Uint64 // messages without a handler
	malformed   atomic.Uint64 // messages that could not be read
	repliesLost atomic.Uint64 // replies of ours that could not be sent
	slow        atomic.Uint64 // handlers that ran longer than HandlerDeadline
}

// NewGroup returns a handle for the group called name: any string, the same in all processes that shall meet. It sends
// nothing and joins nothing.
func (s *System) NewGroup(name string, opts ...GroupOption) *Group {
	g := &Group{sys: s, name: name, handlers: make(map[Code][]*handler)}
	for _, o := range opts {
		o(&g.settings)
	}
	if r := g.settings.rate; r != (Rate{}) && r.Validate() == nil {
		g.limiter.Store(newLimiter(r, time.Now()))
	}
	if s != nil {
		g.inner = s.host.NewGroup(name, (*app)(g), g.settings.inline)
	}
	return g
}

// System returns the system that the group is of.
func (g *Group) System() *System { return g.sys }

// Name returns the group's name.
func (g *Group) Name() string { return g.name }

// ID returns the group's identifier, a pure function of its name.
func (g *Group) ID() GroupID { return core.GroupIDOf(g.name) }

// String returns the group's name.
func (g *Group) String() string { return g.name }

// declare makes one change to the handlers, which is possible before Join only.
func (g *Group) declare(what string, change func()) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.sealed {
		return g.fail(what, ErrJoined)
	}
	change()
	return nil
}

// OnView adds a function that is called with every view, in its place among the messages. It must be called before
// Join.
func (g *Group) OnView(f func(v *View)) error {
	if f == nil {
		return g.fail("handle views", fmt.Errorf("%w: a nil function", ErrHandler))
	}
	return g.declare("handle views", func() { g.onView = append(g.onView, f) })
}

// Join makes this process a member of the group, which it brings to life when it has no member. It returns when the
// state has been loaded and the first view handled, or when ctx ends.
func (g *Group) Join(ctx context.Context) error { return g.join(ctx, "join", engine.JoinOrCreate) }

// Create brings the group to life, and fails with ErrGroupExists when it has members.
func (g *Group) Create(ctx context.Context) error { return g.join(ctx, "create", engine.CreateOnly) }

func (g *Group) join(ctx context.Context, what string, mode engine.JoinMode) error {
	if !g.sys.Active() {
		return g.fail(what, ErrNotRunning)
	}
	if err := g.settings.validate(); err != nil {
		return g.fail(what, err)
	}
	g.mu.Lock()
	again := g.sealed
	g.sealed = true
	g.mu.Unlock()
	if again {
		return g.fail(what, ErrJoined)
	}
	if err := errors.Join(g.bindHandlers(), g.bindLoaders()); err != nil {
		return g.fail(what, err)
	}
	if err := g.openSecret(); err != nil {
		return g.fail(what, err)
	}
	line, err := g.keyLine()
	if err != nil {
		return g.fail(what, err)
	}
	g.bound.Store(true)
	g.sys.remember(g)
	table := line + g.describe()
	err = g.inner.Join(ctx, engine.JoinRequest{
		Mode: mode, Signature: signatureOf(table), Handlers: table[:min(len(table), engine.HandlersMax)],
		SafeCopies: g.settings.safeCopies, Unicast: g.settings.unicast, Own: g.settings.multicast,
	})
	if err != nil {
		g.sys.forget(g)
	}
	return g.fail(what, g.explain(err))
}

// Leave leaves the group: what this process sent before is delivered, then the others get a view without it. It returns
// when the last handler here has returned; inside a handler of the group it returns at once and the group ends behind
// the handler.
func (g *Group) Leave(ctx context.Context) error {
	return g.member("leave", func() error { return g.inner.Leave(ctx) })
}

// Terminate ends the group for all its members. It waits as Leave does.
func (g *Group) Terminate(ctx context.Context) error {
	return g.member("terminate", func() error { return g.inner.Terminate(ctx) })
}

// Flush waits until all members hold everything that this process sent to the group before, so that no crash of some of
// them can make it forgotten. Inside a handler of the group it returns ErrWouldBlock.
func (g *Group) Flush(ctx context.Context) error { return g.FlushK(ctx, All) }

// FlushK waits until k members, this one included, hold everything that this process sent to the group before. All, and
// numbers above the group's size, mean all members.
func (g *Group) FlushK(ctx context.Context, k int) error {
	return g.member("flush", func() error { return g.inner.Flush(ctx, max(0, k)) })
}

// ReportFailure accuses a member of having failed. The system believes it: the member is removed from all its groups,
// and is poisoned if it lives. A process that shares no view of this group with the caller cannot be accused.
func (g *Group) ReportFailure(who Address, reason string) error {
	return g.member("report", func() error { return g.inner.Report(who, reason) })
}

// View returns the view in which messages are being delivered now, nil before the first. Inside a handler it is the
// view that the handler's message belongs to.
func (g *Group) View() *View { return g.view.Load() }

// Rank returns this process's rank in the present view, NoRank before the first.
func (g *Group) Rank() Rank {
	if v := g.View(); v != nil {
		return v.MyRank()
	}
	return NoRank
}

// Ready is closed when the first view has been handled. It stays open for ever when that does not happen.
func (g *Group) Ready() <-chan struct{} {
	if g.inner == nil {
		return nil
	}
	return g.inner.Ready()
}

// Over is closed when the group has ended for this process and its last handler has returned.
func (g *Group) Over() <-chan struct{} {
	if g.inner == nil {
		return nil
	}
	return g.inner.Over()
}

// Err returns why the group ended for this process, nil while it has not.
func (g *Group) Err() error {
	if g.inner == nil {
		return g.fail("group", ErrNotRunning)
	}
	return g.fail("group", g.inner.Err())
}

// member runs f when the system is running.
func (g *Group) member(what string, f func() error) error {
	if g.inner == nil {
		return g.fail(what, ErrNotRunning)
	}
	return g.fail(what, f())
}

// fail puts the operation and the group in front of an error.
func (g *Group) fail(what string, err error) error {
	if err == nil {
		return nil
	}
	err = public(err)
	if errors.Is(err, ErrNotMember) && !g.sys.inUse() {
		err = g.sys.reason()
	}
	return fmt.Errorf("vsync: %s %q: %w", what, g.name, err)
}

// inUse tells whether the system is running and nobody has begun to close it.
func (s *System) inUse() bool { return s.Active() && !s.closing.Load() }

// reason returns why the system is not running.
func (s *System) reason() error {
	switch {
	case s == nil:
		return ErrNotRunning
	case s.host.Err() != nil:
		return public(s.host.Err())
	}
	return ErrShutdown
}
