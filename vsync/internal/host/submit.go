package host

import (
	"context"
	"encoding/binary"

	"github.com/khamsin-io/khamsin/dataplane/clock"
	"github.com/khamsin-io/khamsin/vsync/core"
	"github.com/khamsin-io/khamsin/vsync/internal/engine"
)

// headMax is the greatest length of a Head.
const headMax = 7

// Head is what stands in front of a message's body, at most seven bytes. It travels by value, so that sending allocates
// nothing, and in one register: the lowest byte is the length.
type Head struct{ bits uint64 }

// NewHead returns a head of n bytes, at most seven, the first of which is the lowest byte of bytes.
func NewHead(bytes uint64, n int) Head { return Head{bytes<<8 | uint64(n)} }

// Len returns the number of its bytes.
func (h Head) Len() int { return int(h.bits & 0xff) }

// Append appends it to b.
func (h Head) Append(b []byte) []byte {
	end := len(b) + h.Len()
	return binary.LittleEndian.AppendUint64(b, h.bits>>8)[:end]
}

// Submit multicasts head followed by body to the group. It waits while the group has no room, until ctx ends; inside a
// handler of the group it returns ErrWouldBlock instead. It returns as soon as the message has its place in this
// process's order of sending. The body is the caller's again when it returns.
func (g *Group) Submit(ctx context.Context, f core.Flavour, head Head, body []byte) error {
	if head.Len()+len(body) > g.host.cfg.Message {
		return ErrTooLarge
	}
	for {
		switch g.cast(f, head, body) {
		case engine.Accepted:
			return nil
		case engine.TooLarge:
			return ErrTooLarge
		case engine.NotMember:
			return g.notMember()
		}
		if err := g.waitRoom(ctx, &g.room); err != nil {
			return err
		}
	}
}

// SubmitTo sends head followed by body to one member. It waits as Submit does.
func (g *Group) SubmitTo(ctx context.Context, to core.Address, head Head, body []byte) error {
	return g.toOne(ctx, callPeer, to, head, body)
}

// Answer sends head followed by body to one member on a lane that handlers do not hold up: the other side gets it by
// Early. So it waits for room inside a handler too. Only handlers that may run on the receiver's goroutine get
// ErrWouldBlock.
func (g *Group) Answer(ctx context.Context, to core.Address, head Head, body []byte) error {
	return g.toOne(ctx, callReply, to, head, body)
}

// SubmitRawTo sends head followed by body to one member, once: it may be lost. It never waits.
func (g *Group) SubmitRawTo(ctx context.Context, to core.Address, head Head, body []byte) error {
	return g.toOne(ctx, callRaw, to, head, body)
}

// AnswerRaw is Answer by a message that may be lost. It never waits.
func (g *Group) AnswerRaw(ctx context.Context, to core.Address, head Head, body []byte) error {
	return g.toOne(ctx, callRawReply, to, head, body)
}

// toOne tries until the message is taken or the caller must not wait any more.
func (g *Group) toOne(ctx context.Context, k callKind, to core.Address, head Head, body []byte) error {
	for {
		switch g.peer(k, to, head, body) {
		case engine.Accepted:
			return nil
		case engine.TooLarge:
			return ErrTooLarge
		case engine.NotMember:
			return g.notMember()
		}
		if (k == callPeer || g.inlined) && g.inside(ctx) {
			return ErrWouldBlock
		}
		if err := g.peerRoom.wait(ctx, g.ending); err != nil {
			return err
		}
	}
}

// notMember says why the group takes no messages.
func (g *Group) notMember() error {
	if err := g.Err(); err != nil {
		return err
	}
	if err := g.host.Err(); err != nil {
		return err
	}
	return engine.ErrNotMember
}

// waitRoom waits until r opens.
func (g *Group) waitRoom(ctx context.Context, r *room) error {
	if g.inside(ctx) {
		return ErrWouldBlock
	}
	return r.wait(ctx, g.ending)
}

