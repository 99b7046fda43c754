package xdp

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/khamsin-io/khamsin/bpf"
	"github.com/khamsin-io/khamsin/dataplane"
	"github.com/khamsin-io/khamsin/dataplane/clock"
)

// inletBatch is how many packets an inlet hands out at once, at the most.
const inletBatch = 64

// inlet receives packets of one flow. The program hands them over as long as nobody else on this host listens to the
// channel; otherwise, and when they come by another queue, they go to the stack, and so to everybody's sockets.
type inlet struct {
	bulk    *bulk
	demux   *bpf.Demux
	to      netip.AddrPort
	address [16]byte
	channel dataplane.Channel
	descs   int // of a packet
	ring    int // descriptors that wait on each queue, at the most
	clock   clock.Source
	files   []int32

	mu        sync.Mutex // guards what follows; held from a Receive that returned something to its Release
	closed    bool
	sockets   []*socket // by the transport's queues
	turn      int
	used      int // descriptors that are lent, of the socket whose turn it is
	listening bool
	looked    clock.Time
	scratch   []byte // packets in several chunks, put together; nil when there are none
}

// How long an inlet waits, when it is opened, until it is known whether others listen to its channel as well; and how
// often it looks again.
const (
	aloneTries = 50
	alonePause = 200 * time.Microsecond
	aloneEvery = loneEvery
)

// newInlet opens the sockets. bulk.mu is held.
func (b *bulk) newInlet(f *dataplane.Flow) (i *inlet, err error) {
	i = &inlet{bulk: b, to: f.To, address: f.To.Addr().As16(), clock: b.t.sender.clock, ring: b.rxRing}
	i.channel = channelOf(i.address)
	longest := b.frameMax(f.Size)
	one := b.t.cfg.chunkFrame()
	i.descs = (longest + one - 1) / one
	limit := one
	if i.descs > 1 {
		limit = longest
		i.scratch = make([]byte, inletBatch*longest)
	}
	if i.demux, err = b.t.demux.Branch(limit); err != nil {
		return nil, err
	}
	b.t.resolver.note(i.channel, 1)
	for _, main := range b.t.receiver.sockets {
		s, err := b.openBeside(main, ringSizes{rx: b.rxRing})
		if err == nil {
			i.sockets, i.files = append(i.sockets, s), append(i.files, int32(s.fd))
			err = i.demux.AddSocket(s.queue, s.fd)
		}
		if err != nil {
			return nil, errors.Join(err, i.shut())
		}
	}
	for range aloneTries {
		if err := i.look(); err != nil {
			return nil, errors.Join(err, i.shut())
		}
		if i.listening {
			break
		}
		time.Sleep(alonePause)
	}
	return i, nil
}

// look makes the program hand packets over, or not any more, when others have come or gone.
func (i *inlet) look() error {
	i.looked = i.clock.Now()
	alone := i.bulk.t.cfg.Exclusive || i.bulk.t.resolver.unshared(i.channel)
	if alone == i.listening {
		return nil
	}
	change := i.demux.Unlisten
	if alone {
		change = i.demux.Listen
	}
	if err := change(i.to); err != nil {
		return fmt.Errorf("xdp: %v: %w", i.to, err)
	}
	i.listening = alone
	return nil
}

// Receive is dataplane.Inlet's.
func (i *inlet) Receive(batch []dataplane.Datagram) (int, error) {
	i.mu.Lock()
	n, err := i.receive(batch[:min(len(batch), inletBatch)])
	if n == 0 {
		i.mu.Unlock() // else Release does
	}
	return n, err
}

func (i *inlet) receive(batch []dataplane.Datagram) (int, error) {
	if i.closed {
		return 0, dataplane.ErrClosed
	}
	if i.clock.Now()-i.looked >= aloneEvery {
		if err := i.look(); err != nil {
			return 0, err
		}
	}
	for range i.sockets {
		if n := i.take(i.sockets[i.turn], batch); n > 0 {
			return n, nil
		}
		i.giveBack()
		i.turn = (i.turn + 1) % len(i.sockets)
	}
	return 0, nil
}

// take hands out packets of one socket.
func (i *inlet) take(s *socket, batch []dataplane.Datagram) (n int) {
	waiting := s.rx.waiting()
	for room := i.scratch; i.used < waiting && n < len(batch); {
		b, descs := i.assemble(s, waiting, room)
		if descs == 0 {
			break // the rest of the packet is still to come
		}
		i.used += descs
		if descs > 1 {
			room = room[len(b):]
		}
		a, ok := parse(b)
		if !ok || a.to != i.address || a.port != i.to.Port() {
			i.bulk.foreign.Inc()
			continue
		}
		batch[n] = dataplane.Datagram{From: a.from.AddrPort(), Payload: b[a.payload:][:a.size:a.size]}
		n++
	}
	return n
}

// assemble returns the next frame and how many descriptors it takes. One in several chunks is put together in room. It
// is empty when it is longer than any that is let through.
func (i *inlet) assemble(s *socket, waiting int, room []byte) (b []byte, descs int) {
	mem := i.bulk.arena.Memory()
	for descs = 1; s.rx.peek(i.used+descs-1).Options&descContinued != 0; descs++ {
		if i.used+descs == waiting {
			return nil, 0
		}
	}
	if descs == 1 {
		d := s.rx.peek(i.used)
		return mem[d.Addr:][:d.Len], 1
	}
	n := 0
	for k := range descs {
		d := s.rx.peek(i.used + k)
		part := mem[d.Addr:][:d.Len]
		if copy(room[min(n, len(room)):], part) < len(part) {
			return nil, descs
		}
		n += len(part)
	}
	return room[:n:n], descs
}

// giveBack gives the frames that were used to the fill ring that they came from.
func (i *inlet) giveBack() {
	if i.used == 0 {
		return
	}
	s, main := i.sockets[i.turn], i.bulk.t.receiver.sockets[i.turn]
	main.mu.Lock()
	defer main.mu.Unlock()
	for k := range i.used {
		main.fill.push(s.rx.peek(k).Addr >> i.bulk.shift << i.bulk.shift)
	}
	s.rx.pop(i.used)
	i.used = 0
	main.stocked()
}

// Release is dataplane.Inlet's.
func (i *inlet) Release() {
	i.giveBack()
	i.turn = (i.turn + 1) % len(i.sockets)
	i.mu.Unlock()
}

// Files is dataplane.Inlet's.
func (i *inlet) Files() []int32 { return i.files }

// Room is dataplane.Inlet's: some descriptors are left for what is not of the flow.
func (i *inlet) Room() int { return max(1, (i.ring-i.ring/8)/i.descs) }

// Close is dataplane.Inlet's.
func (i *inlet) Close() error {
	return i.bulk.leave(func() { delete(i.bulk.inlets, i) }, i.shut)
}

// shut closes the sockets, and gives back what is in their rings.
func (i *inlet) shut() error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.closed {
		return nil
	}
	i.closed = true
	errs := []error{i.demux.Close()}
	i.bulk.t.resolver.note(i.channel, -1)
	for at, s := range i.sockets {
		errs = append(errs, s.closeFile())
		i.turn = at
		for i.used = s.rx.waiting(); i.used > 0; i.used = s.rx.waiting() {
			i.giveBack()
		}
		errs = append(errs, s.unmap())
	}
	return errors.Join(errs...)
}
