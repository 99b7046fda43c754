//go:build cgo && rdma

package rdma

// #include "verbs.h"
import "C"

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/khamsin-io/khamsin/dataplane"
)

const (
	keeperTick   = 50 * time.Millisecond  // between two looks at rails that are not at rest
	railAskAgain = 100 * time.Millisecond // before the other side is asked again,
	railAskLimit = 2 * time.Second        // and how long it may leave that unanswered
	mailMax      = 256                    // words that wait for the keeper; more are dropped, and come again
)

// Why rails end. They are logged, and counted as failures.
var (
	errNoAnswer = errors.New("rdma: no answer to the request for a rail")               // immutable: an error
	errEnded    = errors.New("rdma: the other side has given the rail up")              // immutable: an error
	errStill    = errors.New("rdma: the receiver takes no large frames for 10 seconds") // immutable: an error
)

// letter is what the receiver hands on to the keeper: a word of another transport, or, without one, the number of a
// guest's queue pair that failed. An answer, which came by the socket, has no port in from.
type letter struct {
	from   dataplane.Endpoint
	word   railWord
	number uint32
}

// keeper makes and takes down the queue pairs of rails, this side's and the guests', in a goroutine of its own, because
// these calls take the kernel long. It reads the words of other transports.
type keeper struct {
	t      *Transport
	guests guests
	socket *net.UDPConn // where answers come
	mail   chan letter
	bell   chan struct{}
	stop   chan struct{}
	work   sync.WaitGroup
	todo   []*rail
}

// openRails makes what large frames need, when they are wanted.
func (t *Transport) openRails() (err error) {
	if !t.large() {
		return nil
	}
	socket, err := t.openAnswers()
	if err != nil {
		t.log.Warn("rdma: no frames above the MTU, for want of a socket for their rails", "error", err)
		t.caps.Large = 0
		return nil
	}
	k := &keeper{t: t, socket: socket, mail: make(chan letter, mailMax), bell: make(chan struct{}, 1)}
	k.stop = make(chan struct{})
	t.keeper = k
	k.guests.init(t)
	ls := &t.sender.rails
	ls.init(&t.sender, t.cfg.Rails)
	ls.keeper = k
	entries := min(2*railDepth*t.cfg.Rails, int(t.device.attr.max_cqe))
	if ls.queue, err = t.device.openQueue(entries, t.receiver.queue.channel); err != nil {
		return err
	}
	r := &t.receiver.large
	r.board, r.depth = newBoard(0, batchMax), t.cfg.LargeDepth
	if err := fault("shared receive queue", C.kh_create_srq(t.device.pd, C.int(r.depth), &r.srq)); err != nil {
		return err
	}
	a := t.arena.Config()
	r.first = uint32(1 + a.TxChunks + a.RxRuns*a.RunChunks)
	for left := r.depth; left > 0; left -= batchMax {
		if err := t.receiver.topUp(); err != nil {
			return err
		}
	}
	return nil
}

// openAnswers opens the socket where answers come. Its packets go no further than others.
func (t *Transport) openAnswers() (*net.UDPConn, error) {
	socket, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(t.ip, 0)))
	if err != nil {
		return nil, err
	}
	raw, err := socket.SyscallConn()
	if err == nil {
		ctlErr := raw.Control(func(fd uintptr) {
			if t.ip.Is4() {
				err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_TTL, t.cfg.TTL)
			} else {
				err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS, t.cfg.TTL)
			}
		})
		err = errors.Join(err, ctlErr)
	}
	if err != nil {
		return nil, errors.Join(err, socket.Close())
	}
	return socket, nil
}

// openRailPair makes a queue pair for large frames, which is not connected yet.
func (t *Transport) openRailPair(sends int) (qp handle, err error) {
	errno := C.kh_create_rc(t.device.pd, t.sender.rails.queue.cq, t.receiver.queue.cq, t.receiver.large.srq,
		C.int(sends), 0, &qp)
	if err = fault("queue pair of a rail", errno); err != nil {
		return nil, err
	}
	if err = fault("initialise queue pair of a rail", C.kh_rc_init(qp, t.device.port, 0)); err != nil {
		return nil, errors.Join(err, closePair(qp))
	}
	return qp, nil
}

func (k *keeper) start() {
	k.work.Go(k.run)
	k.work.Go(k.listen)
}

// listen reads answers until the socket is closed.
func (k *keeper) listen() {
	var b [railWordBytes + 1]byte
	for {
		n, from, err := k.socket.ReadFromUDPAddrPort(b[:])
		switch w, ok := parseRailWord(b[:n]); {
		case errors.Is(err, net.ErrClosed):
			return
		case ok && err == nil && w.kind != railAsk:
			k.receive(letter{from: dataplane.Endpoint{IP: from.Addr().As16()}, word: w})
		}
	}
}

// answer tells a process that asked for a rail what came of it.
func (k *keeper) answer(to dataplane.Endpoint, ask, w railWord) {
	var b [railWordBytes]byte
	w.put(b[:])
	at := netip.AddrPortFrom(netip.AddrFrom16(to.IP).Unmap(), ask.port)
	_, _ = k.socket.WriteToUDPAddrPort(b[:], at) // it asks again if this does not come
}

// poke makes the keeper look at the rails.
func (k *keeper) poke() {
	select {
	case k.bell <- struct{}{}:
	default:
	}
}

// receive takes a letter. It returns false when there is no keeper.
func (k *keeper) receive(l letter) bool {
	if k == nil {
		return false
	}
	select {
	case k.mail <- l:
	default: // whoever asks asks again
	}
	return true
}

