package xdp

import (
	"fmt"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ring is one of a socket's four rings, which the kernel maps into this process: two positions that only grow, and
// slots of type T. One side writes slots and moves the producer, the other reads them and moves the consumer.
type ring[T any] struct {
	mem      []byte
	producer *uint32
	consumer *uint32
	flags    *uint32
	slots    []T
	mask     uint32
	ours     uint32 // our own position: of the producer for FILL and TX, of the consumer for RX and COMPLETION
	theirs   uint32 // the other side's, as last seen
}

// mapRing maps a ring of size slots. A ring of none is nil.
func mapRing[T any](fd int, page int64, off unix.XDPRingOffset, size int) (*ring[T], error) {
	if size == 0 {
		return nil, nil
	}
	bytes := int(off.Desc) + size*int(unsafe.Sizeof(*new(T)))
	mem, err := unix.Mmap(fd, page, bytes, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE)
	if err != nil {
		return nil, fmt.Errorf("map ring %#x: %w", page, err)
	}
	base := unsafe.Pointer(unsafe.SliceData(mem))
	return &ring[T]{
		mem:      mem,
		producer: (*uint32)(unsafe.Add(base, off.Producer)),
		consumer: (*uint32)(unsafe.Add(base, off.Consumer)),
		flags:    (*uint32)(unsafe.Add(base, off.Flags)),
		slots:    unsafe.Slice((*T)(unsafe.Add(base, off.Desc)), size),
		mask:     uint32(size - 1),
	}, nil
}

func (r *ring[T]) close() error {
	if r == nil {
		return nil
	}
	return unix.Munmap(r.mem)
}

// room returns how many slots our side can write.
func (r *ring[T]) room() int {
	free := uint32(len(r.slots)) - (r.ours - r.theirs)
	if free == 0 {
		r.theirs = atomic.LoadUint32(r.consumer)
		free = uint32(len(r.slots)) - (r.ours - r.theirs)
	}
	return int(free)
}

// roomFor is room when it is at least n, else what there is after a fresh look.
func (r *ring[T]) roomFor(n int) int {
	if free := r.room(); free >= n {
		return free
	}
	r.theirs = atomic.LoadUint32(r.consumer)
	return int(uint32(len(r.slots)) - (r.ours - r.theirs))
}

// push writes a slot, for which there is room. The other side sees it after publish.
func (r *ring[T]) push(v T) {
	r.slots[r.ours&r.mask] = v
	r.ours++
}

// publish shows the other side what was pushed.
func (r *ring[T]) publish() { atomic.StoreUint32(r.producer, r.ours) }

// pending returns how many slots the other side had still to take when our side last looked.
func (r *ring[T]) pending() int { return int(r.ours - r.theirs) }

// idle tells whether the other side has taken all that was published.
func (r *ring[T]) idle() bool {
	r.theirs = atomic.LoadUint32(r.consumer)
	return r.theirs == r.ours
}

// waiting returns how many slots our side can read.
func (r *ring[T]) waiting() int {
	if r.theirs == r.ours {
		r.theirs = atomic.LoadUint32(r.producer)
	}
	return int(r.theirs - r.ours)
}

// peek returns the slot that stands i behind our position.
func (r *ring[T]) peek(i int) T { return r.slots[(r.ours+uint32(i))&r.mask] }

// pop gives n slots back to the other side.
func (r *ring[T]) pop(n int) {
	r.ours += uint32(n)
	atomic.StoreUint32(r.consumer, r.ours)
}

// needsWakeup tells whether the kernel wants a system call before it looks at the ring.
func (r *ring[T]) needsWakeup() bool {
	return atomic.LoadUint32(r.flags)&unix.XDP_RING_NEED_WAKEUP != 0
}
