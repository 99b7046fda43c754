//go:build cgo && rdma

package rdma

// #include "verbs.h"
import "C"

import (
	"errors"
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/khamsin-io/khamsin/dataplane"
	"github.com/khamsin-io/khamsin/dataplane/counters"
	"github.com/khamsin-io/khamsin/dataplane/frame"
)

// multicastQP is the destination of datagrams to a multicast group.
const multicastQP = 0xffffff

// sender turns packets into work requests.
//
// The send queue works in order, and each work request has the next number, so the completion of one says that all
// before it are done: only the last of each call asks for one. flight keeps the frames that the device still reads.
type sender struct {
	t     *Transport
	queue queue
	board *board
	paths paths
	rails rails
	base  uintptr // of the arena
	lkey  C.uint32_t

	numbers   numbers
	inlineMax int
	suspect   atomic.Bool // the queue pair may have failed

	mu         sync.Mutex    // held by Send, and by a Receive that is about to sleep
	flight     []frame.Frame // a ring; the zero Frame where the payload was inlined
	head, tail uint64        // numbers of the work requests that are in flight: from head up to tail
	owner      bool          // in Send: the Tx pools are ours

	packets, bytes, multicasts, dropped, posts           counters.Counter
	calls, requests, inlined, signalled, repairs, failed counters.Counter
	opened, railFailures, largeSent                      counters.Counter
}

func (s *sender) init(t *Transport, inlineMax int) {
	s.t = t
	s.board = newBoard(batchMax, 0)
	s.paths.init(t)
	s.numbers.init()
	s.inlineMax = inlineMax
	s.flight = make([]frame.Frame, t.cfg.SendDepth)
	s.base, s.lkey = address(t.arena.Memory()), C.kh_lkey(t.region)
}

// send accepts as many packets from the front of the batch as are good and have room.
func (s *sender) send(batch []dataplane.Packet) (int, error) {
	s.mu.Lock()
	s.owner = true
	defer func() {
		s.owner = false
		s.mu.Unlock()
	}()
	if s.suspect.Load() {
		if err := s.mend(); err != nil {
			return 0, err
		}
	}
	if s.head != s.tail && (len(batch) == 0 || s.room() < len(batch)) {
		if err := s.submit(0); err != nil {
			return 0, err
		}
	}
	if len(batch) == 0 {
		s.rails.reap()
	}
	accepted := 0
	for accepted < len(batch) && s.room() > 0 {
		taken, staged, err := s.stage(batch[accepted:])
		held := err == nil && taken < len(batch)-accepted && staged < batchMax // by a packet whose way is not known yet
		s.rails.flush()
		if staged > 0 {
			if posting := s.submit(staged); err == nil {
				err = posting
			}
		}
		s.count(batch[accepted : accepted+taken])
		accepted += taken
		if err != nil || held {
			return accepted, err
		}
	}
	return accepted, nil
}

// room returns how many work requests the send queue has room for.
func (s *sender) room() int { return len(s.flight) - int(s.tail-s.head) }

// count counts packets that were accepted.
func (s *sender) count(done []dataplane.Packet) {
	var bytes, multicasts uint64
	for i := range done {
		bytes += uint64(done[i].Frame.Len)
		if done[i].Channel != 0 {
			multicasts++
		}
	}
	s.packets.Add(uint64(len(done)))
	s.bytes.Add(bytes)
	s.multicasts.Add(multicasts)
}

