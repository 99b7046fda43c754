package engine

import (
	"fmt"
	"slices"

	"github.com/khamsin-io/khamsin/dataplane"
	"github.com/khamsin-io/khamsin/dataplane/clock"
	"github.com/khamsin-io/khamsin/dataplane/invariant"
	"github.com/khamsin-io/khamsin/vsync/core"
	"github.com/khamsin-io/khamsin/vsync/internal/canary"
	"github.com/khamsin-io/khamsin/vsync/internal/flush"
	"github.com/khamsin-io/khamsin/vsync/internal/link"
	"github.com/khamsin-io/khamsin/vsync/internal/member"
	"github.com/khamsin-io/khamsin/vsync/internal/order"
	"github.com/khamsin-io/khamsin/vsync/internal/pdu"
	"github.com/khamsin-io/khamsin/vsync/internal/safe"
	"github.com/khamsin-io/khamsin/vsync/internal/stream"
	"github.com/khamsin-io/khamsin/vsync/internal/xfer"
)

// coordinate begins to lead a view change, unless a newer one is known.
func (g *group) coordinate(now clock.Time, p *pdu.Propose) {
	if g.co != nil && g.co.Proposal().Next.ID >= p.Next.ID {
		return
	}
	if g.view != nil && g.view.ID >= p.Next.ID {
		return
	}
	g.co = flush.NewCoordinator(p, now.Add(g.e.cfg.Timing.Step))
	g.toAll(now, p.Flushers, pdu.TypePropose, p)
	g.propose(now, p)
}

// toAll sends a control message to everyone listed but this process.
func (g *group) toAll(now clock.Time, list []core.Address, t pdu.Type, m pdu.Message) {
	var b []byte
	for _, a := range list {
		if a != g.e.cfg.Self {
			if b == nil {
				b = pdu.Encode(t, m)
			}
			g.e.links.Send(now, a, link.Control, 0, b)
		}
	}
}

// late accuses those who hold up a view change: one at a time, because each accusation begins a new change. Who has
// reported and is not ready may only be waiting for what a dead member held, so the detector gets much more time to
// find that one.
func (g *group) late(now clock.Time) {
	g.co.Due = now.Add(g.e.cfg.Timing.Step)
	for _, a := range g.co.Late() {
		if a != g.e.cfg.Self {
			g.e.accuse(a, fmt.Sprintf("does not answer in the change of %q to view %d", g.name,
				g.co.Proposal().Next.ID))
			return
		}
	}
}

// readyFactor is how many steps the members may take to fetch what they lack.
const readyFactor = 4

// propose begins this member's part in a view change, unless a newer one is known.
func (g *group) propose(now clock.Time, p *pdu.Propose) {
	g.decide(now, p.Base)
	if g.e.kick { // a state that waited for this view counts in the report
		g.e.kick = false
		g.e.links.Kick(now)
	}
	if g.ended() || g.view == nil || g.view.ID != p.Base.View.ID {
		return
	}
	if g.member != nil && g.member.Proposal().Next.ID >= p.Next.ID {
		return
	}
	if g.co != nil && g.co.Proposal().Next.ID < p.Next.ID {
		g.co = nil
	}
	m, report := flush.NewMember(p, (*ending)(g), 2*g.e.cfg.Timing.Nak+g.e.cfg.Timing.Ack, g.e.cfg.Canary)
	g.member = m
	report.HasState = g.hasState
	if g.loading != nil {
		report.Source = g.loading.Source
		if !p.Next.Contains(g.loading.Source) {
			// What was reported must stay true: a state that still comes from a member that goes is not taken any more.
			g.loading.Source = core.NoAddress
		}
	}
	if p.Coordinator == g.e.cfg.Self {
		g.onReport(now, g.e.cfg.Self, report)
		return
	}
	g.e.links.Send(now, p.Coordinator, link.Control, 0, pdu.Encode(pdu.TypeReport, report))
}

// ending is a group as package flush sees it.
type ending group

// Freeze stops the view's streams.
func (g *ending) Freeze() { g.st.Freeze() }

// Report returns what is held of every stream.
func (g *ending) Report() []pdu.Holding {
	list := make([]pdu.Holding, g.view.Size())
	for r := range list {
		to, islands := g.st.Holdings(core.Rank(r))
		list[r].ReceivedTo = to
		for _, i := range islands {
			list[r].Islands = append(list[r].Islands, pdu.Island(i))
		}
	}
	return list
}

