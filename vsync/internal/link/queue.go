package link

import (
	"github.com/khamsin-io/khamsin/dataplane/clock"
	"github.com/khamsin-io/khamsin/vsync/core"
)

// outgoing is a message that waits to be cut into packets.
type outgoing struct {
	bytes []byte
	lent  bool // by Buffer
}

// queue is what waits on a lane, oldest first.
type queue struct {
	list []outgoing
	head int // of list, whose elements before it are gone
}

func (q *queue) empty() bool        { return q.len() == 0 }
func (q *queue) len() int           { return len(q.list) - q.head }
func (q *queue) first() *outgoing   { return q.at(0) }
func (q *queue) at(i int) *outgoing { return &q.list[q.head+i] }

func (q *queue) push(m outgoing) {
	if q.head > len(q.list)/2 { // at least as many are moved as were taken out since the last time
		n := copy(q.list, q.list[q.head:])
		clear(q.list[n:])
		q.list, q.head = q.list[:n], 0
	}
	q.list = append(q.list, m)
}

func (q *queue) pop() {
	q.list[q.head] = outgoing{}
	if q.head++; q.head == len(q.list) {
		q.list, q.head = q.list[:0], 0
	}
}

// Bounds of the buffers that are lent again.
const (
	bufferMin = 256
	bufferMax = 64 << 10 // of one
	sparesMax = 1 << 20  // of all together
)

// Buffer lends an empty buffer with room for n bytes, for SendLent.
func (l *Links) Buffer(n int) []byte {
	if k := len(l.spares) - 1; k >= 0 {
		b := l.spares[k]
		l.spares[k] = nil
		l.spares = l.spares[:k]
		l.spare -= cap(b)
		if cap(b) >= n {
			return b
		}
	}
	return make([]byte, 0, max(n, bufferMin))
}

// SendLent is Send of a message in a buffer that Buffer lent.
func (l *Links) SendLent(now clock.Time, to core.Address, k Kind, group uint32, msg []byte) {
	if l.dead[to.Incarnation] || l.closed {
		return
	}
	l.enqueue(now, l.lane(laneID{to.Incarnation, k, group}, to.Endpoint()), outgoing{msg, true})
}

// reuse takes the buffer of a message whose packets are all made.
func (l *Links) reuse(m *outgoing) {
	if c := cap(m.bytes); m.lent && c <= bufferMax && l.spare+c <= sparesMax {
		l.spares = append(l.spares, m.bytes[:0])
		l.spare += c
	}
}
