package udp

import (
	"errors"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/khamsin-io/khamsin/dataplane"
	"github.com/khamsin-io/khamsin/dataplane/counters"
	"github.com/khamsin-io/khamsin/dataplane/frame"
)

// Messages that one system call receives. With UDP_GRO each may be a super-packet of 64 KiB.
const (
	receiveMessages      = 64
	receiveSuperMessages = 32
	// With another source most packets come by that, and it wants the frames.
	receiveBesideMessages = 16
)

// landingBytes is one slot's landing zone: the longest super-packet.
const landingBytes = 1 << 16

// receiver turns messages into packets. It belongs to the goroutine that is in Receive.
//
// Each slot is a header with a frame that the kernel may write to. A fetch fills the first slots; then deliver hands
// out their datagrams, cutting super-packets apart, over as many calls as the caller's batches take; then they are
// armed anew.
//
// With UDP_GRO a message may be longer than a frame: what lies behind the first MTU bytes goes to the slot's landing
// zone. So a lone datagram is received in place, in a frame of its own, while those of a super-packet but the first are
// copied into frames. That costs 30 ns each, a few percent of what receiving them one by one costs, and no datagram
// that is kept for long keeps 64 KiB with it.
type receiver struct {
	arena   *frame.Arena
	headers *headers
	landing []byte // zones by slot; nil without UDP_GRO
	mtu     int
	ifIndex int32
	links   *links             // nil with one interface
	own     dataplane.Endpoint // whose multicasts are dropped; zero for nobody
	batches bool               // recvmmsg
	noteOff func(what string, err error)

	frames []frame.Frame // of each slot; the zero Frame when it was handed out
	armed  []bool        // the slot has a frame and a fresh header
	from   *socket       // that the last fetch read
	filled int           // slots that it filled
	next   int           // the first of them that is not yet looked at
	rest   datagrams     // of the slot before next

	packets, bytes, calls, dropped, oversize, undersize, foreign, stalled counters.Counter
}

// datagrams are what is left of one message: the bytes from at to size, of which those before the MTU are in first and
// the others in the slot's landing zone, at the place that they have in the message.
type datagrams struct {
	first    frame.Frame
	zone     []byte
	at, size uint32
	segment  uint32 // bytes of each datagram but the last, which may be shorter
	source   dataplane.Endpoint
	channel  dataplane.Channel
}

func (r *receiver) init(slots int, super bool) (err error) {
	r.frames = make([]frame.Frame, slots)
	r.armed = make([]bool, slots)
	if super {
		r.landing, err = unix.Mmap(-1, 0, slots*landingBytes, unix.PROT_READ|unix.PROT_WRITE,
			unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
		if err != nil {
			return err
		}
	}
	r.headers, err = newHeaders(slots, 2*slots)
	return err
}

// zone returns the landing zone of slot i.
func (r *receiver) zone(i int) []byte {
	if r.landing == nil {
		return nil
	}
	return r.landing[i*landingBytes : (i+1)*landingBytes]
}

// arm readies the first slots, up to want, and returns how many have a frame.
func (r *receiver) arm(want int) int {
	want = min(want, len(r.frames))
	for i := range want {
		if r.armed[i] {
			continue
		}
		if r.frames[i].IsZero() {
			f, ok := r.arena.Rx().Get()
			if !ok {
				f, ok = r.borrow(i)
			}
			if !ok {
				return i
			}
			r.aim(i, f)
		}
		hdr := &r.headers.msgs[i].hdr
		hdr.Namelen = uint32(unsafe.Sizeof(r.headers.names[i]))
		hdr.Iov = &r.headers.iovs[2*i]
		hdr.SetIovlen(1)
		if r.landing != nil {
			hdr.SetIovlen(2)
		}
		hdr.Control = &r.headers.ctls[i][0]
		hdr.SetControllen(controlSize)
		hdr.Flags = 0
		r.armed[i] = true
	}
	return want
}

// aim makes slot i receive into a frame.
func (r *receiver) aim(i int, f frame.Frame) {
	r.frames[i] = f
	f.Len = uint32(r.arena.Room(f))
	if zone := r.zone(i); zone != nil {
		f.Len = uint32(r.mtu)
		r.headers.setIov(2*i+1, zone[r.mtu:])
	}
	r.headers.setIov(2*i, r.arena.Bytes(f))
}

// borrow takes the frame of a slot behind i.
func (r *receiver) borrow(i int) (frame.Frame, bool) {
	for j := len(r.frames) - 1; j > i; j-- {
		if f := r.frames[j]; !f.IsZero() {
			r.frames[j], r.armed[j] = frame.Frame{}, false
			return f, true
		}
	}
	return frame.Frame{}, false
}

// fetch reads what waits at a socket, without blocking, into at most slots slots, which are armed. The slots filled
// before must all have been delivered.
func (r *receiver) fetch(s *socket, slots int) (int, error) {
	for {
		n, errno := r.read(s.fd, slots)
		switch errno {
		case 0:
			r.from, r.filled, r.next = s, n, 0
			r.calls.Inc()
			return n, nil
		case unix.EAGAIN:
			return 0, nil
		case unix.ENOSYS:
			if r.batches {
				r.batches = false
				r.noteOff("recvmmsg", errno)
				continue
			}
			return 0, errno
		case unix.EINTR, unix.ECONNREFUSED, unix.EHOSTUNREACH, unix.ENETUNREACH:
			continue // these are taken off the socket by being reported
		default:
			return 0, errno
		}
	}
}

// read makes one system call. It cannot block, so the scheduler is not told.
func (r *receiver) read(fd, slots int) (int, unix.Errno) {
	if !r.batches {
		msg := &r.headers.msgs[0]
		size, _, errno := unix.RawSyscall(unix.SYS_RECVMSG, uintptr(fd), uintptr(unsafe.Pointer(msg)),
			unix.MSG_DONTWAIT)
		msg.len = uint32(size)
		return 1, errno
	}
	n, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, uintptr(fd), uintptr(unsafe.Pointer(&r.headers.msgs[0])),
		uintptr(slots), unix.MSG_DONTWAIT, 0, 0)
	return int(n), errno
}

