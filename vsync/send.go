package vsync

import "context"

// Send multicasts values under a code to all members of the group, the sender too, in this process's order of sending.
// Handlers for the code and for exactly the values' types run with them.
//
// It returns as soon as the message has its place among this process's messages; delivery follows, here and elsewhere,
// unless this process fails or leaves before. With nil returned and this process staying a member, every member of the
// view in which it is delivered gets it once.
//
// When too much is under way it waits until ctx ends; inside a handler of the group it returns ErrWouldBlock instead. A
// message above Config.MaxMessage is refused with ErrTooLarge, values whose types are not registered with a
// *codec.EncodeError. Nothing is kept of the values when it returns. Send1 and its like do the same without boxing.
func (g *Group) Send(ctx context.Context, code Code, args ...any) error {
	return cast(ctx, route{g: g, flavour: FIFO}, code, args)
}

// OrderedSend is Send in the one order in which all members get all Ordered and Safe messages.
func (g *Group) OrderedSend(ctx context.Context, code Code, args ...any) error {
	return cast(ctx, route{g: g, flavour: Ordered}, code, args)
}

// CausalSend is Send behind all that this process had delivered before.
func (g *Group) CausalSend(ctx context.Context, code Code, args ...any) error {
	return cast(ctx, route{g: g, flavour: Causal}, code, args)
}

// SafeSend is OrderedSend of a message that is delivered nowhere before enough members hold it: see WithSafeCopies.
func (g *Group) SafeSend(ctx context.Context, code Code, args ...any) error {
	return cast(ctx, route{g: g, flavour: Safe}, code, args)
}

// UnorderedSend is Send without any order.
func (g *Group) UnorderedSend(ctx context.Context, code Code, args ...any) error {
	return cast(ctx, route{g: g, flavour: Unordered}, code, args)
}

// RawSend multicasts values that may be lost: nobody acknowledges or repairs them. When they do not fit one packet, the
// loss of any of its packets loses the message.
func (g *Group) RawSend(ctx context.Context, code Code, args ...any) error {
	return cast(ctx, route{g: g, flavour: Raw}, code, args)
}

// Cast is Send in any flavour.
func (g *Group) Cast(ctx context.Context, f Flavour, code Code, args ...any) error {
	return cast(ctx, route{g: g, flavour: f}, code, args)
}

// Send is Group.Send in the route's flavour, to the route's members.
func (r *Route) Send(ctx context.Context, code Code, args ...any) error {
	return cast(ctx, r.r, code, args)
}

// SendBytes is Group.SendBytes in the route's flavour, to the route's members.
func (r *Route) SendBytes(ctx context.Context, code Code, payload []byte) error {
	g := r.r.g
	if err := g.sendable(code, r.r.flavour); err != nil {
		return g.fail("send", err)
	}
	buf := g.sys.newBuffer()
	defer buf.free()
	p := parcel{flavour: r.r.flavour, code: code}
	if buf.b = buf.b[:0]; r.r.listed {
		p.more |= moreListed
		buf.b = appendList(buf.b, r.r.to)
	}
	buf.b = append(buf.b, payload...)
	p.body = buf.b
	return g.fail("send", g.post(ctx, &p))
}

// SendTo sends values under a code to one member of the group. Messages from one member to another arrive in the order
// sent, each once, and are handled on their own goroutine: nothing is promised about their order among multicasts. It
// waits, and refuses, as Send does; a process that is not in the present view is refused with ErrNotMember.
func (g *Group) SendTo(ctx context.Context, to Address, code Code, args ...any) error {
	err := g.sendable(code, FIFO)
	if err == nil {
		buf := g.sys.newBuffer()
		defer buf.free()
		if buf.b, err = g.sys.types.Append(buf.b[:0], args...); err == nil {
			err = g.postTo(ctx, to, parcel{code: code, flags: flagTyped, body: buf.b})
		}
	}
	return g.fail("send", err)
}

// RawSendTo sends values to one member that may be lost, as those of RawSend. It never waits.
func (g *Group) RawSendTo(ctx context.Context, to Address, code Code, args ...any) error {
	err := g.sendable(code, Raw)
	if err == nil {
		buf := g.sys.newBuffer()
		defer buf.free()
		if buf.b, err = g.sys.types.Append(buf.b[:0], args...); err == nil {
			err = g.postRawTo(ctx, to, parcel{flavour: Raw, code: code, flags: flagTyped, body: buf.b})
		}
	}
	return g.fail("send", err)
}

// SendBytes is Send, in any flavour, of bytes as they are: handlers that take a *Message read them in place as its
// Payload. The payload is the caller's again when SendBytes returns.
func (g *Group) SendBytes(ctx context.Context, f Flavour, code Code, payload []byte) error {
	if err := g.sendable(code, f); err != nil {
		return g.fail("send", err)
	}
	return g.fail("send", g.post(ctx, &parcel{flavour: f, code: code, body: payload}))
}

// SendBytesTo is SendTo of bytes as they are.
func (g *Group) SendBytesTo(ctx context.Context, to Address, code Code, payload []byte) error {
	if err := g.sendable(code, FIFO); err != nil {
		return g.fail("send", err)
	}
	return g.fail("send", g.postTo(ctx, to, parcel{code: code, body: payload}))
}

// cast multicasts values.
func cast(ctx context.Context, r route, code Code, args []any) error {
	g := r.g
	if err := g.sendable(code, r.flavour); err != nil {
		return g.fail("send", err)
	}
	buf := g.sys.newBuffer()
	defer buf.free()
	p, err := r.begin(buf, code)
	if err == nil {
		buf.b, err = g.sys.types.Append(buf.b, args...)
	}
	if err != nil {
		return g.fail("send", err)
	}
	p.body = buf.b
	return g.fail("send", g.post(ctx, &p))
}

// begin puts what stands in front of a multicast's values into buf.
func (r *route) begin(buf *buffer, code Code) (parcel, error) {
	p := parcel{flavour: r.flavour, code: code, flags: flagTyped}
	buf.b = buf.b[:0]
	if !r.listed {
		return p, nil
	}
	p.more |= moreListed
	buf.b = appendList(buf.b, r.to)
	var err error
	if r.visible {
		buf.b, err = r.g.sys.types.Append(buf.b, r.to)
	}
	return p, err
}
