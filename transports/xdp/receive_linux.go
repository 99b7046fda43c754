package xdp

import (
	"errors"
	"math/bits"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/khamsin-io/khamsin/dataplane"
	"github.com/khamsin-io/khamsin/dataplane/counters"
	"github.com/khamsin-io/khamsin/dataplane/frame"
)

// receiver takes packets off the RX rings. It is the source beside the UDP transport's sockets, so it belongs to the
// goroutine that is in Receive.
//
// A frame of the Rx pool goes into a fill ring, comes back by the RX ring with a packet in it, and is handed out. A
// packet in several chunks comes as several frames: the first one is a chunk of the arena with room for all of it, so
// what is in the others is copied behind what it holds.
type receiver struct {
	cfg       *Config
	arena     *frame.Arena
	local     dataplane.Endpoint
	sockets   []*socket
	shift     uint // log2 of the arena's chunk size
	turn      int
	fillMax   int    // frames that each fill ring gets at most
	given     []bool // chunks that are with the kernel, or with inlets
	transport *Transport

	packets, bytes, calls, oversize, undersize, foreign counters.Counter

	mu      sync.Mutex // guards what follows: the statistics, until the sockets are closed
	closed  bool
	dropped uint64
}

// init readies the receiver for sockets that are bound. What inlets may hold back of the frames of a fill ring comes on
// top.
func (r *receiver) init(b *bulk) {
	r.shift = uint(bits.TrailingZeros(uint(r.cfg.Arena.ChunkSize)))
	r.given = make([]bool, len(r.arena.Memory())>>r.shift)
	own := r.cfg.Arena.RxRuns - socketFrames - b.frames()
	r.fillMax = min(r.cfg.RxRing, max(1, own/len(r.sockets))) + b.held()
	for _, s := range r.sockets {
		r.refill(s)
	}
}

// Files returns the sockets' descriptors.
func (r *receiver) Files() []int32 {
	files := make([]int32, len(r.sockets))
	for i, s := range r.sockets {
		files[i] = int32(s.fd)
	}
	return files
}

// Poll returns packets that are in the rings.
func (r *receiver) Poll(batch []dataplane.Packet) (int, error) {
	for range r.sockets {
		s := r.sockets[r.turn]
		if r.turn++; r.turn == len(r.sockets) {
			r.turn = 0
		}
		n := r.take(s, batch)
		r.refill(s)
		if n > 0 {
			r.calls.Inc()
			return n, nil
		}
		if r.cfg.BusyPoll > 0 { // the call runs the driver's queue
			_, _, _ = unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(s.fd), 0, 0, unix.MSG_DONTWAIT, 0, 0)
		}
	}
	return 0, nil
}

// take hands out packets of one socket.
func (r *receiver) take(s *socket, batch []dataplane.Packet) int {
	waiting := s.rx.waiting()
	n, used := 0, 0
	bytes := uint64(0)
	for used < waiting && n < len(batch) {
		f, descs := r.assemble(s, used, waiting)
		if descs == 0 {
			break // the rest of the packet is still to come
		}
		used += descs
		if f.IsZero() {
			continue
		}
		if !r.accept(f, &batch[n]) {
			r.arena.Rx().Release(f)
			continue
		}
		bytes += uint64(batch[n].Frame.Len)
		n++
	}
	if used > 0 {
		s.rx.pop(used)
	}
	if n > 0 {
		r.packets.Add(uint64(n))
		r.bytes.Add(bytes)
	}
	return n
}

