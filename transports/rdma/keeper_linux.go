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

	"github.com/khamsin-io/khamsin/dataplane"
)

const (
	keeperTick   = 50 * time.Millisecond  // between two looks at lanes that are not at rest
	laneAskAgain = 100 * time.Millisecond // before the other side is asked again,
	laneAskLimit = 2 * time.Second        // and how long it may leave that unanswered
	mailMax      = 256                    // words that wait for the keeper; more are dropped, and come again
)

// Why lanes end. They are logged, and counted as failures.
var (
	errNoAnswer = errors.New("rdma: no answer to the request for a lane")               // immutable: an error
	errEnded    = errors.New("rdma: the other side has given the lane up")              // immutable: an error
	errStill    = errors.New("rdma: the receiver takes no large frames for 10 seconds") // immutable: an error
)

// letter is what the receiver hands on to the keeper: a word of another transport, or, without one, the number of a
// guest's queue pair that failed. An answer, which came by the socket, has no port in from.
type letter struct {
	from   dataplane.Endpoint
	word   laneWord
	number uint32
}

// keeper makes and takes down the queue pairs of lanes, this side's and the guests', in a goroutine of its own, because
// these calls take the kernel long. It reads the words of other transports.
type keeper struct {
	t      *Transport
	guests guests
	socket *net.UDPConn // where answers come
	mail   chan letter
	bell   chan struct{}
	stop   chan struct{}
	work   sync.WaitGroup
	todo   []*lane
}

// openLanes makes what large frames need, when they are wanted.
func (t *Transport) openLanes() (err error) {
	if !t.large() {
		return nil
	}
	socket, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(t.ip, 0)))
	if err != nil {
		t.log.Warn("rdma: no frames above the MTU, for want of a socket for their lanes", "error", err)
		t.caps.Large = 0
		return nil
	}
	k := &keeper{t: t, socket: socket, mail: make(chan letter, mailMax), bell: make(chan struct{}, 1), stop: make(chan struct{})}
	t.keeper = k
	k.guests.init(t)
	ls := &t.sender.lanes
	ls.init(&t.sender, t.cfg.Lanes)
	ls.keeper = k
	entries := min(2*laneDepth*t.cfg.Lanes, int(t.device.attr.max_cqe))
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

