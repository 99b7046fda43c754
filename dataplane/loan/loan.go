// Package loan lends the memory in which messages of several packets are put together, and takes it back.
package loan

import (
	"math/bits"
	"sync"
)

// Limits of lending, as powers of two: bytes of the smallest and of the largest piece of memory that is lent again.
const (
	least = 11
	most  = 20
)

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
func (l *Loan) Return() { l.lender.take(l) }

// Lender keeps memory that was returned, by size: class c has at least 1<<(least+c) bytes. The zero value is ready; its
// methods may be called from several goroutines.
type Lender struct {
	classes [most - least + 1]sync.Pool
}

// Lend returns memory for a message of n bytes. Up to 1 MiB there is room for all of it; beyond that it grows with what
// is added: whatever a packet claims, it costs no more before the bytes are there.
func (l *Lender) Lend(n int) *Loan {
	class := 0
	if n > 1<<least {
		class = min(bits.Len(uint(n-1))-least, len(l.classes)-1)
	}
	loan, ok := l.classes[class].Get().(*Loan)
	if !ok {
		loan = &Loan{bytes: make([]byte, 0, 1<<(least+class)), lender: l}
	}
	loan.whole = n
	return loan
}

// take keeps returned memory, unless it grew beyond what is lent.
func (l *Lender) take(loan *Loan) {
	if c := cap(loan.bytes); c <= 1<<most {
		loan.bytes = loan.bytes[:0]
		l.classes[bits.Len(uint(c))-1-least].Put(loan)
	}
}
