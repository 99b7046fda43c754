package engine

import (
	"encoding/binary"
	"fmt"

	"github.com/khamsin-io/khamsin/dataplane"
	"github.com/khamsin-io/khamsin/dataplane/clock"
	"github.com/khamsin-io/khamsin/dataplane/invariant"
	"github.com/khamsin-io/khamsin/dataplane/loan"
	"github.com/khamsin-io/khamsin/dataplane/wire"
	"github.com/khamsin-io/khamsin/vsync/core"
	"github.com/khamsin-io/khamsin/vsync/internal/canary"
	"github.com/khamsin-io/khamsin/vsync/internal/flow"
	"github.com/khamsin-io/khamsin/vsync/internal/flush"
	"github.com/khamsin-io/khamsin/vsync/internal/order"
	"github.com/khamsin-io/khamsin/vsync/internal/pdu"
	"github.com/khamsin-io/khamsin/vsync/internal/safe"
	"github.com/khamsin-io/khamsin/vsync/internal/stream"
	"github.com/khamsin-io/khamsin/vsync/internal/xfer"
)

// earlyMax is how many packets of views not installed yet a group keeps.
const earlyMax = 256

// group is one group at one process, from the command to join until it is over.
type group struct {
	e         *Engine
	handle    Handle
	name      string
	lid       uint32
	channel   dataplane.Channel
	unicast   bool       // send to each member by itself, not to the channel
	view      *core.View // nil before the first
	self      core.Rank
	firstView core.ViewID // of this membership

	st      *stream.Stream
	gate    *order.Gate
	safe    *safe.Tracker
	pack    *flow.Packer
	partial []*loan.Loan // by rank: the message in fragments that is being put together; then again for unordered ones
	overtop []core.Seq
	early   []earlyPacket
	closing bool // the view is being closed: everything is delivered, room or not
	usesSafe,
	sentCausal,
	full, // a Submit was refused: tell when there is room
	hurry, // a Flush waits: ask for acknowledgements at once
	leaving, // no more messages are taken
	asked bool // the request to leave was made

	fullAt uint64 // packets that had been taken from pack when a Submit was last refused

	queued  int        // packets with the application
	peers   int        // bytes of point-to-point messages with the application, peerCost added for each
	crowded []crowd    // where a point-to-point message or a reply was refused
	askAt   clock.Time // when to ask others what they hold
	asks    int
	flushes []flushWait

	member *flush.Member
	co     *flush.Coordinator

	hasState bool
	loading  *xfer.Incoming // the state is on its way
	pieces   [][]byte       // of the state, so far
	held     []Delivery     // what waits behind the state
	heldSize int
	sending  int            // transfers under way from here
	served   []core.Address // the joiners of transfers from here

	raws raws

	planted []Delivery // what a planted bug keeps back; see package canary

	// for the engine's lists
	dirty bool
	due   clock.Time
	at    int
}

type earlyPacket struct {
	h wire.Header
	p dataplane.Packet
}

// flushWait is a Flush that waits.
type flushWait struct {
	units uint64   // of the packer: all added before must be numbered
	seq   core.Seq // once they are: up to where my stream must be stable
	// once they are, if any are causal: up to where every stream must be, since what causes are lost with
	all   []core.Seq
	k     int
	token uint64
}

func (g *group) ended() bool { return g.e.groups[g.handle-1] != g }

// receive takes a packet of the group in.
func (g *group) receive(now clock.Time, h *wire.Header, p *dataplane.Packet) {
	if canary.Enabled {
		g.plantWrongView(h, p)
	}
	if g.view == nil || core.ViewID(h.View) > g.view.ID {
		if g.view != nil && !g.e.member.SamePart(core.ViewID(h.View), g.view.ID) {
			g.e.count.OtherPart++
			g.release(p)
			return
		}
		if len(g.early) < earlyMax && h.Kind == wire.KindData {
			g.early = append(g.early, earlyPacket{*h, *p})
			return
		}
		g.e.count.EarlyDropped++
		g.release(p)
		return
	}
	if core.ViewID(h.View) < g.view.ID || h.Rank >= uint32(g.view.Size()) {
		g.e.count.OldView++
		g.release(p)
		return
	}
	payload := g.e.box.Arena().Bytes(p.Frame)[g.e.box.Head():]
	switch h.Kind {
	case wire.KindData:
		g.onData(now, h, p)
		return
	case wire.KindRaw:
		g.onRaw(now, h, p)
		return
	case wire.KindAck:
		g.st.OnAck(now, h, payload)
		if g.usesSafe {
			g.gate.TouchSafe()
		}
	case wire.KindNak:
		g.st.OnNak(h, payload)
	case wire.KindSync:
		g.st.OnSync(now, h)
		if g.usesSafe {
			g.gate.TouchSafe()
		}
	}
	g.release(p)
}