// FirstMissing returns the first packet that is not held.
func (g *ending) FirstMissing(r core.Rank, after, q core.Seq) (core.Seq, bool) {
	return g.st.FirstMissing(r, after, q)
}

// Ask asks a holder for what is missing of a stream.
func (g *ending) Ask(r core.Rank, q core.Seq, holder dataplane.Endpoint) int {
	return g.st.Ask(r, q, holder)
}

func (g *group) onReport(now clock.Time, from core.Address, m *pdu.Report) {
	if g.co == nil {
		return
	}
	if c := g.co.OnReport(from, m); c != nil {
		if who := g.co.Keep(); !who.IsZero() {
			g.co.Due = clock.Never // a proposal that keeps it follows
			g.e.member.Keep(now, g.co.Proposal(), who)
			return
		}
		g.co.Due = now.Add(readyFactor * g.e.cfg.Timing.Step)
		g.toAll(now, g.co.Proposal().Flushers, pdu.TypeCut, c)
		g.onCut(now, c)
	}
}

func (g *group) onCut(now clock.Time, c *pdu.Cut) {
	if g.member != nil && g.member.OnCut(now, c) {
		g.sayReady(now)
	}
}

func (g *group) sayReady(now clock.Time) {
	p := g.member.Proposal()
	m := &pdu.Ready{Lid: g.lid, Next: p.Next.ID}
	if p.Coordinator == g.e.cfg.Self {
		g.onReady(now, g.e.cfg.Self, m)
		return
	}
	g.e.links.Send(now, p.Coordinator, link.Control, 0, pdu.Encode(pdu.TypeReady, m))
}

func (g *group) onReady(now clock.Time, from core.Address, m *pdu.Ready) {
	if g.co == nil {
		return
	}
	if d := g.co.OnReady(from, m); d != nil {
		g.co.Due = clock.Never
		g.e.member.Commit(now, d)
	}
}

// spread passes a committed view on to everyone whom it concerns.
func (g *group) spread(now clock.Time, d *pdu.Decision) {
	p := g.co.Proposal()
	g.co = nil
	if canary.Enabled && g.e.cfg.Canary == canary.ForgetInstall && d.View.ID%3 == 0 {
		return
	}
	g.toAll(now, p.Flushers, pdu.TypeDecide, d)
	g.toAll(now, d.View.Joined, pdu.TypeDecide, d)
}

// decide installs a committed view, if it is the next here.
func (g *group) decide(now clock.Time, d *pdu.Decision) {
	switch {
	case g.ended():
		return
	case g.view == nil && !d.View.Contains(g.e.cfg.Self):
		return
	case g.view != nil && (d.View.ID <= g.view.ID || d.Prev != g.view.ID):
		return
	case g.view != nil && len(d.Cut) != g.view.Size():
		g.e.count.Malformed++
		return
	}
	if g.view != nil {
		g.close(d)
	}
	for i, a := range d.Failed {
		g.e.bury(a, d.Charges[i])
	}
	if !d.View.Contains(g.e.cfg.Self) {
		err := ErrLeft
		if !g.leaving {
			err = ErrTerminated
		}
		g.end(err)
		g.e.maybeDepart(now)
		return
	}
	g.install(now, d)
}

// close delivers what belongs to the ending view.
func (g *group) close(d *pdu.Decision) {
	g.st.Freeze()
	if canary.Enabled && g.e.cfg.Canary == canary.ForgetCut {
		for r := range d.Cut {
			d.Cut[r] = min(d.Cut[r], g.st.ReceivedTo(core.Rank(r)))
		}
	}
	g.closing = true
	for r, q := range d.Cut {
		from := g.st.ReceivedTo(core.Rank(r))
		if m, missing := g.st.FirstMissing(core.Rank(r), 0, q); missing && !canary.Enabled {
			invariant.Fail("engine: view %d ends at %d of rank %d, and %d is not held", g.view.ID, q, r, m)
		}
		g.st.Extend(core.Rank(r), q)
		if q > from {
			g.advance(stream.Advance{Rank: core.Rank(r), From: from, To: q})
		}
	}
	final := g.gate.Close(d.Cut)
	for r, q := range final {
		if at := g.st.DeliveredTo(core.Rank(r)); at != q && !canary.Enabled {
			invariant.Fail("engine: view %d of %q closed at %d of rank %d, delivered to %d", g.view.ID, g.name, q,
				r, at)
		}
	}
	g.closing = false
	// All that is numbered is in the cut, and every survivor holds it: flushes that wait only for that are over.
	for i := range g.flushes {
		if g.pack.Taken() >= g.flushes[i].units {
			g.flushes[i].seq, g.flushes[i].k, g.flushes[i].all = 0, 0, nil
		}
	}
	addCounters(&g.e.count.Streams, &g.st.Count)
	g.st.Release()
	g.st = nil
}

