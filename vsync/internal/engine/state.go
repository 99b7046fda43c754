package engine

import (
	"encoding/binary"

	"github.com/khamsin-io/khamsin/dataplane/clock"
	"github.com/khamsin-io/khamsin/vsync/core"
	"github.com/khamsin-io/khamsin/vsync/internal/canary"
	"github.com/khamsin-io/khamsin/vsync/internal/link"
	"github.com/khamsin-io/khamsin/vsync/internal/xfer"
)

// early tells whether a message for a group belongs to a view that may yet be installed here. Its lane keeps it until
// then.
func (e *Engine) early(g *group, view core.ViewID) bool {
	return g == nil && e.joining() || g != nil && g.view.ID < view
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

// onPeer takes a point-to-point message, or a reply, in. What was sent to this process in an earlier membership of the
// group is dropped.
func (e *Engine) onPeer(m link.Message) bool {
	view, n := binary.Uvarint(m.Data)
	if n <= 0 {
		e.count.Malformed++
		return true
	}
	g := e.byLid[m.Group]
	if g == nil || g.addressOf(m.From).IsZero() {
		if e.early(g, core.ViewID(view)) {
			return false
		}
		e.count.NoGroup++
		return true
	}
	if core.ViewID(view) < g.firstView {
		e.count.OldView++
		return true
	}
	who := g.addressOf(m.From)
	if m.Kind == link.Reply {
		g.deliver(Delivery{Kind: DeliverReply, From: who, ViewID: g.view.ID, Data: m.Data[n:]})
		return true
	}
	if g.peers > 0 && g.peers >= e.cfg.Limits.PeerQueue || g.loading != nil && g.noRoom() {
		return false // the lane keeps it, and its sender finds no room in the end
	}
	d := Delivery{Kind: DeliverPeer, From: who, Sender: g.view.Rank(who), ViewID: g.view.ID, Data: m.Data[n:],
		Loan: m.Loan}
	g.deliver(d)
	if canary.Enabled && e.cfg.Canary == canary.PeerTwice {
		g.deliver(d)
	}
	return true
}

// onState takes a piece of state in.
func (e *Engine) onState(now clock.Time, m link.Message) bool {
	view, mark, data, err := xfer.Decode(m.Data)
	if err != nil {
		e.count.Malformed++
		return true
	}
	g := e.byLid[m.Group]
	if e.early(g, view) {
		return false
	}
	if g == nil || !g.loading.Accepts(m.From, view) {
		return true
	}
	switch mark {
	case xfer.Aborted:
		g.end(ErrTransferAborted)
		e.maybeDepart(now)
	case xfer.More:
		if len(data) > 0 {
			g.pieces = append(g.pieces, data)
		}
	case xfer.Last:
		if len(data) > 0 {
			g.pieces = append(g.pieces, data)
		}
		g.loaded()
		e.touch(g)
	}
	return true
}

// loaded ends a transfer at the joiner: the whole state goes up, then its first view and what was delivered behind it.
// Pieces are kept until then, because the sender may be lost before the last one and another start anew.
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
	g.e.kick = true // lanes may hold point-to-point messages that found no room behind the state
	held := g.held
	g.held, g.heldSize = nil, 0
	for _, d := range held {
		g.handUp(d)
	}
	if canary.Enabled && g.e.cfg.Canary == canary.StateUnasked {
		g.deliver(Delivery{Kind: DeliverInit, ViewID: g.view.ID})
	}
}
