package stream

import (
	"encoding/binary"
	"testing"

	"github.com/khamsin-io/khamsin/dataplane/wire"
	"github.com/khamsin-io/khamsin/vsync/core"
)

// hand gives what a node emitted to another at once, without copies other than into its arena.
func (x *node) hand(to *node) {
	for _, p := range x.out.Packets {
		b := x.out.Arena().Bytes(p.Frame)
		var h wire.Header
		_ = h.Peek(b)
		switch h.Kind {
		case wire.KindData:
			to.receive(&h, b)
		case wire.KindAck:
			to.st.OnAck(to.net.now, &h, b[wire.HeaderLen:])
		case wire.KindSync:
			to.st.OnSync(to.net.now, &h)
		}
		x.out.Arena().Tx().Release(p.Frame)
	}
	x.out.Packets = x.out.Packets[:0]
}

func uvarints(list ...uint64) (b []byte) {
	for _, v := range list {
		b = binary.AppendUvarint(b, v)
	}
	return b
}

// Packets that no member sends are counted and change nothing; above all they break nothing.
func TestMalformedPackets(t *testing.T) {
	const window = 8
	for _, c := range []struct {
		name    string
		h       wire.Header
		payload []byte
		count   func(c *Counters) uint64 // what must grow; nil: nothing does
	}{
		{"data of nobody", wire.Header{Kind: wire.KindData, Rank: 3, Seq: 1}, nil, malformed},
		{"data of a negative rank", wire.Header{Kind: wire.KindData, Rank: 1 << 31, Seq: 1}, nil, malformed},
		{"own data", wire.Header{Kind: wire.KindData, Rank: 0, Seq: 9}, nil, nil},
		{"data without a number", wire.Header{Kind: wire.KindData, Rank: 1}, nil, malformed},
		{"data stable below zero", wire.Header{Kind: wire.KindData, Rank: 1, Seq: 1, Aux: 2}, nil, malformed},
		{"data far ahead", wire.Header{Kind: wire.KindData, Rank: 1, Seq: 4*window + 1}, nil,
			func(c *Counters) uint64 { return c.Ahead }},
		{"acknowledgement of nobody", wire.Header{Kind: wire.KindAck, Rank: 3}, uvarints(0, 1, 0), nil},
		{"acknowledgement of a negative rank", wire.Header{Kind: wire.KindAck, Rank: 1 << 31}, uvarints(0, 1, 0), nil},
		{"own acknowledgement", wire.Header{Kind: wire.KindAck, Rank: 0}, uvarints(0, 1, 0), nil},
		{"half an acknowledgement", wire.Header{Kind: wire.KindAck, Rank: 1}, uvarints(0, 1), malformed},
		{"acknowledgement of no stream", wire.Header{Kind: wire.KindAck, Rank: 1}, uvarints(3, 1, 0), malformed},
		{"acknowledgement of a far stream", wire.Header{Kind: wire.KindAck, Rank: 1}, uvarints(1<<40, 1, 0), malformed},
		{"taken more than received", wire.Header{Kind: wire.KindAck, Rank: 1}, uvarints(0, 1, 2), malformed},
		{"acknowledgement of what was not sent", wire.Header{Kind: wire.KindAck, Rank: 1}, uvarints(0, 7, 0),
			malformed},
		{"question by nobody", wire.Header{Kind: wire.KindNak, Rank: 3}, uvarints(0, 1, 1), nil},
		{"question by a negative rank", wire.Header{Kind: wire.KindNak, Rank: 1 << 31}, uvarints(0, 1, 1), nil},
		{"empty question", wire.Header{Kind: wire.KindNak, Rank: 1}, nil, malformed},
		{"question for no stream", wire.Header{Kind: wire.KindNak, Rank: 1}, uvarints(3, 1, 1), malformed},
		{"half a range", wire.Header{Kind: wire.KindNak, Rank: 1}, uvarints(0, 1), malformed},
		{"no range", wire.Header{Kind: wire.KindNak, Rank: 1}, append(uvarints(0), 0x80), malformed},
		{"an endless range", wire.Header{Kind: wire.KindNak, Rank: 1}, uvarints(0, 9, 1<<63), nil},
		{"sync of nobody", wire.Header{Kind: wire.KindSync, Rank: 3, Seq: 1}, nil, nil},
		{"sync stable below zero", wire.Header{Kind: wire.KindSync, Rank: 1, Seq: 1, Aux: 2}, nil, nil},
		{"sync far ahead", wire.Header{Kind: wire.KindSync, Rank: 1, Seq: 4*window + 1}, nil,
			func(c *Counters) uint64 { return c.Ahead }},
	} {
		w := newNet(t, 3, window, 0)
		x := w.nodes[0]
		x.send()
		w.under = nil
		before, counted := x.st.Dump(), x.st.Count
		data := append(make([]byte, wire.HeaderLen), c.payload...)
		c.h.Encode(data)
		wire.Seal(data)
		w.arrive(flight{0, 1, data})
		if after := x.st.Dump(); after != before || x.st.ReceivedTo(1) != 0 || len(w.under) != 0 {
			t.Errorf("%s: %s became %s, %d packets sent", c.name, before, after, len(w.under))
		}
		if c.count != nil && c.count(&x.st.Count) != c.count(&counted)+1 {
			t.Errorf("%s: counted %+v", c.name, x.st.Count)
		}
		w.close()
	}
}

