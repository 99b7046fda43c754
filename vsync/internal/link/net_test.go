package link

import (
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

const (
	retryAfter = 10 * time.Millisecond
	ackAfter   = 2 * time.Millisecond
)

// end is one process: its lanes, and what came over them.
type end struct {
	silent []uint64 // peers that acknowledge nothing
	net    *net
	links  *Links
	out    *pdu.Outbox
	self   core.Address
	got    []Message
	refuse bool // OnMessage says that there is no room
	room   int  // messages that OnMessage takes before it refuses; 0: any number
}

// net is a few processes and the packets under way between them.
type net struct {
	t     tester
	now   clock.Time
	ends  []*end
	under []flight
}

type flight struct {
	to, from dataplane.Endpoint
	data     []byte
}

func process(i int) core.Address {
	return core.Address{PID: uint32(i), Port: uint16(100 + i), Incarnation: uint64(i)<<32 | 0xabc0 | uint64(i)}
}

func newNet(t tester, n, chunks int) *net {
	w := &net{t: t, now: 1}
	for i := range n {
		arena, err := frame.New(frame.Config{ChunkSize: 1024, TxChunks: chunks, RxRuns: 1024})
		if err != nil {
			t.Fatal(err)
		}
		x := &end{net: w, out: pdu.NewOutbox(arena, 256), self: process(i + 1)}
		x.links = New(Config{Incarnation: x.self.Incarnation, Retry: retryAfter, Ack: ackAfter}, x.out, x)
		w.ends = append(w.ends, x)
	}
	return w
}

func (w *net) close() {
	for _, x := range w.ends {
		x.drain()
		x.links.Release()
		if err := x.out.Arena().Close(); err != nil {
			w.t.Fatal(err)
		}
	}
}

// OnMessage is Handler's.
func (x *end) OnSilent(_ clock.Time, peer uint64) { x.silent = append(x.silent, peer) }

func (x *end) OnMessage(_ clock.Time, m Message) bool {
	if x.refuse {
		return false
	}
	if x.got = append(x.got, m); m.Loan != nil {
		x.got[len(x.got)-1].Data = slices.Clone(m.Data)
		m.Loan.Return()
	}
	if x.room--; x.room == 0 {
		x.refuse = true
	}
	return true
}

func (x *end) drain() {
	for _, p := range x.out.Packets {
		x.net.under = append(x.net.under, flight{p.To, x.self.Endpoint(), slices.Clone(x.out.Arena().Bytes(p.Frame))})
		x.out.Arena().Tx().Release(p.Frame)
	}
	x.out.Packets = x.out.Packets[:0]
}

func (x *end) send(to *end, k Kind, group uint32, msg string) {
	x.links.Send(x.net.now, to.self, k, group, []byte(msg))
	x.drain()
}

// sendLent is send in a buffer of the lanes, which is theirs again when the packets are made.
func (x *end) sendLent(to *end, k Kind, group uint32, msg string) {
	x.links.SendLent(x.net.now, to.self, k, group, append(x.links.Buffer(len(msg)), msg...))
	x.drain()
}

// arrive takes one packet in, as the engine would.
func (w *net) arrive(p flight) {
	for _, x := range w.ends {
		if x.self.Endpoint() != p.to {
			continue
		}
		var h wire.Header
		if err := h.Decode(p.data); err != nil {
			w.t.Fatalf("packet %x: %v", p.data, err)
		}
		x.take(&h, p)
		x.drain()
	}
}

func (x *end) take(h *wire.Header, p flight) {
	if h.Kind == wire.KindLinkAck {
		x.links.OnAck(x.net.now, h)
		return
	}
	f, ok := x.out.Arena().Rx().Get()
	if !ok {
		return
	}
	f.Len = uint32(len(p.data))
	copy(x.out.Arena().Bytes(f), p.data)
	x.links.OnPacket(x.net.now, h, f, p.from)
}

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
	for _, x := range w.ends {
		next = min(next, x.links.Deadline())
	}
	w.now = max(w.now, next)
	for _, x := range w.ends {
		if x.links.Deadline() <= w.now {
			x.links.Tick(w.now)
			x.drain()
		}
	}
}

// settle lets everything arrive until nobody has anything to do.
func (w *net) settle() {
	w.t.Helper()
	for end := w.now.Add(time.Minute); w.now < end; {
		w.arriveAll()
		w.tick(end)
	}
}

// step lets one thing happen.
func (w *net) step(t *rapid.T, sent map[laneName][]string) {
	i := rapid.IntRange(0, len(w.ends)-1).Draw(t, "end")
	x := w.ends[i]
	switch k := rapid.IntRange(0, 9).Draw(t, "step"); {
	case k < 3:
		to := rapid.IntRange(0, len(w.ends)-2).Draw(t, "to")
		if to >= i {
			to++
		}
		kind := Kind(rapid.IntRange(0, int(kinds)-1).Draw(t, "kind"))
		group := uint32(rapid.IntRange(0, 1).Draw(t, "group"))
		name := laneName{i, to, kind, group}
		count, send := 1, x.send
		if rapid.Bool().Draw(t, "lent") {
			send = x.sendLent
		}
		if k == 2 { // more than fit the window: they share packets
			count = rapid.IntRange(window, 3*window).Draw(t, "count")
		}
		msg := rapid.StringOfN(rapid.Rune(), 0, 900/count, 900/count).Draw(t, "message")
		for j := range count {
			each := msg[:len(msg)*j/max(count-1, 1)] // of all lengths
			if j == count-1 {
				each = msg
			}
			sent[name] = append(sent[name], each)
			send(w.ends[to], kind, group, each)
		}
	case k == 3:
		x.refuse = rapid.Bool().Draw(t, "refuse")
		x.room = rapid.IntRange(0, 5).Draw(t, "room")
		if !x.refuse {
			x.links.Kick(w.now)
			x.drain()
		}
	case k == 4:
		w.tick(w.now.Add(ackAfter))
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

// laneName names one direction of a lane.
type laneName struct {
	from, to int
	kind     Kind
	group    uint32
}

// received sorts what came by lane.
func (w *net) received() map[laneName][]string {
	got := map[laneName][]string{}
	for i, x := range w.ends {
		for _, m := range x.got {
			from := slices.IndexFunc(w.ends, func(y *end) bool { return y.self.Incarnation == m.From })
			name := laneName{from, i, m.Kind, m.Group}
			got[name] = append(got[name], string(m.Data))
		}
	}
	return got
}
