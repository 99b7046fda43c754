package transfer

import (
	"bytes"
	"container/heap"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/khamsin-io/khamsin/oob/internal/catalog"
)

// weather is what happens to packets on their way to one receiver.
type weather struct {
	loss, duplicate, damage, late float64
	delay                         int64
	rate                          float64 // bytes per nanosecond of the sender's line; 0: no limit
	// nanoseconds of line time that the line's queue holds; beyond it packets are lost
	queue int64
}

type event struct {
	at   int64
	seq  int
	what func()
}

type events []event

func (e events) Len() int { return len(e) }
func (e events) Less(i, j int) bool {
	return e[i].at < e[j].at || e[i].at == e[j].at && e[i].seq < e[j].seq
}
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)   { *e = append(*e, x.(event)) }
func (e *events) Pop() any {
	old := *e
	x := old[len(old)-1]
	*e = old[:len(old)-1]
	return x
}

// world is a transfer of some objects from one process to n, with time of its own.
type world struct {
	t        testing.TB
	rng      *rand.Rand
	w        weather
	now      int64
	seq      int
	queue    events
	objects  [][]byte
	layout   *Layout
	source   []Item
	sender   *Sender
	parity   *Parity
	nodes    []*node
	line     int64 // when the sender's line is free
	sent     int   // packets of data and parity
	reported int   // entries of feedbacks
	dropped  int   // by the line's queue
	dead     map[int]int64
}

type node struct {
	id    uint64
	r     *Receiver
	items []Item
	since int
	fb    Feedback
}

func newWorld(t testing.TB, seed uint64, shape [2]int, w weather, sizes ...int) *world {
	n, unit := shape[0], shape[1]
	x := &world{t: t, rng: rand.New(rand.NewPCG(seed, 2)), w: w, dead: map[int]int64{}}
	var lengths []uint64
	for _, size := range sizes {
		b := make([]byte, size)
		for i := range b {
			b[i] = byte(x.rng.Uint32())
		}
		list, d := Sum(b)
		x.objects = append(x.objects, b)
		x.source = append(x.source, Item{Data: b, List: list, Digest: d})
		lengths = append(lengths, uint64(size))
	}
	var err error
	if x.layout, err = NewLayout(unit, lengths); err != nil {
		t.Fatal(err)
	}
	x.parity = NewParity(x.layout, x.source)
	var ids []uint64
	for i := range n {
		nd := &node{id: uint64(i + 1)}
		for k, b := range x.objects {
			nd.items = append(nd.items, NewItem(make([]byte, len(b)), x.source[k].Digest))
		}
		nd.r = NewReceiver(x.layout, nd.items)
		x.nodes = append(x.nodes, nd)
		ids = append(ids, nd.id)
	}
	x.sender = NewSender(x.layout, ids, 45, 0)
	return x
}

func (x *world) at(d int64, f func()) {
	x.seq++
	heap.Push(&x.queue, event{x.now + d, x.seq, f})
}

// transmit puts a packet on the line and returns when it leaves it; −1: the queue is full.
func (x *world) transmit(size int) int64 {
	if x.w.rate == 0 {
		return 0
	}
	x.line = max(x.line, x.now)
	if x.line-x.now > x.w.queue {
		x.dropped++
		return -1
	}
	x.line += int64(float64(size+42+HeadLen) / x.w.rate)
	return x.line - x.now
}

func (x *world) deliver(to int, size int, f func(nd *node, damaged bool)) {
	x.sent++
	leave := x.transmit(size)
	if leave < 0 {
		return
	}
	for i, nd := range x.nodes {
		if to >= 0 && to != i {
			continue
		}
		for copies := 0; copies < 2; copies++ {
			if x.rng.Float64() < x.w.loss {
				break
			}
			d := leave + x.w.delay
			if x.rng.Float64() < x.w.late {
				d += x.w.delay * int64(1+x.rng.IntN(3))
			}
			damaged := x.rng.Float64() < x.w.damage
			x.at(d, func() {
				if at, ok := x.dead[i]; !ok || x.now < at {
					f(nd, damaged)
				}
			})
			if x.rng.Float64() >= x.w.duplicate {
				break
			}
		}
	}
}

