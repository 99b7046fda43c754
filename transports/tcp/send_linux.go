package tcp

import (
	"encoding/binary"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/khamsin-io/khamsin/dataplane"
	"github.com/khamsin-io/khamsin/dataplane/clock"
)

// Limits of sending.
const (
	batchMax     = 256
	packetsMax   = 500 // of one system call: two buffers each, and the system takes 1024
	patience     = 4   // times that one Send waits for a peer that does not read …
	patienceMs   = 1   // … and for how long, at most, before it drops
	dialMs       = 5   // how long a Send waits for a connection that it began
	holdOffFirst = 5   // milliseconds in which a peer that refused is not dialled again,
	holdOffMost  = 500 // doubled up to this
	refusedMax   = 4096
)

// sender is what Send needs beside the links.
type sender struct {
	touched []*link
	lengths [packetsMax][lenBytes]byte
	iovs    [2*packetsMax + 1]unix.Iovec
	waits   int
	now     clock.Time                     // of this Send
	refused map[dataplane.Endpoint]holdOff // peers that nobody listens at
}

// holdOff is when a peer may be dialled again.
type holdOff struct {
	until clock.Time
	ms    int
}

// Send sends a batch.
func (t *Transport) Send(batch []dataplane.Packet) (int, error) {
	if !t.enter(&t.sending, "Send") {
		return 0, dataplane.ErrClosed
	}
	defer t.sending.Unlock()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.send.waits, t.send.now = patience, t.clock.Now()
	accepted, err := t.stage(batch)
	for i, l := range t.send.touched {
		t.flush(l)
		l.touched = false
		t.send.touched[i] = nil
	}
	t.send.touched = t.send.touched[:0]
	return accepted, err
}

// stage sorts the packets of a batch by link, and returns how many were accepted.
func (t *Transport) stage(batch []dataplane.Packet) (int, error) {
	bytes := uint64(0)
	defer func() { t.sentBytes.Add(bytes) }()
	for i := range batch {
		p := &batch[i]
		size := len(t.arena.Bytes(p.Frame))
		switch {
		case p.Channel != 0:
			return i, dataplane.ErrNoMulticast
		case size > t.cfg.MTU:
			return i, dataplane.ErrTooLarge
		}
		t.sent.Inc()
		bytes += uint64(size)
		l := t.linkTo(p.To)
		if l == nil {
			t.sendDropped.Inc()
			t.arena.Tx().Release(p.Frame)
			continue
		}
		if len(l.staged) == packetsMax {
			t.flush(l)
		}
		l.staged = append(l.staged, p.Frame)
		if !l.touched {
			l.touched = true
			if l.stage == stageOpen {
				l.used = t.send.now
			}
			t.send.touched = append(t.send.touched, l)
		}
	}
	return len(batch), nil
}

// linkTo returns the link to a peer, dialling if there is none; nil when the peer cannot be reached.
func (t *Transport) linkTo(peer dataplane.Endpoint) *link {
	if l := t.peers[peer]; l != nil {
		return l
	}
	if peer.Port == 0 || peer.Port > 0xffff || peer.AddrPort().Addr().IsUnspecified() {
		return nil
	}
	hold, refused := t.send.refused[peer]
	if refused && t.send.now < hold.until {
		return nil
	}
	if t.trim(t.send.now); len(t.links) >= t.cfg.Connections {
		return nil
	}
	l, err := t.dial(peer)
	if err != nil {
		t.refuse(peer)
		return nil
	}
	t.peers[peer] = l
	return l
}

// refuse notes that a peer does not answer.
func (t *Transport) refuse(peer dataplane.Endpoint) {
	hold := t.send.refused[peer]
	hold.ms = min(max(2*hold.ms, holdOffFirst), holdOffMost)
	hold.until = t.clock.Now().Add(time.Duration(hold.ms) * time.Millisecond)
	if len(t.send.refused) >= refusedMax {
		clear(t.send.refused) // a table that full is of no use; they will be refused again
	}
	t.send.refused[peer] = hold
}

