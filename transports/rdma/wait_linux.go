//go:build cgo && rdma

package rdma

// #include "verbs.h"
import "C"

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/khamsin-io/khamsin/dataplane"
	"github.com/khamsin-io/khamsin/dataplane/clock"
)

// stallPause is how long a Receive without a free frame sleeps before it looks for one again: whoever releases a frame
// rings no bell. Packets wait in their buffers meanwhile.
const stallPause = 200 * time.Microsecond

// forever is the limit of a sleep without one.
const forever = time.Duration(clock.Never)

// States of a Receive as Wake sees it.
const (
	awake = iota // in no system call that blocks
	woken        // it, or the next one that would block, returns
	asleep
)

// What a sleeping Receive looks at.
const (
	byWake = iota
	byDevice
	byCompletion
)

// waiter blocks a Receive until completions come or somebody calls Wake.
type waiter struct {
	state atomic.Uint32
	event int // eventfd, written when the state was asleep
	polls [3]unix.PollFd
}

func (w *waiter) init() (err error) {
	w.event, err = unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
	return err
}

func (w *waiter) close() error {
	if w.event < 0 {
		return nil
	}
	return unix.Close(w.event)
}

// wake notes the wake-up and tells whether the event must be rung.
func (w *waiter) wake() (ring bool) { return w.state.Swap(woken) == asleep }

// taken tells whether somebody called Wake, once for all calls before it.
func (w *waiter) taken() bool { return w.state.Load() == woken && w.state.CompareAndSwap(woken, awake) }

// ring ends the sleep. The event is open.
func (w *waiter) ring() error {
	var one [8]byte
	binary.NativeEndian.PutUint64(one[:], 1)
	if _, err := unix.Write(w.event, one[:]); err != nil && !errors.Is(err, unix.EAGAIN) { // EAGAIN: rung enough
		return err
	}
	return nil
}

// await receives packets, waiting for them as told. The first poll has been in vain.
func (t *Transport) await(batch []dataplane.Packet, wait dataplane.Wait) (int, error) {
	now := t.clock.Now()
	deadline, spinEnd := clock.Never, now.Add(wait.Spin)
	if wait.Timeout >= 0 {
		deadline = now.Add(wait.Timeout)
		spinEnd = min(spinEnd, deadline)
	}
	for {
		switch {
		case t.waiter.taken():
			if t.closed.Load() {
				return 0, dataplane.ErrClosed
			}
			return 0, nil
		case now >= deadline:
			return 0, nil
		}
		var n int
		var err error
		if now < spinEnd {
			n, err = t.receiver.poll(batch)
		} else {
			n, err = t.doze(batch, now, deadline)
		}
		if n > 0 || err != nil {
			return n, err
		}
		now = t.clock.Now()
	}
}

// doze sleeps until a completion may be there, unless one is already. It may also return for nothing.
func (t *Transport) doze(batch []dataplane.Packet, now, deadline clock.Time) (int, error) {
	if !t.waiter.state.CompareAndSwap(awake, asleep) {
		return 0, nil
	}
	defer t.waiter.state.CompareAndSwap(asleep, awake)
	limit := forever
	if deadline != clock.Never {
		limit = deadline.Sub(now)
	}
	// Poll, arm, poll again: what came in between would ring no more.
	if err := t.receiver.queue.arm(); err != nil {
		return 0, err
	}
	if busy, err := t.sender.reap(); err != nil {
		return 0, err
	} else if busy {
		if err := t.armSender(); err != nil {
			return 0, err
		}
		if _, err := t.sender.reap(); err != nil {
			return 0, err
		}
	}
	n, err := t.receiver.poll(batch)
	if n > 0 || err != nil {
		return n, err
	}
	return 0, t.sleep(limit)
}

// armSender makes completions of frames that were sent end a sleep.
func (t *Transport) armSender() error {
	if t.large() {
		if err := t.sender.rails.queue.arm(); err != nil {
			return err
		}
	}
	return t.sender.queue.arm()
}

// sleep blocks until something is to be looked at, and looks at all but packets.
func (t *Transport) sleep(limit time.Duration) error {
	w := &t.waiter
	w.polls = [3]unix.PollFd{
		byWake:       {Fd: int32(w.event), Events: unix.POLLIN},
		byDevice:     {Fd: int32(C.kh_async_fd(t.device.ctx)), Events: unix.POLLIN},
		byCompletion: {Fd: int32(t.receiver.queue.fd()), Events: unix.POLLIN},
	}
	look := w.polls[:]
	if t.receiver.large.empty() {
		limit = min(limit, stallPause)
	}
	if t.receiver.stuck {
		limit = min(limit, stallPause)
		look = look[:byCompletion]
	}
	var timeout *unix.Timespec
	var spec unix.Timespec
	if limit < forever {
		spec = unix.NsecToTimespec(int64(limit))
		timeout = &spec
	}
	if _, err := unix.Ppoll(look, timeout, nil); err != nil && !errors.Is(err, unix.EINTR) {
		return fmt.Errorf("rdma: ppoll: %w", err)
	}
	if w.polls[byWake].Revents != 0 {
		var count [8]byte
		_, _ = unix.Read(w.event, count[:]) // empty if the ring of an earlier wake-up is still to come
	}
	if w.polls[byCompletion].Revents != 0 {
		t.receiver.queue.takeEvents()
	}
	if w.polls[byDevice].Revents != 0 {
		t.onDeviceEvents()
	}
	return nil
}

// Events of a device that are no news to us, as libibverbs numbers them.
const (
	eventConnected   = 4
	eventDrained     = 5
	eventPortActive  = 9
	eventDeviceFatal = 8
	eventLastBuffer  = 16
)

// onDeviceEvents takes what the device tells of itself.
func (t *Transport) onDeviceEvents() {
	for {
		switch event := C.kh_async(t.device.ctx); event {
		case eventConnected, eventDrained, eventPortActive, eventLastBuffer:
		default:
			if event < 0 {
				return
			}
			t.log.Warn("rdma: event of the device", "event", int(event), "fatal", event == eventDeviceFatal,
				"local", t.local)
			t.sender.suspect.Store(true)
		}
	}
}
