package xdp

import (
	"errors"
	"math/bits"

	"golang.org/x/sys/unix"

	"github.com/khamsin-io/khamsin/dataplane"
	"github.com/khamsin-io/khamsin/dataplane/clock"
	"github.com/khamsin-io/khamsin/dataplane/counters"
	"github.com/khamsin-io/khamsin/dataplane/frame"
)

// Limits of sending.
const (
	kicksIdle  = 4 // system calls in vain after which a Send leaves what is in the TX ring to the next one …
	kickWaitMs = 1 // … and how long each waits for room
)

// sender puts packets into the TX ring, and those that cannot go there through the UDP transport. It belongs to the
// goroutine that is in Send.
//
// A reference of each frame that is in the ring is the sender's until its completion comes back.
type sender struct {
	cfg      *Config
	arena    *frame.Arena
	stack    dataplane.Transport
	socket   *socket // nil until one is bound
	origin   origin
	resolver *resolver
	bulk     *bulk
	clock    clock.Source
	now      clock.Time // of this Send
	shift    uint
	chunk    uint32  // bytes of a UMEM chunk
	headers  uint32  // bytes in front of a payload
	inFlight []uint8 // descriptors of each chunk that are under way
	probed   map[[16]byte]clock.Time
	staged   int // packets that were put into the ring since the last kick
	reaper   func()

	packets, bytes, multicasts, dropped, calls, copied counters.Counter
}

// init readies the sender for a socket that is bound.
func (s *sender) init(socket *socket, b *bulk) {
	s.socket, s.bulk = socket, b
	s.shift = uint(bits.TrailingZeros(uint(s.cfg.Arena.ChunkSize)))
	s.chunk = uint32(s.cfg.umemChunk())
	s.headers = uint32(s.cfg.frameHeaders())
	s.inFlight = make([]uint8, len(s.arena.Memory())>>s.shift)
	s.probed = map[[16]byte]clock.Time{}
	s.reaper = s.reap
}

// send sends the batch and returns how many packets it accepted.
func (s *sender) send(batch []dataplane.Packet) (int, error) {
	s.now = s.clock.Now()
	s.reap()
	done := 0
	for done < len(batch) {
		to, ok := s.route(&batch[done])
		if ok && s.stage(&batch[done], &to) {
			done++
			continue
		}
		// The stack gets the packets up to the next one that can go by the ring.
		end := done + 1
		for end < len(batch) {
			if _, ok := s.route(&batch[end]); ok {
				break
			}
			end++
		}
		n, err := s.stack.Send(batch[done:end])
		done += n
		if err != nil || done < end {
			s.kick()
			return done, err
		}
	}
	s.kick()
	return done, nil
}

// route tells where a packet goes by the ring, and false when it goes through the stack.
func (s *sender) route(p *dataplane.Packet) (to target, ok bool) {
	if int(p.Frame.Len) > s.cfg.MTU {
		return to, false // the UDP transport refuses what is too large
	}
	if p.Channel != 0 {
		if s.cfg.TTL == 0 || p.Channel > dataplane.ChannelMax || s.cfg.GroupPort == 0 ||
			!s.cfg.Exclusive && !s.resolver.alone(p.Channel, s.now) {
			return to, false
		}
		ip := s.cfg.group(p.Channel).As16()
		return target{mac: multicastMAC(ip), ip: ip, port: s.cfg.GroupPort, ttl: byte(s.cfg.TTL)}, true
	}
	if !isProcess(p.To, s.cfg.IPv6) {
		return to, false
	}
	r := s.resolver.route(p.To.IP, s.now)
	if !r.direct || r.stale && s.probes(r.hop) {
		return to, false
	}
	return target{mac: r.mac, ip: p.To.IP, port: uint16(p.To.Port), ttl: ttlUnicast}, true
}

// probeEvery is how often a packet goes through the stack though it need not, when the kernel is not sure any more that
// its neighbour is there: so the kernel asks it.
const probeEvery = clock.Time(1e9)

// probes tells whether it is time for that.
func (s *sender) probes(hop [16]byte) bool {
	if last, ok := s.probed[hop]; ok && s.now-last < probeEvery {
		return false
	}
	s.probed[hop] = s.now
	return true
}

