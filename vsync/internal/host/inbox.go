package host

import "sync/atomic"

// commandKind says what a command in the inbox is.
type commandKind uint8

const (
	cmdSubmit   commandKind = iota // group, buf: a batch of multicasts
	cmdConsumed                    // group, eaten
	cmdCall                        // call
)

// command is one slot's content. It keeps room from lap to lap.
type command struct {
	kind  commandKind
	lent  bool // buf is the stager's
	eaten eaten
	group *Group
	call  *call
	buf   []byte
	room  []byte // memory of the slot's own, for a message that shares no batch
}

// inbox is a bounded queue of commands with many producers and one consumer, the engine's owner. Unlike ring.MPSC the
// commands stay in place: producers copy messages into memory that a command holds, see stager, and the owner submits
// them from there, so that nothing is allocated and no message is copied twice.
type inbox struct {
	slots []inboxSlot
	mask  uint64
	_     [128]byte
	head  atomic.Uint64 // next slot to take; written by the owner only
	_     [120]byte
	tail  atomic.Uint64 // next slot to reserve
	_     [120]byte
}

// inboxSlot holds the command of position p when published is p+1.
type inboxSlot struct {
	published atomic.Uint64
	command   command
	_         [16]byte
}

// slotBytes is the room that every slot begins with for a message that shares no batch; a longer one makes its slot
// larger, once.
const slotBytes = 256

// newInbox returns an inbox of n slots, a power of two.
func newInbox(n int) *inbox {
	q := &inbox{slots: make([]inboxSlot, n), mask: uint64(n - 1)}
	room := make([]byte, n*slotBytes)
	for i := range q.slots {
		q.slots[i].command.room = room[i*slotBytes : i*slotBytes : (i+1)*slotBytes]
	}
	return q
}

// reserve takes a slot to fill, or returns nil when the inbox is full. The caller must publish it soon: the owner
// cannot see what is behind it.
func (q *inbox) reserve() (*inboxSlot, uint64) {
	for {
		tail := q.tail.Load()
		if tail-q.head.Load() >= uint64(len(q.slots)) {
			if q.tail.Load() == tail {
				return nil, 0
			}
			continue
		}
		if q.tail.CompareAndSwap(tail, tail+1) {
			return &q.slots[tail&q.mask], tail
		}
	}
}

// publish shows the owner the slot reserved at position at.
func (q *inbox) publish(s *inboxSlot, at uint64) { s.published.Store(at + 1) }

// peek returns the oldest command, or nil when none is published. It stays valid until advance. Owner only.
func (q *inbox) peek() *command {
	head := q.head.Load()
	s := &q.slots[head&q.mask]
	if s.published.Load() != head+1 {
		return nil
	}
	return &s.command
}

// advance frees the slot of the oldest command. Owner only.
func (q *inbox) advance() {
	head := q.head.Load()
	c := &q.slots[head&q.mask].command
	c.group, c.call = nil, nil // the inbox keeps nothing alive
	q.head.Store(head + 1)
}

// ready tells whether a command is published. Any goroutine; the answer may be old.
func (q *inbox) ready() bool {
	head := q.head.Load()
	return q.slots[head&q.mask].published.Load() == head+1
}

// empty tells whether nobody has even reserved a slot. A command may overtake those in the inbox only when it is empty:
// one of them may be the same caller's, hidden behind a slot that another goroutine is still filling. Owner only.
func (q *inbox) empty() bool { return q.tail.Load() == q.head.Load() }
