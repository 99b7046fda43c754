package host

import (
	"bytes"
	"context"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/khamsin-io/khamsin/vsync/internal/engine"
)

// executor calls one group's handlers for one of its queues, one at a time.
type executor struct {
	group     *Group
	queue     *queue
	role      string
	ctx       context.Context
	goroutine atomic.Uint64 // number of the goroutine that calls handlers now, else 0
	turn      sync.Mutex    // held by whoever calls handlers; guards what follows and the consumer's side of queue
	eaten     eaten         // and not yet reported
	quota     eaten         // report at the latest after so much
	joined    bool
	ended     bool
}

// insideKey marks the contexts of a group's handlers.
type insideKey struct{}

// Inside returns the group whose handler ctx was passed to, nil for other contexts.
func Inside(ctx context.Context) *Group {
	g, _ := ctx.Value(insideKey{}).(*Group)
	return g
}

// startExecutors starts the group's two executors, unless the host has ended.
func (g *Group) startExecutors() bool {
	g.host.joining.Lock()
	defer g.host.joining.Unlock()
	if g.host.ended {
		return false
	}
	ctx := context.WithValue(g.host.ctx, insideKey{}, g)
	for i, x := range []struct {
		role  string
		queue *queue
	}{{"cast", g.casts}, {"peer", g.peers}} {
		e := &g.marks[i]
		e.group, e.queue, e.role = g, x.queue, x.role
		e.ctx = pprof.WithLabels(ctx, pprof.Labels("khamsin", x.role, "group", g.name))
		e.quota = eaten{packets: max(1, g.host.cfg.Queue/4), bytes: peerQuota}
		if g.inlined {
			x.queue.inline = e
		}
		g.running.Add(1)
		g.host.groups.Add(1)
		go e.run()
	}
	return true
}

// inside tells whether the caller runs in a handler of the group: by its context, or, when the handler passed another
// one, by its goroutine. It is asked only by calls that are about to wait.
func (g *Group) inside(ctx context.Context) bool {
	if Inside(ctx) == g {
		return true
	}
	return g.runsOn(goroutineNumber())
}

// Inside tells whether the caller runs in a handler of the group.
func (g *Group) Inside(ctx context.Context) bool { return g.inside(ctx) }

// runsOn tells whether a goroutine is one of the group's executors.
func (g *Group) runsOn(self uint64) bool {
	for i := range g.marks {
		if self == g.marks[i].goroutine.Load() {
			return true
		}
	}
	return false
}

// goroutineNumber returns the number of the calling goroutine, as stack traces print it. It costs about a microsecond.
func goroutineNumber() uint64 {
	var buf [64]byte
	text := bytes.TrimPrefix(buf[:runtime.Stack(buf[:], false)], []byte("goroutine "))
	digits, _, _ := bytes.Cut(text, []byte(" "))
	n, err := strconv.ParseUint(string(digits), 10, 64)
	if err != nil {
		panic("host: stack trace without a goroutine number: " + string(buf[:]))
	}
	return n
}

// run handles deliveries until the group's end.
func (x *executor) run() {
	pprof.SetGoroutineLabels(x.ctx)
	self := goroutineNumber()
	defer x.exit()
	for {
		x.turn.Lock()
		x.goroutine.Store(self)
		x.drain()
		x.goroutine.Store(0)
		ended := x.ended
		x.turn.Unlock()
		if ended {
			return
		}
		x.queue.park()
	}
}

// runInline handles what is queued in the place of the executor's own goroutine, unless that is at work.
func (x *executor) runInline(self uint64) {
	if !x.turn.TryLock() {
		return // whoever works will see what is queued
	}
	defer x.turn.Unlock()
	for more := true; more; more = !x.ended && !x.queue.idle() { // Dekker with wake
		x.queue.attended.Store(true)
		x.goroutine.Store(self)
		x.drain()
		x.goroutine.Store(0)
		x.queue.attended.Store(false)
	}
	if x.ended {
		x.queue.rouse() // so that the goroutine ends
	}
}

// drain handles deliveries until none is queued or the group has ended. The caller holds the turn.
func (x *executor) drain() {
	for d := x.queue.peek(); d != nil; d = x.queue.peek() {
		switch fault := x.group.fault.Load(); {
		case x.group.host.killed.Load():
			x.group.host.drop(d)
		case fault != nil && d.Kind != engine.DeliverEnd:
			x.skip(d, *fault)
		default:
			x.handle(d)
		}
		x.ended = d.Kind == engine.DeliverEnd
		x.queue.advance()
		if x.ended {
			return
		}
		if x.eaten.packets >= x.quota.packets || x.eaten.bytes >= x.quota.bytes {
			x.report()
		}
	}
	x.report()
}

