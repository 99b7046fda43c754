package engine

import (
	"time"

	"github.com/khamsin-io/khamsin/dataplane"
	"github.com/khamsin-io/khamsin/dataplane/clock"
	"github.com/khamsin-io/khamsin/dataplane/wire"
	"github.com/khamsin-io/khamsin/vsync/core"
	"github.com/khamsin-io/khamsin/vsync/internal/canary"
	"github.com/khamsin-io/khamsin/vsync/internal/pdu"
	"github.com/khamsin-io/khamsin/vsync/internal/stream"
)

// The bugs that package canary names and that take more than a line. They are called only in binaries that can plant
// bugs.

// plantRepairTwice delivers a packet again that came twice.
func (g *group) plantRepairTwice(adv stream.Advance) {
	if g.e.cfg.Canary != canary.RepairTwice || adv.To == 0 || adv.To != adv.From ||
		g.st.DeliveredTo(adv.Rank) < adv.To {
		return
	}
	if flags := g.Flags(adv.Rank, adv.To); !pdu.IsControl(flags) && flags&pdu.FlagFragment == 0 {
		g.hand(adv.Rank, adv.To)
	}
}

// plantWrongView delivers a message of the next view in this one, and again where it belongs.
func (g *group) plantWrongView(h *wire.Header, p *dataplane.Packet) {
	if g.e.cfg.Canary != canary.WrongView || h.Kind != wire.KindData || h.Flags != uint8(core.FIFO) || g.view == nil ||
		core.ViewID(h.View) <= g.view.ID || int(h.Rank) >= g.view.Size() {
		return
	}
	f := p.Frame
	g.e.box.Arena().Retain(f)
	f = g.e.payload(f)
	g.deliver(Delivery{
		Kind: DeliverMessages, Flavour: core.FIFO, Sender: core.Rank(h.Rank), ViewID: g.view.ID,
		Seq: core.Seq(h.Seq), Frame: f,
	})
}

// plantStateLate lets the state be taken one message too late.
func (g *group) plantStateLate(k DeliveryKind) {
	if k == DeliverMessages && len(g.planted) > 0 {
		g.e.out.Deliveries = append(g.e.out.Deliveries, g.planted...)
		g.planted = nil
	}
}

// plantHaste makes the failure detector impatient.
func (e *Engine) plantHaste(suspect time.Duration) time.Duration {
	if canary.Enabled && e.cfg.Canary == canary.HastySuspicion {
		return e.cfg.Timing.Heartbeat
	}
	return suspect
}

// plantKeepFrame keeps a frame for ever.
func (e *Engine) plantKeepFrame() {
	if canary.Enabled && e.cfg.Canary == canary.KeepFrame {
		_, _ = e.box.Alloc()
	}
}

// plantOwnLost delivers, in place of a message of this member's own, the one before it.
func (g *group) plantOwnLost(r core.Rank, q core.Seq) core.Seq {
	if g.e.cfg.Canary != canary.OwnLost || r != g.self || q < 2 || q%8 != 0 || g.st.Held(r, q-1).IsZero() {
		return q
	}
	if before := g.Flags(r, q-1); before != g.Flags(r, q) || before&pdu.FlagFragment != 0 {
		return q
	}
	return q - 1
}

// plantJoinAnyway forgets that a group must be created.
func (e *Engine) plantJoinAnyway(create bool) bool {
	return create && !(canary.Enabled && e.cfg.Canary == canary.JoinAnyway)
}

// plantEndUnasked ends the group in the place of a member's leaving.
func (g *group) plantEndUnasked(now clock.Time) bool {
	if g.e.cfg.Canary == canary.EndUnasked && g.view != nil {
		g.e.member.Terminate(now, g.name)
		return true
	}
	return false
}