// run is the life of the keeper. It sleeps when all rails are at rest.
func (k *keeper) run() {
	timer := time.NewTimer(keeperTick)
	defer timer.Stop()
	for {
		select {
		case <-k.stop:
			return
		case l := <-k.mail:
			k.read(l)
		case <-k.bell:
		case <-timer.C:
		}
		timer.Stop()
		if k.step() {
			timer.Reset(keeperTick)
		}
	}
}

// step does what rails are waiting for, and tells whether some are not at rest.
func (k *keeper) step() (busy bool) {
	s := &k.t.sender
	s.mu.Lock()
	s.rails.reap()
	now := k.t.clock.Now()
	k.todo = k.todo[:0]
	for _, l := range s.rails.table {
		if l.state == railReady && l.head != l.posted && now >= l.moved.Add(s.rails.stall) {
			s.rails.fail(l, errStill)
		}
		if l.busy() {
			busy = true
			if l.state != railReady {
				k.todo = append(k.todo, l)
			}
		}
	}
	s.rails.watched = busy
	s.mu.Unlock()
	for _, l := range k.todo { // only we change these states
		switch l.state {
		case railWanted:
			k.open(l)
		case railAsking:
			k.ask(l)
		case railBroken:
			k.takeDown(l)
		}
	}
	return k.guests.bury() || busy || len(k.todo) > 0
}

// open makes the queue pair of a rail and asks the other side for one.
func (k *keeper) open(l *rail) {
	qp, err := k.t.openRailPair(railDepth)
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails: see crypto/rand
	s := &k.t.sender
	s.mu.Lock()
	l.pair, l.psn, l.attempt, l.large = qp, randomPSN(), binary.BigEndian.Uint64(b[:]), 0
	if err != nil {
		s.rails.fail(l, err)
	} else {
		l.state, l.moved, l.asked = railAsking, k.t.clock.Now(), 0
	}
	s.mu.Unlock()
	if err == nil {
		k.ask(l)
	}
}

// ask asks the other side of a rail, again if need be, until it has had its time.
func (k *keeper) ask(l *rail) {
	s := &k.t.sender
	s.mu.Lock()
	defer s.mu.Unlock()
	now := k.t.clock.Now()
	switch {
	case now >= l.moved.Add(railAskLimit):
		s.rails.fail(l, errNoAnswer)
	case l.asked == 0 || now >= l.asked.Add(railAskAgain):
		w := railWord{kind: railAsk, attempt: l.attempt, number: uint32(C.kh_qp_num(l.pair)), psn: l.psn,
			large: uint32(k.t.caps.Large), port: k.socket.LocalAddr().(*net.UDPAddr).AddrPort().Port()}
		if s.tell(l.to, w) {
			l.asked = now
		}
	}
}

// takeDown destroys the queue pair of a rail. The frames on it are lost: they may have arrived, but nobody said so.
func (k *keeper) takeDown(l *rail) {
	err := closePair(l.pair)
	s := &k.t.sender
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rails.reap()
	lost := l.tail - l.head
	s.rails.drop(l)
	l.pair = nil
	if l.why == nil {
		s.tell(l.to, railWord{kind: railEnd, attempt: l.attempt})
		s.rails.forget(l)
		s.rails.leaving = false
		return
	}
	s.railFailures.Inc()
	now := k.t.clock.Now()
	k.t.log.Warn("rdma: the rail of large frames to a process failed", "to", l.to, "error", errors.Join(l.why, err),
		"lost", lost)
	l.state, l.moved, l.until = railNone, now, now
	if l.large == 0 { // it was never ready
		l.until = now.Add(pathRetry)
	}
	l.why = nil
}

// read does what a letter says.
func (k *keeper) read(l letter) {
	switch l.word.kind {
	case railAsk:
		k.guests.ask(l.from, l.word)
	case railAnswer:
		k.connect(l.from, l.word)
	case railEnd:
		if l.from.Port != 0 {
			k.guests.end(l.from, l.word.attempt)
			return
		}
		s := &k.t.sender
		s.mu.Lock()
		if to := s.rails.ofAttempt(l.from, l.word.attempt); to != nil {
			s.rails.fail(to, errEnded)
		}
		s.mu.Unlock()
	default:
		k.guests.failed(l.number)
	}
}

// connect readies the rail that an answer is for, and sends what waits for it.
func (k *keeper) connect(from dataplane.Endpoint, w railWord) {
	s := &k.t.sender
	s.mu.Lock()
	l := s.rails.ofAttempt(from, w.attempt)
	awaited := l != nil && l.state == railAsking
	s.mu.Unlock()
	if !awaited {
		return
	}
	err := k.t.connectPair(l.pair, l.psn, pairInfo{gid: l.to.IP, number: w.number, psn: w.psn}, railTimer)
	s.mu.Lock() // meanwhile nobody but us could change its state
	defer s.mu.Unlock()
	if err != nil {
		s.rails.fail(l, fmt.Errorf("to %v: %w", l.to, err))
		return
	}
	s.opened.Inc()
	l.state, l.large, l.moved = railReady, int(w.large), k.t.clock.Now()
	s.rails.dropLonger(l)
	s.rails.mark(l)
	s.rails.flush()
}

// close ends the goroutine and destroys all queue pairs of rails. Nobody is in Send or Receive.
func (k *keeper) close() error {
	close(k.stop)
	errs := []error{k.socket.Close()}
	k.work.Wait()
	for _, l := range k.t.sender.rails.table {
		errs = append(errs, closePair(l.pair))
		l.pair = nil
	}
	return errors.Join(append(errs, k.guests.close())...)
}
