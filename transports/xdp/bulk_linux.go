package xdp

import (
	"errors"
	"fmt"
	"io"
	"math/bits"
	"net/netip"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/khamsin-io/khamsin/bpf"
	"github.com/khamsin-io/khamsin/dataplane"
	"github.com/khamsin-io/khamsin/dataplane/counters"
	"github.com/khamsin-io/khamsin/dataplane/frame"
)

var _ dataplane.Bypass = (*bulk)(nil)

// Sizes of outlets and inlets.
const (
	outletFrames = 256  // that each outlet may count on
	outletRing   = 512  // descriptors
	inletRing    = 1024 // descriptors on each queue, or less, so that there can be inletsMin
	inletsMin    = 2
	inletRingMin = 64
)

// bulk is the packets of others that go past the stack beside the transport's own. The kernel gives a queue to one
// UMEM, so they use the transport's: each outlet and inlet has AF_XDP sockets of its own on the transport's queues,
// with TX or RX rings alone. Fill and completion rings belong to the queue's first socket and are used under its lock.
//
//	transport   RX <--+                +--> completion --+--> transport's frames
//	inlet       RX <--+-- queue, fill  |                 +--> free, of outlets
//	inlet       RX <--+                |
//	transport   TX --------------------+
//	outlet      TX --------------------+
//
// An inlet gives frames back to the fill ring that they came from. Its RX ring is short, and the fill ring has as many
// frames more as all inlets' rings can hold, so packets for the transport find frames however slow inlets are.
type bulk struct {
	t         *Transport
	arena     *frame.Arena
	main      *socket // the one that has fill and completion rings, of the queue that is sent from
	shift     uint
	chunkSize int
	umemChunk int
	rxRing    int // of an inlet, on each queue

	all  []frame.Frame // frames to send from
	ours []bool        // likewise, by chunk
	free []uint32      // of those; guarded by main.mu
	left []uint8       // descriptors of each chunk that are under way; guarded by main.mu

	foreign counters.Shared // packets that came to an inlet and were not of its flow

	closing sync.WaitGroup // outlets and inlets that are being closed

	mu      sync.Mutex // guards what follows
	closed  bool
	outlets map[*outlet]struct{}
	inlets  map[*inlet]struct{}
}

// newBulk sets frames aside, as the configuration says; nil when it says none. The transport's sockets are bound.
func newBulk(t *Transport, arena *frame.Arena) *bulk {
	if t.cfg.BulkTx == 0 {
		return nil
	}
	main := t.receiver.sockets[0]
	b := &bulk{
		t: t, arena: arena, main: main, shift: uint(bits.TrailingZeros(uint(t.cfg.Arena.ChunkSize))),
		chunkSize: t.cfg.Arena.ChunkSize, umemChunk: t.cfg.umemChunk(),
		outlets: make(map[*outlet]struct{}), inlets: make(map[*inlet]struct{}),
	}
	b.rxRing = inletRing
	for b.rxRing > inletRingMin && b.rxRing*inletsMin > b.held() {
		b.rxRing /= 2
	}
	chunks := len(arena.Memory()) >> b.shift
	b.ours, b.left = make([]bool, chunks), make([]uint8, chunks)
	for range t.cfg.BulkTx {
		f, ok := arena.Rx().Get()
		if !ok {
			break
		}
		b.all, b.free, b.ours[f.Chunk] = append(b.all, f), append(b.free, f.Chunk), true
	}
	return b
}

// frames returns how many frames of the Rx pool are set aside.
func (b *bulk) frames() int {
	if b == nil {
		return 0
	}
	return b.t.cfg.BulkTx + b.t.cfg.BulkRx
}

// held returns how many frames of each queue inlets may hold.
func (b *bulk) held() int {
	if b == nil {
		return 0
	}
	return b.t.cfg.BulkRx / len(b.t.receiver.sockets)
}

// sent takes a completion, and returns false when it is not of a frame of the outlets'. It is called with main.mu held.
func (b *bulk) sent(addr uint64) bool {
	if b == nil {
		return false
	}
	chunk := uint32(addr >> b.shift)
	if !b.ours[chunk] {
		return false
	}
	if b.left[chunk]--; b.left[chunk] == 0 {
		b.free = append(b.free, chunk)
	}
	return true
}

// check says what is wrong with a flow, nil when nothing is.
func (b *bulk) check(f *dataplane.Flow) error {
	ip := f.To.Addr()
	switch {
	case f.To.Port() == 0 || ip.Is6() != b.t.cfg.IPv6 || channelOf(ip.As16()) == 0:
		return fmt.Errorf("xdp: packets to %v: want a channel's address of the transport's family, and a port", f.To)
	case f.Size < 1 || f.Size > MTUMax:
		return fmt.Errorf("xdp: packets of %d bytes: want 1 to %d", f.Size, MTUMax)
	case f.Size > b.t.ifi.MTU-b.t.cfg.packetHeaders():
		return &bpf.MissingError{Need: bpf.NeedMTU, What: fmt.Sprintf("packets of %d bytes", f.Size),
			Hint: fmt.Sprintf("the interface's MTU is %d: raise it, or send less at once", b.t.ifi.MTU)}
	case b.frameMax(f.Size) > b.t.cfg.chunkFrame() && !b.main.wide:
		return &bpf.MissingError{Need: bpf.NeedKernel, What: fmt.Sprintf("packets of %d bytes", f.Size),
			Hint: "kernel or driver take no frames of several chunks: use a newer kernel, or UDP"}
	}
	return nil
}

