package order

import (
	"slices"

	"pgregory.net/rapid"

	"github.com/khamsin-io/khamsin/vsync/core"
	"github.com/khamsin-io/khamsin/vsync/internal/canary"
	"github.com/khamsin-io/khamsin/vsync/internal/pdu"
)

// packet is one packet of a stream.
type packet struct {
	flags   uint8
	payload []byte
}

// name is one packet's place.
type name struct {
	rank core.Rank
	seq  core.Seq
}

// world is a view of n members: the streams as their senders made them, and a gate for each member.
type world struct {
	t       *rapid.T
	streams [][]packet
	members []*member
}

// member is one member's view of the streams: order.Packets.
type member struct {
	w         *world
	self      core.Rank
	gate      *Gate
	received  []core.Seq
	delivered []core.Seq
	log       []name
	full      bool // the application has no room
	unsafe    bool // acceptors lack what they should hold
	closing   bool
}

func newWorld(t *rapid.T, n int) *world {
	w := &world{t: t, streams: make([][]packet, n)}
	for r := range n {
		m := &member{w: w, self: core.Rank(r), received: make([]core.Seq, n), delivered: make([]core.Seq, n)}
		m.gate = New(m.self, n, m, canary.None)
		w.members = append(w.members, m)
	}
	return w
}

func (m *member) ReceivedTo(r core.Rank) core.Seq          { return m.received[r] }
func (m *member) DeliveredTo(r core.Rank) core.Seq         { return m.delivered[r] }
func (m *member) Flags(r core.Rank, q core.Seq) uint8      { return m.packet(r, q).flags }
func (m *member) Payload(r core.Rank, q core.Seq) []byte   { return m.packet(r, q).payload }
func (m *member) Held(core.Rank, core.Seq, core.Seq) bool  { return !m.unsafe }
func (m *member) is(r core.Rank, q core.Seq, f uint8) bool { return m.packet(r, q).flags&f != 0 }
func (m *member) ordered(r core.Rank, q core.Seq) bool     { return pdu.FlavourOf(m.Flags(r, q)).Ordered() }
func (m *member) hasSafe(r core.Rank, q core.Seq) bool {
	return pdu.FlavourOf(m.Flags(r, q)) == core.Safe
}
func (w *world) length(r core.Rank) core.Seq                { return core.Seq(len(w.streams[r])) }
func (m *member) packet(r core.Rank, q core.Seq) (p packet) { return m.w.streams[r][q-1] }

// Deliver checks at once what every single delivery must keep to.
func (m *member) Deliver(r core.Rank, q core.Seq) bool {
	t := m.w.t
	if m.full {
		if m.closing {
			t.Fatalf("no room while the view is closed")
		}
		return false
	}
	switch {
	case q != m.delivered[r]+1:
		t.Fatalf("member %d delivers %d of rank %d behind %d", m.self, q, r, m.delivered[r])
	case q > m.received[r]:
		t.Fatalf("member %d delivers %d of rank %d, and received to %d", m.self, q, r, m.received[r])
	case m.unsafe && m.hasSafe(r, q) && !m.closing:
		t.Fatalf("member %d delivers the safe packet %d of rank %d, which its acceptors lack", m.self, q, r)
	}
	if m.is(r, q, pdu.FlagCause) {
		for b := m.Payload(r, q); len(b) > 0; {
			c, rest, ok := DecodeCause(b, len(m.received))
			if ok && c.Rank != r && m.delivered[c.Rank] < c.Seq {
				t.Fatalf("member %d delivers %d of rank %d, whose cause %v it has not delivered", m.self, q, r, c)
			}
			b = rest
		}
	}
	m.delivered[r] = q
	if !m.is(r, q, pdu.FlagOrder|pdu.FlagCause) {
		m.log = append(m.log, name{r, q})
	}
	return true
}

// send appends a packet to a member's own stream, which receives it at once.
func (m *member) send(flags uint8, payload []byte) {
	m.w.streams[m.self] = append(m.w.streams[m.self], packet{flags, payload})
	m.take(m.self, m.w.length(m.self))
}