func (x *world) report(nd *node, all bool) {
	nd.since = 0
	nd.r.Report(&nd.fb, EntriesMax, all, func() { x.tell(nd) })
}

func (x *world) tell(nd *node) {
	nd.fb.Receiver, nd.fb.Window = nd.id, 2048
	x.reported += len(nd.fb.Entries)
	wire := nd.fb.Append(nil)
	if x.rng.Float64() < x.w.loss {
		return
	}
	x.at(x.w.delay, func() {
		var f Feedback
		if !f.Parse(wire) {
			x.t.Fatal("a feedback cannot be read")
		}
		x.sender.Feedback(&f, x.now)
		x.pump()
	})
}

func (x *world) got(nd *node) {
	if nd.since++; nd.since >= 128 {
		x.report(nd, false)
	}
}

// pump sends what may be sent.
func (x *world) pump() {
	var b Burst
	for x.sender.Next(&b, x.now) {
		number := b.Number
		if b.Parity {
			block := b.Block
			rows := x.parity.Rows(block, b.Row, b.Rows)
			for i := range b.Rows {
				row, data, n := b.Row+i, slices.Clone(rows[i]), number+uint32(i)
				x.deliver(b.To, len(data), func(nd *node, damaged bool) {
					nd.r.Saw(n)
					nd.r.Touched(block, n)
					if damaged {
						data = slices.Clone(data)
						data[3] ^= 1
					}
					put := func(seg uint32, b []byte) error { copy(nd.r.Slot(seg), b); return nil }
					if err := nd.r.Parity(block, row, data, put); err != nil {
						x.t.Fatal(err)
					}
					x.got(nd)
				})
			}
			continue
		}
		for i, seg := range b.Segments {
			n := number + uint32(i)
			p := x.layout.Locate(seg, 0)
			x.deliver(b.To, p.Len, func(nd *node, damaged bool) {
				nd.r.Saw(n)
				nd.r.Touched(seg/BlockLen, n)
				nd.r.Passed(seg + 1)
				if nd.r.Wants(seg) {
					copy(nd.r.Slot(seg), x.source[p.Item].Bytes(p))
					if damaged {
						nd.r.Slot(seg)[0] ^= 1
					}
					nd.r.Arrived(seg)
					put := func(seg uint32, b []byte) error { copy(nd.r.Slot(seg), b); return nil }
					if err := nd.r.Repair(seg/BlockLen, put); err != nil {
						x.t.Fatal(err)
					}
				}
				x.got(nd)
			})
		}
	}
}

// run runs until everybody has everything, and returns how long that took.
func (x *world) run(limit int64) int64 {
	x.t.Helper()
	x.pump()
	for !x.sender.Done() {
		if len(x.queue) == 0 || x.queue[0].at > x.sender.Due() {
			x.now = max(x.now, x.sender.Due())
			x.pump()
			if x.sender.Probe(x.now) {
				passed, last := x.sender.Passed(), x.sender.Last()
				x.deliver(-1, ProbeLen, func(nd *node, _ bool) {
					nd.r.Saw(last)
					nd.r.Passed(passed)
					x.report(nd, true)
				})
				x.sent--
			}
		} else {
			e := heap.Pop(&x.queue).(event)
			x.now = e.at
			e.what()
		}
		for i, at := range x.dead {
			if x.now >= at {
				x.sender.Gone(x.nodes[i].id)
			}
		}
		if x.now > limit {
			x.t.Errorf("not done after %v: missing %d, window %d", time.Duration(x.now), x.nodes[0].r.Missing(),
				x.sender.Window())
			return x.now
		}
	}
	for i, nd := range x.nodes {
		if _, ok := x.dead[i]; ok {
			continue
		}
		for k := range nd.items {
			if _, d := Sum(nd.items[k].Data); d != x.source[k].Digest || !bytes.Equal(nd.items[k].Data, x.objects[k]) {
				x.t.Fatalf("receiver %d has object %d wrong", i, k)
			}
		}
	}
	return x.now
}

