package mem

import (
	"math/rand/v2"
	"sync"

	"github.com/khamsin-io/khamsin/dataplane"
	"github.com/khamsin-io/khamsin/dataplane/frame"
)

// inbox is where senders leave packets for one transport. It owns one reference of every frame in it.
type inbox struct {
	mu      sync.Mutex
	arena   *frame.Arena
	mtu     int
	weather Weather
	rand    *rand.Rand
	empty   []frame.Frame      // set out by the receiver for packets to come; capacity len(queue)
	queue   []dataplane.Packet // a ring: the packets that wait are queue[head:head+waiting], modulo its length
	head    int
	waiting int

	received, receivedBytes, calls       uint64
	dropped, oversize, undersize, stalls uint64
}

func (b *inbox) init(arena *frame.Arena, cfg Config) {
	b.arena = arena
	b.mtu = cfg.MTU
	b.weather = cfg.Weather
	b.rand = rand.New(rand.NewPCG(cfg.Weather.Seed, 0))
	b.queue = make([]dataplane.Packet, cfg.Queue)
	b.empty = make([]frame.Frame, 0, cfg.Queue)
	b.setOut()
}

// put copies a packet into the inbox, as the weather allows. Any goroutine.
func (b *inbox) put(p dataplane.Packet, payload []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.chance(b.weather.Loss) {
		return
	}
	switch {
	case len(payload) == 0:
		b.undersize++
		return
	case len(payload) > b.mtu:
		b.oversize++
		return
	}
	b.append(p, payload)
	if b.chance(b.weather.Duplicate) {
		b.append(p, payload)
	}
}

// append queues a packet if there is room for it and a frame to hold it.
func (b *inbox) append(p dataplane.Packet, payload []byte) {
	if len(b.empty) == 0 || b.waiting == len(b.queue) {
		b.dropped++
		return
	}
	last := len(b.empty) - 1
	p.Frame = b.empty[last]
	b.empty = b.empty[:last]
	p.Frame.Len = uint32(len(payload))
	copy(b.arena.Bytes(p.Frame), payload)
	p.To = dataplane.Endpoint{}
	*b.at(b.waiting) = p
	if b.waiting > 0 && b.chance(b.weather.Reorder) {
		for i, steps := b.waiting, 1+b.rand.IntN(min(reorderSpan, b.waiting)); steps > 0; i, steps = i-1, steps-1 {
			*b.at(i), *b.at(i - 1) = *b.at(i - 1), *b.at(i)
		}
	}
	b.waiting++
}

// at returns the i-th packet that waits.
func (b *inbox) at(i int) *dataplane.Packet { return &b.queue[(b.head+i)%len(b.queue)] }

// chance draws whether something of probability p happens.
func (b *inbox) chance(p float64) bool { return p > 0 && b.rand.Float64() < p }

// take moves the packets that wait into the front of batch, sets out frames for the next ones, and returns how many it
// moved. stalled says that there is no frame to set out. Receive only.
func (b *inbox) take(batch []dataplane.Packet) (n int, stalled bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for n < len(batch) && b.waiting > 0 {
		batch[n] = *b.at(0)
		b.received++
		b.receivedBytes += uint64(batch[n].Frame.Len)
		b.head = (b.head + 1) % len(b.queue)
		b.waiting--
		n++
	}
	if n > 0 {
		b.calls++
	}
	b.setOut()
	return n, b.waiting == 0 && len(b.empty) == 0
}

// setOut gets frames until there is one for every place in the queue that is free, or the pool is empty.
func (b *inbox) setOut() {
	for b.waiting+len(b.empty) < len(b.queue) {
		f, ok := b.arena.Rx().Get()
		if !ok {
			return
		}
		b.empty = append(b.empty, f)
	}
}

// discard releases every frame in the inbox.
func (b *inbox) discard() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i := range b.waiting {
		b.arena.Release(b.at(i).Frame)
	}
	for _, f := range b.empty {
		b.arena.Release(f)
	}
	b.waiting, b.empty = 0, b.empty[:0]
}
