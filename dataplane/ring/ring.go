// Package ring holds the bounded lock-free queues by which goroutines hand work to each other, and the bell that
// wakes a consumer that fell asleep.
//
// An SPSC ring has one producer and one consumer goroutine; an MPSC ring any number of producers and one consumer.
// Both have a fixed power-of-two capacity, never allocate after they were made, and say "full" instead of waiting.
// Indices run up for ever in 64 bits and are masked on use, so they never wrap in practice. What the producer writes
// and what the consumer writes lie on different cache lines, and each side remembers the last index it saw of the
// other, so that a ring that is neither full nor empty costs one shared line per operation or per batch.
//
// The MPSC ring follows Vyukov's bounded queue: producers reserve slots by moving the tail, then publish each slot by
// its sequence number. Unlike his, the consumer frees slots by one store of the head per batch instead of one per
// slot.
package ring

import (
	"math/bits"

	"github.com/khamsin-io/khamsin/dataplane/invariant"
)

// lineSize keeps two indices apart: two 64-byte lines, since processors fetch lines in pairs.
const lineSize = 128

type pad [lineSize]byte

// CapacityMax is the largest capacity a ring can be made with.
const CapacityMax = 1 << 30

// capacity rounds n up to a power of two.
func capacity(n int) uint64 {
	if n < 1 || n > CapacityMax {
		invariant.Fail("ring: capacity %d, want 1 to %d", n, CapacityMax)
	}
	return 1 << bits.Len(uint(n-1))
}
