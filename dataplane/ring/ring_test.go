package ring

import (
	"runtime"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/khamsin-io/khamsin/dataplane/invariant"
)

// queue is what both rings do, so that one set of tests covers them.
type queue interface {
	Push(int) bool
	PushN([]int) int
	Pop() (int, bool)
	PopN([]int) int
	Len() int
	Cap() int
}

var kinds = map[string]func(capacity int) queue{
	"spsc": func(n int) queue { return NewSPSC[int](n) },
	"mpsc": func(n int) queue { return NewMPSC[int](n) },
}

func forEachKind(t *testing.T, fn func(t *testing.T, open func(int) queue)) {
	for name, open := range kinds {
		t.Run(name, func(t *testing.T) { fn(t, open) })
	}
}

func TestAgainstSlice(t *testing.T) {
	forEachKind(t, func(t *testing.T, open func(int) queue) {
		rapid.Check(t, func(rt *rapid.T) {
			q := open(rapid.IntRange(1, 9).Draw(rt, "capacity"))
			var want []int
			next := 0
			rt.Repeat(map[string]func(*rapid.T){
				"push": func(rt *rapid.T) {
					ok := q.Push(next)
					if ok != (len(want) < q.Cap()) {
						rt.Fatalf("Push: %v with %d of %d", ok, len(want), q.Cap())
					}
					if ok {
						want = append(want, next)
					}
					next++
				},
				"pushN": func(rt *rapid.T) {
					vs := make([]int, rapid.IntRange(0, 20).Draw(rt, "n"))
					for i := range vs {
						vs[i] = next
						next++
					}
					n := q.PushN(vs)
					if n != min(len(vs), q.Cap()-len(want)) {
						rt.Fatalf("PushN(%d): %d with %d of %d", len(vs), n, len(want), q.Cap())
					}
					want = append(want, vs[:n]...)
				},
				"pop": func(rt *rapid.T) {
					v, ok := q.Pop()
					if ok != (len(want) > 0) || ok && v != want[0] {
						rt.Fatalf("Pop: %d, %v, want the front of %v", v, ok, want)
					}
					if ok {
						want = want[1:]
					}
				},
				"popN": func(rt *rapid.T) {
					vs := make([]int, rapid.IntRange(0, 20).Draw(rt, "n"))
					n := q.PopN(vs)
					if n != min(len(vs), len(want)) {
						rt.Fatalf("PopN(%d): %d with %d there", len(vs), n, len(want))
					}
					for i, v := range vs[:n] {
						if v != want[i] {
							rt.Fatalf("PopN: element %d is %d, want %d", i, v, want[i])
						}
					}
					want = want[n:]
				},
				"": func(rt *rapid.T) {
					if q.Len() != len(want) {
						rt.Fatalf("Len %d, want %d", q.Len(), len(want))
					}
				},
			})
		})
	})
}

func TestCapacityIsRoundedUp(t *testing.T) {
	for n, want := range map[int]int{1: 1, 2: 2, 3: 4, 4: 4, 5: 8, 1000: 1024} {
		if got := NewSPSC[byte](n).Cap(); got != want {
			t.Errorf("SPSC of %d has room for %d, want %d", n, got, want)
		}
		if got := NewMPSC[byte](n).Cap(); got != want {
			t.Errorf("MPSC of %d has room for %d, want %d", n, got, want)
		}
	}
	for _, n := range []int{0, -1, CapacityMax + 1} {
		func() {
			defer func() {
				if _, ok := recover().(*invariant.Violation); !ok {
					t.Errorf("a ring of %d was made", n)
				}
			}()
			NewMPSC[byte](n)
		}()
	}
}

// A popped element is not kept alive by its slot.
func TestPoppedSlotsAreCleared(t *testing.T) {
	s, m := NewSPSC[*int](4), NewMPSC[*int](4)
	for range 3 {
		v := new(int)
		s.Push(v)
		m.Push(v)
	}
	s.Pop()
	m.Pop()
	out := make([]*int, 4)
	s.PopN(out)
	m.PopN(out)
	for i := range s.slots {
		if s.slots[i] != nil || m.slots[i].value != nil {
			t.Fatalf("slot %d still holds its element", i)
		}
	}
}

// stamp is an element that tells who pushed it and as which.
type stamp struct{ producer, n int }

