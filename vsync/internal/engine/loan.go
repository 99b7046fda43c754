package engine

import (
	"math/bits"
	"sync"
)

// Limits of lending, as powers of two: bytes of the smallest and of the largest piece of memory that is lent again.
const (
	loanLeast = 11
	loanMost  = 20
)

// Loan is the memory in which a message in fragments was put together. Who gets a Delivery with one may Return it, when
// nobody reads the Data any more, and may as well keep it for good.
type Loan struct {
	bytes  []byte
	whole  int // bytes of the message
	lender *lender
}

// Return gives the memory back, from any goroutine, once.
func (l *Loan) Return() { l.lender.take(l) }

// add appends a piece of the message, and tells whether that fits its length. The last piece may be filled up.
func (l *Loan) add(piece []byte, more bool) bool {
	left := l.whole - len(l.bytes)
	if left <= 0 || more && len(piece) >= left || !more && len(piece) < left {
		return false
	}
	l.bytes = append(l.bytes, piece[:min(left, len(piece))]...)
	return true
}

// lender keeps memory that was returned, by size: class c has at least 1<<(loanLeast+c) bytes.
type lender struct {
	classes [loanMost - loanLeast + 1]sync.Pool
}

// lend returns memory of length 0. It has room for n bytes up to the largest class: whatever a packet claims, it costs
// no more before the bytes are there.
func (l *lender) lend(n int) *Loan {
	class := 0
	if n > 1<<loanLeast {
		class = min(bits.Len(uint(n-1))-loanLeast, len(l.classes)-1)
	}
	if loan, ok := l.classes[class].Get().(*Loan); ok {
		return loan
	}
	return &Loan{bytes: make([]byte, 0, 1<<(loanLeast+class)), lender: l}
}

// take keeps returned memory, unless it grew beyond what is lent.
func (l *lender) take(loan *Loan) {
	if c := cap(loan.bytes); c <= 1<<loanMost {
		loan.bytes = loan.bytes[:0]
		l.classes[bits.Len(uint(c))-1-loanLeast].Put(loan)
	}
}
