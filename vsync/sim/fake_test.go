package sim

import (
	"encoding/binary"
	"time"

	"github.com/khamsin-io/khamsin/dataplane"
	"github.com/khamsin-io/khamsin/dataplane/clock"
	"github.com/khamsin-io/khamsin/dataplane/wire"
	"github.com/khamsin-io/khamsin/vsync/core"
	"github.com/khamsin-io/khamsin/vsync/internal/engine"
)

// fakeBug is a mistake that a fake engine makes, to see that the world notices.
type fakeBug string

const (
	bugLeak  fakeBug = "leak"  // keeps a frame for ever
	bugTwice fakeBug = "twice" // delivers a message twice
	bugSwap  fakeBug = "swap"  // delivers two messages in the wrong order
	bugMute  fakeBug = "mute"  // loses a message
	bugPanic fakeBug = "panic"
	bugForge fakeBug = "forge" // changes a byte of a message
)

// fakeSystem is what the fake engines of one world share: one group whose members never change, in one order. Rank 0
// numbers every message. It needs a network without loss.
type fakeSystem struct {
	members []core.Address
	bug     fakeBug
}

func (s *fakeSystem) new(cfg engine.Config) (machine, error) {
	return &fakeEngine{sys: s, cfg: cfg, held: map[uint64][]byte{}, seen: map[uint64]uint64{}, next: 1}, nil
}

// fakeEngine is one of them.
type fakeEngine struct {
	sys       *fakeSystem
	cfg       engine.Config
	out       engine.Output
	started   clock.Time
	now       clock.Time
	view      *core.View
	sent      uint64            // own messages
	delivered uint64            // own messages delivered
	numbered  uint64            // by rank 0
	seen      map[uint64]uint64 // rank 0: highest message taken of each incarnation
	early     [][]byte          // rank 0: messages that overtook others
	held      map[uint64][]byte // by number: not delivered
	next      uint64            // number to be delivered next
	flushes   []fakeFlush
	joined    bool
	over      bool
	kept      []engine.Delivery // by bugSwap
}

type fakeFlush struct{ covers, token uint64 }

func (e *fakeEngine) Start(now clock.Time) {
	e.now, e.started = now, now
	e.out.Subscribe = append(e.out.Subscribe, 1)
	e.out.Events = append(e.out.Events, engine.Event{Kind: engine.EventAttached})
}

func (e *fakeEngine) Output() *engine.Output { return &e.out }

func (e *fakeEngine) Deadline() clock.Time {
	if e.view != nil || e.over {
		return clock.Never
	}
	return e.now.Add(time.Millisecond)
}

func (e *fakeEngine) Tick(now clock.Time) {
	e.now = now
	const gather = 80 * time.Millisecond // all have joined by then
	if e.view == nil && now.Sub(e.started) > gather && len(e.sys.members) > 0 && e.joined {
		e.view = &core.View{ID: 1, Members: e.sys.members, Joined: e.sys.members}
		e.out.Deliveries = append(e.out.Deliveries, engine.Delivery{Kind: engine.DeliverInit, Group: 1},
			engine.Delivery{Kind: engine.DeliverView, Group: 1, View: e.view, ViewID: 1})
		e.deliver()
	}
}

func (e *fakeEngine) Join(now clock.Time, _ engine.JoinRequest) engine.Handle {
	e.now, e.joined = now, true
	e.sys.members = append(e.sys.members, e.cfg.Self)
	return 1
}

func (e *fakeEngine) Leave(clock.Time, engine.Handle)     {}
func (e *fakeEngine) Terminate(clock.Time, engine.Handle) {}

// Submit sends [incarnation][own number][flavour][message] to rank 0.
func (e *fakeEngine) Submit(_ clock.Time, _ engine.Handle, f core.Flavour, _, msg []byte) engine.Result {
	e.sent++
	b := binary.LittleEndian.AppendUint64(nil, e.cfg.Self.Incarnation)
	b = binary.LittleEndian.AppendUint64(b, e.sent)
	e.transmit(wire.KindRaw, 0, append(append(b, byte(f)), msg...), dataplane.Packet{To: e.view.Members[0].Endpoint()})
	return engine.Accepted
}

func (e *fakeEngine) transmit(k wire.Kind, seq uint64, body []byte, p dataplane.Packet) {
	f, ok := e.cfg.Arena.Tx().Get()
	if !ok {
		panic("fake engine: arena is empty")
	}
	f.Len = uint32(wire.HeaderLen + len(body))
	b := e.cfg.Arena.Bytes(f)
	h := wire.Header{Kind: k, Seq: seq, View: 1}
	h.Encode(b)
	copy(b[wire.HeaderLen:], body)
	wire.Seal(b)
	p.Frame = f
	e.out.Packets = append(e.out.Packets, p)
}

