package vsync

import (
	"context"
	"encoding/binary"

	"github.com/khamsin-io/khamsin/vsync/internal/engine"
	"github.com/khamsin-io/khamsin/vsync/internal/host"
)

// Message is one message as a handler gets it. It is valid until the handler returns; copy what must live longer.
type Message struct {
	Code    Code
	Payload []byte  // valid until the handler returns; must not be changed
	Flavour Flavour // of a multicast
	Sender  Rank    // in View; NoRank when a point-to-point message comes from outside View
	From    Address
	View    *View // in which a multicast is delivered; for a point-to-point message the latest, nil before the first
	Peer    bool  // point-to-point

	ctx   context.Context
	group *Group
}

// Context returns the handler's context. It ends when the system is over, and it marks calls as made inside the
// handler.
func (m *Message) Context() context.Context { return m.ctx }

// Group returns the group that the message was sent to.
func (m *Message) Group() *Group { return m.group }

// headOf returns the head of a message: its code as a zigzag varint.
func headOf(c Code) host.Head {
	var h host.Head
	h.Len = uint8(len(binary.AppendVarint(h.Bytes[:0], int64(c))))
	return h
}

// decodeCode splits a message into code and payload.
func decodeCode(b []byte) (Code, []byte, bool) {
	v, n := binary.Varint(b)
	if n <= 0 || v != int64(Code(v)) {
		return 0, nil, false
	}
	return Code(v), b[n:], true
}

// fill makes m the message d carries.
func (m *Message) fill(ctx context.Context, g *Group, d *engine.Delivery) {
	v := g.view.Load()
	m.Flavour, m.Sender, m.View, m.ctx, m.group = d.Flavour, d.Sender, v, ctx, g
	m.From = NoAddress
	if v != nil && int(d.Sender) >= 0 && int(d.Sender) < len(v.Members) {
		m.From = v.Members[d.Sender]
	}
}
