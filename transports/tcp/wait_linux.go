package tcp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/khamsin-io/khamsin/dataplane"
	"github.com/khamsin-io/khamsin/dataplane/clock"
)

// States of a Receive as Wake sees it.
const (
	napAwake = iota // in no system call that blocks
	napRung         // woken: it, or the next one that would block, returns
	napAsleep
)

// waiter lets Wake interrupt a Receive that sleeps.
type waiter struct{ state atomic.Uint32 }

// wake notes the wake-up and tells whether the event must be rung.
func (w *waiter) wake() (ring bool) { return w.state.Swap(napRung) == napAsleep }

// taken tells whether somebody woke us, once for all calls of wake before it.
func (w *waiter) taken() bool {
	return w.state.Load() == napRung && w.state.CompareAndSwap(napRung, napAwake)
}

// empty takes the ring of an earlier wake-up off the event.
func (w *waiter) empty(event int) {
	var count [8]byte
	_, _ = unix.Read(event, count[:]) // empty if it was taken off before
}

// Wake makes a Receive that is blocked, or else the next one that would block, return at once.
func (t *Transport) Wake() {
	if !t.waiter.wake() {
		return
	}
	t.mu.Lock() // keeps the descriptor from being closed
	defer t.mu.Unlock()
	if t.shut {
		return
	}
	var one [8]byte
	binary.NativeEndian.PutUint64(one[:], 1)
	if _, err := unix.Write(t.event, one[:]); err != nil && !errors.Is(err, unix.EAGAIN) { // EAGAIN: it is rung enough
		t.log.Error("tcp: cannot wake the receiver", "error", err)
	}
}

// sleep blocks until something happens or the time is over. It may also return for nothing.
func (t *Transport) sleep(limit time.Duration) error {
	if !t.waiter.state.CompareAndSwap(napAwake, napAsleep) {
		return nil
	}
	if t.receive.stuck {
		time.Sleep(min(limit, stallPause))
		t.waiter.state.CompareAndSwap(napAsleep, napAwake)
		return nil
	}
	if t.receive.strangers > 0 || t.crowded() {
		limit = min(limit, turnEvery)
	}
	fds := [1]unix.PollFd{{Fd: int32(t.epoll), Events: unix.POLLIN}}
	var timeout *unix.Timespec
	var spec unix.Timespec
	if limit < forever {
		spec = unix.NsecToTimespec(int64(limit))
		timeout = &spec
	}
	_, _, errno := unix.Syscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&fds)), 1, uintptr(unsafe.Pointer(timeout)),
		0, 0, 0)
	t.waiter.state.CompareAndSwap(napAsleep, napAwake)
	if errno != 0 && errno != unix.EINTR {
		return fmt.Errorf("tcp: ppoll: %w", errno)
	}
	return nil
}

// forever is the limit of a sleep without one.
const forever = time.Duration(clock.Never)

// await receives packets, waiting for them as told. The first poll has been in vain.
func (t *Transport) await(batch []dataplane.Packet, wait dataplane.Wait) (int, error) {
	now := t.clock.Now()
	deadline, spinEnd := clock.Never, now.Add(wait.Spin)
	if wait.Timeout >= 0 {
		deadline = now.Add(wait.Timeout)
		spinEnd = min(spinEnd, deadline)
	}
	for {
		if t.waiter.taken() {
			if t.closed.Load() {
				return 0, dataplane.ErrClosed
			}
			return 0, nil
		}
		if now >= deadline {
			return 0, nil
		}
		if now >= spinEnd {
			limit := forever
			if deadline != clock.Never {
				limit = deadline.Sub(now)
			}
			if err := t.sleep(limit); err != nil {
				return 0, err
			}
		}
		if n, err := t.poll(batch); n > 0 || err != nil {
			return n, err
		}
		now = t.clock.Now()
	}
}
