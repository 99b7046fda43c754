package host

import (
	"runtime"
	"time"

	"github.com/khamsin-io/khamsin/dataplane"
)

// forward is the receiver of the Loop model: it passes packets to the loop.
func (h *Host) forward() {
	defer h.workers.Done()
	h.label("receive")
	if h.cfg.Pinned {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
	}
	batch := h.receiveBatch()
	s := newSpinner(h.cfg.Waiting)
	for !h.stopping.Load() {
		before := h.clock.Now()
		spin := s.spin(-1)
		n, err := h.transport.Receive(batch[:h.batchNow()], dataplane.Wait{Spin: spin, Timeout: -1})
		if err != nil {
			h.receiveFailed(err)
			return
		}
		s.learn(spin, h.clock.Now().Sub(before), n > 0)
		h.pass(batch[:n])
		clear(batch[:n])
	}
}

// pass leaves packets to the loop, waiting while its ring is full.
func (h *Host) pass(packets []dataplane.Packet) {
	for len(packets) > 0 {
		packets = packets[h.rx.PushN(packets):]
		h.kick()
		if len(packets) == 0 {
			return
		}
		if h.stopping.Load() {
			h.releasePackets(packets)
			return
		}
		runtime.Gosched()
	}
}

// loop owns the engine in the Loop model.
func (h *Host) loop() {
	defer h.workers.Done()
	defer h.letGo()
	h.label("loop")
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	s := newSpinner(h.cfg.Waiting)
	h.end(h.clock.Now())
	for !h.stopping.Load() {
		before := h.clock.Now()
		timeout := h.sleepFor(before)
		spin := s.spin(timeout)
		h.waitBell(timer, spin, timeout)
		h.sleepUntil.Store(0)
		s.learn(spin, h.clock.Now().Sub(before), h.pending())
		h.end(h.begin())
	}
}

// waitBell returns when something is pending, the bell rings or the timeout is over. It polls for spin first.
func (h *Host) waitBell(timer *time.Timer, spin, timeout time.Duration) {
	if spin > 0 {
		for end := h.clock.Now().Add(spin); h.clock.Now() < end; {
			if h.pending() || h.stopping.Load() {
				return
			}
		}
	}
	if timeout == 0 || h.pending() {
		return
	}
	if timeout < 0 {
		<-h.bell
		return
	}
	timer.Reset(max(0, timeout-spin))
	select {
	case <-h.bell:
	case <-timer.C:
	}
}
