package cast

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/khamsin-io/khamsin/dataplane"
	"github.com/khamsin-io/khamsin/oob/internal/transfer"
)

// hub is a network past the stack, between the outlets and inlets of this process. It loses what inlets have no room
// for, like a network.
type hub struct {
	mu       sync.Mutex
	inlets   []*hubInlet
	from     netip.Addr
	room     int // packets that an inlet holds
	whole    bool
	overflow int
}

type hubInlet struct {
	hub   *hub
	event int // readable when there are packets
	ring  []hubPacket
	first int
	count int
	lent  int
}

type hubPacket struct {
	memory []byte
	size   int
	port   uint16
}

// packets returns room for some.
func (h *hub) packets(n, size int) []hubPacket {
	if h.whole {
		size *= 4
	}
	memory, list := make([]byte, n*size), make([]hubPacket, n)
	for i := range list {
		list[i].memory = memory[i*size:][:size:size]
	}
	return list
}

func (h *hub) OpenInlet(f dataplane.Flow) (dataplane.Inlet, error) {
	event, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, err
	}
	i := &hubInlet{hub: h, event: event, ring: h.packets(h.room, f.Size)}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.inlets = append(h.inlets, i)
	return i, nil
}

func (i *hubInlet) Receive(batch []dataplane.Datagram) (int, error) {
	i.hub.mu.Lock()
	defer i.hub.mu.Unlock()
	n := min(len(batch), i.count)
	for k := range n {
		p := &i.ring[(i.first+k)%len(i.ring)]
		batch[k] = dataplane.Datagram{From: netip.AddrPortFrom(i.hub.from, p.port), Payload: p.memory[:p.size]}
	}
	if i.lent = n; n == 0 {
		var b [8]byte
		_, _ = unix.Read(i.event, b[:]) // it may be empty
	}
	return n, nil
}

func (i *hubInlet) Release() {
	i.hub.mu.Lock()
	defer i.hub.mu.Unlock()
	i.first, i.count, i.lent = (i.first+i.lent)%len(i.ring), i.count-i.lent, 0
}

func (i *hubInlet) Files() []int32 { return []int32{int32(i.event)} }
func (i *hubInlet) Room() int      { return len(i.ring) }

func (i *hubInlet) Close() error {
	i.hub.mu.Lock()
	defer i.hub.mu.Unlock()
	i.hub.inlets = slices.DeleteFunc(i.hub.inlets, func(x *hubInlet) bool { return x == i })
	return unix.Close(i.event)
}

// hubOutlet takes a batch of packets before each Flush. With hub.whole, a batch travels as one super-packet.
type hubOutlet struct {
	hub   *hub
	port  uint16
	full  int // bytes of a packet with a full segment
	batch []hubPacket
	count int
}

func (h *hub) OpenOutlet(f dataplane.Flow) (dataplane.Outlet, error) {
	if f.From == 0 || f.Size < 1 {
		return nil, fmt.Errorf("a flow of %+v", f)
	}
	return &hubOutlet{hub: h, port: f.From, full: f.Size - TagLen, batch: h.packets(16, f.Size)}, nil
}

func (o *hubOutlet) Put(head, payload []byte) bool {
	if o.count == len(o.batch) {
		return false
	}
	p := &o.batch[o.count]
	p.port = o.port
	p.size = copy(p.memory, head)
	p.size += copy(p.memory[p.size:], payload)
	o.count++
	return true
}

func (o *hubOutlet) Flush() error {
	o.hub.mu.Lock()
	defer o.hub.mu.Unlock()
	list := o.batch[:o.count]
	o.count = 0
	for _, i := range o.hub.inlets {
		joined := -1 // the packet that the next one is put behind
		for k := range list {
			p := &list[k]
			if joined >= 0 {
				q := &i.ring[joined]
				if q.size+p.size <= len(q.memory) {
					q.size += copy(q.memory[q.size:], p.memory[:p.size])
					if p.size < o.full {
						joined = -1 // nothing follows a shorter one
					}
					continue
				}
			}
			if i.count == len(i.ring) {
				o.hub.overflow++
				continue
			}
			at := (i.first + i.count) % len(i.ring)
			q := &i.ring[at]
			q.size, q.port = copy(q.memory, p.memory[:p.size]), p.port
			i.count++
			if joined = -1; o.hub.whole && p.size >= o.full {
				joined = at
			}
		}
		if i.count > 0 {
			_, _ = unix.Write(i.event, []byte{1, 0, 0, 0, 0, 0, 0, 0}) // full: it is readable
		}
	}
	return nil
}

