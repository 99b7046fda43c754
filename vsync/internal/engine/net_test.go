package engine

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/khamsin-io/khamsin/dataplane"
	"github.com/khamsin-io/khamsin/dataplane/clock"
	"github.com/khamsin-io/khamsin/dataplane/frame"
	"github.com/khamsin-io/khamsin/vsync/core"
)

// net is a small virtual network of engines for the tests of this package; package sim has the real one.
type net struct {
	t      *testing.T
	now    clock.Time
	nodes  []*node
	queue  arrivals
	seq    int
	rng    *rand.Rand
	loss   float64
	delay  time.Duration
	edit   func(*Config)                     // changes the configuration of processes that start
	drop   func(from, to int, b []byte) bool // loses a packet
	forged bool                              // somebody sends nonsense: it may be delivered, and breaks nothing
}

type node struct {
	net        *net
	id         int
	e          *Engine
	arena      *frame.Arena
	ep         dataplane.Endpoint
	subs       map[dataplane.Channel]bool
	dead       bool
	deliveries []Delivery
	msgs       []string
	views      []*core.View
	events     []Event
	state      []string
	makeState  func(x *node, d Delivery) // in place of a short state
	slow       bool                      // its handlers take nothing
}

type arrival struct {
	at   clock.Time
	seq  int
	to   *node
	from dataplane.Endpoint
	ch   dataplane.Channel
	data []byte
}

type arrivals []arrival

func (a arrivals) Len() int { return len(a) }
func (a arrivals) Less(i, j int) bool {
	return a[i].at < a[j].at || (a[i].at == a[j].at && a[i].seq < a[j].seq)
}
func (a arrivals) Swap(i, j int) { a[i], a[j] = a[j], a[i] }
func (a *arrivals) Push(x any)   { *a = append(*a, x.(arrival)) }
func (a *arrivals) Pop() any {
	o := *a
	x := o[len(o)-1]
	*a = o[:len(o)-1]
	return x
}

func newNet(t *testing.T, n int) *net { return newNetOf(t, n, nil) }

// newNetOf returns a net of processes whose configurations edit changed.
func newNetOf(t *testing.T, n int, edit func(*Config)) *net {
	w := &net{t: t, now: 1, rng: rand.New(rand.NewPCG(1, 2)), delay: 20 * time.Microsecond, edit: edit}
	for range n {
		w.add()
	}
	t.Cleanup(func() {
		for _, x := range w.nodes {
			x.e.Release()
			if err := x.arena.Close(); err != nil {
				t.Errorf("node %d: %v", x.id, err)
			}
		}
	})
	return w
}

