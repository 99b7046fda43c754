package host

import (
	"sync/atomic"

	"github.com/khamsin-io/khamsin/dataplane/ring"
	"github.com/khamsin-io/khamsin/vsync/internal/engine"
)

// blockLen is the number of deliveries in one block of a queue.
const blockLen = 32

// blocksKept is how many empty blocks a queue keeps for its next burst.
const blocksKept = 64

// queue carries the deliveries of one executor: one producer, the engine's owner, and one consumer at a time, whoever
// holds the executor's turn. It is a chain of blocks that go round, so an idle group costs one block and a busy one
// allocates nothing. It cannot refuse: its length is bounded by the engine, which stops handing up messages of a group
// at Limits.Queue not consumed.
type queue struct {
	// the producer's
	tail   *block
	filled uint32 // of tail
	pushes uint64
	marked bool      // in the owner's list of queues to wake
	inline *executor // whose handlers the receiver may call in its own place; nil: never

	// the consumer's
	head  *block
	taken uint32 // of head
	pops  uint64

	spare    *ring.SPSC[*block] // from the consumer back to the producer
	pushed   atomic.Uint64      // pushes, as of the last burst
	popped   atomic.Uint64      // pops, as of the last time that the consumer found nothing
	parked   atomic.Bool
	attended atomic.Bool // the receiver is the consumer just now, and will look again
	bell     chan struct{}
}

// block holds the deliveries [taken, filled) of its queue. next is set when it is full.
type block struct {
	filled atomic.Uint32
	next   atomic.Pointer[block]
	items  [blockLen]engine.Delivery
}

func newQueue() *queue {
	b := new(block)
	return &queue{tail: b, head: b, spare: ring.NewSPSC[*block](blocksKept), bell: make(chan struct{}, 1)}
}

// push appends a copy of d. Producer only.
func (q *queue) push(d *engine.Delivery) {
	if q.filled == blockLen {
		b, ok := q.spare.Pop()
		if !ok {
			b = new(block)
		}
		q.tail.next.Store(b)
		q.tail, q.filled = b, 0
	}
	q.tail.items[q.filled] = *d
	q.filled++
	q.pushes++
	q.tail.filled.Store(q.filled)
}

// publish ends a burst of pushes: whoever parks from now on sees them. Producer only.
func (q *queue) publish() { q.pushed.Store(q.pushes) }

// wake wakes the executor's goroutine if it sleeps and nobody attends to the queue in its place, and tells whether it
// did. Producer only, once per burst, after publish.
func (q *queue) wake() bool {
	if q.attended.Load() || !q.parked.Load() || !q.parked.CompareAndSwap(true, false) {
		return false
	}
	q.bell <- struct{}{} // never blocks: the one who parks takes the stroke before it parks again
	return true
}

// peek returns the oldest delivery, valid until advance, or nil. Consumer only.
func (q *queue) peek() *engine.Delivery {
	if q.taken == blockLen {
		next := q.head.next.Load()
		if next == nil {
			q.popped.Store(q.pops)
			return nil
		}
		used := q.head
		q.head, q.taken = next, 0
		used.next.Store(nil)
		used.filled.Store(0)
		q.spare.Push(used) // when full, the block is garbage
	}
	if q.taken >= q.head.filled.Load() {
		q.popped.Store(q.pops)
		return nil
	}
	return &q.head.items[q.taken]
}

// advance removes the delivery that peek returned. Consumer only.
func (q *queue) advance() {
	q.head.items[q.taken] = engine.Delivery{} // the queue keeps nothing alive
	q.taken++
	q.pops++
}

// idle tells whether nothing was pushed since the consumer last found nothing. Any goroutine.
func (q *queue) idle() bool { return q.pushed.Load() == q.popped.Load() }

// park makes the executor's goroutine sleep until there may be a delivery.
func (q *queue) park() {
	q.parked.Store(true)
	if !q.idle() && q.parked.CompareAndSwap(true, false) { // Dekker with publish and wake
		return
	}
	<-q.bell
}

// rouse makes the executor's goroutine look again, from the consumer's side.
func (q *queue) rouse() {
	q.attended.Store(false)
	if q.parked.CompareAndSwap(true, false) {
		q.bell <- struct{}{}
	}
}