func (o *hubOutlet) Close() error { return nil }

// withPast makes a trial go past the stack.
func (c trial) withPast(room int, whole bool) trial {
	c.path.Loop, c.path.TTL = false, 1
	c.past = Past{Bypass: &hub{from: c.path.IP, room: room, whole: whole}}
	return c
}

// Everything arrives that goes past the stack, whatever is lost there, open and sealed, in place and by writing.
//
// rows: OOB-07, OOB-19
func TestPast(t *testing.T) {
	n, units := 2000, []int{1408, 8896}
	if testing.Short() {
		units = units[:1]
	}
	for _, direct := range []bool{true, false} {
		for _, keys := range []Keys{nil, testKeys{[]byte("secret")}} {
			for _, loss := range []float64{0, 0.03, 0.25} {
				for _, unit := range units {
					n++
					name := fmt.Sprintf("direct=%v/sealed=%v/loss=%v/unit=%d", direct, keys != nil, loss, unit)
					t.Run(name, func(t *testing.T) {
						room, whole := 512, n%2 == 0
						if n%3 == 0 {
							room = 100 // fewer than are under way
						}
						c := trial{path: loopback(t, n), unit: unit, sizes: []int{0, 3 << 20, 1, 70_000, 64 << 10},
							receivers: 3, loss: loss, direct: direct, keys: keys}.withPast(room, whole)
						sent, got := c.run(t)
						if sent.PastSent.Load() != sent.SentPackets.Load()-sent.Single.Load() ||
							got.PastReceived.Load() < got.ReceivedPackets.Load()/2 ||
							sent.PastRefused.Load()+got.PastRefused.Load() != 0 {
							t.Errorf("of %d packets, %d to one receiver, %d left past the stack; of %d %d came so",
								sent.SentPackets.Load(), sent.Single.Load(), sent.PastSent.Load(),
								got.ReceivedPackets.Load(), got.PastReceived.Load())
						}
					})
				}
			}
		}
	}
}

// broken is a way past the stack that does not work, or not for long.
type broken struct {
	*hub
	outlets, flushes, inlets, receives int
}

var errBroken = errors.New("broken")

func (b *broken) OpenOutlet(f dataplane.Flow) (dataplane.Outlet, error) {
	o, err := b.hub.OpenOutlet(f)
	b.hub.mu.Lock()
	defer b.hub.mu.Unlock()
	if b.outlets--; b.outlets < 0 {
		return nil, errBroken
	}
	return &brokenOutlet{o, b.flushes}, err
}

func (b *broken) OpenInlet(f dataplane.Flow) (dataplane.Inlet, error) {
	b.hub.mu.Lock()
	b.inlets--
	works := b.inlets >= 0
	b.hub.mu.Unlock()
	if !works {
		return nil, errBroken
	}
	i, err := b.hub.OpenInlet(f)
	return &brokenInlet{i, b.receives}, err
}

type brokenOutlet struct {
	dataplane.Outlet
	left int
}

func (o *brokenOutlet) Flush() error {
	if o.left--; o.left < 0 {
		return errBroken
	}
	return o.Outlet.Flush()
}

type brokenInlet struct {
	dataplane.Inlet
	left int
}

func (i *brokenInlet) Receive(b []dataplane.Datagram) (int, error) {
	if i.left--; i.left < 0 {
		return 0, errBroken
	}
	return i.Inlet.Receive(b)
}

// closing is what Hear returns.
type closing func()

func (c closing) Close() error { c(); return nil }