// stage puts a packet into the TX ring and returns false when that has no room.
func (s *sender) stage(p *dataplane.Packet, to *target) bool {
	f := p.Frame
	descs := 1
	if s.cfg.segments() {
		descs = int((f.Off+f.Len-1)/s.chunk-(f.Off-s.headers)/s.chunk) + 1
	}
	if s.socket.tx.roomFor(descs) < descs {
		s.kick()
		if s.reap(); s.socket.tx.roomFor(descs) < descs {
			return false
		}
	}
	if s.inFlight[f.Chunk] > 0 || int(f.Off) != s.cfg.Arena.Headroom {
		copied, ok := s.copyOf(f)
		if !ok {
			return false
		}
		f = copied
	}
	s.packets.Inc()
	s.bytes.Add(uint64(f.Len))
	if p.Channel != 0 {
		s.multicasts.Inc()
	}
	whole := frame.Frame{Chunk: f.Chunk, Off: f.Off - s.headers, Len: s.headers + f.Len}
	b := s.arena.Bytes(whole)
	s.origin.write(b, to, b[s.headers:])
	s.describe(whole)
	s.staged++
	return true
}

// copyOf returns a copy of a frame in a chunk of its own, and releases the frame.
func (s *sender) copyOf(f frame.Frame) (frame.Frame, bool) {
	c, ok := s.arena.Tx().Get()
	if !ok {
		return c, false
	}
	c.Len = f.Len
	copy(s.arena.Bytes(c), s.arena.Bytes(f))
	s.arena.Tx().Release(f)
	s.copied.Inc()
	return c, true
}

// describe pushes descriptors of a frame, one for each UMEM chunk that it touches.
func (s *sender) describe(f frame.Frame) {
	for f.Len > 0 {
		part := min(f.Len, s.chunk-f.Off%s.chunk)
		d := unix.XDPDesc{Addr: uint64(f.Chunk)<<s.shift + uint64(f.Off), Len: part}
		if part < f.Len {
			d.Options = descContinued
		}
		s.socket.tx.push(d)
		s.inFlight[f.Chunk]++
		f.Off += part
		f.Len -= part
	}
}

// kick makes the kernel send what was staged. One call sends a few dozen packets at most.
func (s *sender) kick() {
	if s.staged == 0 && s.socket.tx.idle() {
		return
	}
	s.staged = 0
	if errno := s.socket.kick(s.reaper, &s.calls); errno != 0 {
		s.dropped.Inc() // the interface is down, or gone; what is in the ring waits for it
		return
	}
	s.reap()
}

// kick makes the kernel send what is in the TX ring, and waits a few milliseconds at most for room there.
func (s *socket) kick(reap func(), calls *counters.Counter) unix.Errno {
	tx := s.tx
	tx.publish()
	for idle := 0; idle < kicksIdle; {
		before := tx.theirs
		if !s.zeroCopy || tx.needsWakeup() {
			calls.Inc()
			_, _, errno := unix.Syscall6(unix.SYS_SENDTO, uintptr(s.fd), 0, 0, unix.MSG_DONTWAIT, 0, 0)
			if errno != 0 && !errors.Is(errno, unix.EAGAIN) && !errors.Is(errno, unix.EBUSY) &&
				!errors.Is(errno, unix.ENOBUFS) && !errors.Is(errno, unix.EINTR) {
				return errno
			}
		}
		if tx.idle() || s.zeroCopy {
			break
		}
		if tx.theirs == before {
			idle++
			fds := [1]unix.PollFd{{Fd: int32(s.fd), Events: unix.POLLOUT}}
			_, _ = unix.Poll(fds[:], kickWaitMs)
		}
		reap() // a full completion ring stops the kernel
	}
	return 0
}

// reap releases the frames of packets that have been sent.
func (s *sender) reap() {
	s.socket.mu.Lock()
	defer s.socket.mu.Unlock()
	s.socket.collect(s.bulk)
	for _, addr := range s.socket.returned {
		chunk := uint32(addr >> s.shift)
		if s.inFlight[chunk]--; s.inFlight[chunk] == 0 {
			s.arena.Tx().Release(frame.Frame{Chunk: chunk})
		}
	}
	s.socket.returned = s.socket.returned[:0]
}

// collect takes what has been sent off the completion ring: for the outlets, and for the transport. It is called with
// mu held.
func (s *socket) collect(b *bulk) {
	n := s.completion.waiting()
	if n == 0 {
		return
	}
	for i := range n {
		if addr := s.completion.peek(i); !b.sent(addr) {
			s.returned = append(s.returned, addr)
		}
	}
	s.completion.pop(n)
}

// takeBack releases the frames that are still under way. The socket is closed, but mapped.
func (s *sender) takeBack() {
	if s.socket == nil {
		return
	}
	s.reap()
	for chunk, descs := range s.inFlight {
		if descs > 0 {
			s.inFlight[chunk] = 0
			s.arena.Tx().Release(frame.Frame{Chunk: uint32(chunk)})
		}
	}
}
