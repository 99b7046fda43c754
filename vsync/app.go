package vsync

import (
	"context"

	"github.com/khamsin-io/khamsin/vsync/core"
	"github.com/khamsin-io/khamsin/vsync/internal/engine"
	"github.com/khamsin-io/khamsin/vsync/internal/host"
)

// app is the side of a Group that its executors call.
type app Group

// Early takes replies, and notes views for the queries that wait.
func (a *app) Early(d *engine.Delivery) {
	g := (*Group)(a)
	if d.Kind == engine.DeliverView {
		g.pending.changed(d.View)
	} else {
		g.onReply(d.From, d.Data)
	}
}

// Cast passes one multicast to its handlers.
func (a *app) Cast(ctx context.Context, d *engine.Delivery, msg []byte) {
	g := (*Group)(a)
	g.lanes[laneCast].message.fill(ctx, g, d)
	g.dispatch(laneCast, msg)
}

// Peer passes one point-to-point message to its handlers.
func (a *app) Peer(ctx context.Context, d *engine.Delivery) {
	g := (*Group)(a)
	v := g.view.Load()
	m := &g.lanes[lanePeer].message
	m.Sender, m.From, m.View, m.Peer, m.ctx, m.group, m.delivery = NoRank, d.From, v, true, ctx, g, d
	if v != nil {
		m.Sender = v.Rank(d.From)
	}
	g.dispatch(lanePeer, d.Data)
}

// Recovered notes that no handler is running any more.
func (a *app) Recovered(d *engine.Delivery) {
	n := laneCast
	if d.Kind == engine.DeliverPeer {
		n = lanePeer
	}
	a.lanes[n].running.end()
}

// View notes a view and passes it on.
func (a *app) View(ctx context.Context, v *core.View) {
	g := (*Group)(a)
	view := newView(v, g.sys)
	l := &g.lanes[laneCast]
	l.unlabel(ctx)
	g.view.Store(view)
	if t := g.tracer.Load(); t != nil {
		(*t)(viewEvent(g, view))
	}
	l.running.begin(viewHandler)
	for _, s := range g.services {
		if s.OnView != nil {
			s.OnView(view)
		}
	}
	for _, f := range g.onView {
		f(view)
	}
	g.watches.fire(view)
	l.running.end()
	g.waits.pass(view)
}

// MakeState lets the application write its state. A group without a maker has none.
func (a *app) MakeState(ctx context.Context, v *core.View, w *host.StateWriter) error {
	g := (*Group)(a)
	if g.secret != nil && g.secret.random {
		wrapped, err := g.wrapKey()
		if err == nil {
			err = w.Put(append([]byte{pieceKey}, wrapped...))
		}
		if err != nil {
			return err
		}
	}
	if g.onMake == nil && len(g.services) == 0 {
		return nil
	}
	l := &g.lanes[laneCast]
	l.unlabel(ctx)
	l.running.begin(stateHandler)
	defer l.running.end()
	out := &StateWriter{inner: w, group: g}
	if err := g.makeServices(out); err != nil || g.onMake == nil {
		return err
	}
	return g.onMake(ctx, newView(v, g.sys), out)
}

// LoadState passes the application one piece of state.
func (a *app) LoadState(ctx context.Context, piece []byte) error {
	g := (*Group)(a)
	piece, err := g.unseal(piece)
	if piece == nil || err != nil {
		return err
	}
	l := &g.lanes[laneCast]
	l.unlabel(ctx)
	l.running.begin(stateHandler)
	defer l.running.end()
	if len(piece) > 0 && piece[0] == pieceService {
		return g.loadService(piece)
	}
	return g.load(ctx, piece)
}

// StateLoaded is called behind the last piece.
func (a *app) StateLoaded(context.Context) error { return nil }

// Init lets the application begin from nothing.
func (a *app) Init(ctx context.Context) error {
	if a.secret != nil && a.secret.random {
		if err := a.secret.set(drawKey()); err != nil {
			return err
		}
	}
	if a.onInit == nil {
		return nil
	}
	l := &a.lanes[laneCast]
	l.unlabel(ctx)
	l.running.begin(stateHandler)
	defer l.running.end()
	return a.onInit(ctx)
}

// End is called behind the last delivery.
func (a *app) End(reason error) {
	g := (*Group)(a)
	for _, s := range g.services {
		if s.OnEnd != nil {
			s.OnEnd(reason)
		}
	}
	g.sys.forget(g)
}