// stage makes work requests of the front of the batch and returns how many packets it took and how many requests it
// made: packets that have no way are dropped, and one whose way may be known soon holds up those behind it. An error is
// about the packet after those taken.
func (s *sender) stage(batch []dataplane.Packet) (taken, staged int, err error) {
	limit := min(batchMax, s.room())
	for taken < len(batch) && staged < limit {
		p := &batch[taken]
		if err := s.check(p); err != nil {
			return taken, staged, err
		}
		if int(p.Frame.Len) > s.t.cfg.MTU {
			ok, held := s.rails.push(p.To, p.Frame)
			if held {
				return taken, staged, nil
			}
			if !ok {
				s.drop(p)
			}
			taken++
			continue
		}
		to := stream{channel: p.Channel}
		if p.Channel == 0 {
			to.peer = p.To
		}
		ah, qpn, pending := s.destination(p)
		if pending {
			return taken, staged, nil
		}
		if ah == 0 {
			s.drop(p)
			taken++
			continue
		}
		s.fill(p.Frame, ah, qpn, staged)
		s.board.work[staged].imm = C.uint32_t(s.numbers.next(to))
		staged++
		taken++
	}
	return taken, staged, nil
}

// drop counts a packet that cannot be sent.
func (s *sender) drop(p *dataplane.Packet) {
	s.dropped.Inc()
	s.t.arena.Tx().Release(p.Frame)
}

// check refuses what cannot be sent.
func (s *sender) check(p *dataplane.Packet) error {
	switch {
	case p.Channel != 0 && !s.t.caps.Multicast:
		return dataplane.ErrNoMulticast
	case p.Channel > dataplane.ChannelMax:
		return dataplane.ErrBadChannel
	case int(p.Frame.Len) > s.t.cfg.MTU && (p.Channel != 0 || int(p.Frame.Len) > s.t.caps.Large):
		return dataplane.ErrTooLarge
	}
	return nil
}

// destination returns the address handle and queue pair of a packet; no handle when there is no way, or not yet.
func (s *sender) destination(p *dataplane.Packet) (ah uint64, qpn uint32, pending bool) {
	to, qpn := p.To.IP, p.To.Port
	if p.Channel != 0 {
		to, qpn = p.Channel.IPv4().As16(), multicastQP
	} else if qpn == 0 || qpn >= qpNumberMax {
		return 0, 0, false
	}
	ah, pending = s.paths.find(to)
	return ah, qpn, pending
}

// fill makes work request i of the next call, of a frame that is checked by the arena.
func (s *sender) fill(f frame.Frame, ah uint64, qpn uint32, i int) {
	payload := s.t.arena.Bytes(f)
	w := &s.board.work[i]
	*w = C.kh_wr{
		id: C.uint64_t(s.tail + uint64(i)), len: C.uint32_t(len(payload)), lkey: s.lkey, ah: C.uint64_t(ah),
		qpn: C.uint32_t(qpn), qkey: C.uint32_t(s.t.cfg.qkey()), op: C.KH_SEND,
	}
	if len(payload) > 0 {
		w.addr = C.uint64_t(address(payload))
	}
	if len(payload) <= s.inlineMax {
		w.flags = C.KH_INLINE
	}
	s.flight[(s.tail+uint64(i))%uint64(len(s.flight))] = f
}

// submit posts the first n work requests of the board and handles the completions that are there.
func (s *sender) submit(n int) error {
	if n > 0 {
		s.board.work[n-1].flags |= C.KH_SIGNALED
		s.posts.Inc()
		s.signalled.Inc()
	}
	s.calls.Inc()
	posted, completed, errno, err := s.board.post(s.t.pair, s.queue.cq, n)
	first := s.tail
	s.tail += uint64(posted)
	s.requests.Add(uint64(posted))
	for i := range posted {
		if s.board.work[i].flags&C.KH_INLINE != 0 {
			s.inlined.Inc()
			s.landed(first + uint64(i))
		}
	}
	if posted < n { // the device refuses the next one, and we cannot tell it from those behind it
		s.refused(first, posted, n, errno)
	}
	s.complete(completed)
	return err
}

// refused drops the staged packets that were not posted.
func (s *sender) refused(first uint64, posted, n int, errno unix.Errno) {
	for i := posted; i < n; i++ {
		s.dropped.Inc()
		s.landed(first + uint64(i))
	}
	if s.failed.Inc(); s.failed.Load() == 1 {
		s.t.log.Warn("rdma: the device refuses work requests; further ones are only counted", "error", errno,
			"local", s.t.local)
	}
	s.suspect.Store(true)
}

