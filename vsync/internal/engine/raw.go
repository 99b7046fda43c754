package engine

import (
	"bytes"
	"encoding/binary"
	"slices"

	"github.com/khamsin-io/khamsin/dataplane"
	"github.com/khamsin-io/khamsin/dataplane/clock"
	"github.com/khamsin-io/khamsin/dataplane/frame"
	"github.com/khamsin-io/khamsin/dataplane/wire"
	"github.com/khamsin-io/khamsin/vsync/core"
)

// Raw messages are neither numbered nor acknowledged nor repaired. One that fits a packet is a packet with the number
// 0; a longer one travels in fragments, which are told apart by the number of the message and their place in it. A
// message in pieces is given up when the next one of its sender begins, when the view ends, or when it has waited for
// its rest as long as a silent process is waited for.
//
//	Seq  number of the message among the sender's raw ones in fragments; 0: it is whole
//	Aux  bit 31 to one member, bit 30 a reply, then the place of the fragment, bit 0 more follow

// Bits of a raw packet's Aux.
const (
	rawOne   = 1 << 31
	rawReply = 1 << 30
	rawPlace = rawReply - 1
	rawMore  = 1
)

// rawClasses is how many kinds of raw messages one sender may have in pieces at a time: to all, to one, replies.
const rawClasses = 3

// rawPart is a raw message of which not everything has come.
type rawPart struct {
	number uint64     // 0: none
	pieces [][]byte   // by place; nil for those that have not come
	have   int        // pieces that have
	bytes  int        // of them
	places int        // of the whole message; 0: not known
	at     clock.Time // when it began to arrive
}

// rawPieceMin bounds the places of a message: no sender cuts it into smaller pieces.
const rawPieceMin = 128

// raws is a group's raw traffic in one view.
type raws struct {
	sent  uint64    // messages in fragments
	parts []rawPart // by rank and class; nil until there is one
	dueAt clock.Time
}

// SubmitRawTo sends a raw message to one member, or a raw reply, which its host gets as a DeliverReply. It may be lost.
func (e *Engine) SubmitRawTo(now clock.Time, h Handle, to core.Address, msg []byte, reply bool) Result {
	e.now = now
	g := e.group(h)
	switch {
	case g == nil || g.leaving || g.view == nil || !g.view.Contains(to):
		return NotMember
	case len(msg) > e.cfg.Limits.Message:
		return TooLarge
	}
	class := uint32(rawOne)
	if reply {
		class |= rawReply
	}
	if to == e.cfg.Self {
		g.handRawOne(class, g.self, slices.Clone(msg))
		return Accepted
	}
	return g.submitRaw(msg, class, to.Endpoint())
}

// submitRaw sends a raw message: to one member when class says so, else to all, this one included.
func (g *group) submitRaw(msg []byte, class uint32, to dataplane.Endpoint) Result {
	if g.st == nil || g.st.Frozen() {
		return Accepted // between views: lost, as raw messages may be
	}
	var head [binary.MaxVarintLen64]byte
	n := binary.PutUvarint(head[:], uint64(len(msg)))
	if n+len(msg) <= g.e.box.Room() {
		if f, ok := g.rawFrame(0, class, head[:n], msg); ok {
			if class == 0 {
				g.handRaw(g.self, f)
			}
			g.emitRaw(f, class, to)
		}
		return Accepted
	}
	g.raws.sent++
	whole := msg
	for place := uint32(0); len(msg) > 0; place++ {
		room := g.e.box.Room()
		prefix := head[:0]
		if place == 0 {
			prefix = head[:n]
			room -= n
		}
		part := msg[:min(room, len(msg))]
		msg = msg[len(part):]
		aux := class | place<<1
		if len(msg) > 0 {
			aux |= rawMore
		}
		f, ok := g.rawFrame(g.raws.sent, aux, prefix, part)
		if !ok {
			return Accepted // the rest is lost, and so is the message
		}
		g.emitRaw(f, class, to)
	}
	if class == 0 && !g.noRoom() {
		g.deliver(Delivery{
			Kind: DeliverWhole, Flavour: core.Raw, Sender: g.self, ViewID: g.view.ID, Data: bytes.Clone(whole),
		})
	}
	return Accepted
}

func (g *group) rawFrame(number uint64, aux uint32, prefix, part []byte) (frame.Frame, bool) {
	f, ok := g.e.box.Alloc()
	if !ok {
		return frame.Frame{}, false
	}
	f = g.e.box.ExtendBy(f, prefix, part)
	g.e.box.Finish(f, &wire.Header{
		Kind: wire.KindRaw, Flags: uint8(core.Raw), Group: g.lid, View: uint64(g.view.ID), Seq: number,
		Rank: uint32(g.self), Aux: aux,
	})
	return f, true
}

// emitRaw sends a frame and gives it up.
func (g *group) emitRaw(f frame.Frame, class uint32, to dataplane.Endpoint) {
	if class != 0 {
		g.e.box.Unicast(f, to)
		return
	}
	g.st.Broadcast(f)
	g.e.box.Arena().Tx().Release(f)
}