// install begins a view.
func (g *group) install(now clock.Time, d *pdu.Decision) {
	first := g.view == nil
	if first {
		g.lid, g.channel, g.firstView = d.Lid, d.Channel, d.View.ID
		g.e.byLid[g.lid] = g
		g.e.subscribe(g.channel)
		g.e.want(g.channel, g.lid, true)
	}
	g.view, g.self = d.View, d.View.Rank(g.e.cfg.Self)
	g.member = nil
	g.asked = false // who leaves and is still a member asks again, when it owes nothing any more
	if g.co != nil && g.co.Proposal().Next.ID <= d.View.ID {
		g.co = nil
	}
	g.partial, g.overtop, g.usesSafe, g.sentCausal = nil, nil, false, false
	g.forgetRaw()
	peers := endpoints(d.View.Members)
	g.e.out.Rosters = append(g.e.out.Rosters, Roster{Channel: g.channel, Group: g.lid, Members: peers})
	channel := g.channel
	if g.unicast {
		channel = 0
	}
	g.st = stream.New(stream.Config{
		Self: g.self, Peers: peers, Channel: channel, Group: g.lid, View: d.View.ID,
		Window: g.window(d.View.Size()), Nak: g.e.cfg.Timing.Nak, Ack: g.e.cfg.Timing.Ack, Sync: g.e.cfg.Timing.Sync,
		Canary: g.e.cfg.Canary,
	}, g.e.box)
	g.st.SetLimit(g.e.windowLimit)
	g.gate = order.New(g.self, d.View.Size(), g, g.e.cfg.Canary)
	g.safe = safe.New(g.self, d.View.Size(), d.SafeCopies, g, g.e.cfg.Canary)
	g.state(d)
	g.deliver(Delivery{Kind: DeliverView, View: g.e.viewWithoutLast(d.View), ViewID: d.View.ID})
	if first {
		g.e.out.Events = append(g.e.out.Events, Event{Kind: EventJoined, Group: g.handle})
	}
	g.e.roomForPeers(g)
	early := g.early
	g.early = nil
	for i := range early {
		g.receive(now, &early[i].h, &early[i].p)
	}
	g.e.kick = true // lanes may hold messages for this view
	g.e.touch(g)
}

// windowMin is the smallest window, in packets, whatever the arena's size.
const windowMin = 8

// window returns how many packets of one member may be unstable: as configured, but no more than that all members
// together may fill a quarter of the frames for receiving, since what is not stable, or not taken by the application,
// stays in them.
func (g *group) window(members int) int {
	return max(windowMin, min(g.e.cfg.Limits.Window, g.e.box.Arena().Rx().Cap()/(4*stream.RoomFactor*members)))
}

func endpoints(members []core.Address) []dataplane.Endpoint {
	list := make([]dataplane.Endpoint, len(members))
	for i, m := range members {
		list[i] = m.Endpoint()
	}
	return list
}

// state does this member's part in handing the group's state to those who have none.
func (g *group) state(d *pdu.Decision) {
	self := g.e.cfg.Self
	switch {
	case d.Source == self:
		if !g.hasState {
			g.forgetState()
			g.hasState = true
			peers := g.held
			g.held, g.heldSize = nil, 0
			g.deliver(Delivery{Kind: DeliverInit, View: d.View, ViewID: d.View.ID})
			for _, d := range peers {
				g.handUp(d)
			}
		}
		if len(d.Stateless) > 0 {
			g.send(d)
		}
	case !g.hasState && slices.Contains(d.Stateless, self):
		g.forgetState()
		g.loading = &xfer.Incoming{Source: d.Source, View: d.View.ID}
	}
}

