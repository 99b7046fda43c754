// Package loan lends the memory in which messages of several packets are put together, and takes it back.
package loan

import (
	"math/bits"
	"sync/atomic"

	"github.com/khamsin-io/khamsin/dataplane/invariant"
	"github.com/khamsin-io/khamsin/dataplane/ring"
)

// Limits of lending, as powers of two: bytes of the smallest and of the largest piece of memory that is lent again.
// Each has some more: messages are often a power of two and a head.
const (
	least = 7
	most  = 20
	more  = 128
)

// size returns the bytes of a class's pieces.
func size(class int) int { return 1<<(least+class) + more }

// Loan is memory with a message that is being put together, or is whole. It belongs to one owner at a time, who may
// Return it when nobody reads its bytes any more, and may as well keep it for good.
type Loan struct {
	bytes  []byte
	whole  int // bytes of the message
	lender *Lender
}

// Bytes returns what was added so far.
func (l *Loan) Bytes() []byte { return l.bytes }

// Add appends a piece of the message, and tells whether that fits its length: the pieces before the last leave
// something for it, and the last completes the message. It may be filled up beyond that; what fills it is cut off.
func (l *Loan) Add(piece []byte, last bool) bool {
	left := l.whole - len(l.bytes)
	if left <= 0 || last != (len(piece) >= left) {
		return false
	}
	l.bytes = append(l.bytes, piece[:min(left, len(piece))]...)
	return true
}

// Return gives the memory back, from any goroutine, once.
func (l *Loan) Return() {
	if invariant.Costly { // whoever reads on sees it
		for i := range l.bytes {
			l.bytes[i] = 0xdb
		}
	}
	l.lender.take(l)
}

// Lender keeps memory that was returned, by size: class c has size(c) bytes. The zero value is ready. One
// goroutine at a time lends; any may return. What is kept, 8 MiB at most, is out of the garbage collector's reach, or
// else a collection would make the next messages allocate, and those the next collection.
type Lender struct {
	returned *ring.MPSC[*Loan]
	kept     atomic.Int64 // bytes of what is in returned and in classes
	classes  [most - least + 1][]*Loan
}

// Bounds of what a lender keeps.
const (
	keptMax     = 8 << 20
	returnedMax = 4096
)

// Lend returns memory for a message of n bytes. Up to size(most-least), 1 MiB, there is room for all of it; beyond that
// it grows with what is added: whatever a packet claims, it costs no more before the bytes are there.
func (l *Lender) Lend(n int) *Loan {
	class := 0
	if n > size(0) {
		class = min(bits.Len(uint(n-more-1))-least, len(l.classes)-1)
	}
	loan := l.pop(class)
	if loan == nil {
		loan = &Loan{bytes: make([]byte, 0, size(class)), lender: l}
	}
	loan.whole = n
	return loan
}

// pop returns kept memory of a class, nil when there is none.
func (l *Lender) pop(class int) *Loan {
	list := &l.classes[class]
	if len(*list) == 0 {
		l.sort()
	}
	if n := len(*list) - 1; n >= 0 {
		loan := (*list)[n]
		(*list)[n] = nil
		*list = (*list)[:n]
		l.kept.Add(-int64(cap(loan.bytes)))
		return loan
	}
	if l.kept.Load() > keptMax/2 { // of sizes that are not in demand
		for c, list := range l.classes {
			l.kept.Add(-int64(len(list) * size(c)))
			clear(list)
			l.classes[c] = list[:0]
		}
	}
	return nil
}

// sort moves what was returned to the classes.
func (l *Lender) sort() {
	if l.returned == nil {
		l.returned = ring.NewMPSC[*Loan](returnedMax)
	}
	for {
		loan, ok := l.returned.Pop()
		if !ok {
			return
		}
		c := bits.Len(uint(cap(loan.bytes)-more)) - 1 - least
		l.classes[c] = append(l.classes[c], loan)
	}
}

// take keeps returned memory, unless it grew beyond what is lent, or there is enough.
func (l *Lender) take(loan *Loan) {
	c := int64(cap(loan.bytes))
	if c > int64(size(most-least)) {
		return
	}
	loan.bytes = loan.bytes[:0]
	if l.kept.Add(c) > keptMax || !l.returned.Push(loan) {
		l.kept.Add(-c)
	}
}
