package tcp

import (
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/khamsin-io/khamsin/dataplane"
	"github.com/khamsin-io/khamsin/dataplane/clock"
)

// Limits of receiving.
const (
	eventsMax   = 64
	helloWithin = 5 * time.Second
	stallPause  = 200 * time.Microsecond // sleep without a free frame: whoever releases one rings no bell
)

// receiver is what Receive needs beside the links. It belongs to the goroutine that is in Receive.
type receiver struct {
	events    [eventsMax]unix.EpollEvent
	ready     []*link    // links with something in their buffers
	now       clock.Time // of the last poll that brought something
	strangers int
	sweepAt   clock.Time // when strangers are looked through
	stuck     bool       // the last poll found no free frame
}

// Receive returns packets that wait, or waits for some.
func (t *Transport) Receive(batch []dataplane.Packet, wait dataplane.Wait) (int, error) {
	if !t.enter(&t.receiving, "Receive") {
		return 0, dataplane.ErrClosed
	}
	defer t.receiving.Unlock()
	if len(batch) == 0 {
		return 0, nil
	}
	n, err := t.poll(batch)
	if t.receive.stuck {
		t.stalled.Inc()
	}
	if n > 0 || err != nil || wait.Timeout == 0 {
		return n, err
	}
	return t.await(batch, wait)
}

// poll returns packets that are there, without waiting.
func (t *Transport) poll(batch []dataplane.Packet) (int, error) {
	r := &t.receive
	r.stuck = false
	t.arena.Rx().Free() // takes in what other goroutines released
	n := t.parse(batch)
	if n > 0 || r.stuck {
		return n, nil
	}
	count, err := unix.EpollWait(t.epoll, r.events[:], 0)
	if err != nil && err != unix.EINTR {
		return 0, fmt.Errorf("tcp: epoll_wait: %w", err)
	}
	if count > 0 {
		r.now = t.clock.Now()
	}
	for i := range max(0, count) {
		switch fd := r.events[i].Fd; int(fd) {
		case t.event:
			t.waiter.empty(t.event)
		case t.listener:
			t.accept()
		default:
			t.read(fd)
		}
	}
	if r.strangers > 0 || t.crowded() {
		if now := t.clock.Now(); now >= r.sweepAt {
			t.sweep(now)
		}
	}
	return t.parse(batch), nil
}

