package member

import (
	"errors"
	"math"
	"slices"

	"github.com/khamsin-io/khamsin/dataplane"
	"github.com/khamsin-io/khamsin/vsync/core"
	"github.com/khamsin-io/khamsin/vsync/internal/pdu"
)

// Encode returns the whole registry, for a replica that starts.
func (r *Registry) Encode() []byte {
	var w pdu.Writer
	w.Uint(uint64(r.nextLid))
	w.Uint(uint64(r.span.low))
	w.Uint(uint64(r.span.count))
	w.Uint(uint64(r.part))
	w.Uint(r.base)
	w.Uint(uint64(r.wants))
	w.Addresses(r.removed)
	pdu.AppendCharges(&w, r.charges)
	w.Uint(uint64(len(r.procs)))
	for _, p := range r.procs {
		w.Address(p.addr)
		w.Bool(p.eligible)
		w.Uint(p.lastDone)
		w.String(p.answer.group)
		w.Uint(uint64(p.answer.refusal))
	}
	w.Uint(uint64(len(r.groups)))
	for _, g := range r.groups {
		g.encode(&w)
	}
	return w.B
}

func (g *group) encode(w *pdu.Writer) {
	w.String(g.name)
	w.Uint(uint64(g.lid))
	w.Uint(uint64(g.channel))
	w.Bool(g.own)
	w.Uint(g.signature)
	w.String(g.handlers)
	w.Uint(uint64(g.safeCopies + 1))
	w.Uint(uint64(g.lastView))
	w.Addresses(g.joining)
	w.Addresses(g.leaving)
	w.Uint(uint64(len(g.debts)))
	for _, d := range g.debts {
		w.Address(d.who)
		w.Uint(uint64(d.view))
	}
	w.Bool(g.terminated)
	w.Bool(g.gathering)
	for _, d := range []*pdu.Decision{g.current, g.final} {
		w.Bool(d != nil)
		if d != nil {
			d.Append(w)
		}
	}
	w.Bool(g.pending != nil)
	if g.pending != nil {
		g.pending.Append(w)
	}
}

// errCharges is a snapshot that does not say of all removed processes why. immutable: an error
var errCharges = errors.New("member: snapshot: charges and removed processes differ in number")

// DecodeRegistry reads what Encode wrote.
func DecodeRegistry(b []byte) (*Registry, error) {
	rd := pdu.NewReader(b)
	r := NewRegistry(0, 1)
	r.nextLid, r.span.low, r.span.count = uint32(rd.Uint()), uint32(rd.Uint()), uint32(rd.Uint())
	r.part, r.base, r.wants = uint32(rd.Uint()), rd.Uint(), int(rd.Uint()&math.MaxInt32)
	r.removed, r.charges = rd.Addresses(), pdu.ReadCharges(rd)
	for range rd.Count(core.AddressLen) {
		r.procs = append(r.procs, process{
			addr: rd.Address(), eligible: rd.Bool(), lastDone: rd.Uint(),
			answer: answer{rd.String(), Refusal(rd.Uint())},
		})
	}
	for range rd.Count(8) {
		g := decodeGroup(rd)
		r.groups = append(r.groups, g)
		r.byName[g.name] = g
		if g.own {
			r.owners = append(r.owners, g)
		}
	}
	r.span.count = max(r.span.count, 1)
	if len(r.charges) != len(r.removed) {
		return nil, errCharges
	}
	return r, rd.End()
}

func decodeGroup(rd *pdu.Reader) *group {
	g := &group{
		name: rd.String(), lid: uint32(rd.Uint()), channel: dataplane.Channel(rd.Uint()), own: rd.Bool(),
		signature: rd.Uint(), handlers: rd.String(), safeCopies: int(rd.Uint()) - 1, lastView: core.ViewID(rd.Uint()),
		joining: rd.Addresses(), leaving: rd.Addresses(),
	}
	for range rd.Count(core.AddressLen) {
		g.debts = append(g.debts, debt{rd.Address(), core.ViewID(rd.Uint())})
	}
	g.terminated, g.gathering = rd.Bool(), rd.Bool()
	for _, d := range []**pdu.Decision{&g.current, &g.final} {
		if rd.Bool() {
			*d = new(pdu.Decision)
			(*d).Decode(rd)
		}
	}
	if rd.Bool() {
		g.pending = new(pdu.Propose)
		g.pending.Decode(rd)
	}
	return g
}

// eligible returns the processes that may be ORACLE members, oldest first.
func (r *Registry) eligible() []core.Address {
	var list []core.Address
	for _, p := range r.procs {
		if p.eligible {
			list = append(list, p.addr)
		}
	}
	return slices.Clip(list)
}