// overhead returns how many packets were sent for each segment.
func (x *world) overhead() float64 { return float64(x.sent) / float64(x.layout.Total()) }

const minute = int64(time.Minute)

// Every copy is whole and right, whatever the network does.
//
// rows: OOB-18
func TestRandomWeather(t *testing.T) {
	runs := 200
	if testing.Short() {
		runs = 40
	}
	if n, err := strconv.Atoi(os.Getenv("KHAMSIN_WEATHERS")); err == nil {
		runs = n
	}
	for seed := range uint64(runs) {
		if t.Failed() {
			t.Fatalf("seed %d", seed-1)
		}
		rng := rand.New(rand.NewPCG(seed, 3))
		w := weather{
			loss: rng.Float64() * 0.2, duplicate: rng.Float64() * 0.05, late: rng.Float64() * 0.1, delay: 50_000,
			damage: float64(rng.IntN(2)) * rng.Float64() * 0.002,
		}
		if rng.IntN(3) == 0 {
			w.rate, w.queue = 0.05, int64(20*time.Millisecond)
		}
		n := 1 + rng.IntN(6)
		var sizes []int
		for range 1 + rng.IntN(5) {
			sizes = append(sizes, rng.IntN(1<<uint(8+rng.IntN(13))))
		}
		x := newWorld(t, seed, [2]int{n, 64 * (1 + rng.IntN(22))}, w, sizes...)
		if n > 2 && rng.IntN(3) == 0 {
			x.dead[0] = rng.Int64N(int64(2 * time.Millisecond))
		}
		x.run(10 * minute)
	}
}

// Repairs cost little more than the losses of the worst receiver.
func TestOverhead(t *testing.T) {
	const size = 32 << 20
	for _, c := range []struct{ loss, most float64 }{{0, 1.0001}, {0.01, 1.035}, {0.05, 1.10}, {0.2, 1.6}} {
		x := newWorld(t, 1, [2]int{3, 1408}, weather{loss: c.loss, delay: 100_000}, size)
		x.run(minute)
		t.Logf("loss %.2f: %.4f packets a segment, %d repaired, %d rows, %d alone, %d told", c.loss, x.overhead(),
			x.sender.Repaired,
			x.sender.Rows, x.sender.Single, x.reported)
		if x.overhead() > c.most {
			t.Errorf("loss %.2f: %.4f packets a segment, want at most %.4f", c.loss, x.overhead(), c.most)
		}
	}
}

// On a slow line the sender finds the line's rate, and its queue does not overflow.
//
// rows: OOB-38
func TestFindsTheRate(t *testing.T) {
	const size = 16 << 20
	for rate, most := range map[float64]float64{0.025: 1.01, 0.125: 1.03, 1.25: 1.25} { // 200 Mbit/s, 1 and 10 Gbit/s
		w := weather{delay: 100_000, rate: rate, queue: int64(50 * time.Millisecond)}
		x := newWorld(t, 1, [2]int{3, 1408}, w, size)
		took := x.run(minute)
		line := float64(x.layout.Total()) * (1408 + HeadLen + 42) / rate
		t.Logf("%.3f B/ns: %.3f of the line's time, %d dropped, window %d", rate, float64(took)/line, x.dropped,
			x.sender.Window())
		if float64(took) > most*line || x.dropped > 0 {
			t.Errorf("%.3f B/ns: %.3f of the line's time, %d packets dropped", rate, float64(took)/line, x.dropped)
		}
	}
}