// frameMax returns the bytes of the longest frame with payloads of size bytes.
func (b *bulk) frameMax(size int) int { return size + b.t.cfg.frameHeaders() + vlanTag }

// errNoRoom says that there can be no more. immutable: an error
var errNoRoom = errors.New("all frames for bulk packets are in use")

// OpenOutlet is dataplane.Bypass's.
func (b *bulk) OpenOutlet(f dataplane.Flow) (dataplane.Outlet, error) {
	if err := b.check(&f); err != nil {
		return nil, err
	}
	if f.TTL < 1 || f.TTL > 255 || f.From == 0 {
		return nil, fmt.Errorf("xdp: packets with a TTL of %d from port %d: want 1 to 255, and a port", f.TTL, f.From)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.closed:
		return nil, dataplane.ErrClosed
	case (len(b.outlets)+1)*outletFrames > len(b.all):
		return nil, fmt.Errorf("xdp: an outlet beside %d: %w", len(b.outlets), errNoRoom)
	}
	s, err := b.openBeside(b.main, ringSizes{tx: outletRing})
	if err != nil {
		return nil, err
	}
	// What it does not allow for waits in the ring: the kernel counts packets until their receivers have read them.
	_ = unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, outletBuffer)
	o := &outlet{bulk: b, socket: s, origin: b.t.sender.origin, max: f.Size, headers: b.t.cfg.frameHeaders()}
	o.origin.port = f.From
	o.to = target{mac: multicastMAC(f.To.Addr().As16()), ip: f.To.Addr().As16(), port: f.To.Port(), ttl: byte(f.TTL)}
	o.reaper = o.reap
	b.outlets[o] = struct{}{}
	return o, nil
}

// openBeside opens a socket beside one of the transport's, from whatever thread.
func (b *bulk) openBeside(main *socket, sizes ringSizes) (s *socket, err error) {
	err = b.t.demux.Inside(func() (err error) {
		s, err = openBeside(main, b.t.ifi.Index, sizes)
		return err
	})
	return s, err
}

// OpenInlet is dataplane.Bypass's.
func (b *bulk) OpenInlet(f dataplane.Flow) (dataplane.Inlet, error) {
	if err := b.check(&f); err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.closed:
		return nil, dataplane.ErrClosed
	case (len(b.inlets)+1)*b.rxRing > b.held():
		return nil, fmt.Errorf("xdp: an inlet beside %d: %w", len(b.inlets), errNoRoom)
	}
	i, err := b.newInlet(&f)
	if err != nil {
		return nil, err
	}
	b.inlets[i] = struct{}{}
	return i, nil
}

// leave closes an outlet or an inlet that forget takes out of the list. The transport does not end before.
func (b *bulk) leave(forget func(), shut func() error) error {
	b.mu.Lock()
	forget()
	b.closing.Add(1)
	b.mu.Unlock()
	defer b.closing.Done()
	return shut()
}

// close ends all outlets and inlets. No Receive and no Send of the transport need have ended.
func (b *bulk) close() error {
	if b == nil {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	var errs []error
	for o := range b.outlets { // order-free: each is closed
		errs = append(errs, o.shut())
	}
	for i := range b.inlets { // order-free: each is closed
		errs = append(errs, i.shut())
	}
	clear(b.outlets)
	clear(b.inlets)
	b.closing.Wait()
	return errors.Join(errs...)
}

// takeBack releases the outlets' frames. All sockets are closed.
func (b *bulk) takeBack() {
	if b == nil {
		return
	}
	for _, f := range b.all {
		b.arena.Rx().Release(f)
	}
	b.all = nil
}

// PastStack returns what carries packets of others past the stack; nil when nothing is set aside for them.
func (t *Transport) PastStack() dataplane.Bypass {
	if t.bulk == nil {
		return nil
	}
	return t.bulk
}

// Hear lets multicasts to an address and port come to sockets of this process until what it returns is closed. An
// Exclusive transport has them dropped otherwise; with others nothing is to be done.
func (t *Transport) Hear(to netip.AddrPort) (io.Closer, error) {
	if !t.cfg.Exclusive {
		return deaf{}, nil
	}
	// There is no socket in this part's slot, so what has a rule there is passed to the stack.
	d, err := t.demux.Branch(t.frameMax())
	if err != nil {
		return nil, err
	}
	if err := d.Listen(to); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

// deaf is what Hear returns when it has nothing to take back.
type deaf struct{}

// Close does nothing.
func (deaf) Close() error { return nil }
