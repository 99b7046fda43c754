package vsync

import (
	"context"
	"fmt"
	"slices"

	"github.com/khamsin-io/khamsin/vsync/internal/host"
)

// Target is where multicasts and queries go: a *Group, or a *Route of one.
type Target interface{ route() route }

// route is a target as the package sees it.
type route struct {
	g       *Group
	flavour Flavour
	to      []Address
	listed  bool // for the members in to only
	visible bool // handlers get to as their first argument
	action  TimeoutAction
}

func (g *Group) route() route { return route{g: g, flavour: FIFO} }

// Route is a group with a choice of flavour, of members, and of what queries do about silent ones. It never changes,
// and may be used any number of times and by any goroutine.
type Route struct{ r route }

func (r *Route) route() route { return r.r }

// As returns the target for multicasts and queries of a flavour; those to the group itself are FIFO.
func (g *Group) As(f Flavour) *Route { return (&Route{g.route()}).As(f) }

// To returns the target for some members of the group. Others drop what is sent to it; listed processes that are not
// live members are skipped. The packets go to the whole group all the same, so that their order is that of the group's
// other multicasts.
func (g *Group) To(members ...Address) *Route { return (&Route{g.route()}).To(members...) }

// ToVisible is To, and handlers get the list as a first argument of type []Address.
func (g *Group) ToVisible(members ...Address) *Route {
	return (&Route{g.route()}).ToVisible(members...)
}

// OnTimeout returns the target for queries that treat silent members in some way.
func (g *Group) OnTimeout(a TimeoutAction) *Route { return (&Route{g.route()}).OnTimeout(a) }

// As returns the route in a flavour.
func (r *Route) As(f Flavour) *Route {
	c := *r
	c.r.flavour = f
	return &c
}

// To returns the route to some members of the group: see Group.To.
func (r *Route) To(members ...Address) *Route {
	c := *r
	c.r.to, c.r.listed, c.r.visible = slices.Clone(members), true, false
	return &c
}

// ToVisible is To, and handlers get the list as a first argument of type []Address.
func (r *Route) ToVisible(members ...Address) *Route {
	c := r.To(members...)
	c.r.visible = true
	return c
}

// OnTimeout returns the route for queries that treat silent members in some way.
func (r *Route) OnTimeout(a TimeoutAction) *Route {
	c := *r
	c.r.action = a
	return &c
}

// filter returns the members of v that the route goes to.
func (r *route) filter(v *View) []Address {
	if !r.listed {
		return slices.Clone(v.Members)
	}
	var list []Address
	for _, a := range v.Members {
		if slices.Contains(r.to, a) {
			list = append(list, a)
		}
	}
	return list
}

// parcel is a message that is ready to be sent.
type parcel struct {
	flavour Flavour
	code    Code
	flags   uint8
	more    uint8
	body    []byte // all behind the head
}

// wrap returns the head and the rest of the message, compressed into buf when that is worth it, and sealed when the
// group has a key.
func (g *Group) wrap(p *parcel, buf *buffer, kind byte) (host.Head, []byte) {
	body := p.body
	if len(body) >= compressMin && len(body) <= g.sys.config.MaxMessage && !g.sys.config.NoCompression &&
		g.trials.worth() {
		var ok bool
		buf.b, ok = deflate(buf.b, body)
		if g.trials.note(ok); ok {
			p.more |= moreCompressed
			body = buf.b
		}
	}
	if g.secret == nil {
		return headOf(p.code, p.flags, p.more), body
	}
	p.more |= moreSealed
	head := headOf(p.code, p.flags, p.more)
	if need := len(body) + sealedMore; cap(buf.sealed) < need {
		buf.sealed = make([]byte, 0, need)
	}
	buf.sealed = g.secret.seal(buf.sealed[:0], kind, head.Append(buf.head[:0]), body)
	return head, buf.sealed
}

// post multicasts a message.
func (g *Group) post(ctx context.Context, p *parcel) error {
	head, body := headOf(p.code, p.flags, p.more), p.body
	if head.Len()+len(body) > g.sys.config.MaxMessage {
		return ErrTooLarge // whatever compression would make of it
	}
	if g.secret != nil || len(body) >= compressMin {
		buf := g.sys.newBuffer()
		defer buf.free()
		head, body = g.wrap(p, buf, sealedCast)
	}
	if err := g.pace(ctx, head.Len()+len(body)); err != nil {
		return err
	}
	return g.inner.Submit(ctx, p.flavour, head, body)
}

// postTo sends a message to one member.
func (g *Group) postTo(ctx context.Context, to Address, p parcel) error {
	buf := g.sys.newBuffer()
	defer buf.free()
	head, body := g.wrap(&p, buf, sealedPeer)
	return g.inner.SubmitTo(ctx, to, head, body)
}

// postRawTo sends a message to one member that may be lost.
func (g *Group) postRawTo(ctx context.Context, to Address, p parcel) error {
	buf := g.sys.newBuffer()
	defer buf.free()
	head, body := g.wrap(&p, buf, sealedPeer)
	return g.inner.SubmitRawTo(ctx, to, head, body)
}

// sendable tells why a message cannot be sent, whatever its arguments, nil if it can.
func (g *Group) sendable(code Code, f Flavour) error {
	switch {
	case g.inner == nil:
		return ErrNotRunning
	case code < 0:
		return fmt.Errorf("%w: %d", ErrCode, code)
	case !f.Valid():
		return fmt.Errorf("%w: flavour %d", ErrArgument, uint8(f))
	case !g.bound.Load():
		return ErrNotMember
	}
	return nil
}
