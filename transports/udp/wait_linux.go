package udp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/khamsin-io/khamsin/dataplane"
	"github.com/khamsin-io/khamsin/dataplane/clock"
)

// stallPause is how long a Receive without a free frame sleeps before it looks for one again: whoever releases a frame
// rings no bell. Packets wait in the sockets meanwhile.
const stallPause = 200 * time.Microsecond

// States of a Receive as Wake sees it.
const (
	napAwake = iota // in no system call that blocks
	napRung         // woken: it, or the next one that would block, returns
	napAsleep
)

// waiter blocks a Receive until packets come or somebody calls Wake.
type waiter struct {
	state atomic.Uint32
	event int // eventfd, written by ring when the state was napAsleep
	polls []unix.PollFd
	files []int32 // of the other source
	stuck bool    // the last poll found no free frame
	ready int     // the socket that ended the last sleep; negative: none of them did
}

func (w *waiter) init(sockets int, files []int32) (err error) {
	w.polls = make([]unix.PollFd, 0, 1+sockets+len(files))
	w.files = files
	w.event, err = unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
	return err
}

// wake notes the wake-up and tells whether the event must be rung.
func (w *waiter) wake() (ring bool) { return w.state.Swap(napRung) == napAsleep }

// taken tells whether somebody woke us, once for all calls of wake before it.
func (w *waiter) taken() bool {
	return w.state.Load() == napRung && w.state.CompareAndSwap(napRung, napAwake)
}

// ring makes a blocked wait return. The event is open.
func (w *waiter) ring() error {
	var one [8]byte
	binary.NativeEndian.PutUint64(one[:], 1)
	if _, err := unix.Write(w.event, one[:]); err != nil && !errors.Is(err, unix.EAGAIN) { // EAGAIN: it is rung enough
		return err
	}
	return nil
}

// sleep blocks until a packet is there, the event is rung or the time is over. It may also return for nothing.
func (w *waiter) sleep(sockets []*socket, limit time.Duration) error {
	w.ready = -1
	if !w.state.CompareAndSwap(napAwake, napAsleep) {
		return nil
	}
	w.polls = append(w.polls[:0], unix.PollFd{Fd: int32(w.event), Events: unix.POLLIN})
	if w.stuck {
		limit = min(limit, stallPause)
		sockets = nil
	}
	for _, fd := range w.files {
		w.polls = append(w.polls, unix.PollFd{Fd: fd, Events: unix.POLLIN})
	}
	for _, s := range sockets {
		w.polls = append(w.polls, unix.PollFd{Fd: int32(s.fd), Events: unix.POLLIN})
	}
	var timeout *unix.Timespec
	var spec unix.Timespec
	if limit < forever {
		spec = unix.NsecToTimespec(int64(limit))
		timeout = &spec
	}
	_, _, errno := unix.Syscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(unsafe.SliceData(w.polls))),
		uintptr(len(w.polls)), uintptr(unsafe.Pointer(timeout)), 0, 0, 0)
	w.state.CompareAndSwap(napAsleep, napAwake)
	if w.polls[0].Revents != 0 {
		var count [8]byte
		_, _ = unix.Read(w.event, count[:]) // empty if the ring of an earlier wake-up is still to come
	}
	if errno != 0 && errno != unix.EINTR {
		return fmt.Errorf("udp: ppoll: %w", errno)
	}
	w.ready = slices.IndexFunc(w.polls[1+len(w.files):], func(p unix.PollFd) bool { return p.Revents != 0 })
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
		spinning := now < spinEnd
		if !spinning {
			limit := forever
			if deadline != clock.Never {
				limit = deadline.Sub(now)
			}
			if err := t.waiter.sleep(*t.sockets.Load(), limit); err != nil {
				return 0, err
			}
			if t.waiter.ready >= 0 {
				t.turn = t.waiter.ready
			}
		}
		if n, err := t.poll(batch, !spinning); n > 0 || err != nil {
			return n, err
		}
		now = t.clock.Now()
	}
}
