package engine

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/khamsin-io/khamsin/dataplane"
	"github.com/khamsin-io/khamsin/dataplane/clock"
	"github.com/khamsin-io/khamsin/vsync/core"
	"github.com/khamsin-io/khamsin/vsync/internal/flow"
	"github.com/khamsin-io/khamsin/vsync/internal/link"
	"github.com/khamsin-io/khamsin/vsync/internal/member"
	"github.com/khamsin-io/khamsin/vsync/internal/xfer"
)

// Join asks for membership in a group. The outcome is an EventJoined or an EventEnded.
func (e *Engine) Join(now clock.Time, req JoinRequest) Handle {
	e.now = now
	g := &group{
		e: e, handle: Handle(len(e.groups) + 1), name: req.Name, at: -1, due: clock.Never, askAt: clock.Never,
		raws: raws{dueAt: clock.Never},
		pack: flow.New(e.box, e.cfg.Limits.Pending), unicast: req.Unicast,
	}
	e.groups = append(e.groups, g)
	switch {
	case e.over || e.stopping:
		g.end(ErrStopped)
	case e.byName[req.Name] != nil:
		g.end(fmt.Errorf("%w: this process has joined it already", ErrGroupExists))
	default:
		e.byName[req.Name] = g
		e.member.Join(now, member.Command{
			Group: req.Name, Create: e.plantJoinAnyway(req.Mode == CreateOnly),
			Signature: req.Signature, Handlers: req.Handlers,
			SafeCopies: req.SafeCopies, Own: req.Own, Handle: uint32(g.handle),
		})
	}
	return g.handle
}

func (e *Engine) group(h Handle) *group {
	if h == 0 || int(h) > len(e.groups) {
		return nil
	}
	return e.groups[h-1]
}

// Leave asks to be left out of a group's next view. What was submitted before is still delivered. The outcome is an
// EventEnded with ErrLeft.
func (e *Engine) Leave(now clock.Time, h Handle) {
	e.now = now
	if g := e.group(h); g != nil && !g.leaving {
		g.leaving = true
		e.leavers++
		g.maybeLeave(now)
	}
}

// Terminate asks for the end of a group for all its members.
func (e *Engine) Terminate(now clock.Time, h Handle) {
	e.now = now
	if g := e.group(h); g != nil && !g.leaving {
		e.member.Terminate(now, g.name)
	}
}

// Submit multicasts a message, head followed by body, to a group. It copies them into frames. The head has at most
// flow.HeadMax bytes.
func (e *Engine) Submit(now clock.Time, h Handle, f core.Flavour, head, body []byte) Result {
	e.now = now
	g := e.group(h)
	switch {
	case g == nil || g.leaving:
		return NotMember
	case len(head)+len(body) > e.cfg.Limits.Message:
		return TooLarge
	case f == core.Raw:
		return g.submitRaw(e.join(head, body), 0, dataplane.Endpoint{})
	case !g.pack.Append(f, head, body):
		g.full, g.fullAt = true, g.pack.Taken()
		if g.pack.Len() > 0 {
			e.touch(g) // nothing more can come: what waits for company goes
		}
		return Full
	}
	e.touch(g)
	return Accepted
}

// join returns head followed by body, valid until the next call.
func (e *Engine) join(head, body []byte) []byte {
	if len(head) == 0 {
		return body
	}
	if cap(e.joined) > joinedKeep {
		e.joined = nil
	}
	e.joined = append(append(e.joined[:0], head...), body...)
	return e.joined
}

// joinedKeep bounds the memory that is kept for joining.
const joinedKeep = 64 << 10

// SubmitTo sends a point-to-point message to a member of a group.
func (e *Engine) SubmitTo(now clock.Time, h Handle, to core.Address, msg []byte) Result {
	e.now = now
	g := e.group(h)
	switch {
	case g == nil || g.leaving || g.view == nil || !g.view.Contains(to):
		return NotMember
	case g.peersFull(to):
		return g.refuse(crowd{to, link.Peer})
	case to == e.cfg.Self:
		g.handUp(Delivery{
			Kind: DeliverPeer, Group: h, From: to, Sender: g.self, ViewID: g.view.ID, Data: slices.Clone(msg),
		})
		return Accepted
	}
	b := binary.AppendUvarint(e.links.Buffer(binary.MaxVarintLen64+len(msg)), uint64(g.view.ID))
	e.links.SendLent(now, to, link.Peer, g.lid, append(b, msg...))
	return Accepted
}

