package vsync

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

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

	mu       sync.Mutex // guards sealed; handlers are written before it is set and only read afterwards
	sealed   bool
	handlers map[Code][]func(*Message)
	onView   []func(*View)
	onMake   func(context.Context, *View, *StateWriter) error
	onLoad   func([]byte) error
	onInit   func(context.Context) error

	view      atomic.Pointer[View]
	cast      Message // the one that handlers of multicasts get; the group's first executor's
	peer      Message // the second executor's
	unhandled atomic.Uint64
	malformed atomic.Uint64
}

// NewGroup returns a handle for the group called name: any string, the same in all processes that shall meet. It sends
// nothing and joins nothing.
func (s *System) NewGroup(name string, opts ...GroupOption) *Group {
	g := &Group{sys: s, name: name, handlers: make(map[Code][]func(*Message))}
	for _, o := range opts {
		o(&g.settings)
	}
	if s != nil {
		g.inner = s.host.NewGroup(name, (*app)(g), g.settings.inline)
	}
	return g
}

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

// Handle adds a handler for messages with a code. All handlers of a code run for each message, in the order in which
// they were added. Members of a group must handle the same codes. It must be called before Join; the code must not be
// negative.
func (g *Group) Handle(code Code, f func(m *Message)) error {
	if code < 0 {
		return g.fail("handle", fmt.Errorf("%w: %d", ErrCode, code))
	}
	return g.declare("handle", func() { g.handlers[code] = append(g.handlers[code], f) })
}

// OnView adds a function that is called with every view, in its place among the messages. It must be called before
// Join.
func (g *Group) OnView(f func(v *View)) error {
	return g.declare("handle views", func() { g.onView = append(g.onView, f) })
}

// OnMakeState sets the function that writes the group's state for the members that join. It runs at the oldest member,
// at the point of its sequence just before the view, v, that holds the joiners: the state must hold the effect of
// exactly the messages handled so far. When it returns an error the joiners do not get in. It must be called before
// Join; without it joiners start with no state.
func (g *Group) OnMakeState(f func(ctx context.Context, v *View, w *StateWriter) error) error {
	return g.declare("make state", func() { g.onMake = f })
}

// OnLoadState sets the function that gets the state at a member that joins: once for each piece that was Put, in order,
// all before the first view. The slice belongs to f. When it returns an error, Join returns it, and the group is left.
// It must be called before Join.
func (g *Group) OnLoadState(f func(piece []byte) error) error {
	return g.declare("load state", func() { g.onLoad = f })
}

// OnInit sets a function that is called in the process that brings the group to life, before its first view. When it
// returns an error, Join returns it, and the group is left. It must be called before Join.
func (g *Group) OnInit(f func(ctx context.Context) error) error {
	return g.declare("initialise", func() { g.onInit = f })
}

// StateWriter takes a group's state, piece by piece. It belongs to the function that got it, until that returns.
type StateWriter = host.StateWriter

// Join makes this process a member of the group, which it brings to life when it has no member. It returns when the
// state has been loaded and the first view handled, or when ctx ends.
func (g *Group) Join(ctx context.Context) error { return g.join(ctx, "join", engine.JoinOrCreate) }

// Create brings the group to life, and fails with ErrGroupExists when it has members.
func (g *Group) Create(ctx context.Context) error { return g.join(ctx, "create", engine.CreateOnly) }

func (g *Group) join(ctx context.Context, what string, mode engine.JoinMode) error {
	if !g.sys.Active() {
		return g.fail(what, ErrNotRunning)
	}
	g.mu.Lock()
	again := g.sealed
	g.sealed = true
	g.mu.Unlock()
	if again {
		return g.fail(what, ErrJoined)
	}
	return g.fail(what, g.inner.Join(ctx, engine.JoinRequest{
		Mode: mode, Signature: g.signature(), SafeCopies: g.settings.safeCopies,
		Unicast: g.settings.unicast,
	}))
}

// signature returns a number that is equal for groups with handlers for the same codes.
func (g *Group) signature() uint64 {
	codes := make([]Code, 0, len(g.handlers))
	for c := range g.handlers {
		codes = append(codes, c)
	}
	slices.Sort(codes)
	const offset, prime = 14695981039346656037, 1099511628211 // FNV-1a
	h := uint64(offset)
	for _, c := range codes {
		for shift := 0; shift < 32; shift += 8 {
			h = (h ^ uint64(byte(uint32(c)>>shift))) * prime
		}
	}
	return h
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
	if errors.Is(err, ErrNotMember) && !g.sys.open() {
		err = g.sys.reason()
	}
	return fmt.Errorf("vsync: %s %q: %w", what, g.name, err)
}

// open tells whether the system is running and nobody has begun to close it.
func (s *System) open() bool { return s.Active() && !s.closing.Load() }

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
