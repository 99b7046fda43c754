package stream

import (
	"encoding/binary"
	"slices"
	"time"

	"pgregory.net/rapid"

	"github.com/khamsin-io/khamsin/dataplane"
	"github.com/khamsin-io/khamsin/dataplane/clock"
	"github.com/khamsin-io/khamsin/dataplane/frame"
	"github.com/khamsin-io/khamsin/dataplane/wire"
	"github.com/khamsin-io/khamsin/vsync/core"
	"github.com/khamsin-io/khamsin/vsync/internal/pdu"
)

// tester is what *testing.T and *rapid.T have in common.
type tester interface {
	Fatalf(string, ...any)
	Fatal(...any)
	Helper()
}

// net is one view of a group: a Stream for each member, and packets under way between them.
type net struct {
	t       tester
	now     clock.Time
	nodes   []*node
	under   []flight
	dropped map[int]bool // members that nothing reaches, and nothing comes from
}

type flight struct {
	to, from int
	data     []byte
}

// node is one member: it delivers to its application what is contiguous, as far as the application takes it.
type node struct {
	net   *net
	st    *Stream
	out   *pdu.Outbox
	self  int
	slow  bool
	taken [][]uint64 // by rank: the numbers in the payloads delivered
	sent  uint64
}

const (
	testGroup = 7
	testView  = 3
	nak, ack  = time.Millisecond, 2 * time.Millisecond
	syncEvery = 4 * time.Millisecond
	testNodes = 256 // chunks of a node's arena
)

func endpoint(i int) dataplane.Endpoint { return dataplane.Endpoint{Port: uint32(100 + i)} }

func newNet(t tester, n, window int, ch dataplane.Channel) *net {
	w := &net{t: t, now: 1, dropped: map[int]bool{}}
	peers := make([]dataplane.Endpoint, n)
	for i := range peers {
		peers[i] = endpoint(i)
	}
	for i := range n {
		arena, err := frame.New(frame.Config{ChunkSize: 1024, TxChunks: testNodes, RxRuns: testNodes})
		if err != nil {
			t.Fatal(err)
		}
		x := &node{net: w, self: i, out: pdu.NewOutbox(arena, 256), taken: make([][]uint64, n)}
		x.st = New(Config{
			Self: core.Rank(i), Peers: peers, Channel: ch, Group: testGroup, View: testView, Window: window,
			Nak: nak, Ack: ack, Sync: syncEvery,
		}, x.out)
		w.nodes = append(w.nodes, x)
	}
	return w
}

// close gives everything back and looks for frames that are gone.
func (w *net) close() {
	for _, x := range w.nodes {
		x.drain()
		x.st.Release()
		if err := x.out.Arena().Close(); err != nil {
			w.t.Fatal(err)
		}
	}
}

// drain takes what a node emits and puts it under way.
func (x *node) drain() {
	for _, p := range x.out.Packets {
		data := slices.Clone(x.out.Arena().Bytes(p.Frame))
		x.out.Arena().Tx().Release(p.Frame)
		for i := range x.net.nodes {
			if i != x.self && (p.Channel != 0 || p.To == endpoint(i)) && !x.net.dropped[i] && !x.net.dropped[x.self] {
				x.net.under = append(x.net.under, flight{i, x.self, data})
			}
		}
	}
	x.out.Packets = x.out.Packets[:0]
}

// send numbers a packet, if the window is open.
func (x *node) send() bool {
	if !x.st.Open() {
		return false
	}
	f, ok := x.out.Alloc()
	if !ok {
		x.net.t.Fatalf("member %d has no frame left", x.self)
	}
	x.sent++
	f = x.out.Extend(f, binary.BigEndian.AppendUint64(nil, x.sent))
	x.st.Number(f, pdu.Flags(core.FIFO))
	x.st.Pump(x.net.now)
	x.deliver()
	x.drain()
	return true
}

// deliver hands what is contiguous to the application.
func (x *node) deliver() {
	for r := range x.taken {
		r := core.Rank(r)
		for !x.slow && x.st.DeliveredTo(r) < x.st.ReceivedTo(r) {
			q := x.st.DeliveredTo(r) + 1
			f := x.st.Held(r, q)
			if f.IsZero() {
				x.net.t.Fatalf("member %d received to %d of rank %d, and does not hold %d", x.self,
					x.st.ReceivedTo(r), r, q)
			}
			if b := x.out.Arena().Bytes(f)[wire.HeaderLen:]; len(b) == 8 {
				x.taken[r] = append(x.taken[r], binary.BigEndian.Uint64(b))
			}
			x.st.Delivered(x.net.now, r, q)
		}
	}
	x.st.Pump(x.net.now)
}