func (w *net) add() *node {
	id := len(w.nodes) + 1
	a, err := frame.New(frame.Config{ChunkSize: 2048, TxChunks: 8192, RxRuns: 4096, RunChunks: 1})
	if err != nil {
		w.t.Fatal(err)
	}
	self := core.Address{PID: uint32(id), Port: uint16(1000 + id), Incarnation: uint64(id) << 32 * 1}
	self.Incarnation = uint64(id)*0x1_0001_0001 + 7
	self.IP[15] = byte(id)
	cfg := Config{Self: self, System: "test", Seed: uint64(id), Arena: a, MTU: 1400, Oracle: Oracle{Eligible: true}}
	if w.edit != nil {
		w.edit(&cfg)
	}
	e, err := New(cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	x := &node{net: w, id: id, e: e, arena: a, ep: self.Endpoint(), subs: map[dataplane.Channel]bool{}}
	w.nodes = append(w.nodes, x)
	e.Start(w.now)
	x.collect()
	return x
}

func (x *node) collect() {
	w := x.net
	o := x.e.Output()
	for _, ch := range o.Subscribe {
		x.subs[ch] = true
	}
	for _, ch := range o.Unsubscribe {
		delete(x.subs, ch)
	}
	for _, p := range o.Packets {
		data := append([]byte(nil), x.arena.Bytes(p.Frame)...)
		x.arena.Tx().Release(p.Frame)
		for _, y := range w.nodes {
			if y.dead || (p.Channel == 0 && y.ep != p.To) || (p.Channel != 0 && !y.subs[p.Channel]) {
				continue
			}
			if y != x && (w.rng.Float64() < w.loss || w.drop != nil && w.drop(x.id, y.id, data)) {
				continue
			}
			w.seq++
			at := w.now.Add(w.delay + time.Duration(w.rng.IntN(1000)))
			heap.Push(&w.queue, arrival{at, w.seq, y, x.ep, p.Channel, data})
		}
	}
	x.events = append(x.events, o.Events...)
	deliveries := append([]Delivery(nil), o.Deliveries...)
	o.Reset()
	consumed := map[Handle]int{}
	for _, d := range deliveries {
		x.take(d)
		if !x.slow && (d.Kind == DeliverMessages || d.Kind == DeliverWhole) {
			consumed[d.Group]++
		}
	}
	for h, n := range consumed {
		x.e.Consumed(w.now, h, n)
	}
	if len(consumed) > 0 || len(deliveries) > 0 {
		x.collect()
	}
}

func (x *node) take(d Delivery) {
	x.deliveries = append(x.deliveries, d)
	switch d.Kind {
	case DeliverMessages:
		b := d.Data
		if !d.Frame.IsZero() {
			b = x.arena.Bytes(d.Frame)
		}
		for len(b) > 0 {
			m, rest, ok := NextMessage(b)
			if !ok && !x.net.forged {
				x.net.t.Fatalf("node %d: malformed messages", x.id)
			} else if !ok {
				break
			}
			x.msgs = append(x.msgs, string(m))
			b = rest
		}
		if !d.Frame.IsZero() {
			x.arena.Tx().Release(d.Frame)
		}
	case DeliverWhole:
		x.msgs = append(x.msgs, string(d.Data))
	case DeliverView:
		x.views = append(x.views, d.View)
		x.msgs = append(x.msgs, fmt.Sprintf("view %d of %d", d.View.ID, d.View.Size()))
	case DeliverPeer:
		x.msgs = append(x.msgs, fmt.Sprintf("peer %d: %s", d.From.PID, d.Data))
		if !x.slow {
			x.e.ConsumedPeers(x.net.now, d.Group, 1, len(d.Data))
		}
	case DeliverMakeState:
		if x.makeState != nil {
			x.makeState(x, d)
			return
		}
		x.e.StateChunk(x.net.now, d.Transfer, []byte(fmt.Sprintf("%d messages", len(x.msgs))), false)
		x.e.StateChunk(x.net.now, d.Transfer, nil, true)
	case DeliverState:
		x.state = append(x.state, string(d.Data))
	}
}

// run lets virtual time pass.
func (w *net) run(d time.Duration) {
	end := w.now.Add(d)
	for {
		next, who := end, (*node)(nil)
		for _, x := range w.nodes {
			if t := x.e.Deadline(); !x.dead && t < next {
				next, who = t, x
			}
		}
		if len(w.queue) > 0 && w.queue[0].at <= next {
			a := heap.Pop(&w.queue).(arrival)
			w.now = max(w.now, a.at)
			a.arrive(w)
			continue
		}
		w.now = max(w.now, next)
		if who == nil {
			return
		}
		who.e.Tick(w.now)
		who.collect()
	}
}

func (a arrival) arrive(w *net) {
	if a.to.dead {
		return
	}
	f, ok := a.to.arena.Rx().Get()
	if !ok {
		return
	}
	f.Len = uint32(len(a.data))
	copy(a.to.arena.Bytes(f), a.data)
	a.to.e.Receive(w.now, []dataplane.Packet{{Frame: f, From: a.from, Channel: a.ch}})
	a.to.collect()
}