// drain pops until every producer's elements have come, each producer's in order.
func drain(t *testing.T, producers, each int, popN func([]stamp) int) {
	t.Helper()
	next := make([]int, producers)
	buf := make([]stamp, 7)
	for left := producers * each; left > 0; {
		n := popN(buf)
		if n == 0 {
			runtime.Gosched()
		}
		for _, v := range buf[:n] {
			if next[v.producer] != v.n {
				t.Fatalf("producer %d: got element %d, want %d", v.producer, v.n, next[v.producer])
			}
			next[v.producer]++
		}
		left -= n
	}
}

func TestMPSCManyProducers(t *testing.T) {
	const producers, each = 8, 5000
	q := NewMPSC[stamp](16)
	var wg sync.WaitGroup
	for p := range producers {
		wg.Add(1)
		go func() {
			defer wg.Done()
			batch := make([]stamp, 0, 5)
			for n := 0; n < each; {
				batch = batch[:0]
				for i := range min(1+n%5, each-n) {
					batch = append(batch, stamp{p, n + i})
				}
				pushed := 0
				if len(batch) == 1 && q.Push(batch[0]) {
					pushed = 1
				} else if len(batch) > 1 {
					pushed = q.PushN(batch)
				}
				if pushed == 0 {
					runtime.Gosched()
				}
				n += pushed
				if got := q.Len(); got < 0 || got > q.Cap() {
					t.Errorf("Len %d of %d", got, q.Cap())
				}
			}
		}()
	}
	drain(t, producers, each, q.PopN)
	wg.Wait()
	if _, ok := q.Pop(); ok || q.Len() != 0 {
		t.Fatalf("ring not empty at the end: Len %d", q.Len())
	}
}

func TestSPSCTwoGoroutines(t *testing.T) {
	const each = 50000
	q := NewSPSC[stamp](8)
	go func() {
		for n := 0; n < each; {
			if n%3 == 0 {
				if q.Push(stamp{0, n}) {
					n++
					continue
				}
			} else if k := q.PushN([]stamp{{0, n}, {0, n + 1}, {0, n + 2}}[:min(3, each-n)]); k > 0 {
				n += k
				continue
			}
			runtime.Gosched()
		}
	}()
	drain(t, 1, each, q.PopN)
	if _, ok := q.Pop(); ok {
		t.Fatal("ring not empty at the end")
	}
}

// Producers share what they know of the head and may set it back by more than a lap: that costs a look, no more.
func TestMPSCOldHead(t *testing.T) {
	q := NewMPSC[int](2)
	for i := range 10 {
		q.Push(i)
		q.Pop()
	}
	for old := range uint64(11) {
		q.headSeen.Store(old)
		done := make(chan bool)
		go func() { done <- q.Push(1) && q.Push(2) && !q.Push(3) }()
		select {
		case ok := <-done:
			if !ok {
				t.Fatalf("head last seen at %d: Push of 2 elements and not of a third failed", old)
			}
		case <-time.After(testTimeout):
			t.Fatalf("head last seen at %d: Push does not return", old)
		}
		q.PopN(make([]int, 2))
	}
}

// A ring of capacity elements, each pushed by whoever popped it last, is never full: what the arena's home ring
// relies on.
func TestMPSCNeverFullWithinCapacity(t *testing.T) {
	const tokens, rounds = 16, 20000
	home := NewMPSC[int](tokens)
	out := make(chan int, tokens)
	var wg sync.WaitGroup
	for range 4 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for v := range out {
				if !home.Push(v) {
					t.Errorf("full at %d of %d", home.Len(), home.Cap())
				}
			}
		}()
	}
	for i := range tokens {
		out <- i
	}
	buf := make([]int, 3)
	for done := 0; done < rounds; {
		n := home.PopN(buf)
		for _, v := range buf[:n] {
			out <- v
		}
		if n == 0 {
			runtime.Gosched()
		}
		done += n
	}
	close(out)
	wg.Wait()
}

func TestRingsDoNotAllocate(t *testing.T) {
	forEachKind(t, func(t *testing.T, open func(int) queue) {
		q := open(64)
		batch := make([]int, 20)
		if n := testing.AllocsPerRun(1000, func() {
			q.Push(1)
			q.PushN(batch)
			q.Pop()
			q.PopN(batch)
		}); n != 0 {
			t.Fatalf("%v allocations, want 0", n)
		}
	})
}