// deliver hands out datagrams of the filled slots into the front of batch and returns how many. It stops when no frame
// is free for the next one.
func (r *receiver) deliver(batch []dataplane.Packet) int {
	n := 0
	bytes := uint64(0)
	for n < len(batch) && (r.rest.at < r.rest.size || r.open()) {
		f, ok := r.take(&r.rest)
		if !ok {
			break
		}
		batch[n] = dataplane.Packet{Frame: f, Channel: r.rest.channel, From: r.rest.source}
		bytes += uint64(f.Len)
		n++
	}
	if n > 0 {
		r.packets.Add(uint64(n))
		r.bytes.Add(bytes)
	}
	return n
}

// take returns the next datagram of what is left of a message; false when no frame is free.
func (r *receiver) take(d *datagrams) (frame.Frame, bool) {
	size := min(d.segment, d.size-d.at)
	f := d.first
	if d.at > 0 {
		var ok bool
		if f, ok = r.arena.Rx().Get(); !ok {
			if f, ok = r.borrow(r.filled - 1); !ok {
				return f, false
			}
		}
		f.Len = size
		copy(r.arena.Bytes(f), d.zone[d.at:d.at+size])
	}
	d.first = frame.Frame{}
	f.Len = size
	d.at += size
	return f, true
}

// open makes the next filled slot with a good message the rest to hand out. Bad ones are counted and keep their frame.
func (r *receiver) open() bool {
	for r.next < r.filled {
		i := r.next
		r.next++
		r.armed[i] = false
		msg := &r.headers.msgs[i]
		what := r.headers.news(i)
		if what.hasDrops {
			r.dropped.Add(uint64(what.drops - r.from.drops))
			r.from.drops = what.drops
		}
		size := int(msg.len)
		segment := what.segment
		if segment <= 0 || segment > size {
			segment = size
		}
		count := 1
		if size > 0 {
			count = (size + segment - 1) / segment
		}
		if r.links != nil && !r.links.take(r.headers.name(i), what.ifIndex, r.from.multicast) {
			r.links.doubled.Add(uint64(count))
			continue
		}
		if !r.good(msg, what, segment, count) || r.from.multicast && !r.own.IsZero() && r.headers.name(i) == r.own {
			continue
		}
		r.rest = datagrams{
			first: r.frames[i], zone: r.zone(i), size: uint32(size), segment: uint32(segment),
			source: r.headers.name(i), channel: what.channel,
		}
		r.frames[i] = frame.Frame{}
		r.joinParts(&r.rest)
		return true
	}
	return false
}

// joinParts moves what lies behind the first datagram in its frame to its place in the landing zone.
func (r *receiver) joinParts(d *datagrams) {
	end := min(d.size, uint32(r.mtu))
	if d.segment >= end {
		return
	}
	f := d.first
	f.Off += d.segment
	f.Len = end - d.segment
	copy(d.zone[d.segment:end], r.arena.Bytes(f))
}

// good counts a message that must be dropped.
func (r *receiver) good(msg *mmsghdr, what news, segment, count int) bool {
	switch {
	case r.from.multicast && (!r.listens(what.ifIndex) || what.channel == 0):
		r.foreign.Add(uint64(count))
	case segment == 0:
		r.undersize.Add(uint64(count))
	case segment > r.mtu || msg.hdr.Flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0:
		r.oversize.Add(uint64(count))
	default:
		return true
	}
	return false
}

// listens tells whether multicasts are to come by an interface.
func (r *receiver) listens(index int32) bool {
	return index == r.ifIndex || r.links != nil && r.links.has(index)
}

// close releases every frame that the receiver holds.
func (r *receiver) close() error {
	if f := r.rest.first; !f.IsZero() {
		r.arena.Release(f)
	}
	for i, f := range r.frames {
		if !f.IsZero() {
			r.arena.Release(f)
			r.frames[i] = frame.Frame{}
		}
	}
	err := r.headers.close()
	if r.landing != nil {
		err = errors.Join(err, unix.Munmap(r.landing))
	}
	return err
}