func malformed(c *Counters) uint64 { return c.Malformed }

// An answer to an inquiry tells all that is held, in as many packets as it takes.
func TestInquire(t *testing.T) {
	w := newNet(t, 4, 8, 0)
	for _, x := range w.nodes[1:] {
		x.send()
	}
	w.under = keepFor(w.under, 2)
	w.arriveAll()
	seen := observer{}
	x := w.nodes[0]
	x.st.Observe(seen)
	w.under = nil
	x.st.Inquire(2)
	x.drain()
	w.arriveAll()
	if len(seen) != 2 || seen[observed{2, 1}] != 1 || seen[observed{2, 3}] != 1 {
		t.Errorf("member 2 answered %v", seen)
	}
	w.settle()
	w.close()
}

type observed struct{ member, owner core.Rank }

type observer map[observed]core.Seq

func (o observer) OnAck(member, owner core.Rank, to core.Seq) { o[observed{member, owner}] = to }

func keepFor(list []flight, to int) (kept []flight) {
	for _, p := range list {
		if p.to == to {
			kept = append(kept, p)
		}
	}
	return kept
}

// FuzzStream lets anything arrive at a member that also sends and takes, and checks the ladder of positions.
func FuzzStream(f *testing.F) {
	f.Add([]byte{1, 1, 1, 0, 0, 2, 1, 2, 1, 9})
	f.Add([]byte{3, 1, 0, 0, 2, 0, 1, 4, 2, 1, 0, 5, 1, 3, 0, 1, 6, 7})
	f.Fuzz(func(t *testing.T, b []byte) {
		w := newNet(t, 3, 4, 0)
		x := w.nodes[0]
		next := func() byte {
			if len(b) == 0 {
				return 0
			}
			v := b[0]
			b = b[1:]
			return v
		}
		for len(b) > 0 {
			switch k := next() % 8; k {
			case 0:
				x.send()
			case 1:
				x.slow = next()%2 == 0
				x.deliver()
			case 2:
				w.tick(w.now.Add(syncEvery))
			case 3:
				x.st.Freeze()
			default:
				h := wire.Header{Kind: wire.KindData + wire.Kind(next()%5), Flags: next() % 4, Rank: uint32(next() % 5),
					Seq: uint64(next() % 32), Aux: uint32(next() % 8)}
				if h.Rank == 4 {
					h.Rank = 1 << 31
				}
				size := int(next() % 16)
				payload := b[:min(len(b), size)]
				b = b[len(payload):]
				data := append(make([]byte, wire.HeaderLen), payload...)
				h.Encode(data)
				wire.Seal(data)
				if !x.st.Frozen() || h.Kind == wire.KindData {
					w.arriveUnchecked(x, &h, data)
				}
			}
			w.checkLadder(t, x)
			x.drain()
			w.under = nil
		}
		w.close()
	})
}

// arriveUnchecked takes a packet in at a member whose neighbours do not exist.
func (w *net) arriveUnchecked(x *node, h *wire.Header, data []byte) {
	switch h.Kind {
	case wire.KindData:
		x.receive(h, data)
	case wire.KindAck:
		x.st.OnAck(w.now, h, data[wire.HeaderLen:])
	case wire.KindNak:
		x.st.OnNak(h, data[wire.HeaderLen:])
	case wire.KindSync:
		x.st.OnSync(w.now, h)
	}
}

func (w *net) checkLadder(t *testing.T, x *node) {
	t.Helper()
	for r := range core.Rank(len(w.nodes)) {
		to, islands := x.st.Holdings(r)
		if x.st.DeliveredTo(r) > to || to != x.st.ReceivedTo(r) || x.st.StableAt(r) > to {
			t.Fatalf("rank %d: delivered %d, received %d, stable %d", r, x.st.DeliveredTo(r), to, x.st.StableAt(r))
		}
		for q := x.st.DeliveredTo(r) + 1; q <= to; q++ {
			if x.st.Held(r, q).IsZero() {
				t.Fatalf("rank %d: received to %d, and %d is not held", r, to, q)
			}
		}
		for _, i := range islands {
			if i.First <= to || i.Last < i.First || i.Last > to+4*4 && !x.st.Frozen() {
				t.Fatalf("rank %d: received to %d, islands %v", r, to, islands)
			}
			to = i.Last
		}
	}
	if x.st.StableTo() > x.st.NumberedTo() {
		t.Fatalf("my stream: stable %d, numbered %d", x.st.StableTo(), x.st.NumberedTo())
	}
}
