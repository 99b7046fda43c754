package ring

import "sync/atomic"

// SPSC is a bounded queue with one producer and one consumer goroutine.
type SPSC[T any] struct {
	slots []T
	mask  uint64
	_     pad

	// The consumer's line.
	head     atomic.Uint64 // next slot to pop; written by the consumer only
	tailSeen uint64        // tail when the consumer last looked; tailSeen <= tail
	_        pad

	// The producer's line.
	tail     atomic.Uint64 // next slot to fill; written by the producer only
	headSeen uint64        // head when the producer last looked; headSeen <= head
	_        pad
}

// NewSPSC returns an empty ring that holds at least n elements: n rounded up to a power of two, from 1 to CapacityMax.
func NewSPSC[T any](n int) *SPSC[T] {
	size := capacity(n)
	return &SPSC[T]{slots: make([]T, size), mask: size - 1}
}

// Cap returns how many elements the ring holds.
func (r *SPSC[T]) Cap() int { return len(r.slots) }

// Len returns how many elements are in the ring: for the producer at most that many, for the consumer at least. Any
// goroutine may call it.
func (r *SPSC[T]) Len() int {
	head := r.head.Load() // before tail: the difference is never negative
	return min(int(r.tail.Load()-head), len(r.slots))
}

// Push appends v and returns true, or returns false when the ring is full. Producer only.
func (r *SPSC[T]) Push(v T) bool {
	tail := r.tail.Load()
	if tail-r.headSeen > r.mask {
		r.headSeen = r.head.Load()
		if tail-r.headSeen > r.mask {
			return false
		}
	}
	r.slots[tail&r.mask] = v
	r.tail.Store(tail + 1)
	return true
}

// PushN appends as many elements from the front of vs as fit and returns how many. Producer only.
func (r *SPSC[T]) PushN(vs []T) int {
	tail := r.tail.Load()
	room := uint64(len(r.slots)) - (tail - r.headSeen)
	if room < uint64(len(vs)) {
		r.headSeen = r.head.Load()
		room = uint64(len(r.slots)) - (tail - r.headSeen)
	}
	n := min(room, uint64(len(vs)))
	if n == 0 {
		return 0
	}
	at := tail & r.mask
	first := copy(r.slots[at:], vs[:n])
	copy(r.slots, vs[first:n])
	r.tail.Store(tail + n)
	return int(n)
}

// Pop removes the oldest element, or returns false when the ring is empty. Consumer only.
func (r *SPSC[T]) Pop() (T, bool) {
	var zero T
	head := r.head.Load()
	if head == r.tailSeen {
		r.tailSeen = r.tail.Load()
		if head == r.tailSeen {
			return zero, false
		}
	}
	slot := &r.slots[head&r.mask]
	v := *slot
	*slot = zero // the ring keeps nothing alive
	r.head.Store(head + 1)
	return v, true
}

// PopN moves the oldest elements into the front of vs and returns how many. Consumer only.
func (r *SPSC[T]) PopN(vs []T) int {
	head := r.head.Load()
	have := r.tailSeen - head
	if have < uint64(len(vs)) {
		r.tailSeen = r.tail.Load()
		have = r.tailSeen - head
	}
	n := min(have, uint64(len(vs)))
	if n == 0 {
		return 0
	}
	at := head & r.mask
	run := r.slots[at:min(at+n, uint64(len(r.slots)))]
	first := copy(vs, run)
	clear(run)
	rest := r.slots[:n-uint64(first)]
	copy(vs[first:], rest)
	clear(rest)
	r.head.Store(head + n)
	return int(n)
}
