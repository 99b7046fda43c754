package udp

import (
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/khamsin-io/khamsin/dataplane"
	"github.com/khamsin-io/khamsin/dataplane/counters"
	"github.com/khamsin-io/khamsin/dataplane/frame"
)

// Limits of sending.
const (
	sendMessages = 64   // messages per system call
	sendFrames   = 1024 // frames per system call
	segmentsMax  = 64   // datagrams of a super-packet (UDP_MAX_SEGMENTS of older kernels)
	superMax     = 65507
	patience     = 4 // times that one Send waits for room in the socket buffer …
	patienceMs   = 1 // … and for how long, at most, before it drops
)

// sender turns batches of packets into messages. It belongs to the goroutine that is in Send.
type sender struct {
	socket    *socket
	arena     *frame.Arena
	headers   *headers
	groupPort uint16
	family    family
	links     *links // nil with one interface
	mtu       int
	segMax    int // longest datagram that the kernel may cut: what fits the interface without IP fragments
	noteOff   func(what string, err error)

	gso     bool // super-packets
	batches bool // sendmmsg
	waits   int  // how often this Send may still wait for room

	// The messages that are staged: spans[i] says what message i carries.
	spans  [sendMessages]span
	staged int

	// Of a filter that drops copies of this process's multicasts: which channels it gets them from, and how many were
	// dropped. With gro it drops copies of super-packets whole.
	joined *atomic.Pointer[map[dataplane.Channel]struct{}]
	gro    bool
	own    atomic.Int64

	packets, bytes, multicasts, dropped, noRoom, calls counters.Counter
}

// span is what one message carries: one packet, or several that the kernel cuts apart, next to each other in the
// batch.
type span struct {
	packets int
	bytes   int
	segment int  // bytes of each packet but the last, which may be shorter
	closed  bool // no packet can follow: the last one is shorter, or the packet cannot share a message
	channel dataplane.Channel
	link    int32 // interface that it leaves by; zero for the first one
	all     bool  // with several interfaces: it leaves by all of them
	own     int   // copies that the filter drops, see expectOwn
}

// send sends as many packets from the front of the batch as are good, and returns how many it accepted.
func (s *sender) send(batch []dataplane.Packet) (int, error) {
	s.waits = patience
	accepted := 0
	for accepted < len(batch) {
		staged, err := s.stage(batch[accepted:])
		done := s.flush()
		if s.links != nil {
			s.copies(done)
		}
		s.release(batch[accepted : accepted+done])
		accepted += done
		if err != nil && done == staged {
			return accepted, err
		}
	}
	return accepted, nil
}

// release counts packets as sent and drops the reference that Send took of each.
func (s *sender) release(done []dataplane.Packet) {
	pool := s.arena.Tx()
	var bytes, multicasts uint64
	for i := range done {
		bytes += uint64(done[i].Frame.Len)
		if done[i].Channel != 0 {
			multicasts++
		}
		pool.Release(done[i].Frame)
	}
	s.packets.Add(uint64(len(done)))
	s.bytes.Add(bytes)
	s.multicasts.Add(multicasts)
}

// stage makes messages of the front of the batch, as many as there are headers for, and returns of how many packets.
// An error is about the packet after those.
func (s *sender) stage(batch []dataplane.Packet) (int, error) {
	s.staged = 0
	for i := range batch {
		p := &batch[i]
		if err := s.check(p); err != nil {
			return i, err
		}
		payload := s.arena.Bytes(p.Frame)
		if len(payload) > s.mtu {
			return i, dataplane.ErrTooLarge
		}
		joins := i > 0 && s.joins(&batch[i-1], p, len(payload))
		if i == sendFrames || !joins && s.staged == sendMessages {
			return i, nil
		}
		s.headers.setIov(i, payload)
		if joins {
			s.extend(len(payload))
		} else {
			s.begin(p, i, len(payload))
		}
	}
	return len(batch), nil
}

// check refuses packets to channels that there are not.
func (s *sender) check(p *dataplane.Packet) error {
	switch {
	case p.Channel == 0:
		return nil
	case s.groupPort == 0:
		return dataplane.ErrNoMulticast
	case p.Channel > dataplane.ChannelMax:
		return dataplane.ErrBadChannel
	}
	return nil
}

// joins tells whether a packet of size bytes can share the last message with the packet before it.
func (s *sender) joins(before, p *dataplane.Packet, size int) bool {
	last := &s.spans[s.staged-1]
	return s.gso && !last.closed && size > 0 && size <= last.segment && last.packets < segmentsMax &&
		last.bytes+size <= superMax && p.Channel == before.Channel && (p.Channel != 0 || p.To == before.To)
}