// Every byte of every object, and of every list of digests that travels, is in exactly one segment.
func TestLayout(t *testing.T) {
	l, err := NewLayout(1408, []uint64{0, 1, ChunkLen, ChunkLen + 1, 10 << 20})
	if err != nil {
		t.Fatal(err)
	}
	covered := make([]map[string]uint64, 5)
	for i := range covered {
		covered[i] = map[string]uint64{}
	}
	for seg := range l.Total() {
		p := l.Locate(seg, int(seg)%5)
		key := fmt.Sprint(p.List)
		if covered[p.Item][key] != p.Off || p.Len < 1 || p.Len > 1408 {
			t.Fatalf("segment %d: %+v", seg, p)
		}
		covered[p.Item][key] += uint64(p.Len)
	}
	for i, want := range [][2]uint64{{0, 0}, {1, 0}, {ChunkLen, 0}, {ChunkLen + 1, 16}, {10 << 20, 160 * 8}} {
		if covered[i]["false"] != want[0] || covered[i]["true"] != want[1] {
			t.Errorf("object %d: %v, want %v", i, covered[i], want)
		}
	}
	if _, err := NewLayout(64, []uint64{1 << 60}); err == nil {
		t.Error("a size that no transfer can have is taken")
	}
}

// What was verified need not come again, whatever the packets of the next transfer are.
func TestAdopt(t *testing.T) {
	const size = 1<<20 + 777
	x := newWorld(t, 1, [2]int{1, 1408}, weather{}, 100, size)
	old := x.nodes[0].r
	for seg := uint32(0); seg < old.Layout().Total(); seg++ {
		if seg%97 != 50 && old.Wants(seg) {
			p := x.layout.Locate(seg, 0)
			copy(old.Slot(seg), x.source[p.Item].Bytes(p))
			old.Arrived(seg)
		}
	}
	l, err := NewLayout(ChunkLen/3/64*64, []uint64{size})
	if err != nil {
		t.Fatal(err)
	}
	r := NewReceiver(l, x.nodes[0].items[1:])
	r.Adopt(0, old, 1)
	if r.Missing() == 0 || r.Missing() > l.Total()*8/10 {
		t.Errorf("%d of %d segments are missing", r.Missing(), l.Total())
	}
	for seg := r.Next(0); seg < l.Total(); seg = r.Next(seg) {
		p := l.Locate(seg, 0)
		it := Item{Data: x.objects[1], List: x.source[1].List}
		copy(r.Slot(seg), it.Bytes(p))
		r.Arrived(seg)
	}
	if !r.Complete() || r.Corrupt > 0 || !bytes.Equal(x.nodes[0].items[1].Data, x.objects[1]) {
		t.Errorf("complete %v, corrupt %d", r.Complete(), r.Corrupt)
	}
}

func FuzzWire(f *testing.F) {
	fb := Feedback{Receiver: 1, Number: 5, Entries: []Entry{{Block: 1, Lacks: 3}}}
	f.Add(fb.Append(nil))
	f.Add((&Probe{Total: 1}).Append(nil))
	l, _ := NewLayout(64, []uint64{100_000})
	f.Fuzz(func(t *testing.T, b []byte) {
		ParseHead(b)
		ParseProbe(b)
		var fb Feedback
		if !fb.Parse(b) {
			return
		}
		if !bytes.Equal(fb.Append(nil)[:24], b[:24]) {
			t.Error("a feedback changes")
		}
		s := NewSender(l, []uint64{1, fb.Receiver}, 45, 0)
		var burst Burst
		for range 100 {
			s.Next(&burst, 1)
		}
		s.Feedback(&fb, 2)
		for range 100 {
			s.Next(&burst, 3)
		}
		r := NewReceiver(l, []Item{NewItem(make([]byte, 100_000), catalog.Digest{})})
		for _, e := range fb.Entries {
			if r.Wants(e.Block) {
				r.Slot(e.Block)
				r.Arrived(e.Block)
			}
			_ = r.Parity(e.Block, int(e.Rows), make([]byte, 64), func(uint32, []byte) error { return nil })
		}
	})
}