func (g *group) release(p *dataplane.Packet) { g.e.box.Arena().Tx().Release(p.Frame) }

func (g *group) onData(now clock.Time, h *wire.Header, p *dataplane.Packet) {
	if !pdu.ValidFlags(h.Flags) {
		g.e.count.Malformed++
		g.release(p)
		return
	}
	adv := g.st.OnData(now, h, p.Frame)
	if g.usesSafe {
		g.gate.TouchSafe()
	}
	if canary.Enabled {
		g.plantRepairTwice(adv)
	}
	if adv.To > adv.From {
		g.advance(adv)
	}
	if g.member != nil && g.member.OnData(now) {
		g.sayReady(now)
	}
}

// advance passes on that a stream became contiguous further.
func (g *group) advance(adv stream.Advance) {
	for q := adv.From + 1; q <= adv.To; q++ {
		flags := g.Flags(adv.Rank, q)
		switch flavour := pdu.FlavourOf(flags); {
		case flavour == core.Safe:
			g.wakeSafe()
		case flavour == core.Unordered:
			g.overtake(adv.Rank, q)
		case flags&pdu.FlagOrder != 0 && g.usesSafe:
			g.st.Hasten()
		case flags&pdu.FlagCause != 0:
			g.noteCauses(adv.Rank, q)
		}
	}
	if !g.gate.Received(adv.Rank, adv.From, adv.To) {
		g.e.count.Malformed++
	}
}

// noteCauses tells package safe what a causal record refers to.
func (g *group) noteCauses(r core.Rank, q core.Seq) {
	b := g.Payload(r, q)
	for len(b) > 0 {
		c, rest, ok := order.DecodeCause(b, g.view.Size())
		if !ok {
			g.e.count.Malformed++
			return
		}
		g.safe.OnCause(r, c.Rank, c.Seq)
		b = rest
	}
}

// wakeSafe makes acknowledgements go to everyone from the first SafeSend on.
func (g *group) wakeSafe() {
	if !g.usesSafe {
		g.usesSafe = true
		g.st.Observe(g.safe)
	}
	g.st.Hasten()
}

// overtake delivers an unordered packet as soon as its stream is contiguous, whatever waits in front of it.
func (g *group) overtake(r core.Rank, q core.Seq) {
	if g.overtop == nil {
		g.overtop = make([]core.Seq, g.view.Size())
	}
	if g.overtop[r] < q {
		g.overtop[r] = q
		g.hand(r, q)
	}
}

// settle finishes the group's part of a turn: deliver, number, transmit, tell who waits.
func (g *group) settle(now clock.Time) {
	if g.ended() || g.st == nil {
		return
	}
	g.gate.Run()
	if !g.st.Frozen() {
		g.number(now)
		g.gate.Run()
		g.st.Pump(now)
		if g.hurry && g.pack.Len() == 0 {
			g.hurry = false
			g.st.AskNow(now)
		}
		g.number(now) // alone in a view, what was sent is stable at once
		g.gate.Run()
		g.st.Pump(now)
	}
	g.checkFlushes()
	g.watch(now)
	g.maybeLeave(now)
	if g.full && g.pack.Bytes() <= g.e.cfg.Limits.Pending/2 && (g.pack.Len() == 0 || g.pack.Taken() > g.fullAt) {
		g.full = false
		g.e.out.Events = append(g.e.out.Events, Event{Kind: EventRoom, Group: g.handle})
	}
}

// number gives numbers to what waits, as the window allows: places in the total order first, when this is rank 0.
func (g *group) number(clock.Time) {
	g.numberPlaces()
	if g.waitsForCompany() {
		return
	}
	for g.pack.Len() > 0 && g.st.Open() {
		for more := true; more; {
			u := g.pack.Take()
			more = u.Flags&pdu.FlagMore != 0
			if pdu.FlavourOf(u.Flags) == core.Causal && u.Flags&pdu.FlagFragment == 0 || u.Flags&pdu.FlagFirst != 0 {
				g.numberCauses(pdu.FlavourOf(u.Flags))
			}
			q := g.st.Number(u.Frame, u.Flags)
			g.advance(stream.Advance{Rank: g.self, From: q - 1, To: q})
		}
	}
}

// waitsForCompany tells whether the packets that wait should go on waiting for more: so much is under way that an
// acknowledgement will come soon and let them go, and they are few, or the window has room for few of them.
func (g *group) waitsForCompany() bool {
	if !g.st.Busy() || len(g.flushes) > 0 || g.leaving || g.closing {
		return false
	}
	company := g.st.Company()
	return g.st.Room() < company || g.pack.Len() < company && !g.full
}