// accept takes in new connections.
func (t *Transport) accept() {
	now := t.clock.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	for {
		if len(t.links) >= t.cfg.room() {
			t.pause(true)
			t.trim(now)
			return
		}
		fd, _, err := unix.Accept4(t.listener, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		if err != nil {
			return // none is left, or this one is gone again; the next poll tells
		}
		t.tune(fd)
		l := &link{fd: fd, stage: stageStranger, since: now, used: now}
		if t.adopt(l) == nil {
			t.receive.strangers++
		}
	}
}

// sweep cuts off strangers who have had their time, and peers that were told of the end long ago and do nothing about
// it, and makes room.
func (t *Transport) sweep(now clock.Time) {
	t.receive.sweepAt = now.Add(turnEvery)
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, l := range t.links {
		switch {
		case l.stage == stageStranger && now >= l.since.Add(helloWithin):
			t.cut(&t.refusals.noHello, "no introduction in time")
			t.giveUp(l)
		case l.stage == stageLeaving && now >= l.since.Add(t.cfg.DeadAfter):
			t.giveUp(l)
		}
	}
	t.trim(now)
}

// read takes in what has come by a link.
func (t *Transport) read(fd int32) {
	t.mu.Lock()
	l := t.links[fd]
	draining := false
	if l != nil {
		l.used, draining = t.receive.now, l.stage == stageDraining
	}
	t.mu.Unlock()
	if l == nil {
		return
	}
	if draining {
		t.drain(l)
		return
	}
	if !t.makeRoom(l) {
		return // the rest waits in the socket until the buffer has been parsed
	}
	room := len(l.buf) - l.to
	n, err := unix.Read(l.fd, l.buf[l.to:])
	l.filled = n == room
	switch {
	case n > 0:
		t.calls.Inc()
		l.to += n
		if !l.ready {
			l.ready = true
			t.receive.ready = append(t.receive.ready, l)
		}
	case err == unix.EAGAIN || err == unix.EINTR:
	default:
		l.ended = true
		if !l.ready {
			t.close(l)
		}
	}
}

// makeRoom moves what is in the buffer to its front when that gains much, and makes the buffer larger for a peer that
// filled it with the last read. It returns false when there is no room.
func (t *Transport) makeRoom(l *link) bool {
	if l.from > len(l.buf)/2 || l.from == l.to || l.from > 0 && l.to == len(l.buf) {
		l.to = copy(l.buf, l.buf[l.from:l.to])
		l.from = 0
	}
	most := max(bufMost, lenBytes+t.cfg.MTU)
	if len(l.buf) == 0 || len(l.buf) < most && (l.filled || l.to == len(l.buf)) && !l.peer.IsZero() {
		larger := make([]byte, min(most, max(bufFirst, 4*len(l.buf))))
		l.to = copy(larger, l.buf[l.from:l.to])
		l.from = 0
		l.buf = larger
	}
	return l.to < len(l.buf)
}

// parse fills the front of batch with packets of links that are ready, in turn, and returns how many.
func (t *Transport) parse(batch []dataplane.Packet) (n int) {
	r := &t.receive
	bytes := uint64(0)
	kept := r.ready[:0]
	for i, l := range r.ready {
		more := true
		if n < len(batch) && !r.stuck {
			var taken int
			taken, more = t.parseLink(l, batch[n:])
			for _, p := range batch[n : n+taken] {
				bytes += uint64(p.Frame.Len)
			}
			n += taken
		}
		if more {
			kept = append(kept, l)
			continue
		}
		l.ready = false
		r.ready[i] = nil
		if l.ended {
			t.close(l)
		}
	}
	if len(kept) > 1 {
		kept = append(kept[1:], kept[0]) // the next one first
	}
	r.ready = kept
	if n > 0 {
		t.received.Add(uint64(n))
		t.receivedBytes.Add(bytes)
	}
	return n
}

// parseLink takes packets out of a link's buffer. More says that there are more which did not fit.
func (t *Transport) parseLink(l *link, batch []dataplane.Packet) (n int, more bool) {
	if l.peer.IsZero() && !t.greet(l) {
		return 0, false
	}
	for {
		size, ok := l.length()
		if !ok || size <= t.cfg.MTU && l.to-l.from < lenBytes+size {
			return n, false
		}
		if size == 0 {
			t.undersize.Inc()
			l.from += lenBytes
			continue
		}
		if size > t.cfg.MTU {
			t.cut(&t.refusals.length, "bad length")
			l.from, l.to = 0, 0
			t.end(l)
			return n, false
		}
		if n == len(batch) {
			return n, true
		}
		f, ok := t.arena.Rx().Get()
		if !ok {
			t.receive.stuck = true
			return n, true
		}
		l.from += lenBytes
		f.Len = uint32(size)
		copy(t.arena.Bytes(f), l.buf[l.from:l.from+size])
		l.from += size
		batch[n] = dataplane.Packet{Frame: f, From: l.peer}
		n++
	}
}

// greet reads a stranger's hello; false when it is not complete or not good.
func (t *Transport) greet(l *link) bool {
	have := l.buf[l.from:l.to]
	begun := min(len(have), len(helloMagic))
	if len(have) < helloBytes && string(have[:begun]) == helloMagic[:begun] {
		return false
	}
	peer, ok := parseHello(have)
	if !ok {
		t.cut(&t.refusals.noHello, "no introduction")
		l.from, l.to = 0, 0
		t.end(l)
		return false
	}
	remote, err := unix.Getpeername(l.fd)
	if err != nil || addrPort(remote).Addr() != netip.AddrFrom16(peer.IP).Unmap() {
		t.cut(&t.refusals.imposter, "claims another host's address")
		l.from, l.to = 0, 0
		t.end(l)
		return false
	}
	l.from += helloBytes
	t.mu.Lock()
	defer t.mu.Unlock()
	l.peer, l.stage = peer, stageOpen
	t.receive.strangers--
	delete(t.send.refused, peer)
	t.settle(l, t.receive.now)
	t.trim(t.receive.now)
	return true
}

// end gives a link up from the receiving side.
func (t *Transport) end(l *link) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.giveUp(l)
}

// close closes a link's descriptor, which is nobody's business any more, unless a part of a packet still has to leave.
func (t *Transport) close(l *link) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if l.from < l.to && (l.stage == stageOpen || l.stage == stageLeaving) {
		t.cut(&t.refusals.broken, "ended within a packet")
	}
	if l.stage == stageOpen && len(l.rest) > 0 {
		event := unix.EpollEvent{Events: unix.EPOLLOUT, Fd: int32(l.fd)}
		if unix.EpollCtl(t.epoll, unix.EPOLL_CTL_MOD, l.fd, &event) == nil {
			l.stage, l.from, l.to = stageDraining, 0, 0
			t.forget(l)
			return
		}
	}
	if l.peer.IsZero() {
		t.receive.strangers--
	}
	if l.ending() {
		t.ending--
	}
	l.stage = stageShut
	t.forget(l)
	delete(t.links, int32(l.fd))
	t.count()
	_ = unix.Close(l.fd)
	l.fd = -1
	t.pause(false)
}
