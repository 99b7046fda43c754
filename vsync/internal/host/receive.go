package host

import (
	"context"
	"errors"
	"runtime"
	"runtime/pprof"
	"time"

	"github.com/khamsin-io/khamsin/dataplane"
	"github.com/khamsin-io/khamsin/dataplane/clock"
)

// label names the calling goroutine in profiles.
func (h *Host) label(role string) {
	pprof.SetGoroutineLabels(pprof.WithLabels(context.Background(), pprof.Labels("khamsin", role)))
}

// receiveBatch returns a batch of the largest size. The receiver uses the first batchNow packets of it.
func (h *Host) receiveBatch() []dataplane.Packet { return make([]dataplane.Packet, rxSlots) }

// batchNow returns how many packets the receiver takes from the transport at once.
func (h *Host) batchNow() int { return int(h.batch.Load()) }

// receive is the receiver of the Combining model: it takes packets from the transport and runs the turns for them, and
// those that are due by time.
func (h *Host) receive() {
	defer h.workers.Done()
	h.label("receive")
	if h.cfg.Pinned {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
	}
	h.receiver.Store(goroutineNumber())
	batch := h.receiveBatch()
	s := newSpinner(h.cfg.Waiting)
	for !h.stopping.Load() {
		before := h.clock.Now()
		timeout := h.sleepFor(before)
		if timeout == 0 {
			timeout = h.runDue()
		}
		spin := s.spin(timeout)
		n, err := h.transport.Receive(batch[:h.batchNow()], dataplane.Wait{Spin: spin, Timeout: timeout})
		h.sleepUntil.Store(0)
		if err != nil {
			h.receiveFailed(err)
			return
		}
		s.learn(spin, h.clock.Now().Sub(before), n > 0)
		if n > 0 {
			h.input(batch[:n])
			clear(batch[:n])
		}
	}
}

// sleepFor announces how long the receiver will sleep, and returns it: until the next deadline, not at all when
// something is left to do, for ever (negative) when there is no deadline.
func (h *Host) sleepFor(now clock.Time) time.Duration {
	until := h.deadline.Load()
	for {
		h.sleepUntil.Store(until)
		// Dekker with publishDeadline, and with finish, which wakes the transport when it leaves something.
		d := h.deadline.Load()
		if d == until {
			break
		}
		until = d
	}
	switch {
	case h.pending() || h.stopping.Load():
		return 0
	case clock.Time(until) == clock.Never:
		return -1
	}
	return max(0, clock.Time(until).Sub(now))
}

// input runs a turn for received packets, or leaves them to the engine's owner.
func (h *Host) input(packets []dataplane.Packet) {
	for len(packets) > 0 {
		if h.tryOwn() {
			h.turn(packets)
			return
		}
		packets = packets[h.rx.PushN(packets):]
		h.kick()
		if len(packets) == 0 {
			return
		}
		if h.stopping.Load() {
			h.releasePackets(packets)
			return
		}
		runtime.Gosched() // the ring is full: its owner is working on it
	}
}

// turn runs a turn of the receiver, which has taken the engine. Then it does what executors would else have to wake up
// for: it calls the handlers of inline groups, and it yields the processor to the executors that it woke. They would
// have to wait until it sleeps otherwise, or for another processor to take them over, which takes tens of microseconds.
func (h *Host) turn(packets []dataplane.Packet) {
	h.own.receiving = true
	now := h.begin()
	if len(packets) > 0 {
		h.own.received.count(h, packets)
		h.engine.Receive(now, packets)
	}
	woke := h.end(now)
	h.own.receiving = false
	inline := append(h.inline[:0], h.own.inline...)
	clear(h.own.inline)
	h.own.inline = h.own.inline[:0]
	woke = h.letGoAndLook() || woke
	for i, x := range inline {
		inline[i] = nil
		x.runInline(h.receiver.Load())
	}
	h.inline = inline[:0]
	if woke {
		runtime.Gosched()
	}
}

// ownedWait bounds the receiver's sleep while somebody else owns the engine, who will wake it.
const ownedWait = time.Millisecond

// runDue runs a turn for what is due or pending, and returns how long the receiver may sleep: not at all, or, when the
// engine is owned, until its owner lets go. Polling for that could keep the owner from the processor.
func (h *Host) runDue() time.Duration {
	if !h.tryOwn() {
		h.wanted.Store(true)
		if !h.tryOwn() { // Dekker with letGo
			return ownedWait
		}
	}
	h.turn(nil)
	return 0
}

// receiveFailed ends the host when the transport cannot receive any more.
func (h *Host) receiveFailed(err error) {
	if !h.stopping.Load() && !errors.Is(err, dataplane.ErrClosed) {
		h.journal.add(line{text: "receive", err: err})
	}
	h.setOver(err)
}