// Whatever fails of the way past the stack, and when: the sockets go on, and it is told why.
func TestPastBreaks(t *testing.T) {
	const many = 1 << 30
	for i, tc := range []struct {
		name                      string
		b                         broken
		receivers, refused, heard int
	}{
		{"nothing opens", broken{}, 2, 3, 2},
		{"the outlet breaks", broken{outlets: 1, flushes: 5, inlets: 2, receives: many}, 2, 1, 0},
		{"no outlet", broken{inlets: 2, receives: many}, 2, 1, 0},
		{"inlets break", broken{inlets: 2, receives: 10}, 2, 3, 2},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := trial{path: loopback(t, 2500+i), unit: 1408, sizes: []int{4 << 20}, receivers: tc.receivers,
				direct: true}
			c = c.withPast(512, false)
			b := tc.b
			b.hub = &hub{from: c.path.IP, room: 512}
			var mu sync.Mutex
			told, heard, closed := 0, 0, 0
			c.past = Past{
				Bypass: &b,
				Trouble: func(err error) {
					mu.Lock()
					defer mu.Unlock()
					if told++; !errors.Is(err, errBroken) {
						t.Errorf("trouble: %v", err)
					}
				},
				Hear: func(to netip.AddrPort) (io.Closer, error) {
					mu.Lock()
					defer mu.Unlock()
					if heard++; to != netip.AddrPortFrom(c.path.Group, c.path.Port) {
						t.Errorf("asked to hear %v", to)
					}
					return closing(func() { mu.Lock(); defer mu.Unlock(); closed++ }), nil
				},
			}
			sent, got := c.run(t)
			if told != tc.refused || int(sent.PastRefused.Load()+got.PastRefused.Load()) != tc.refused {
				t.Errorf("told %d times, counted %d and %d, want %d", told, sent.PastRefused.Load(),
					got.PastRefused.Load(), tc.refused)
			}
			if heard != tc.heard || closed != heard {
				t.Errorf("%d asked to hear, %d of them closed, want %d", heard, closed, tc.heard)
			}
		})
	}
}

// Nothing is allocated for a packet, by UDP and past the stack: what a transfer allocates does not grow with it.
func TestPacketsAllocateNothing(t *testing.T) {
	for i, keys := range []Keys{nil, testKeys{[]byte("k")}} {
		for k, past := range []bool{false, true} {
			t.Run(fmt.Sprintf("sealed=%v/past=%v", keys != nil, past), func(t *testing.T) {
				spent := func(size int) float64 {
					c := trial{path: loopback(t, 2600+2*i+k), unit: 1408, sizes: []int{size}, receivers: 1,
						direct: true, keys: keys, fill: 7}
					if past {
						c = c.withPast(512, false)
					}
					var before, after runtime.MemStats
					runtime.ReadMemStats(&before)
					c.run(t)
					runtime.ReadMemStats(&after)
					return float64(after.Mallocs - before.Mallocs)
				}
				const small, big = 2 << 20, 34 << 20
				spent(small)
				few, many := spent(small), spent(big)
				// Reports allocate; in slow runs they come more often.
				each := (many - few) / ((big - small) / 1408)
				if t.Logf("%.4f allocations for a packet", each); each > 0.5 {
					t.Errorf("%.0f allocations for %d bytes, %.0f for %d", few, small, many, big)
				}
			})
		}
	}
}

// Packets that come past the stack can be anything.
func FuzzPast(f *testing.F) {
	b := make([]byte, transfer.HeadLen+64)
	(&transfer.Head{Type: transfer.TypeData, Transfer: 7}).Put(b)
	f.Add(b, uint16(1))
	f.Add([]byte{}, uint16(2))
	f.Fuzz(func(t *testing.T, b []byte, port uint16) {
		layout, err := transfer.NewLayout(1408, []uint64{100_000})
		if err != nil {
			t.Fatal(err)
		}
		item := transfer.NewItem(make([]byte, 100_000), [16]byte{})
		source := netip.MustParseAddr("127.0.0.1")
		w := &receiveWork{
			Receiving: &Receiving{ID: 7, Receiver: transfer.NewReceiver(layout, []transfer.Item{item}), Source: source,
				Direct: true, Counters: &Counters{}},
			unit: 1408, room: 1408, done: make([]bool, 1), source: netip.AddrPortFrom(source, port),
		}
		if w.own, err = openUnicast(loopback(t, 2700)); err != nil {
			t.Fatal(err)
		}
		defer w.own.close()
		w.group = w.own
		if err := w.takePast([]dataplane.Datagram{{From: w.source, Payload: b}}); err != nil {
			t.Fatal(err)
		}
	})
}
