package udp

import (
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/khamsin-io/khamsin/dataplane"
	"github.com/khamsin-io/khamsin/dataplane/counters"
	"github.com/khamsin-io/khamsin/dataplane/frame"
)

// Messages that one system call receives. With UDP_GRO each may be a super-packet of 64 KiB.
const (
	receiveMessages      = 64
	receiveSuperMessages = 16
	// With another source most packets come by that, and it wants the frames.
	receiveBesideMessages = 16
)

// receiver turns messages into packets. It belongs to the goroutine that is in Receive.
//
// Each slot is a header with a frame that the kernel may write to. A fetch fills the first slots; then deliver hands
// out their datagrams, cutting super-packets apart, over as many calls as the caller's batches take; then they are
// armed anew.
type receiver struct {
	arena   *frame.Arena
	headers *headers
	mtu     int
	ifIndex int32
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

// datagrams are what is left of one message. The receiver owns a reference for each of them.
type datagrams struct {
	frame   frame.Frame // all that is left: Len 0 when nothing is
	segment uint32      // bytes of each datagram but the last, which may be shorter
	source  dataplane.Endpoint
	channel dataplane.Channel
}

func (r *receiver) init(slots int) (err error) {
	r.frames = make([]frame.Frame, slots)
	r.armed = make([]bool, slots)
	r.headers, err = newHeaders(slots, slots)
	return err
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
			f.Len = uint32(r.arena.Room(f))
			r.frames[i] = f
			r.headers.setIov(i, r.arena.Bytes(f))
		}
		hdr := &r.headers.msgs[i].hdr
		hdr.Namelen = uint32(unsafe.Sizeof(r.headers.names[i]))
		hdr.Iov = &r.headers.iovs[i]
		hdr.SetIovlen(1)
		hdr.Control = &r.headers.ctls[i][0]
		hdr.SetControllen(controlSize)
		hdr.Flags = 0
		r.armed[i] = true
	}
	return want
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

// deliver hands out datagrams of the filled slots into the front of batch and returns how many.
func (r *receiver) deliver(batch []dataplane.Packet) int {
	n := 0
	bytes := uint64(0)
	for n < len(batch) && (r.rest.frame.Len > 0 || r.open()) {
		d := &r.rest
		f := d.frame
		f.Len = min(d.segment, f.Len)
		d.frame.Off += f.Len
		d.frame.Len -= f.Len
		batch[n] = dataplane.Packet{Frame: f, Channel: d.channel, From: d.source}
		bytes += uint64(f.Len)
		n++
	}
	if n > 0 {
		r.packets.Add(uint64(n))
		r.bytes.Add(bytes)
	}
	return n
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
		if !r.good(msg, what, segment, count) || r.from.multicast && !r.own.IsZero() && r.headers.name(i) == r.own {
			continue
		}
		f := r.frames[i]
		r.frames[i] = frame.Frame{}
		f.Len = uint32(size)
		if count > 1 {
			r.arena.RetainN(f, count-1)
		}
		r.rest = datagrams{frame: f, segment: uint32(segment), source: r.headers.name(i), channel: channelOf(what)}
		return true
	}
	return false
}

// good counts a message that must be dropped.
func (r *receiver) good(msg *mmsghdr, what news, segment, count int) bool {
	switch {
	case r.from.multicast && (what.ifIndex != r.ifIndex || channelOf(what) == 0):
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

// channelOf returns the channel that a message was sent to, zero when it was none.
func channelOf(what news) dataplane.Channel {
	if !what.hasTo || what.to[0] != 239 {
		return 0
	}
	return dataplane.Channel(what.to[1])<<16 | dataplane.Channel(what.to[2])<<8 | dataplane.Channel(what.to[3])
}

// close releases every frame that the receiver holds.
func (r *receiver) close() error {
	for r.rest.frame.Len > 0 {
		d := &r.rest
		r.arena.Release(d.frame)
		d.frame.Len -= min(d.segment, d.frame.Len)
	}
	for i, f := range r.frames {
		if !f.IsZero() {
			r.arena.Release(f)
			r.frames[i] = frame.Frame{}
		}
	}
	return r.headers.close()
}
