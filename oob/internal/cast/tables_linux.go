package cast

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/khamsin-io/khamsin/oob/internal/transfer"
)

// prepare makes the tables that system calls write to. What is long is mapped: most of it is never touched, and the
// collector need not know of it.
func (w *receiveWork) prepare() (err error) {
	packets := max(recvMessages*segmentsMax, singles)
	w.msgs = make([]mmsghdr, max(recvMessages, singles))
	w.iovs = make([]unix.Iovec, 2*packets+len(w.msgs))
	w.names = make([]name, len(w.msgs))
	heads, slots, over := packets*transfer.HeadLen, packets*w.room, len(w.msgs)*overflowLen
	w.memory, err = unix.Mmap(-1, 0, over+2*slots+heads, unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return fmt.Errorf("room for packets: %w", err)
	}
	rest := w.memory
	take := func(n int) (b []byte) {
		b, rest = rest[:n:n], rest[n:]
		return b
	}
	w.over, w.slots, w.stash, w.heads = take(over), take(slots), take(slots)[:0], take(heads)
	w.at = make([]uint32, packets)
	w.expect = w.Receiver.Next(0)
	return nil
}

// release gives up what prepare mapped.
func (w *receiveWork) release() {
	w.over, w.slots, w.stash, w.heads, w.moves = nil, nil, nil, nil, nil
	_ = unix.Munmap(w.memory) // it was mapped as it is
}