// assemble returns the Ethernet frame that begins with the descriptor at, and how many descriptors it takes. The frame
// is zero when it was longer than any we take, and was dropped.
func (r *receiver) assemble(s *socket, at, waiting int) (f frame.Frame, descs int) {
	for descs = 1; s.rx.peek(at+descs-1).Options&descContinued != 0; descs++ {
		if at+descs == waiting {
			return frame.Frame{}, 0
		}
	}
	f = r.frameAt(s.rx.peek(at))
	fits := true
	for i := 1; i < descs; i++ {
		more := r.frameAt(s.rx.peek(at + i))
		end := frame.Frame{Chunk: f.Chunk, Off: f.Off + f.Len}
		if fits = fits && r.arena.Room(end) >= int(more.Len); fits {
			end.Len = more.Len
			copy(r.arena.Bytes(end), r.arena.Bytes(more))
			f.Len += more.Len
		}
		r.arena.Rx().Release(more)
	}
	if !fits {
		r.arena.Rx().Release(f)
		r.oversize.Inc()
		return frame.Frame{}, descs
	}
	return f, descs
}

// frameAt returns the frame that a descriptor names. It is not the kernel's any more.
func (r *receiver) frameAt(d unix.XDPDesc) frame.Frame {
	r.given[d.Addr>>r.shift] = false
	return frame.Frame{
		Chunk: uint32(d.Addr >> r.shift), Off: uint32(d.Addr & (1<<r.shift - 1)), Len: d.Len,
	}
}

// accept makes a packet of an Ethernet frame, or counts why not.
func (r *receiver) accept(f frame.Frame, p *dataplane.Packet) bool {
	a, ok := parse(r.arena.Bytes(f))
	if !ok {
		r.foreign.Inc()
		return false
	}
	ch := channelOf(a.to)
	switch {
	case ch != 0 && a.port == r.cfg.GroupPort:
	case ch == 0 && a.to == r.local.IP && uint32(a.port) == r.local.Port:
	default:
		r.foreign.Inc()
		return false
	}
	switch {
	case a.size == 0:
		r.undersize.Inc()
		return false
	case a.size > r.cfg.MTU:
		r.oversize.Inc()
		return false
	}
	f.Off += uint32(a.payload)
	f.Len = uint32(a.size)
	*p = dataplane.Packet{Frame: f, Channel: ch, From: a.from}
	return true
}

// refillBatch is how many frames are worth a change of a fill ring, or a quarter of a smaller one.
const refillBatch = 32

// refill gives a socket frames to receive in.
func (r *receiver) refill(s *socket) {
	s.mu.Lock()
	defer s.mu.Unlock()
	least := min(refillBatch, max(1, r.fillMax/4))
	if want := r.fillMax - s.fill.pending(); want < least {
		s.fill.idle() // looks afresh
	}
	want := r.fillMax - s.fill.pending()
	if want < least {
		return
	}
	given := false
	for range want {
		f, ok := r.arena.Rx().Get()
		if !ok {
			break
		}
		s.fill.push(uint64(f.Chunk) << r.shift)
		r.given[f.Chunk] = true
		given = true
	}
	if !given {
		return
	}
	s.stocked()
}

// stocked shows the kernel what was put into the fill ring.
func (s *socket) stocked() {
	s.fill.publish()
	if s.fill.needsWakeup() {
		_, _, _ = unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(s.fd), 0, 0, unix.MSG_DONTWAIT, 0, 0)
	}
}

// lost returns the packets that had no room. Any goroutine.
func (r *receiver) lost() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.closed {
		r.dropped = 0
		for _, s := range r.sockets {
			r.dropped += s.lost()
		}
	}
	return r.dropped
}

// Close closes the sockets and takes back all frames. No Send is going on.
func (r *receiver) Close() error {
	r.lost()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	// The demultiplexer first: from then on the stack gets the packets, as if there were no such port.
	errs := []error{r.transport.demux.Close()}
	for _, s := range r.sockets {
		errs = append(errs, s.closeFile())
	}
	r.takeBack()
	r.transport.sender.takeBack()
	r.transport.bulk.takeBack()
	for _, s := range r.sockets {
		errs = append(errs, s.unmap())
	}
	return errors.Join(errs...)
}

// takeBack releases what the kernel had of the frames, wherever it was, once all sockets are closed.
func (r *receiver) takeBack() {
	for chunk, given := range r.given {
		if given {
			r.given[chunk] = false
			r.arena.Rx().Release(frame.Frame{Chunk: uint32(chunk)})
		}
	}
}