// flush writes what is staged for a link, and drops what does not go.
func (t *Transport) flush(l *link) {
	if l.stage == stageDialling && !t.connected(l) {
		t.drop(l, 0)
		return
	}
	done := 0
	for l.stage == stageOpen && (done < len(l.staged) || len(l.rest) > 0) {
		n, errno := t.write(l, done)
		switch errno {
		case 0:
			done += t.account(l, done, n)
		case unix.EINTR:
		case unix.EAGAIN, unix.ENOBUFS:
			if l.full || t.send.waits == 0 {
				l.full = true
				t.drop(l, done)
				return
			}
			t.send.waits--
			poll(l.fd, unix.POLLOUT, patienceMs)
		default:
			t.giveUp(l)
		}
	}
	if l.stage == stageOpen {
		l.full = false
	}
	t.drop(l, done)
}

// connected tells whether a link that was being dialled is open now. It waits a little, as connections that can be made
// are made at once in a network of one room.
func (t *Transport) connected(l *link) bool {
	if !poll(l.fd, unix.POLLOUT, dialMs*min(1, t.send.waits)) {
		t.send.waits = 0
		return false
	}
	if fault, err := unix.GetsockoptInt(l.fd, unix.SOL_SOCKET, unix.SO_ERROR); err != nil || fault != 0 {
		t.giveUp(l)
		t.refuse(l.peer)
		return false
	}
	delete(t.send.refused, l.peer)
	l.stage = stageOpen
	return true
}

// write makes one system call for what must leave first and the staged packets from first on.
func (t *Transport) write(l *link, first int) (int, unix.Errno) {
	s := &t.send
	n := 0
	add := func(b []byte) {
		s.iovs[n].Base = unsafe.SliceData(b)
		s.iovs[n].SetLen(len(b))
		n++
	}
	if len(l.rest) > 0 {
		add(l.rest)
	}
	for i, f := range l.staged[first:] {
		b := t.arena.Bytes(f)
		binary.LittleEndian.PutUint32(s.lengths[i][:], uint32(len(b)))
		add(s.lengths[i][:])
		if len(b) > 0 {
			add(b)
		}
	}
	hdr := &t.header
	hdr.Iov = &s.iovs[0]
	hdr.SetIovlen(n)
	t.sendCalls.Inc()
	size, _, errno := unix.RawSyscall(unix.SYS_SENDMSG, uintptr(l.fd), uintptr(unsafe.Pointer(hdr)),
		unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
	return int(size), errno
}

// account notes that n bytes have left, releases the packets that have left with them, and returns how many. One that
// left in part counts: what is left of it is copied, since the frame may be anybody's again.
func (t *Transport) account(l *link, first, n int) (packets int) {
	gone := min(n, len(l.rest))
	n -= gone
	l.rest = l.rest[:copy(l.rest, l.rest[gone:])]
	for n > 0 {
		f := l.staged[first+packets]
		b := t.arena.Bytes(f)
		packets++
		if whole := lenBytes + len(b); n < whole {
			l.rest = binary.LittleEndian.AppendUint32(l.rest[:0], uint32(len(b)))
			l.rest = append(l.rest, b...)
			l.rest = l.rest[:copy(l.rest, l.rest[n:])]
			n = 0
		} else {
			n -= whole
		}
		t.arena.Tx().Release(f)
	}
	return packets
}

// drop releases the staged packets from first on, and counts them as dropped.
func (t *Transport) drop(l *link, first int) {
	for _, f := range l.staged[first:] {
		t.arena.Tx().Release(f)
		t.sendDropped.Inc()
	}
	l.staged = l.staged[:0]
}

// poll waits for an event of a descriptor and tells whether it came.
func poll(fd int, events int16, ms int) bool {
	fds := [1]unix.PollFd{{Fd: int32(fd), Events: events}}
	n, err := unix.Poll(fds[:], ms)
	return err == nil && n > 0
}