// onRaw takes a raw packet in.
func (g *group) onRaw(now clock.Time, h *wire.Header, p *dataplane.Packet) {
	defer g.release(p)
	r, class := core.Rank(h.Rank), h.Aux&^rawPlace
	if r == g.self || g.st.Frozen() {
		return
	}
	b := g.e.box.Arena().Bytes(p.Frame)[g.e.box.Head():]
	switch {
	case h.Seq != 0:
		if msg := g.assembleRaw(now, h, b); msg == nil {
			return
		} else if class != 0 {
			g.handRawOne(class, r, msg)
		} else if !g.noRoom() {
			g.deliver(Delivery{Kind: DeliverWhole, Flavour: core.Raw, Sender: r, ViewID: g.view.ID, Data: msg})
		}
	case class == 0:
		g.handRaw(r, p.Frame)
	default:
		if msg, rest, ok := NextMessage(b); ok && len(rest) == 0 {
			g.handRawOne(class, r, bytes.Clone(msg))
		} else {
			g.e.count.Malformed++
		}
	}
}

// handRaw delivers a raw packet to all if the application has room for it.
func (g *group) handRaw(r core.Rank, f frame.Frame) {
	if g.noRoom() {
		return
	}
	g.e.box.Arena().Retain(f)
	f = g.e.payload(f)
	g.deliver(Delivery{Kind: DeliverMessages, Flavour: core.Raw, Sender: r, ViewID: g.view.ID, Frame: f})
}

// handRawOne delivers a raw message to one member if the application has room for it.
func (g *group) handRawOne(class uint32, r core.Rank, msg []byte) {
	d := Delivery{Kind: DeliverPeer, From: g.view.Members[r], Sender: r, ViewID: g.view.ID, Data: msg}
	if class&rawReply != 0 {
		d.Kind = DeliverReply
	} else if g.peers > 0 && g.peers >= g.e.cfg.Limits.PeerQueue || g.loading != nil && g.noRoom() {
		return
	}
	g.deliver(d)
}

// assembleRaw adds a fragment to its message and returns that when it is whole.
func (g *group) assembleRaw(now clock.Time, h *wire.Header, b []byte) []byte {
	if g.raws.parts == nil {
		g.raws.parts = make([]rawPart, rawClasses*g.view.Size())
	}
	place, class := int(h.Aux&rawPlace>>1), h.Aux>>30
	if class == rawReply>>30 || place > g.e.cfg.Limits.Message/rawPieceMin { // a reply to all, or too long
		g.e.count.Malformed++
		return nil
	}
	p := &g.raws.parts[int(h.Rank)*rawClasses+int(max(class, 1)-1)] // 0, 2 and 3 become 0, 1 and 2
	if p.number < h.Seq {
		g.dropRaw(p)
		*p = rawPart{number: h.Seq, at: now}
		g.raws.dueAt = min(g.raws.dueAt, now.Add(g.e.cfg.Timing.Suspect))
	}
	if p.number != h.Seq || len(b) == 0 || place < len(p.pieces) && p.pieces[place] != nil {
		return nil // late, or there already
	}
	if p.bytes += len(b); p.bytes > g.e.cfg.Limits.Message+binary.MaxVarintLen64 {
		g.e.count.Malformed++
		g.dropRaw(p)
		return nil
	}
	for len(p.pieces) <= place {
		p.pieces = append(p.pieces, nil)
	}
	p.pieces[place] = bytes.Clone(b)
	if p.have++; h.Aux&rawMore == 0 {
		p.places = place + 1
	}
	if p.have != p.places {
		return nil
	}
	whole := slices.Concat(p.pieces...)
	p.pieces, p.have, p.places = nil, 0, -1 // fragments that come again are late
	msg, rest, ok := NextMessage(whole)
	if !ok || len(rest) > 0 {
		g.e.count.Malformed++
		return nil
	}
	return msg
}

// dropRaw gives a message in pieces up.
func (g *group) dropRaw(p *rawPart) {
	if p.have > 0 {
		g.e.count.RawLost++
	}
	*p = rawPart{number: p.number, places: -1}
}

// tickRaw gives up what has waited for its rest for too long.
func (g *group) tickRaw(now clock.Time) {
	if now < g.raws.dueAt {
		return
	}
	g.raws.dueAt = clock.Never
	for i := range g.raws.parts {
		p := &g.raws.parts[i]
		switch due := p.at.Add(g.e.cfg.Timing.Suspect); {
		case p.have == 0:
		case due <= now:
			g.dropRaw(p)
		default:
			g.raws.dueAt = min(g.raws.dueAt, due)
		}
	}
}

// forgetRaw ends the raw traffic of a view.
func (g *group) forgetRaw() {
	for i := range g.raws.parts {
		g.dropRaw(&g.raws.parts[i])
	}
	g.raws = raws{sent: g.raws.sent, dueAt: clock.Never}
}