// begin starts a message with a packet whose payload is in iovs[iov].
func (s *sender) begin(p *dataplane.Packet, iov, size int) {
	m := s.staged
	s.staged++
	ip, port, ok := s.destination(p)
	s.spans[m] = span{
		packets: 1, bytes: size, segment: size, closed: !ok || size == 0 || size > s.segMax, channel: p.Channel,
	}
	s.headers.setName(m, s.family, ip, port)
	if s.links != nil {
		s.spans[m].all = p.Channel != 0
		if p.Channel == 0 {
			s.spans[m].link, s.spans[m].all = s.links.to(p.To)
		}
	}
	s.control(m)
	hdr := &s.headers.msgs[m].hdr
	hdr.Iov = &s.headers.iovs[iov]
	hdr.SetIovlen(1)
}

// extend adds a packet to the last message.
func (s *sender) extend(size int) {
	m := s.staged - 1
	last := &s.spans[m]
	last.packets++
	last.bytes += size
	last.closed = size < last.segment
	if last.packets == 2 {
		s.control(m)
	}
	s.headers.msgs[m].hdr.SetIovlen(last.packets)
}

// destination returns where a packet goes. An endpoint that is no address of a process, or of the other family, gets
// port 0, which the kernel refuses, so that the packet is dropped like any other that finds nobody.
func (s *sender) destination(p *dataplane.Packet) (ip [16]byte, port uint16, ok bool) {
	if p.Channel != 0 {
		return s.family.group(p.Channel).As16(), s.groupPort, true
	}
	to := p.To.AddrPort()
	addr := to.Addr()
	if p.To.Port == 0 || p.To.Port > 0xffff || addr.Is6() != s.family.v6 || addr.IsUnspecified() || addr.IsMulticast() {
		return ip, 0, false
	}
	return p.To.IP, to.Port(), true
}

// flush sends the staged messages and returns of how many packets it has disposed, by sending or dropping them. They
// are fewer than staged when sending in super-packets turned out not to work: the rest must be staged again.
func (s *sender) flush() (packets int) {
	s.expectOwn()
	for m := 0; m < s.staged; {
		sent, errno := s.transmit(m, s.staged)
		for range sent {
			packets += s.spans[m].packets
			m++
		}
		if sent > 0 || errno == unix.EINTR {
			continue
		}
		lost := &s.spans[m]
		switch errno {
		case unix.EAGAIN, unix.ENOBUFS, unix.ENOMEM:
			if s.waits > 0 {
				s.waits--
				s.waitForRoom()
				continue
			}
			s.noRoom.Add(uint64(lost.packets))
		case unix.ENOSYS:
			if s.batches {
				s.batches = false
				s.noteOff("sendmmsg", errno)
				continue
			}
		case unix.EINVAL, unix.EIO, unix.EOPNOTSUPP, unix.EMSGSIZE:
			// Either the system cannot send super-packets after all, or the destination is bad. A single packet tells.
			if lost.packets > 1 && s.sendFirst(m) {
				s.gso = false
				s.noteOff("UDP_SEGMENT", errno)
				for _, again := range s.spans[m+1 : s.staged] {
					s.own.Add(-int64(again.own))
				}
				return packets + 1
			}
		}
		s.dropped.Add(uint64(lost.packets))
		s.own.Add(-int64(lost.own))
		packets += lost.packets
		m++
	}
	return packets
}

// transmit makes one system call for the staged messages from m to end and returns how many it sent.
func (s *sender) transmit(m, end int) (int, unix.Errno) {
	msg := unsafe.Pointer(&s.headers.msgs[m])
	s.calls.Inc()
	if !s.batches {
		_, _, errno := unix.Syscall(unix.SYS_SENDMSG, uintptr(s.socket.fd), uintptr(msg), unix.MSG_DONTWAIT)
		if errno != 0 {
			return 0, errno
		}
		return 1, 0
	}
	n, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(s.socket.fd), uintptr(msg), uintptr(end-m),
		unix.MSG_DONTWAIT, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), 0
}

// sendFirst sends the first packet of message m alone and tells whether that worked.
func (s *sender) sendFirst(m int) bool {
	packets := s.spans[m].packets
	s.spans[m].packets = 1
	s.control(m)
	hdr := &s.headers.msgs[m].hdr
	hdr.SetIovlen(1)
	s.calls.Inc()
	_, _, errno := unix.Syscall(unix.SYS_SENDMSG, uintptr(s.socket.fd), uintptr(unsafe.Pointer(hdr)), unix.MSG_DONTWAIT)
	if errno != 0 {
		s.spans[m].packets = packets
	}
	return errno == 0
}

// waitForRoom waits until the socket buffer has room, or a little while.
func (s *sender) waitForRoom() {
	fds := [1]unix.PollFd{{Fd: int32(s.socket.fd), Events: unix.POLLOUT}}
	_, _ = unix.Poll(fds[:], patienceMs) // in vain or not: the send that follows tells
}