// numberPlaces puts a record of places into rank 0's stream.
func (g *group) numberPlaces() {
	runs := g.gate.Unnumbered()
	for len(runs) > 0 {
		f, ok := g.e.box.Alloc()
		if !ok {
			return
		}
		var b [2 * binary.MaxVarintLen64]byte
		n := 0
		for n < len(runs) && int(f.Len)+len(b) <= g.e.box.MTU() {
			f = g.e.box.Extend(f, order.AppendRun(b[:0], runs[n]))
			n++
		}
		g.gate.Numbered(n)
		q := g.st.Number(f, pdu.Flags(core.FIFO)|pdu.FlagOrder)
		g.advance(stream.Advance{Rank: g.self, From: q - 1, To: q})
		runs = g.gate.Unnumbered()
	}
}

// numberCauses puts a record of what was delivered here in front of a causal message.
func (g *group) numberCauses(f core.Flavour) {
	if f != core.Causal {
		return
	}
	g.sentCausal = true
	causes := g.gate.Causes(nil)
	for len(causes) > 0 {
		fr, ok := g.e.box.Alloc()
		if !ok {
			return
		}
		var b [2 * binary.MaxVarintLen64]byte
		for len(causes) > 0 && int(fr.Len)+len(b) <= g.e.box.MTU() {
			fr = g.e.box.Extend(fr, order.AppendCause(b[:0], causes[0]))
			causes = causes[1:]
		}
		q := g.st.Number(fr, pdu.Flags(core.FIFO)|pdu.FlagCause)
		g.advance(stream.Advance{Rank: g.self, From: q - 1, To: q})
	}
}

// The gate's view of the streams: order.Packets.

// ReceivedTo returns how far a stream is contiguous.
func (g *group) ReceivedTo(r core.Rank) core.Seq { return g.st.ReceivedTo(r) }

// DeliveredTo returns how far a stream passed the gate.
func (g *group) DeliveredTo(r core.Rank) core.Seq { return g.st.DeliveredTo(r) }

// StableAt returns how far a stream is known to be held by all; package safe asks.
func (g *group) StableAt(r core.Rank) core.Seq { return g.st.StableAt(r) }

// Held tells whether the acceptors hold a safe packet and the record of its place.
func (g *group) Held(r core.Rank, q, by core.Seq) bool { return g.safe.Held(r, q, by) }

// Flags returns a packet's flags.
func (g *group) Flags(r core.Rank, q core.Seq) uint8 {
	flags, ok := g.st.Flags(r, q)
	if !ok {
		invariant.Check(canary.Enabled, "engine: flags of a packet that is not held: rank %d seq %d", r, q)
		return pdu.Flags(core.FIFO) | pdu.FlagCause
	}
	return flags
}

// Payload returns a packet's payload.
func (g *group) Payload(r core.Rank, q core.Seq) []byte {
	f := g.st.Held(r, q)
	if f.IsZero() {
		return nil
	}
	return g.e.box.Arena().Bytes(f)[g.e.box.Head():]
}

// Deliver passes a packet on. False means that the application has too much already.
func (g *group) Deliver(r core.Rank, q core.Seq) bool {
	flags := g.Flags(r, q)
	overtook := pdu.FlavourOf(flags) == core.Unordered && g.overtop != nil && g.overtop[r] >= q
	if !pdu.IsControl(flags) && !overtook {
		if !g.closing && g.noRoom() {
			return false
		}
		g.hand(r, q)
	}
	g.st.Delivered(g.e.now, r, q)
	return true
}

func (g *group) noRoom() bool {
	if g.loading != nil {
		return g.heldSize > g.e.cfg.Limits.JoinerQueue
	}
	return g.queued >= g.e.cfg.Limits.Queue
}

func (g *group) deadline() clock.Time {
	if g.ended() || g.st == nil {
		return clock.Never
	}
	t := min(g.st.Deadline(), g.askAt, g.raws.dueAt)
	if g.member != nil {
		t = min(t, g.member.Deadline())
	}
	if g.co != nil {
		t = min(t, g.co.Due)
	}
	return t
}

func (g *group) tick(now clock.Time) {
	g.st.Tick(now)
	g.tickRaw(now)
	for _, r := range g.st.Stuck(now, g.e.cfg.Timing.Stuck) {
		g.e.accuse(g.view.Members[r], fmt.Sprintf("its handlers in group %q have taken nothing for %v", g.name,
			g.e.cfg.Timing.Stuck))
	}
	if g.askAt <= now {
		g.ask()
	}
	if g.member != nil {
		g.member.Tick(now)
	}
	if g.co != nil && g.co.Due <= now {
		g.late(now)
	}
	g.e.touch(g)
}