// landed releases the frame of a work request, if it still has one.
func (s *sender) landed(id uint64) {
	slot := &s.flight[id%uint64(len(s.flight))]
	switch {
	case slot.IsZero():
	case s.owner:
		s.t.arena.Tx().Release(*slot)
	default:
		s.t.arena.Release(*slot)
	}
	*slot = frame.Frame{}
}

// complete handles the first n completions of the board.
func (s *sender) complete(n int) {
	for i := range n {
		wc := &s.board.done[i]
		id := uint64(wc.id)
		if id < s.head || id >= s.tail {
			continue // of a queue pair that was reset since
		}
		for ; s.head <= id; s.head++ {
			s.landed(s.head)
		}
		if wc.status == statusSuccess {
			continue
		}
		s.dropped.Inc()
		s.suspect.Store(true)
		if wc.status != statusFlushed {
			s.t.log.Warn("rdma: a datagram could not be sent", "status", statusText(uint32(wc.status)), "local",
				s.t.local)
		}
	}
}

// mend repairs a queue pair that failed. What the device had not sent is lost. The caller holds mu.
func (s *sender) mend() error {
	s.suspect.Store(false)
	state := C.kh_qp_state(s.t.pair)
	if state == stateReadyToSend {
		return nil
	}
	var err error
	if state == stateSendError {
		err = fault("resume queue pair", C.kh_ud_resume(s.t.pair))
	}
	if state != stateSendError || err != nil {
		err = fault("ready queue pair again", C.kh_ud_ready(s.t.pair, s.t.device.port, C.uint32_t(s.t.cfg.qkey())))
		for ; s.head < s.tail; s.head++ { // the reset forgot them, without a completion
			s.dropped.Inc()
			s.landed(s.head)
		}
	}
	if err != nil {
		s.suspect.Store(true)
		return err
	}
	s.repairs.Inc()
	s.t.log.Warn("rdma: the queue pair had failed and was repaired", "state", int(state), "local", s.t.local)
	return nil
}

// tell sends a word about rails. It returns false when that is not possible now. The caller holds mu.
func (s *sender) tell(to dataplane.Endpoint, w railWord) bool {
	ah, qpn, _ := s.destination(&dataplane.Packet{To: to})
	if ah == 0 {
		return false
	}
	if s.room() == 0 {
		if err := s.submit(0); err != nil || s.room() == 0 {
			return false
		}
	}
	w.put(unsafe.Slice((*byte)(s.rails.letter), railWordBytes))
	s.board.work[0] = C.kh_wr{
		id: C.uint64_t(s.tail), addr: C.uint64_t(uintptr(s.rails.letter)), len: railWordBytes, ah: C.uint64_t(ah),
		qpn: C.uint32_t(qpn), qkey: C.uint32_t(s.t.cfg.qkey()), op: C.KH_TELL, flags: C.KH_INLINE,
	}
	s.flight[s.tail%uint64(len(s.flight))] = frame.Frame{}
	return s.submit(1) == nil
}

// reap releases the frames that the device has sent, unless a Send is at it. It tells whether some are still in flight.
func (s *sender) reap() (busy bool, err error) {
	if !s.mu.TryLock() {
		return false, nil
	}
	defer s.mu.Unlock()
	if s.suspect.Load() {
		if err := s.mend(); err != nil {
			return false, err
		}
	}
	s.rails.reap()
	if s.head != s.tail {
		if err := s.submit(0); err != nil {
			return false, err
		}
	}
	return s.head != s.tail || s.rails.inFlight > 0, nil
}

// close releases what the sender holds. The queue pair is gone.
func (s *sender) close() error {
	var errs []error
	for ; s.head < s.tail; s.head++ {
		s.landed(s.head)
	}
	s.rails.close()
	errs = append(errs, s.paths.close())
	if s.board != nil {
		s.board.close()
	}
	return errors.Join(errs...)
}