// SubmitReply sends a message to a member on a lane of its own, which no handler holds up: the host there gets it as a
// DeliverReply and must take it at once.
func (e *Engine) SubmitReply(now clock.Time, h Handle, to core.Address, msg []byte) Result {
	e.now = now
	g := e.group(h)
	switch {
	case g == nil || g.leaving || g.view == nil || !g.view.Contains(to):
		return NotMember
	case to == e.cfg.Self:
		g.handUp(Delivery{Kind: DeliverReply, Group: h, From: to, ViewID: g.view.ID, Data: slices.Clone(msg)})
		return Accepted
	case e.links.Queued(to, link.Reply, g.lid) > e.cfg.Limits.Transfer:
		return g.refuse(crowd{to, link.Reply})
	}
	b := binary.AppendUvarint(e.links.Buffer(binary.MaxVarintLen64+len(msg)), uint64(g.view.ID))
	e.links.SendLent(now, to, link.Reply, g.lid, append(b, msg...))
	return Accepted
}

// Flush asks for an EventFlushed with the token when all that was submitted before is held by k members, this one
// included; k of zero, or above the view's size, means all.
func (e *Engine) Flush(now clock.Time, h Handle, k int, token uint64) {
	e.now = now
	g := e.group(h)
	if g == nil {
		e.out.Events = append(e.out.Events, Event{Kind: EventFlushed, Group: h, Token: token, Err: ErrNotMember})
		return
	}
	g.flushes = append(g.flushes, flushWait{units: g.pack.Added(), k: k, token: token})
	g.hurry = true
	e.touch(g)
}

// Consumed says that the application is done with so many deliveries of kinds DeliverMessages and DeliverWhole.
func (e *Engine) Consumed(now clock.Time, h Handle, packets int) {
	e.now = now
	if g := e.group(h); g != nil {
		g.queued -= packets
		e.touch(g)
	}
}

// peersFull tells whether a point-to-point message to a member must wait: for this process's own handlers, or for the
// member's.
func (g *group) peersFull(to core.Address) bool {
	if to == g.e.cfg.Self {
		return g.peers > 0 && g.peers >= g.e.cfg.Limits.PeerQueue
	}
	return g.e.links.Queued(to, link.Peer, g.lid) > g.e.cfg.Limits.Pending
}

// crowd is a lane on which there was no room.
type crowd struct {
	to   core.Address
	kind link.Kind
}

// refuse notes that somebody waits for room.
func (g *group) refuse(c crowd) Result {
	if !slices.Contains(g.crowded, c) {
		g.crowded = append(g.crowded, c)
	}
	return Full
}

// ConsumedPeers says that the application is done with point-to-point messages, of so many bytes in all.
func (e *Engine) ConsumedPeers(now clock.Time, h Handle, messages, bytes int) {
	e.now = now
	if g := e.group(h); g != nil {
		g.peers -= bytes + messages*peerCost
		e.kick = true // lanes may hold messages back
		e.roomForPeers(g)
	}
}

// roomForPeers tells those who wait to send point-to-point that there is room: on one of the lanes that refused, at
// half of its limit.
func (e *Engine) roomForPeers(g *group) {
	for _, c := range g.crowded {
		queued, limit := e.links.Queued(c.to, c.kind, g.lid), e.cfg.Limits.Pending
		switch {
		case c.kind == link.Reply:
			limit = e.cfg.Limits.Transfer
		case c.to == e.cfg.Self:
			queued, limit = g.peers, e.cfg.Limits.PeerQueue
		}
		if queued <= limit/2 || g.view == nil || !g.view.Contains(c.to) {
			g.crowded = g.crowded[:0]
			e.out.Events = append(e.out.Events, Event{Kind: EventPeerRoom, Group: g.handle})
			return
		}
	}
}

