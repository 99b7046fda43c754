package engine

import (
	"encoding/binary"
	"strings"
	"testing"
	"time"

	"github.com/khamsin-io/khamsin/dataplane"
	"github.com/khamsin-io/khamsin/dataplane/wire"
	"github.com/khamsin-io/khamsin/vsync/core"
	"github.com/khamsin-io/khamsin/vsync/internal/link"
	"github.com/khamsin-io/khamsin/vsync/internal/pdu"
	"github.com/khamsin-io/khamsin/vsync/internal/xfer"
)

// receive gives a node a packet made of a header and a payload, damaged by harm.
func (x *node) receive(h wire.Header, payload []byte, harm func([]byte) []byte) {
	h.System = x.e.System() + h.System
	b := append(make([]byte, wire.HeaderLen), payload...)
	h.Encode(b)
	wire.Seal(b)
	if harm != nil {
		b = harm(b)
	}
	f, ok := x.arena.Rx().Get()
	if !ok {
		x.net.t.Fatal("no frame left")
	}
	f.Len = uint32(len(b))
	copy(x.arena.Bytes(f), b)
	x.e.Receive(x.net.now, []dataplane.Packet{{Frame: f, From: dataplane.Endpoint{Port: 9}}})
	x.collect()
}

func TestBadPackets(t *testing.T) {
	w, hs := form(t, 2)
	x := w.nodes[0]
	g := x.e.group(hs[0])
	view, peer := uint64(g.view.ID), w.nodes[1].e.cfg.Self.Incarnation
	self := uint32(x.e.cfg.Self.Incarnation)
	data := wire.Header{Kind: wire.KindData, Group: g.lid, View: view, Rank: 1, Seq: 1, Flags: uint8(core.FIFO)}
	with := func(edit func(h *wire.Header)) wire.Header { h := data; edit(&h); return h }
	for _, c := range []struct {
		name    string
		h       wire.Header
		payload []byte
		harm    func([]byte) []byte
		count   func(c *Counters) uint64
	}{
		{"short", data, nil, func(b []byte) []byte { return b[:20] }, func(c *Counters) uint64 { return c.Short }},
		{"damaged", data, []byte("payload"), func(b []byte) []byte { b[41] ^= 1; return b },
			func(c *Counters) uint64 { return c.BadCRC }},
		{"foreign", data, nil, func(b []byte) []byte { b[0] = 'X'; return b },
			func(c *Counters) uint64 { return c.Foreign }},
		{"of another version", data, nil, func(b []byte) []byte { b[1]++; return b },
			func(c *Counters) uint64 { return c.Foreign }},
		{"of no kind", data, nil, func(b []byte) []byte { b[2] = 99; return b },
			func(c *Counters) uint64 { return c.Malformed }},
		{"of another system", with(func(h *wire.Header) { h.System = 1 }), nil, nil,
			func(c *Counters) uint64 { return c.OtherSystem }},
		{"of no group", with(func(h *wire.Header) { h.Group = 99 }), nil, nil,
			func(c *Counters) uint64 { return c.NoGroup }},
		{"of the view before", with(func(h *wire.Header) { h.View-- }), nil, nil,
			func(c *Counters) uint64 { return c.OldView }},
		{"of no member", with(func(h *wire.Header) { h.Rank = 1 << 31 }), nil, nil,
			func(c *Counters) uint64 { return c.OldView }},
		{"an acknowledgement of the next view", with(func(h *wire.Header) { h.Kind = wire.KindAck; h.View++ }), nil,
			nil, func(c *Counters) uint64 { return c.EarlyDropped }},
		{"of no flavour", with(func(h *wire.Header) { h.Flags = 7 }), nil, nil,
			func(c *Counters) uint64 { return c.Malformed }},
		{"poison for another", wire.Header{Kind: wire.KindPoison, Rank: self + 1}, nil, nil,
			func(c *Counters) uint64 { return c.Malformed }},
		{"half a poison", wire.Header{Kind: wire.KindPoison, Rank: self}, []byte{1}, nil,
			func(c *Counters) uint64 { return c.Malformed }},
	} {
		before := x.e.Counters()
		x.receive(c.h, c.payload, c.harm)
		if after := x.e.Counters(); c.count(&after) != c.count(&before)+1 {
			t.Errorf("a packet that is %s is not counted: %+v", c.name, after)
		}
	}
	for _, b := range [][]byte{
		{}, {0}, {99}, {byte(pdu.TypePropose), 1}, {byte(pdu.TypeReport), 0x80}, {byte(pdu.TypeCut)},
		{byte(pdu.TypeReady)},
	} {
		before := x.e.Counters().Malformed
		x.e.OnMessage(w.now, link.Message{From: peer, Kind: link.Control, Data: b})
		x.collect()
		if x.e.Counters().Malformed != before+1 {
			t.Errorf("the control message %v is not counted", b)
		}
	}
	if len(onlyMessages(x.msgs)) != 0 || x.e.Over() || x.e.View(hs[0]) != g.view {
		t.Errorf("delivered %v, over %v", x.msgs, x.e.Over())
	}
	w.run(time.Second)
}

func TestNextMessage(t *testing.T) {
	packed := append(binary.AppendUvarint(nil, 3), "abc"...)
	packed = append(binary.AppendUvarint(packed, 0), packed...)
	var got []string
	for b := packed; len(b) > 0; {
		m, rest, ok := NextMessage(b)
		if !ok {
			t.Fatalf("stopped at %q", b)
		}
		got, b = append(got, string(m)), rest
	}
	if strings.Join(got, ",") != "abc,,abc" {
		t.Errorf("took %q apart", got)
	}
	for _, b := range [][]byte{nil, {0x80}, {4, 'a'}, binary.AppendUvarint(nil, 1<<63)} {
		if _, _, ok := NextMessage(b); ok {
			t.Errorf("%v holds a message", b)
		}
	}
}