// take receives a stream up to a number.
func (m *member) take(r core.Rank, to core.Seq) {
	from := m.received[r]
	m.received[r] = to
	if !m.gate.Received(r, from, to) {
		m.w.t.Fatalf("member %d calls the packets of rank %d above %d malformed", m.self, r, from)
	}
	m.gate.Run()
}

// number makes rank 0 give places to what it received, a few runs in a record.
func (m *member) number(runs int) {
	var b []byte
	list := m.gate.Unnumbered()
	for _, r := range list[:min(runs, len(list))] {
		b = AppendRun(b, r)
	}
	if len(b) > 0 {
		m.gate.Numbered(min(runs, len(list)))
		m.send(pdu.Flags(core.FIFO)|pdu.FlagOrder, b)
	}
}

func (m *member) sendCausal() {
	var b []byte
	for _, c := range m.gate.Causes(nil) {
		b = AppendCause(b, c)
	}
	if len(b) > 0 {
		m.send(pdu.Flags(core.FIFO)|pdu.FlagCause, b)
	}
	m.send(pdu.Flags(core.Causal), nil)
}

// step lets one thing happen.
func (w *world) step() {
	m := w.members[rapid.IntRange(0, len(w.members)-1).Draw(w.t, "member")]
	switch rapid.IntRange(0, 9).Draw(w.t, "step") {
	case 0:
		m.send(pdu.Flags(core.FIFO), nil)
	case 1, 2:
		m.send(pdu.Flags(core.Total), nil)
	case 3:
		m.send(pdu.Flags(core.Safe), nil)
	case 4:
		m.sendCausal()
	case 5:
		w.members[0].number(rapid.IntRange(1, 3).Draw(w.t, "runs"))
	case 6:
		m.full, m.unsafe = rapid.Bool().Draw(w.t, "full"), rapid.Bool().Draw(w.t, "unsafe")
		m.gate.TouchSafe()
		m.gate.Run()
		w.checkSafeWait(m)
	default:
		r := core.Rank(rapid.IntRange(0, len(w.members)-1).Draw(w.t, "of"))
		to := min(w.length(r), m.received[r]+core.Seq(rapid.IntRange(1, 4).Draw(w.t, "count")))
		m.take(r, to)
	}
}

// checkSafeWait compares what the gate says it waits for with the reference.
func (w *world) checkSafeWait(m *member) {
	r, q, by, waits := m.gate.SafeWait()
	if !waits {
		return
	}
	order := w.order(w.length(0))
	done := 0
	for _, x := range order {
		if m.delivered[x.rank] >= x.seq {
			done++
		}
	}
	if !m.unsafe || order[done] != (name{r, q}) || !m.hasSafe(r, q) || by == 0 || by > m.received[0] {
		w.t.Fatalf("member %d waits for the acceptors of %d of rank %d, placed by %d", m.self, q, r, by)
	}
}

// order is the slow reference of the total order: rank 0's stream up to a number, read from its beginning.
func (w *world) order(to core.Seq) []name {
	var list []name
	next := make([]int, len(w.streams))
	ordered := make([][]name, len(w.streams))
	for r := range w.streams {
		for i, p := range w.streams[r] {
			if pdu.FlavourOf(p.flags).Ordered() {
				ordered[r] = append(ordered[r], name{core.Rank(r), core.Seq(i + 1)})
			}
		}
	}
	for i, p := range w.streams[0][:to] {
		if pdu.FlavourOf(p.flags).Ordered() {
			list = append(list, name{0, core.Seq(i + 1)})
		}
		for b := p.payload; p.flags&pdu.FlagOrder != 0 && len(b) > 0; {
			run, rest, ok := DecodeRun(b, len(w.streams))
			if !ok {
				w.t.Fatalf("record %x of rank 0 is malformed", p.payload)
			}
			for range run.Count {
				list = append(list, ordered[run.Rank][next[run.Rank]])
				next[run.Rank]++
			}
			b = rest
		}
	}
	return list
}

// onlyOrdered returns what of a member's log is in the total order.
func (m *member) onlyOrdered() []name {
	return slices.DeleteFunc(slices.Clone(m.log), func(x name) bool { return !m.ordered(x.rank, x.seq) })
}
