package counters

import (
	"fmt"
	"sync"
	"testing"
	"unsafe"
)

func TestSetReportsInOrderOfNaming(t *testing.T) {
	var (
		lost  Counter
		queue Gauge
		calls Shared
		set   Set
	)
	set.Name("lost", &lost)
	set.Name("queue", &queue)
	set.Name("calls", &calls)
	lost.Add(3)
	lost.Inc()
	queue.Set(9)
	queue.Set(7)
	calls.Inc()
	calls.Add(1)
	var got string
	set.Each(func(name string, v uint64) { got += fmt.Sprint(name, "=", v, " ") })
	if want := "lost=4 queue=7 calls=2 "; got != want {
		t.Fatalf("report %q, want %q", got, want)
	}
}

// A reader beside the writer sees the count rise, never a torn or older value, and the sum in the end.
func TestReaderBesideWriter(t *testing.T) {
	const rounds = 100000
	var c Counter
	var s Shared
	var wg sync.WaitGroup
	for range 3 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for range rounds {
				s.Inc()
			}
		}()
	}
	wg.Add(1)
	go func() {
		defer wg.Done()
		for range rounds {
			c.Add(1 << 31)
		}
	}()
	last := uint64(0)
	for last < rounds<<31 {
		now := c.Load()
		if now < last || now%(1<<31) != 0 {
			t.Fatalf("read %#x after %#x", now, last)
		}
		last = now
	}
	wg.Wait()
	if s.Load() != 3*rounds {
		t.Fatalf("shared counter %d, want %d", s.Load(), 3*rounds)
	}
}

func TestPadSeparatesOwners(t *testing.T) {
	var x struct {
		a Counter
		_ Pad
		b Counter
	}
	if d := unsafe.Offsetof(x.b) - unsafe.Offsetof(x.a); d < 128 {
		t.Fatalf("%d bytes apart", d)
	}
}

func TestNoAllocation(t *testing.T) {
	var c Counter
	var set Set
	set.Name("c", &c)
	sum := uint64(0)
	if n := testing.AllocsPerRun(100, func() {
		c.Inc()
		set.Each(func(_ string, v uint64) { sum += v })
	}); n != 0 {
		t.Fatalf("%v allocations, want 0", n)
	}
}

func BenchmarkCounter(b *testing.B) {
	var c Counter
	for b.Loop() {
		c.Inc()
	}
}

func BenchmarkShared(b *testing.B) {
	var s Shared
	for b.Loop() {
		s.Inc()
	}
}
