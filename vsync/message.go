package vsync

import (
	"bytes"
	"context"
	"slices"

	"github.com/khamsin-io/khamsin/vsync/internal/engine"
)

// Message is one message as a handler gets it. It is valid until the handler returns; Own and Keep make what lives
// longer, and Detach takes the duty to reply along.
type Message struct {
	Code    Code
	Payload []byte  // the sender's bytes, or its values in encoded form; valid until the handler returns; read only
	Typed   bool    // Payload holds values: see Decode
	Flavour Flavour // of a multicast
	Sender  Rank    // in View; NoRank when a point-to-point message comes from outside View
	From    Address
	View    *View // in which a multicast is delivered; for a point-to-point message the latest, nil before the first
	Peer    bool  // point-to-point
	Query   bool  // the sender waits for replies

	ctx      context.Context
	group    *Group
	delivery *engine.Delivery // where Payload lies
	call     uint64
	duty     duty
	env      envelope
}

// duty says what became of the duty to reply to a query.
type duty uint8

const (
	dutyOpen     duty = iota
	dutyDone          // replied
	dutyDetached      // somebody else will
)

// Context returns the handler's context. It ends when the system is over, and it marks calls as made inside the
// handler.
func (m *Message) Context() context.Context { return m.ctx }

// Group returns the group that the message was sent to.
func (m *Message) Group() *Group { return m.group }

// Decode stores the message's values in the variables that ptrs point at, which must be of exactly the values' types.
// The errors are those of codec.Registry.Unmarshal, such as *codec.CountError and *codec.TypeError.
func (m *Message) Decode(ptrs ...any) error { return m.group.sys.types.Unmarshal(m.Payload, ptrs...) }

// Values returns the message's values.
func (m *Message) Values() ([]any, error) { return m.group.sys.types.UnmarshalAny(m.Payload) }

// Own returns a copy of the payload, which is the caller's for good.
func (m *Message) Own() []byte { return bytes.Clone(m.Payload) }

// Keep returns the payload without a copy, to be read behind the end of the handler and by other goroutines, until its
// Release. What is kept takes room of incoming packets: a system lends at most an eighth of it, and copies beyond that.
func (m *Message) Keep() *Kept {
	k := &Kept{payload: m.Payload}
	switch d := m.delivery; {
	case m.env.more&(moreCompressed|moreSealed) != 0:
		m.env.inflated, m.env.opened = nil, nil // the next one gets memory of its own
	case d == nil:
	case d.Frame.IsZero():
		d.Loan = nil
	case m.group.sys.kept.Add(1) > keptMax:
		m.group.sys.kept.Add(-1)
		k.payload = bytes.Clone(m.Payload)
	default:
		arena := m.group.sys.host.Arena()
		arena.Retain(d.Frame)
		k.frame, k.sys = d.Frame, m.group.sys
	}
	return k
}

// fill makes m the multicast that d carries.
func (m *Message) fill(ctx context.Context, g *Group, d *engine.Delivery) {
	v := g.view.Load()
	m.Flavour, m.Sender, m.View, m.ctx, m.group, m.delivery = d.Flavour, d.Sender, v, ctx, g, d
	m.From = NoAddress
	if v != nil && int(d.Sender) >= 0 && int(d.Sender) < len(v.Members) {
		m.From = v.Members[d.Sender]
	}
}

// load moves what is in the envelope to where handlers read it.
func (m *Message) load() {
	e := &m.env
	m.Code, m.Payload, m.Typed = e.code, e.body, e.flags&flagTyped != 0
	m.Query, m.call, m.duty = e.flags&flagQuery != 0, e.call, dutyOpen
}

// unload forgets the payload, which is the library's again.
func (m *Message) unload() {
	m.Payload, m.delivery, m.env.body, m.env.list = nil, nil, nil, nil
}

// isFor tells whether the message is for this process.
func (m *Message) isFor(self Address) bool {
	return m.env.more&moreListed == 0 || m.env.names(self.Incarnation)
}

// listed returns the members of v that the list of e names.
func (e *envelope) listed(v *View) []Address {
	if e.more&moreListed == 0 {
		return slices.Clone(v.Members)
	}
	var to []Address
	for _, a := range v.Members {
		if e.names(a.Incarnation) {
			to = append(to, a)
		}
	}
	return to
}
