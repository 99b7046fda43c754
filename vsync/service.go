package vsync

import (
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"slices"
)

// Codes of services: a package built on groups has one, which no application's messages can have.
const (
	serviceFirst Code = -16
	serviceLast  Code = -127

	// CodeObjects is the code of package oob.
	CodeObjects Code = -16
)

// Service is what a package built on groups adds to one, such as package oob: messages of its own, and a part of its
// own in the group's state, which joiners get before the application's. Its functions run where handlers run: one at a
// time, in the group's order, inside the group.
type Service struct {
	Code Code   // -16 to -127, one for each package
	Name string // for people

	OnMessage func(m *Message)         // every multicast of the service, whoever sent it; the payload is in m
	OnView    func(v *View)            // every view, before the application sees it
	MakeState func(put PutState) error // at the oldest member when others join; nil: there is no state
	LoadState func(piece []byte) error // at a joiner, for each piece in order; the piece is its own
	OnEnd     func(reason error)       // once, behind the last delivery
}

// PutState sends one piece of a service's state, of at most Config.MaxMessage bytes less a few dozen.
type PutState func(piece []byte) error

// ServicePort is where a service sends.
type ServicePort struct {
	group *Group
	code  Code
}

// AddService adds a service to the group. It must be called before Join, and by all members: a process without the
// service is refused with a *SignatureError, as one with other handlers is.
func (g *Group) AddService(s Service) (*ServicePort, error) {
	if s.Code > serviceFirst || s.Code < serviceLast || s.Name == "" {
		return nil, g.fail("add service", fmt.Errorf("%w: service %q with code %d, want %d to %d", ErrCode, s.Name,
			s.Code, serviceFirst, serviceLast))
	}
	if s.OnMessage == nil || (s.MakeState == nil) != (s.LoadState == nil) {
		return nil, g.fail("add service", fmt.Errorf("%w: service %q lacks a function", ErrHandler, s.Name))
	}
	var fault error
	err := g.declare("add service", func() {
		if g.service(s.Code) != nil {
			fault = g.fail("add service", fmt.Errorf("%w: there is a service with code %d", ErrCode, s.Code))
			return
		}
		g.services = append(g.services, &service{Service: s})
		slices.SortFunc(g.services, func(a, b *service) int { return cmp.Compare(b.Code, a.Code) })
	})
	if err = cmp.Or(err, fault); err != nil {
		return nil, err
	}
	return &ServicePort{group: g, code: s.Code}, nil
}

// Send multicasts a payload to the service at all members. It waits, and fails, as Group.SendBytes does.
func (p *ServicePort) Send(ctx context.Context, f Flavour, payload []byte) error {
	g := p.group
	if err := g.sendable(0, f); err != nil {
		return g.fail("send", err)
	}
	return g.fail("send", g.post(ctx, &parcel{flavour: f, code: p.code, body: payload}))
}

// InHandler tells whether ctx is the context of a handler of the group, or follows from one: what waits for the group
// must not wait there.
func (p *ServicePort) InHandler(ctx context.Context) bool {
	return p.group.inner != nil && p.group.inner.Inside(ctx)
}

// service is a Service of a group.
type service struct{ Service }

// service returns the service with a code, nil without one.
func (g *Group) service(c Code) *service {
	for _, s := range g.services {
		if s.Code == c {
			return s
		}
	}
	return nil
}

// serve passes a message to its service, and tells whether there is one.
func (g *Group) serve(l *lane, m *Message) bool {
	s := g.service(m.env.code)
	if s == nil || m.Peer || m.env.flags != m.env.flags&flagMore || m.env.more&moreListed != 0 {
		return false
	}
	m.load()
	m.duty = dutyDone
	l.unlabel(m.ctx)
	l.running.begin(serviceHandler)
	s.OnMessage(m)
	l.running.end()
	m.unload()
	return true
}

// pieceService is what a service's piece of state begins with: no encoded value does. The service's code follows, as
// four bytes.
const pieceService = 0xFF

const pieceServiceLen = 1 + 4

// makeServices writes the state of the services.
func (g *Group) makeServices(w *StateWriter) error {
	for _, s := range g.services {
		if s.MakeState == nil {
			continue
		}
		head := binary.LittleEndian.AppendUint32([]byte{pieceService}, uint32(s.Code))
		err := s.MakeState(func(piece []byte) error { return w.put(append(slices.Clip(head), piece...)) })
		if err != nil {
			return fmt.Errorf("state of service %q: %w", s.Name, err)
		}
	}
	return nil
}

// loadService passes a piece of state to its service.
func (g *Group) loadService(piece []byte) error {
	if len(piece) < pieceServiceLen {
		return fmt.Errorf("%w: cut short", ErrArgument)
	}
	code := Code(binary.LittleEndian.Uint32(piece[1:]))
	s := g.service(code)
	if s == nil || s.LoadState == nil {
		return fmt.Errorf("%w: no service with code %d", ErrHandler, code)
	}
	if err := s.LoadState(piece[pieceServiceLen:]); err != nil {
		return fmt.Errorf("state of service %q: %w", s.Name, err)
	}
	return nil
}