// FuzzNextMessage takes anything apart as packed messages.
func FuzzNextMessage(f *testing.F) {
	f.Add([]byte{3, 'a', 'b', 'c', 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		for len(b) > 0 {
			m, rest, ok := NextMessage(b)
			if !ok {
				return
			}
			if len(m)+len(rest) >= len(b) || cap(m) != len(m) {
				t.Fatalf("%d bytes became a message of %d and %d more", len(b), len(m), len(rest))
			}
			b = rest
		}
	})
}

// Messages on lanes that fit nothing are dropped, and counted where somebody must have been wrong.
func TestStrayLaneMessages(t *testing.T) {
	w, hs := form(t, 2)
	x := w.nodes[0]
	g, peer := x.e.group(hs[0]), w.nodes[1].e.cfg.Self.Incarnation
	view := g.view.ID
	for _, c := range []struct {
		name  string
		m     link.Message
		taken bool
		count func(c *Counters) uint64
	}{
		{"half a message", link.Message{Kind: link.Peer, Data: []byte{0x80}}, true,
			func(c *Counters) uint64 { return c.Malformed }},
		{"of no group", link.Message{Kind: link.Peer, Group: 99, From: peer, Data: []byte{1}}, true,
			func(c *Counters) uint64 { return c.NoGroup }},
		{"of a stranger", link.Message{Kind: link.Peer, Group: g.lid, From: 5, Data: []byte{0}}, true,
			func(c *Counters) uint64 { return c.NoGroup }},
		{"of a stranger in a view to come", link.Message{Kind: link.Peer, Group: g.lid, From: 5,
			Data: binary.AppendUvarint(nil, uint64(view)+1)}, false, nil},
		{"of an earlier membership", link.Message{Kind: link.Peer, Group: g.lid, From: peer, Data: []byte{0}}, true,
			func(c *Counters) uint64 { return c.OldView }},
		{"half a piece of state", link.Message{Kind: link.State, Data: []byte{0x80}}, true,
			func(c *Counters) uint64 { return c.Malformed }},
		{"state that nobody asked for", link.Message{Kind: link.State, Group: g.lid, From: peer,
			Data: xfer.Encode(view, xfer.Last, []byte("state"))}, true, nil},
		{"state of a view to come", link.Message{Kind: link.State, Group: g.lid, From: peer,
			Data: xfer.Encode(view+1, xfer.Last, nil)}, false, nil},
	} {
		before, delivered := x.e.Counters(), len(x.deliveries)
		taken := x.e.OnMessage(w.now, c.m)
		x.collect()
		after := x.e.Counters()
		counted := c.count == nil || c.count(&after) == c.count(&before)+1
		if taken != c.taken || len(x.deliveries) != delivered || !counted {
			t.Errorf("%s: taken %v, %d deliveries, counted %+v", c.name, taken, len(x.deliveries)-delivered, after)
		}
	}
}

// Once over, an engine gives back what it gets and says nothing.
func TestReceiveWhenOver(t *testing.T) {
	w, _ := form(t, 1)
	x := w.nodes[0]
	x.e.Release()
	x.receive(wire.Header{Kind: wire.KindData}, nil, nil)
	x.e.Tick(w.now)
	x.e.Stop(w.now)
	if len(x.e.Output().Packets) != 0 || x.arena.Outstanding() != 0 || !x.e.OnMessage(w.now, link.Message{}) {
		t.Errorf("%d packets, %d frames kept", len(x.e.Output().Packets), x.arena.Outstanding())
	}
	if !strings.Contains(x.e.Dump(), "over=true") {
		t.Errorf("dump %q", x.e.Dump())
	}
}

// What a person is shown of an engine names every group and what it waits for.
func TestDump(t *testing.T) {
	w, hs := form(t, 3)
	w.nodes[2].dead = true
	x := w.nodes[0]
	x.submit(hs[0], core.Safe, "waits")
	w.run(10 * time.Millisecond)
	for _, want := range []string{`group "inventory" handle=1`, "rank 0 of 3", "rank 2: delivered to 0",
		"waits for the acceptors of rank 0's 1"} {
		if d := x.e.Dump(); !strings.Contains(d, want) {
			t.Errorf("%q is not in\n%s", want, d)
		}
	}
	w.run(1900 * time.Millisecond) // until the dead one is accused, and is late
	if d := x.e.Dump(); !strings.Contains(d, "rank 0 of 2") {
		t.Errorf("after the failure:\n%s", d)
	}
}

// A decision whose cut is not one of this view is counted and changes nothing.
func TestDecisionOfAnotherView(t *testing.T) {
	w, hs := form(t, 2)
	x := w.nodes[0]
	v := x.e.View(hs[0])
	d := &pdu.Decision{Name: "inventory", Prev: v.ID, View: v.Next(v.ID+1, nil, nil), Cut: make([]core.Seq, 3)}
	before := x.e.Counters().Malformed
	x.e.OnMessage(w.now, link.Message{
		From: w.nodes[1].e.cfg.Self.Incarnation, Kind: link.Control, Data: pdu.Encode(pdu.TypeDecide, d),
	})
	x.collect()
	if x.e.View(hs[0]) != v || x.e.Counters().Malformed != before+1 {
		t.Errorf("view %v, counted %+v", x.e.View(hs[0]), x.e.Counters())
	}
}