// openLanePair makes a queue pair for large frames, which is not connected yet.
func (t *Transport) openLanePair(sends int) (qp handle, err error) {
	errno := C.kh_create_rc(t.device.pd, t.sender.lanes.queue.cq, t.receiver.queue.cq, t.receiver.large.srq,
		C.int(sends), 0, &qp)
	if err = fault("queue pair of a lane", errno); err != nil {
		return nil, err
	}
	if err = fault("initialise queue pair of a lane", C.kh_rc_init(qp, t.device.port, 0)); err != nil {
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
	var b [laneWordBytes + 1]byte
	for {
		n, from, err := k.socket.ReadFromUDPAddrPort(b[:])
		switch w, ok := parseLaneWord(b[:n]); {
		case errors.Is(err, net.ErrClosed):
			return
		case ok && err == nil && w.kind != laneAsk:
			k.receive(letter{from: dataplane.Endpoint{IP: from.Addr().As16()}, word: w})
		}
	}
}

// answer tells a process that asked for a lane what came of it.
func (k *keeper) answer(to dataplane.Endpoint, ask, w laneWord) {
	var b [laneWordBytes]byte
	w.put(b[:])
	at := netip.AddrPortFrom(netip.AddrFrom16(to.IP).Unmap(), ask.port)
	_, _ = k.socket.WriteToUDPAddrPort(b[:], at) // it asks again if this does not come
}

// poke makes the keeper look at the lanes.
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

// run is the life of the keeper. It sleeps when all lanes are at rest.
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

// step does what lanes are waiting for, and tells whether some are not at rest.
func (k *keeper) step() (busy bool) {
	s := &k.t.sender
	s.mu.Lock()
	s.lanes.reap()
	now := k.t.clock.Now()
	k.todo = k.todo[:0]
	for _, l := range s.lanes.table {
		if l.state == laneReady && l.head != l.posted && now >= l.moved.Add(laneStall) {
			s.lanes.fail(l, errStill)
		}
		if l.busy() {
			busy = true
			if l.state != laneReady {
				k.todo = append(k.todo, l)
			}
		}
	}
	s.lanes.watched = busy
	s.mu.Unlock()
	for _, l := range k.todo { // only we change these states
		switch l.state {
		case laneWanted:
			k.open(l)
		case laneAsking:
			k.ask(l)
		case laneBroken:
			k.takeDown(l)
		}
	}
	return k.guests.bury() || busy || len(k.todo) > 0
}

// open makes the queue pair of a lane and asks the other side for one.
func (k *keeper) open(l *lane) {
	qp, err := k.t.openLanePair(laneDepth)
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails: see crypto/rand
	s := &k.t.sender
	s.mu.Lock()
	l.pair, l.psn, l.attempt, l.large = qp, randomPSN(), binary.BigEndian.Uint64(b[:]), 0
	if err != nil {
		s.lanes.fail(l, err)
	} else {
		l.state, l.moved, l.asked = laneAsking, k.t.clock.Now(), 0
	}
	s.mu.Unlock()
	if err == nil {
		k.ask(l)
	}
}

// ask asks the other side of a lane, again if need be, until it has had its time.
func (k *keeper) ask(l *lane) {
	s := &k.t.sender
	s.mu.Lock()
	defer s.mu.Unlock()
	now := k.t.clock.Now()
	switch {
	case now >= l.moved.Add(laneAskLimit):
		s.lanes.fail(l, errNoAnswer)
	case l.asked == 0 || now >= l.asked.Add(laneAskAgain):
		w := laneWord{kind: laneAsk, attempt: l.attempt, number: uint32(C.kh_qp_num(l.pair)), psn: l.psn,
			large: uint32(k.t.caps.Large), port: k.socket.LocalAddr().(*net.UDPAddr).AddrPort().Port()}
		if s.tell(l.to, w) {
			l.asked = now
		}
	}
}

// takeDown destroys the queue pair of a lane. The frames on it are lost: they may have arrived, but nobody said so.
func (k *keeper) takeDown(l *lane) {
	err := closePair(l.pair)
	s := &k.t.sender
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lanes.reap()
	lost := l.tail - l.head
	s.lanes.drop(l)
	l.pair = nil
	if l.why == nil {
		s.tell(l.to, laneWord{kind: laneEnd, attempt: l.attempt})
		s.lanes.forget(l)
		s.lanes.leaving = false
		return
	}
	s.laneFailures.Inc()
	now := k.t.clock.Now()
	k.t.log.Warn("rdma: the lane of large frames to a process failed", "to", l.to, "error", errors.Join(l.why, err),
		"lost", lost)
	l.state, l.moved, l.until = laneNone, now, now
	if l.large == 0 { // it was never ready
		l.until = now.Add(pathRetry)
	}
	l.why = nil
}

// read does what a letter says.
func (k *keeper) read(l letter) {
	switch l.word.kind {
	case laneAsk:
		k.guests.ask(l.from, l.word)
	case laneAnswer:
		k.connect(l.from, l.word)
	case laneEnd:
		if l.from.Port != 0 {
			k.guests.end(l.from, l.word.attempt)
			return
		}
		s := &k.t.sender
		s.mu.Lock()
		if to := s.lanes.ofAttempt(l.from, l.word.attempt); to != nil {
			s.lanes.fail(to, errEnded)
		}
		s.mu.Unlock()
	default:
		k.guests.failed(l.number)
	}
}

// connect readies the lane that an answer is for, and sends what waits for it.
func (k *keeper) connect(from dataplane.Endpoint, w laneWord) {
	s := &k.t.sender
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.lanes.ofAttempt(from, w.attempt)
	if l == nil || l.state != laneAsking {
		return
	}
	// Under the lock, for frames wait for it anyway; it is two calls of the kernel.
	if err := k.t.connectPair(l.pair, l.psn, pairInfo{gid: l.to.IP, number: w.number, psn: w.psn}, laneTimer); err != nil {
		s.lanes.fail(l, fmt.Errorf("to %v: %w", l.to, err))
		return
	}
	s.opened.Inc()
	l.state, l.large, l.moved = laneReady, int(w.large), k.t.clock.Now()
	s.lanes.dropLonger(l)
	s.lanes.mark(l)
	s.lanes.flush()
}

// close ends the goroutine and destroys all queue pairs of lanes. Nobody is in Send or Receive.
func (k *keeper) close() error {
	close(k.stop)
	errs := []error{k.socket.Close()}
	k.work.Wait()
	for _, l := range k.t.sender.lanes.table {
		errs = append(errs, closePair(l.pair))
		l.pair = nil
	}
	return errors.Join(append(errs, k.guests.close())...)
}
