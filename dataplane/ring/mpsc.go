package ring

import "sync/atomic"

// MPSC is a bounded queue with any number of producer goroutines and one consumer goroutine. Elements of one producer
// come out in the order it pushed them. An element that a producer has reserved a slot for but not yet published hides
// those behind it until it is, so a consumer that finds nothing may find Len above zero.
type MPSC[T any] struct {
	slots []slot[T]
	mask  uint64
	_     pad

	// The consumer's line; producers read it when headSeen says that the ring may be full.
	head atomic.Uint64 // next slot to pop; written by the consumer only
	_    pad

	// The producers' line.
	tail     atomic.Uint64 // next slot to reserve; head <= tail <= head+cap
	headSeen atomic.Uint64 // some earlier value of head, shared by the producers
	_        pad
}

// slot holds the element of position p when published is p+1. A slot of an earlier lap holds an older number.
type slot[T any] struct {
	published atomic.Uint64
	value     T
}

// NewMPSC returns an empty ring that holds at least n elements: n rounded up to a power of two, from 1 to CapacityMax.
func NewMPSC[T any](n int) *MPSC[T] {
	size := capacity(n)
	return &MPSC[T]{slots: make([]slot[T], size), mask: size - 1}
}

// Cap returns how many elements the ring holds.
func (r *MPSC[T]) Cap() int { return len(r.slots) }

// Len returns how many elements are in the ring or about to be published. Any goroutine may call it.
func (r *MPSC[T]) Len() int {
	head := r.head.Load() // before tail: the difference is never negative
	return min(int(r.tail.Load()-head), len(r.slots))
}

// Push appends v and returns true, or returns false when the ring is full. Any goroutine.
func (r *MPSC[T]) Push(v T) bool {
	tail, n := r.reserve(1)
	if n == 0 {
		return false
	}
	s := &r.slots[tail&r.mask]
	s.value = v
	s.published.Store(tail + 1)
	return true
}

// PushN appends as many elements from the front of vs as fit, next to each other, and returns how many. Any goroutine.
func (r *MPSC[T]) PushN(vs []T) int {
	if len(vs) == 0 {
		return 0
	}
	tail, n := r.reserve(uint64(len(vs)))
	for i := range n {
		s := &r.slots[(tail+i)&r.mask]
		s.value = vs[i]
		s.published.Store(tail + i + 1)
	}
	return int(n)
}

// reserve takes up to want slots and returns the position of the first and how many. The slots are free: the head has
// passed the position one lap before each of them.
func (r *MPSC[T]) reserve(want uint64) (tail, n uint64) {
	size := uint64(len(r.slots))
	for {
		tail = r.tail.Load()
		used := tail - r.headSeen.Load()
		if used > size || size-used < want { // beyond size when one of the two numbers is old
			head := r.head.Load()
			r.headSeen.Store(head) // may go back when producers cross: an old head only makes the next one look again
			used = tail - head
		}
		if used > size {
			continue // the consumer has passed this tail, so there is a newer one
		}
		n = min(size-used, want)
		if n == 0 || r.tail.CompareAndSwap(tail, tail+n) {
			return tail, n
		}
	}
}

// Pop removes the oldest element, or returns false when none is published. Consumer only.
func (r *MPSC[T]) Pop() (T, bool) {
	var zero T
	head := r.head.Load()
	s := &r.slots[head&r.mask]
	if s.published.Load() != head+1 {
		return zero, false
	}
	v := s.value
	s.value = zero // the ring keeps nothing alive
	r.head.Store(head + 1)
	return v, true
}

// PopN moves the oldest published elements into the front of vs and returns how many. Consumer only.
func (r *MPSC[T]) PopN(vs []T) int {
	var zero T
	head := r.head.Load()
	n := uint64(0)
	for n < uint64(len(vs)) {
		s := &r.slots[(head+n)&r.mask]
		if s.published.Load() != head+n+1 {
			break
		}
		vs[n] = s.value
		s.value = zero
		n++
	}
	if n > 0 {
		r.head.Store(head + n)
	}
	return int(n)
}