// skip passes over a delivery of a group that this process gave up: it has no state to handle it with.
func (x *executor) skip(d *engine.Delivery, fault error) {
	switch d.Kind {
	case engine.DeliverMessages, engine.DeliverWhole:
		x.eaten.packets++
		x.group.host.drop(d)
	case engine.DeliverPeer:
		x.eaten.messages++
		x.eaten.bytes += len(d.Data)
	case engine.DeliverMakeState: // those who wait for it must not wait for ever
		_ = x.group.host.newStateWriter(x.ctx, x.group, d.Transfer).finish(fault)
	}
}

// exit notes that the executor has ended; the last one of the group says that the group is over.
func (x *executor) exit() {
	g := x.group
	if g.running.Add(-1) == 0 {
		close(g.over)
	}
	g.host.groups.Done()
}

// report tells the engine how many packets were consumed.
func (x *executor) report() {
	if n := x.eaten; n != (eaten{}) {
		x.eaten = eaten{}
		x.group.consumed(n)
	}
}

// handle passes one delivery to the application.
func (x *executor) handle(d *engine.Delivery) {
	returned := false
	defer func() {
		if !returned {
			x.caught(d, recover())
		}
	}()
	switch d.Kind {
	case engine.DeliverMessages:
		x.messages(d)
	case engine.DeliverWhole:
		x.eaten.packets++
		x.group.app.Cast(x.ctx, d, d.Data)
		if d.Loan != nil { // nobody kept it
			d.Loan.Return()
		}
	case engine.DeliverPeer:
		x.eaten.messages++
		x.eaten.bytes += len(d.Data)
		x.group.app.Peer(x.ctx, d)
		if d.Loan != nil { // nobody kept it
			d.Loan.Return()
		}
	case engine.DeliverEnd:
		if x.role == "cast" {
			x.group.app.End(d.Err)
		}
	default:
		x.member(d)
	}
	returned = true
}

// messages passes on every message of a packet, and releases the frame even when a handler panics.
func (x *executor) messages(d *engine.Delivery) {
	x.eaten.packets++
	rest := d.Data
	if !d.Frame.IsZero() {
		arena := x.group.host.arena
		defer arena.Release(d.Frame)
		rest = arena.Bytes(d.Frame)
	}
	for len(rest) > 0 {
		msg, next, ok := engine.NextMessage(rest)
		if !ok {
			return
		}
		x.group.app.Cast(x.ctx, d, msg)
		rest = next
	}
}

// member handles what makes this process a member: state and views.
func (x *executor) member(d *engine.Delivery) {
	g := x.group
	switch d.Kind {
	case engine.DeliverView:
		g.app.View(x.ctx, d.View)
		if !x.joined {
			x.joined = true
			close(g.ready)
		}
	case engine.DeliverMakeState:
		w := g.host.newStateWriter(x.ctx, g, d.Transfer)
		if err := w.finish(g.app.MakeState(x.ctx, d.View, w)); err != nil {
			g.host.journal.add(line{text: "make state", group: g.name, err: err})
		}
	case engine.DeliverState:
		x.giveUpOn("load the state", g.app.LoadState(x.ctx, d.Data))
	case engine.DeliverStateEnd:
		x.giveUpOn("load the state", g.app.StateLoaded(x.ctx))
	case engine.DeliverInit:
		x.giveUpOn("initialise the group", g.app.Init(x.ctx))
	}
}

// giveUpOn leaves the group when a handler of the state failed: a member without the state must not stay.
func (x *executor) giveUpOn(what string, err error) {
	g := x.group
	if err == nil {
		return
	}
	g.host.journal.add(line{text: "leaving the group: cannot " + what, group: g.name, err: err})
	g.fault.CompareAndSwap(nil, &err)
	g.start(g.host.engine.Leave)
}

// caught handles a panic of a handler, or its exit by runtime.Goexit (reason nil): unless the configuration knows
// better, the process crashes, since its state no longer follows the group's.
func (x *executor) caught(d *engine.Delivery, reason any) {
	h := x.group.host
	switch {
	case reason == nil:
		reason = "handler ended its goroutine (runtime.Goexit)"
	case h.cfg.OnPanic != nil:
		h.cfg.OnPanic(x.group.name, reason)
		x.group.app.Recovered(d)
		return
	}
	h.cfg.Logger.Error("handler panicked", "group", x.group.name, "reason", reason, "stack", string(debug.Stack()))
	panic(reason)
}
