package engine

import (
	"encoding/binary"

	"github.com/khamsin-io/khamsin/dataplane/clock"
	"github.com/khamsin-io/khamsin/vsync/core"
	"github.com/khamsin-io/khamsin/vsync/internal/link"
	"github.com/khamsin-io/khamsin/vsync/internal/xfer"
)

// keepStray keeps a message that came before its view was installed here. There is a limit: beyond it the message is dropped and
// counted, and a state transfer that it belonged to does not end before the next view.
func (e *Engine) keepStray(m link.Message) {
	if e.byLid[m.Group] == nil && !e.joining() {
		e.count.NoGroup++
		return
	}
	if e.strayed+len(m.Data) > e.cfg.Limits.JoinerQueue {
		e.count.EarlyDropped++
		return
	}
	e.strayed += len(m.Data)
	e.strays[m.Group] = append(e.strays[m.Group], m)
}

// joining tells whether some group has no view yet.
func (e *Engine) joining() bool {
	for _, g := range e.groups {
		if g != nil && g.view == nil {
			return true
		}
	}
	return false
}

// onPeer takes a point-to-point message in. What was sent to this process in an earlier membership of the group is dropped.
func (e *Engine) onPeer(_ clock.Time, m link.Message) {
	view, n := binary.Uvarint(m.Data)
	if n <= 0 {
		e.count.Malformed++
		return
	}
	g := e.byLid[m.Group]
	if g == nil || (g.view.ID < core.ViewID(view) && g.addressOf(m.From).IsZero()) {
		e.keepStray(m)
		return
	}
	who := g.addressOf(m.From)
	if who.IsZero() || core.ViewID(view) < g.firstView {
		e.count.OldView++
		return
	}
	g.deliver(Delivery{
		Kind: DeliverPeer, From: who, Sender: g.view.Rank(who), ViewID: g.view.ID, Data: m.Data[n:],
	})
}

// onState takes a piece of state in. A piece for a view that is not installed here yet waits for it.
func (e *Engine) onState(now clock.Time, m link.Message) {
	view, mark, data, err := xfer.Decode(m.Data)
	if err != nil {
		e.count.Malformed++
		return
	}
	g := e.byLid[m.Group]
	if g == nil || g.view.ID < view {
		e.keepStray(m)
		return
	}
	if !g.loading.Accepts(m.From, view) {
		return
	}
	switch mark {
	case xfer.Aborted:
		g.end(ErrTransferAborted)
		e.maybeDepart(now)
	case xfer.More:
		if len(data) == 0 {
			return
		}
		g.pieces = append(g.pieces, data)
	case xfer.Last:
		if len(data) > 0 {
			g.pieces = append(g.pieces, data)
		}
		g.loaded()
		e.touch(g)
	}
}

// loaded ends a transfer at the joiner: the whole state goes up, then its first view and what was delivered behind it. Pieces
// are kept until then, because the sender may be lost before the last one and another start anew.
func (g *group) loaded() {
	pieces := append(g.pieces, nil)
	for _, data := range pieces {
		d := Delivery{Kind: DeliverState, Group: g.handle, ViewID: g.loading.View, Data: data}
		if data == nil {
			d.Kind = DeliverStateEnd
		}
		g.e.out.Deliveries = append(g.e.out.Deliveries, d)
	}
	g.pieces = nil
	g.loading, g.hasState = nil, true
	held := g.held
	g.held, g.heldSize = nil, 0
	for _, d := range held {
		if d.Kind == DeliverMessages || d.Kind == DeliverWhole {
			g.queued++
		}
		g.e.out.Deliveries = append(g.e.out.Deliveries, d)
	}
}

// takeStrays looks at what came before the group's view.
func (g *group) takeStrays(now clock.Time) {
	list := g.e.strays[g.lid]
	delete(g.e.strays, g.lid)
	for _, s := range list {
		g.e.strayed -= len(s.Data)
		if !g.ended() {
			g.e.OnMessage(now, s)
		}
	}
}