// Report accuses a member of a group of having failed.
func (e *Engine) Report(now clock.Time, h Handle, who core.Address, reason string) error {
	e.now = now
	g := e.group(h)
	if g == nil || g.view == nil || !g.view.Contains(who) {
		return ErrNotMember
	}
	e.accuse(who, reason)
	return nil
}

// leaversGoOn looks whether a group that this process wants to leave waits for its joiners no more.
func (e *Engine) leaversGoOn(now clock.Time) {
	if e.leavers == 0 {
		return
	}
	for _, g := range e.groups {
		if g != nil && g.leaving && !g.asked {
			g.maybeLeave(now)
		}
	}
}

// StateChunk sends a piece of state to the joiners of a transfer. Full means that nothing was taken: wait for an
// EventStateRoom with the transfer's number.
func (e *Engine) StateChunk(now clock.Time, transfer uint64, data []byte, last bool) Result {
	mark := xfer.More
	if last {
		mark = xfer.Last
	}
	return e.sendState(now, transfer, mark, data)
}

// StateAbort ends a transfer whose state could not be made. The joiners leave the group with ErrTransferAborted.
func (e *Engine) StateAbort(now clock.Time, transfer uint64) {
	e.sendState(now, transfer, xfer.Aborted, nil)
}

func (e *Engine) sendState(now clock.Time, transfer uint64, mark xfer.Mark, data []byte) Result {
	e.now = now
	t := e.transfers[transfer]
	if t == nil {
		return NotMember
	}
	for _, to := range t.Targets {
		if mark == xfer.More && e.links.Queued(to, link.State, t.Lid) > e.cfg.Limits.Transfer {
			t.Full = true
			return Full
		}
	}
	for _, to := range t.Targets {
		e.links.Send(now, to, link.State, t.Lid, xfer.Encode(t.View, mark, data))
	}
	if mark != xfer.More {
		delete(e.transfers, transfer)
		if g := e.byLid[t.Lid]; g != nil {
			g.sending--
			g.maybeLeave(now)
		}
	}
	return Accepted
}

// roomForState tells the makers of state that wait when their joiners have taken half of what was queued, and members
// that wait to send point-to-point.
func (e *Engine) roomForState() {
	for _, g := range e.groups {
		if g != nil && len(g.crowded) > 0 {
			e.roomForPeers(g)
		}
	}
	if len(e.transfers) == 0 {
		return
	}
	for id := uint64(1); id <= e.nextXfer; id++ {
		t := e.transfers[id]
		if t == nil || !t.Full {
			continue
		}
		queued := 0
		for _, to := range t.Targets {
			queued = max(queued, e.links.Queued(to, link.State, t.Lid))
		}
		if queued <= e.cfg.Limits.Transfer/2 {
			t.Full = false
			e.out.Events = append(e.out.Events, Event{Kind: EventStateRoom, Token: id})
		}
	}
}

// stopFactor bounds an orderly stop, in request intervals: without the ORACLE nobody can leave anything.
const stopFactor = 20

// Stop leaves all groups and the system in order. EventOver with ErrStopped says that it is done.
func (e *Engine) Stop(now clock.Time) {
	e.now = now
	if e.stopping || e.over {
		return
	}
	e.stopping = true
	if !e.member.Active() {
		e.finish(ErrStopped) // nobody to say good-bye to
		return
	}
	e.stopBy = now.Add(stopFactor * e.cfg.Timing.Request)
	for _, g := range e.groups {
		if g != nil {
			e.Leave(now, g.handle)
		}
	}
	e.maybeDepart(now)
}

// maybeDepart leaves the system when no group is left.
func (e *Engine) maybeDepart(now clock.Time) {
	if !e.stopping || e.over {
		return
	}
	for _, g := range e.groups {
		if g != nil {
			return
		}
	}
	e.member.Depart(now)
}

// View returns a group's present view, nil before the first.
func (e *Engine) View(h Handle) *core.View {
	if g := e.group(h); g != nil {
		return g.view
	}
	return nil
}
