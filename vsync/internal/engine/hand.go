package engine

import (
	"bytes"
	"encoding/binary"

	"github.com/khamsin-io/khamsin/dataplane/frame"
	"github.com/khamsin-io/khamsin/dataplane/loan"
	"github.com/khamsin-io/khamsin/vsync/core"
	"github.com/khamsin-io/khamsin/vsync/internal/canary"
	"github.com/khamsin-io/khamsin/vsync/internal/pdu"
)

// hand gives a packet's messages to the application, or keeps them until the message is whole.
func (g *group) hand(r core.Rank, q core.Seq) {
	if canary.Enabled {
		q = g.plantOwnLost(r, q)
	}
	f := g.st.Held(r, q)
	flags := g.Flags(r, q)
	d := Delivery{
		Kind: DeliverMessages, Flavour: pdu.FlavourOf(flags), Group: g.handle, Sender: r, ViewID: g.view.ID, Seq: q,
	}
	if flags&pdu.FlagFragment != 0 {
		m := g.assemble(r, flags, g.Payload(r, q))
		if m == nil {
			return
		}
		d.Kind, d.Data, d.Loan = DeliverWhole, m.Bytes(), m
		g.deliver(d)
		return
	}
	g.e.box.Arena().Retain(f)
	f = g.e.payload(f)
	d.Frame = f
	g.deliver(d)
}

// assemble puts a message in fragments together; nil while it is not whole.
func (g *group) assemble(r core.Rank, flags uint8, b []byte) *loan.Loan {
	if g.partial == nil {
		g.partial = make([]*loan.Loan, 2*g.view.Size())
	}
	if pdu.FlavourOf(flags) == core.Unordered {
		r += core.Rank(g.view.Size()) // they overtake messages that are half put together
	}
	if flags&pdu.FlagFirst != 0 {
		n, k := binary.Uvarint(b)
		if k <= 0 || n > uint64(g.e.cfg.Limits.Message) {
			g.e.count.Malformed++
			g.partial[r] = nil
			return nil
		}
		g.partial[r] = g.e.lender.Lend(int(n))
		b = b[k:]
	}
	m, more := g.partial[r], flags&pdu.FlagMore != 0
	if m == nil || !m.Add(b, !more) {
		g.e.count.Malformed++
		g.partial[r] = nil
		return nil
	}
	if more {
		return nil
	}
	g.partial[r] = nil
	return m
}

// deliver hands something up, or holds it back while the state is on its way.
func (g *group) deliver(d Delivery) {
	d.Group = g.handle
	d.From = g.fromAddress(&d)
	if g.loading != nil {
		g.hold(d)
		return
	}
	g.handUp(d)
	if canary.Enabled {
		g.plantStateLate(d.Kind)
	}
}

// peerCost is what a point-to-point message counts beside its bytes.
const peerCost = 64

// handUp passes a delivery to the host and counts what the application must consume.
func (g *group) handUp(d Delivery) {
	switch d.Kind {
	case DeliverMessages, DeliverWhole:
		g.queued++
	case DeliverPeer:
		g.peers += len(d.Data) + peerCost
	}
	g.e.out.Deliveries = append(g.e.out.Deliveries, d)
}

// hold keeps a delivery until the state is there, in memory of its own: frames are too few to wait for a state.
func (g *group) hold(d Delivery) {
	if !d.Frame.IsZero() {
		d.Data = bytes.Clone(g.e.box.Arena().Bytes(d.Frame))
		g.e.box.Arena().Tx().Release(d.Frame)
		d.Frame = frame.Frame{}
	}
	g.held = append(g.held, d)
	g.heldSize += len(d.Data)
}

func (g *group) fromAddress(d *Delivery) core.Address {
	if (d.Kind == DeliverMessages || d.Kind == DeliverWhole) && int(d.Sender) < g.view.Size() {
		return g.view.Members[d.Sender]
	}
	return d.From
}

func (g *group) addressOf(incarnation uint64) core.Address {
	if g.view != nil {
		for _, m := range g.view.Members {
			if m.Incarnation == incarnation {
				return m
			}
		}
	}
	return core.NoAddress
}