// send begins a transfer: the application makes the state at this point of its delivery sequence.
func (g *group) send(d *pdu.Decision) {
	g.e.nextXfer++
	t := &xfer.Outgoing{ID: g.e.nextXfer, Lid: g.lid, View: d.View.ID, Targets: d.Stateless}
	g.e.transfers[t.ID] = t
	g.sending++
	g.served = append(g.served, d.Stateless...)
	made := Delivery{Kind: DeliverMakeState, Group: g.handle, View: d.View, ViewID: d.View.ID, Transfer: t.ID}
	if canary.Enabled && g.e.cfg.Canary == canary.StateLate {
		g.planted = append(g.planted, made)
		return
	}
	g.deliver(made)
}

// forgetState drops what came of a transfer that will not be completed. Point-to-point messages stay: no state replaces
// them.
func (g *group) forgetState() {
	g.loading, g.pieces = nil, nil
	g.e.kick = true // lanes may hold point-to-point messages that found no room behind the state
	g.heldSize = 0
	g.held = slices.DeleteFunc(g.held, func(d Delivery) bool { return d.Kind != DeliverPeer })
	for i := range g.held {
		g.heldSize += len(g.held[i].Data)
	}
}

// maybeLeave asks the ORACLE to be left out of the next view, once what this member owes is done: what was submitted
// has its number, and the joiners that it made the state for have received it.
func (g *group) maybeLeave(now clock.Time) {
	if !g.leaving || g.asked || g.sending > 0 || (g.pack.Len() > 0 && g.view != nil) {
		return
	}
	for _, a := range g.served {
		if g.view != nil && !g.view.Contains(a) {
			continue // it has left or failed meanwhile, and acknowledges nothing any more
		}
		if !g.e.links.Acked(a, link.State, g.lid) {
			return
		}
	}
	g.asked, g.served = true, nil
	if canary.Enabled && g.plantEndUnasked(now) {
		return
	}
	var through core.ViewID
	if g.view != nil {
		through = g.view.ID
	}
	g.e.member.Leave(now, member.Command{Group: g.name, Through: through, Handle: uint32(g.handle)})
}

// end makes the group over at this process.
func (g *group) end(err error) {
	if g.ended() {
		return
	}
	g.e.groups[g.handle-1] = nil
	if g.e.byName[g.name] == g {
		delete(g.e.byName, g.name)
	}
	if g.e.byLid[g.lid] == g {
		delete(g.e.byLid, g.lid)
	}
	if g.view != nil {
		g.e.want(g.channel, g.lid, false)
		g.e.unsubscribe(g.channel)
		g.e.out.Rosters = append(g.e.out.Rosters, Roster{Channel: g.channel, Group: g.lid})
	}
	g.forgetState()
	g.drop()
	for _, w := range g.flushes {
		g.e.out.Events = append(g.e.out.Events, Event{Kind: EventFlushed, Group: g.handle, Token: w.token, Err: err})
	}
	g.flushes = nil
	for id := uint64(1); id <= g.e.nextXfer; id++ {
		if t := g.e.transfers[id]; t != nil && t.Lid == g.lid {
			delete(g.e.transfers, id)
			g.e.out.Events = append(g.e.out.Events, Event{Kind: EventStateRoom, Token: id})
		}
	}
	g.e.out.Deliveries = append(g.e.out.Deliveries, Delivery{Kind: DeliverEnd, Group: g.handle, Err: err})
	g.e.out.Events = append(g.e.out.Events, Event{Kind: EventEnded, Group: g.handle, Err: err})
	g.e.retime(g)
	g.e.kick = true // messages for it can go
}

// drop gives every frame up.
func (g *group) drop() {
	if g.st != nil {
		addCounters(&g.e.count.Streams, &g.st.Count)
		g.st.Release()
		g.st = nil
	}
	g.pack.Release()
	for i := range g.early {
		g.e.box.Arena().Tx().Release(g.early[i].p.Frame)
	}
	g.early = nil
	g.member, g.co = nil, nil
}

var _ order.Packets = (*group)(nil)
var _ flush.Streams = (*ending)(nil)
