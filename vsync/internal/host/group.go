package host

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"

	"github.com/khamsin-io/khamsin/dataplane/clock"
	"github.com/khamsin-io/khamsin/vsync/core"
	"github.com/khamsin-io/khamsin/vsync/internal/engine"
)

// Errors of a group, besides those that the engine's events carry.
var (
	ErrWouldBlock = errors.New("would block inside a handler of the same group")
	ErrTooLarge   = errors.New("message too large")
	ErrEnded      = errors.New("the system has ended")
)

// App is a group's application. But for Early its methods run on the group's executors: Peer on one, all others on the
// other, each one at a time and in delivery order. Slices are valid until the method returns, unless said otherwise.
// ctx ends with the host and carries the mark by which calls from inside a handler are known.
type App interface {
	// Early gets each reply, whose Data is its own, and sees each view before that is queued, in the order in which the
	// engine hands them up. It is called by the engine's owner: it must neither block nor call the host.
	Early(d *engine.Delivery)
	Cast(ctx context.Context, d *engine.Delivery, msg []byte)
	Peer(ctx context.Context, d *engine.Delivery)
	View(ctx context.Context, v *core.View)
	MakeState(ctx context.Context, v *core.View, w *StateWriter) error
	LoadState(ctx context.Context, piece []byte) error // owns piece
	StateLoaded(ctx context.Context) error
	Init(ctx context.Context) error
	Recovered(d *engine.Delivery) // a method panicked at d, and Config.OnPanic was told
	End(err error)
}

// Life of a group.
const (
	groupIdle   uint32 = iota // no join yet
	groupActive               // the join is on its way, or the group joined
	groupEnded                // err says why
)

// Group is one group of a host, from Join to its end.
type Group struct {
	host *Host
	name string
	app  App

	life     atomic.Uint32
	inlined  bool // handlers run on the receiver's goroutine when it received for them
	room     room // shut while multicasts are refused
	peerRoom room // shut while point-to-point messages are refused
	casts    *queue
	peers    *queue
	marks    [2]executor

	handle  engine.Handle // the owner's
	full    bool          // the owner's: the backlog must go first
	backlog []leftover    // the owner's: messages that were taken out of the inbox while there was no room

	ready   chan struct{}         // closed when the handlers of the first view have returned
	ending  chan struct{}         // closed when the group has ended for the engine
	endErr  error                 // valid when ending is closed
	fault   atomic.Pointer[error] // why this process gave the group up
	over    chan struct{}         // closed when the executors have ended
	endOnce sync.Once
	running atomic.Int32 // executors
}

// NewGroup returns a handle for a group that is not joined. Inline says that its handlers never block, and may be
// called on the receiver's goroutine; it has no effect in the Loop model.
func (h *Host) NewGroup(name string, app App, inline bool) *Group {
	return &Group{
		host: h, name: name, app: app, inlined: inline, casts: newQueue(), peers: newQueue(),
		ready: make(chan struct{}), ending: make(chan struct{}), over: make(chan struct{}),
	}
}

// Join makes this process a member and returns when the handlers of the first view have run, or with the reason why
// that will not happen. When ctx ends first, the group is left again in the background. It can be called once.
func (g *Group) Join(ctx context.Context, req engine.JoinRequest) error {
	if !g.life.CompareAndSwap(groupIdle, groupActive) {
		return errors.New("joined before")
	}
	if !g.startExecutors() {
		return ErrEnded
	}
	req.Name = g.name
	ok := g.host.doFunc(func(now clock.Time) {
		g.handle = g.host.engine.Join(now, req)
		g.host.setGroup(g.handle, g)
	})
	if !ok {
		g.abandon()
		return ErrEnded
	}
	select {
	case <-g.ready:
		return nil
	case <-g.ending:
		<-g.over
		return g.Err()
	case <-ctx.Done():
		g.start(g.host.engine.Leave)
		return context.Cause(ctx)
	}
}

// start runs a command of the engine about this group, without waiting for its effect.
func (g *Group) start(command func(now clock.Time, h engine.Handle)) bool {
	return g.host.doFunc(func(now clock.Time) {
		if g.host.group(g.handle) == g {
			command(now, g.handle)
		}
	})
}

// Leave leaves the group and returns when its last delivery has been handled; inside a handler of the group it returns
// at once, since the handler must return first.
func (g *Group) Leave(ctx context.Context) error { return g.depart(ctx, g.host.engine.Leave) }

// Terminate ends the group for all its members, and waits as Leave does.
func (g *Group) Terminate(ctx context.Context) error { return g.depart(ctx, g.host.engine.Terminate) }

func (g *Group) depart(ctx context.Context, command func(now clock.Time, h engine.Handle)) error {
	if g.life.Load() != groupActive {
		return engine.ErrNotMember
	}
	if !g.start(command) {
		return ErrEnded
	}
	if g.inside(ctx) {
		return nil
	}
	select {
	case <-g.over:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Report accuses a member of having failed.
func (g *Group) Report(who core.Address, reason string) error {
	err := ErrEnded
	g.host.doFunc(func(now clock.Time) {
		if err = engine.ErrNotMember; g.host.group(g.handle) == g {
			err = g.host.engine.Report(now, g.handle, who, reason)
		}
	})
	return err
}

// Ready is closed when the handlers of the first view have returned.
func (g *Group) Ready() <-chan struct{} { return g.ready }

// Over is closed when the group is over and its last handler has returned.
func (g *Group) Over() <-chan struct{} { return g.over }

// Err returns why the group ended, nil while it has not.
func (g *Group) Err() error {
	select {
	case <-g.ending:
		if fault := g.fault.Load(); fault != nil {
			return *fault
		}
		return g.endErr
	default:
		return nil
	}
}

// end ends the group behind what was delivered before. Only the first call counts. Owner only.
func (g *Group) end(err error) {
	g.endOnce.Do(func() {
		g.endErr = err
		close(g.ending) // whoever sees that the group has ended must find the reason
		g.life.Store(groupEnded)
		g.room.open()
		g.peerRoom.open()
		g.backlog = nil
		last := engine.Delivery{Kind: engine.DeliverEnd, Err: err}
		g.host.enqueue(g.casts, &last)
		g.host.enqueue(g.peers, &last)
	})
}

// abandon ends a group whose join never reached the engine. The host has ended: the caller is the only producer left.
func (g *Group) abandon() {
	g.endOnce.Do(func() {
		g.endErr = ErrEnded
		close(g.ending)
		g.life.Store(groupEnded)
		last := engine.Delivery{Kind: engine.DeliverEnd, Err: ErrEnded}
		for _, q := range []*queue{g.casts, g.peers} {
			q.push(&last)
			q.publish()
			q.wake()
		}
	})
}
