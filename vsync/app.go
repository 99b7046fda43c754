package vsync

import (
	"context"

	"github.com/khamsin-io/khamsin/vsync/core"
	"github.com/khamsin-io/khamsin/vsync/internal/engine"
	"github.com/khamsin-io/khamsin/vsync/internal/host"
)

// app is the side of a Group that its executors call.
type app Group

// Cast passes one multicast to its handlers.
func (a *app) Cast(ctx context.Context, d *engine.Delivery, msg []byte) {
	g := (*Group)(a)
	m := &g.cast
	m.fill(ctx, g, d)
	g.dispatch(m, msg)
}

// Peer passes one point-to-point message to its handlers.
func (a *app) Peer(ctx context.Context, from core.Address, msg []byte) {
	g := (*Group)(a)
	v := g.view.Load()
	g.peer = Message{Sender: NoRank, From: from, View: v, Peer: true, ctx: ctx, group: g}
	if v != nil {
		g.peer.Sender = v.Rank(from)
	}
	g.dispatch(&g.peer, msg)
}

// dispatch splits a message and runs the handlers of its code.
func (g *Group) dispatch(m *Message, msg []byte) {
	code, payload, ok := decodeCode(msg)
	if !ok {
		if g.malformed.Add(1) == 1 {
			g.sys.log.Error("malformed message dropped; further ones are not logged", "group", g.name, "from", m.From)
		}
		return
	}
	m.Code, m.Payload = code, payload
	handlers := g.handlers[code]
	if len(handlers) == 0 && g.unhandled.Add(1) == 1 {
		g.sys.log.Warn("message without a handler; further ones are not logged", "group", g.name, "code", code)
	}
	for _, f := range handlers {
		f(m)
	}
	m.Payload = nil
}

// View notes a view and passes it on.
func (a *app) View(_ context.Context, v *core.View) {
	g := (*Group)(a)
	view := newView(v, g.sys.self)
	g.view.Store(view)
	for _, f := range g.onView {
		f(view)
	}
}

// MakeState lets the application write its state. A group without a maker has none.
func (a *app) MakeState(ctx context.Context, v *core.View, w *host.StateWriter) error {
	if a.onMake == nil {
		return nil
	}
	return a.onMake(ctx, newView(v, a.sys.self), w)
}

// LoadState passes the application one piece of state.
func (a *app) LoadState(_ context.Context, piece []byte) error {
	if a.onLoad == nil {
		return nil
	}
	return a.onLoad(piece)
}

// StateLoaded is called behind the last piece.
func (a *app) StateLoaded(context.Context) error { return nil }

// Init lets the application begin from nothing.
func (a *app) Init(ctx context.Context) error {
	if a.onInit == nil {
		return nil
	}
	return a.onInit(ctx)
}

// End is called behind the last delivery.
func (a *app) End(error) {}
