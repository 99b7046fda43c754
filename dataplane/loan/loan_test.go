package loan

import (
	"bytes"
	"runtime"
	"slices"
	"testing"
)

// A message is whole when its last piece has come, and pieces that do not fit its length are refused.
func TestAdd(t *testing.T) {
	type piece struct {
		n    int
		last bool
	}
	for _, c := range []struct {
		name   string
		whole  int
		pieces []piece
		ok     bool
	}{
		{"one piece", 5, []piece{{5, true}}, true},
		{"two pieces", 9, []piece{{5, false}, {4, true}}, true},
		{"filled up", 9, []piece{{5, false}, {5, true}}, true},
		{"nothing left for the last", 10, []piece{{5, false}, {5, false}}, false},
		{"more than the whole before the last", 9, []piece{{10, false}}, false},
		{"last too short", 9, []piece{{5, false}, {3, true}}, false},
		{"more after the last", 5, []piece{{5, true}, {1, true}}, false},
		{"of no length", 0, []piece{{0, true}}, false},
		{"beyond what is lent", 1<<most + more + 10, []piece{{1<<most + more, false}, {10, true}}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			var l Lender
			m := l.Lend(c.whole)
			ok := true
			for i, p := range c.pieces {
				ok = ok && m.Add(bytes.Repeat([]byte{byte(i + 1)}, p.n), p.last)
			}
			if ok != c.ok || ok && len(m.Bytes()) != c.whole {
				t.Errorf("fits %v, %d bytes", ok, len(m.Bytes()))
			}
			if ok && slices.Contains(m.Bytes(), 0) {
				t.Error("bytes that nobody added")
			}
			m.Return()
		})
	}
}

// Memory that was returned is lent again, whatever its size, without allocating.
func TestLentAgain(t *testing.T) {
	var l Lender
	for _, n := range []int{1, 1 << least, size(0), size(0) + 1, 70_000, size(most - least)} {
		b := make([]byte, n)
		if a := testing.AllocsPerRun(100, func() {
			m := l.Lend(n)
			if !m.Add(b, true) || cap(m.Bytes()) < n {
				t.Fatal("does not fit")
			}
			m.Return()
		}); a != 0 {
			t.Errorf("%d bytes: %v allocations", n, a)
		}
	}
}

// A message of a power of two does not take twice its memory for its head, nor does any take much more than that.
func TestMemoryFits(t *testing.T) {
	var l Lender
	for n := 1; n <= size(most-least); n += 1 + n/7 {
		for _, n := range []int{n, size(0) + 1, 1<<13 + 7, 1<<13 + more, 1<<13 + more + 1} {
			if c := cap(l.Lend(n).bytes); c < n || c > max(2*n, size(0)) {
				t.Errorf("%d bytes get %d", n, c)
			}
		}
	}
	if c := cap(l.Lend(1<<13 + 7).bytes); c > 1<<13+more {
		t.Errorf("8 KiB and a head get %d bytes", c)
	}
}

// Collections do not empty what is kept, returns from other goroutines included; and what is kept is bounded, for the
// sizes that are in demand.
func TestKeptIsBounded(t *testing.T) {
	var l Lender
	first := l.Lend(1 << 16)
	done := make(chan struct{})
	go func() { defer close(done); first.Return() }()
	<-done
	runtime.GC()
	runtime.GC()
	if again := l.Lend(1 << 16); again != first {
		t.Error("collections emptied what is kept")
	}
	var out []*Loan
	for range 2 * keptMax >> 16 {
		out = append(out, l.Lend(1<<16))
	}
	for _, m := range out {
		m.Return()
	}
	if n := l.kept.Load(); n > keptMax || n < keptMax-1<<16 {
		t.Errorf("%d bytes are kept, want up to %d", n, keptMax)
	}
	for range 3 { // another size takes the place of the one that nobody wants any more
		l.Lend(1 << 12).Return()
	}
	if m := l.Lend(1 << 12); m == nil || l.kept.Load() > keptMax/2 {
		t.Errorf("%d bytes are kept for what nobody wants", l.kept.Load())
	}
	out = out[:0]
	for range 2 * returnedMax {
		out = append(out, l.Lend(1))
	}
	for _, m := range out {
		m.Return()
	}
	for range out {
		l.Lend(1)
	}
	if n := l.kept.Load(); n != 0 {
		t.Errorf("%d bytes are kept though all is lent", n)
	}
}