// arrive takes one packet in, as the engine would.
func (w *net) arrive(p flight) {
	x := w.nodes[p.to]
	var h wire.Header
	if err := h.Decode(p.data); err != nil {
		w.t.Fatalf("packet %x: %v", p.data, err)
	}
	switch h.Kind {
	case wire.KindData:
		x.receive(&h, p.data)
	case wire.KindAck:
		x.st.OnAck(w.now, &h, p.data[wire.HeaderLen:])
	case wire.KindNak:
		x.st.OnNak(&h, p.data[wire.HeaderLen:])
	case wire.KindSync:
		x.st.OnSync(w.now, &h)
	}
	x.deliver()
	x.drain()
}

func (x *node) receive(h *wire.Header, data []byte) Advance {
	f, ok := x.out.Arena().Rx().Get()
	if !ok {
		return Advance{} // no room: as good as lost
	}
	f.Len = uint32(len(data))
	copy(x.out.Arena().Bytes(f), data)
	adv := x.st.OnData(x.net.now, h, f)
	if adv.To > 0 && x.st.ReceivedTo(adv.Rank) != adv.To {
		x.net.t.Fatalf("advance %+v, received to %d", adv, x.st.ReceivedTo(adv.Rank))
	}
	return adv
}

// arriveAll lets everything that is under way arrive, and what comes of it.
func (w *net) arriveAll() {
	for len(w.under) > 0 {
		p := w.under[0]
		w.under = w.under[1:]
		w.arrive(p)
	}
}

// tick lets time pass to the next deadline, within a limit.
func (w *net) tick(limit clock.Time) {
	next := limit
	for _, x := range w.nodes {
		next = min(next, x.st.Deadline())
	}
	w.now = max(w.now, next)
	for _, x := range w.nodes {
		if x.st.Deadline() <= w.now {
			x.st.Tick(w.now)
			x.deliver()
			x.drain()
		}
	}
}

// settle lets everything arrive, and time pass, until nothing is under way and nobody has anything to do.
func (w *net) settle() {
	w.t.Helper()
	for end := w.now.Add(time.Minute); ; {
		w.arriveAll()
		before := w.now
		w.tick(end)
		if len(w.under) == 0 && (w.now == end || w.now == before) {
			return
		}
	}
}

// check compares every member with the others: the ladder of positions, and what was delivered.
func (w *net) check() {
	w.t.Helper()
	for _, x := range w.nodes {
		for r, y := range w.nodes {
			got := x.taken[r]
			if uint64(len(got)) > y.sent || !slices.IsSorted(got) || len(got) > 0 && (got[0] != 1 ||
				got[len(got)-1] != uint64(len(got))) {
				w.t.Fatalf("member %d delivered %v of the %d packets of rank %d", x.self, got, y.sent, r)
			}
			r := core.Rank(r)
			if x.st.DeliveredTo(r) > x.st.ReceivedTo(r) || x.st.ReceivedTo(r) > y.st.NumberedTo() ||
				x.st.StableAt(r) > x.st.ReceivedTo(r) {
				w.t.Fatalf("member %d at rank %d: delivered %d, received %d, stable %d, numbered %d", x.self, r,
					x.st.DeliveredTo(r), x.st.ReceivedTo(r), x.st.StableAt(r), y.st.NumberedTo())
			}
			if w.nodes[x.self].st.StableTo() > w.least(core.Rank(x.self)) {
				w.t.Fatalf("member %d calls %d stable, and somebody holds only %d", x.self, x.st.StableTo(),
					w.least(core.Rank(x.self)))
			}
		}
	}
}

// least returns how far everyone has received a stream.
func (w *net) least(r core.Rank) core.Seq {
	q := w.nodes[r].st.NumberedTo()
	for _, x := range w.nodes {
		q = min(q, x.st.ReceivedTo(r))
	}
	return q
}

// step lets one thing happen: a send, a packet's arrival, loss or doubling, a pause of an application, time.
func (w *net) step(t *rapid.T) {
	x := w.nodes[rapid.IntRange(0, len(w.nodes)-1).Draw(t, "member")]
	switch k := rapid.IntRange(0, 9).Draw(t, "step"); {
	case k < 3:
		for range rapid.IntRange(1, 6).Draw(t, "burst") {
			x.send()
		}
	case k == 3:
		x.slow = rapid.Bool().Draw(t, "slow")
		x.deliver()
		x.drain()
	case k == 4:
		w.tick(w.now.Add(syncEvery))
	case len(w.under) > 0:
		i := rapid.IntRange(0, len(w.under)-1).Draw(t, "which")
		p := w.under[i]
		if k != 5 { // else it comes again
			w.under = slices.Delete(w.under, i, i+1)
		}
		if k != 6 { // else it is lost
			w.arrive(p)
		}
	}
}