func (e *fakeEngine) Receive(_ clock.Time, batch []dataplane.Packet) {
	for _, p := range batch {
		b := e.cfg.Arena.Bytes(p.Frame)
		var h wire.Header
		if h.Decode(b) == nil {
			body := append([]byte(nil), b[wire.HeaderLen:]...)
			if h.Kind == wire.KindRaw {
				e.number(body)
			} else if h.Seq >= e.next {
				e.held[h.Seq] = body
			}
		}
		if e.sys.bug != bugLeak || e.next != 20 {
			e.cfg.Arena.Release(p.Frame)
		}
	}
	e.deliver()
}

// number gives the next number to a message and sends it to all, as rank 0.
func (e *fakeEngine) number(body []byte) {
	e.early = append(e.early, body)
	for i := 0; i < len(e.early); i++ {
		b := e.early[i]
		from, n := binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[8:])
		if n > e.seen[from]+1 {
			continue
		}
		e.early = append(e.early[:i], e.early[i+1:]...)
		i = -1
		if n == e.seen[from]+1 {
			e.seen[from] = n
			e.numbered++
			e.transmit(wire.KindData, e.numbered, b, dataplane.Packet{Channel: 1})
		}
	}
}

func (e *fakeEngine) deliver() {
	if e.view == nil {
		return
	}
	for e.held[e.next] != nil {
		body := e.held[e.next]
		delete(e.held, e.next)
		from := binary.LittleEndian.Uint64(body)
		d := engine.Delivery{Kind: engine.DeliverWhole, Group: 1, ViewID: 1, Seq: core.Seq(e.next), Data: body[17:],
			Flavour: core.Flavour(body[16])}
		for i, a := range e.view.Members {
			if a.Incarnation == from {
				d.Sender = core.Rank(i)
			}
		}
		if from == e.cfg.Self.Incarnation {
			e.delivered++
		}
		e.next++
		e.out.Deliveries = append(e.out.Deliveries, e.spoil(d)...)
	}
	for len(e.flushes) > 0 && e.flushes[0].covers <= e.delivered {
		e.out.Events = append(e.out.Events, engine.Event{Kind: engine.EventFlushed, Group: 1,
			Token: e.flushes[0].token})
		e.flushes = e.flushes[1:]
	}
}

// spoil makes the mistake at the twentieth message, at rank 1.
func (e *fakeEngine) spoil(d engine.Delivery) []engine.Delivery {
	if len(e.kept) > 0 {
		both := append([]engine.Delivery{d}, e.kept...)
		e.kept = nil
		return both
	}
	if e.cfg.Self != e.view.Members[1] || d.Seq != 20 {
		return []engine.Delivery{d}
	}
	switch e.sys.bug {
	case bugTwice:
		return []engine.Delivery{d, d}
	case bugSwap:
		e.kept = []engine.Delivery{d}
		return nil
	case bugMute:
		return nil
	case bugPanic:
		panic("planted")
	case bugForge:
		if len(d.Data) > 0 {
			d.Data[len(d.Data)-1] ^= 1
		}
	}
	return []engine.Delivery{d}
}

func (e *fakeEngine) SubmitTo(clock.Time, engine.Handle, core.Address, []byte) engine.Result {
	return engine.NotMember
}

func (e *fakeEngine) Flush(_ clock.Time, _ engine.Handle, _ int, token uint64) {
	e.flushes = append(e.flushes, fakeFlush{e.sent, token})
	e.deliver()
}

func (e *fakeEngine) StateChunk(clock.Time, uint64, []byte, bool) engine.Result {
	return engine.NotMember
}
func (e *fakeEngine) Consumed(clock.Time, engine.Handle, int)           {}
func (e *fakeEngine) ConsumedPeers(clock.Time, engine.Handle, int, int) {}
func (e *fakeEngine) View(engine.Handle) *core.View                     { return e.view }
func (e *fakeEngine) Release()                                          {}
func (e *fakeEngine) System() uint32                                    { return 1 }
func (e *fakeEngine) Quorums() [][]uint64                               { return [][]uint64{{e.cfg.Self.Incarnation}} }

func (e *fakeEngine) Report(clock.Time, engine.Handle, core.Address, string) error { return nil }

func (e *fakeEngine) Stop(clock.Time) {
	e.over = true
	e.out.Events = append(e.out.Events, engine.Event{Kind: engine.EventOver, Err: engine.ErrStopped})
}

func (e *fakeEngine) LineClosed(clock.Time, uint64) {}
func (e *fakeEngine) LineOpen(clock.Time, uint64)   {}