// cast tries once to multicast a message.
func (g *Group) cast(f core.Flavour, head Head, body []byte) engine.Result {
	h := g.host
	switch {
	case g.life.Load() != groupActive:
		return engine.NotMember
	case g.room.shut.Load():
		return engine.Full
	}
	small := head.Len()+len(body) <= stageMax
	if small && h.streams.on.Load() {
		return g.stage(f, head, body)
	}
	if now, ok := h.enter(); ok {
		h.streams.note(now)
		r := g.submitOwned(now, f, head, body)
		h.finish(now)
		return r
	}
	if small {
		return g.stage(f, head, body)
	}
	c := h.newCall()
	c.kind, c.group, c.flavour, c.head, c.body = callCast, g, f, head, body
	return h.doResult(c)
}

// peer tries once to send a message to one member.
func (g *Group) peer(k callKind, to core.Address, head Head, body []byte) engine.Result {
	if g.life.Load() != groupActive {
		return engine.NotMember
	}
	if g.peerRoom.shut.Load() && k != callRaw && k != callRawReply {
		return engine.Full
	}
	c := g.host.newCall()
	c.kind, c.group, c.to, c.head, c.body = k, g, to, head, body
	return g.host.doResult(c)
}

// doResult carries out a call and returns its result; NotMember when the host has ended.
func (h *Host) doResult(c *call) engine.Result {
	if !h.do(c) {
		return engine.NotMember
	}
	r := c.result
	h.freeCall(c)
	return r
}

// submitOwned passes the engine one multicast. Owner only.
func (g *Group) submitOwned(now clock.Time, f core.Flavour, head Head, body []byte) engine.Result {
	if g.full {
		return engine.Full
	}
	if g.life.Load() != groupActive {
		return engine.NotMember
	}
	own := &g.host.own
	own.head = head.Append(own.head[:0]) // whatever is passed on by an interface would escape
	r := g.host.engine.Submit(now, g.handle, f, own.head, body)
	if r == engine.Full {
		g.full = true
		g.room.close()
	}
	return r
}

// submitToOwned passes the engine one point-to-point message. Owner only.
func (g *Group) submitToOwned(now clock.Time, c *call) engine.Result {
	if g.life.Load() != groupActive {
		return engine.NotMember
	}
	e, msg, r := g.host.engine, g.host.join(c.head, c.body), engine.NotMember
	switch c.kind {
	case callPeer:
		r = e.SubmitTo(now, g.handle, c.to, msg)
	case callReply:
		r = e.SubmitReply(now, g.handle, c.to, msg)
	default:
		r = e.SubmitRawTo(now, g.handle, c.to, msg, c.kind == callRawReply)
	}
	if r == engine.Full {
		g.peerRoom.close()
	}
	return r
}

// join returns head followed by body, valid until the next call. Owner only.
func (h *Host) join(head Head, body []byte) []byte {
	if head.Len() == 0 {
		return body
	}
	if cap(h.own.scratch) > scratchKeep {
		h.own.scratch = nil
	}
	h.own.scratch = append(head.Append(h.own.scratch[:0]), body...)
	return h.own.scratch
}

// eaten is what the application is done with: packets of multicasts, or point-to-point messages and their bytes.
type eaten struct {
	packets         int
	messages, bytes int
}

// reportConsumed tells the engine what the application is done with. Owner only.
func (g *Group) reportConsumed(now clock.Time, n eaten) {
	if g.host.group(g.handle) != g {
		return
	}
	if n.packets > 0 {
		g.host.engine.Consumed(now, g.handle, n.packets)
	}
	if n.messages > 0 {
		g.host.engine.ConsumedPeers(now, g.handle, n.messages, n.bytes)
	}
}

// consumed tells the engine so from the group's executor.
func (g *Group) consumed(n eaten) {
	h := g.host
	if h.tryOwn() {
		now := h.begin()
		g.reportConsumed(now, n)
		h.finish(now)
		return
	}
	s, at := h.reserve()
	if s == nil {
		return
	}
	s.command.kind, s.command.group, s.command.eaten = cmdConsumed, g, n
	h.inbox.publish(s, at)
	h.kick()
}
