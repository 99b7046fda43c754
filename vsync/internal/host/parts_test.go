package host

import (
	"context"
	"runtime"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/khamsin-io/khamsin/vsync/core"
	"github.com/khamsin-io/khamsin/vsync/internal/engine"
)

func TestQueueIsFirstInFirstOut(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		q := newQueue()
		pushed, popped := core.Seq(0), core.Seq(0)
		for range rapid.IntRange(1, 40).Draw(t, "bursts") {
			for range rapid.IntRange(0, 3*blockLen).Draw(t, "push") {
				pushed++
				q.push(&engine.Delivery{Seq: pushed})
			}
			for range rapid.IntRange(0, 3*blockLen).Draw(t, "pop") {
				d := q.peek()
				if (d == nil) != (pushed == popped) {
					t.Fatalf("peek %v after %d pushed and %d popped", d, pushed, popped)
				}
				if d == nil {
					break
				}
				if popped++; d.Seq != popped {
					t.Fatalf("got %d, want %d", d.Seq, popped)
				}
				q.advance()
			}
		}
	})
}

func TestQueueWakesItsConsumer(t *testing.T) {
	const count = 20000
	q := newQueue()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for next := core.Seq(1); next <= count; {
			d := q.peek()
			if d == nil {
				q.park()
				continue
			}
			if d.Seq != next {
				t.Errorf("got %d, want %d", d.Seq, next)
				return
			}
			next++
			q.advance()
		}
	}()
	for n := core.Seq(1); n <= count; n++ {
		q.push(&engine.Delivery{Seq: n})
		if n%3 == 0 || n == count {
			q.wake()
		}
	}
	<-done
}

func TestInboxKeepsEachProducersOrder(t *testing.T) {
	const producers, each = 4, 5000
	q := newInbox(16)
	var wg sync.WaitGroup
	for who := range producers {
		wg.Go(func() {
			for n := 0; n < each; {
				s, at := q.reserve()
				if s == nil {
					runtime.Gosched()
					continue
				}
				s.command.kind, s.command.eaten.packets = commandKind(who), n
				q.publish(s, at)
				n++
			}
		})
	}
	var next [producers]int
	for got := 0; got < producers*each; {
		c := q.peek()
		if c == nil {
			runtime.Gosched()
			continue
		}
		if c.eaten.packets != next[c.kind] {
			t.Fatalf("producer %d: %d, want %d", c.kind, c.eaten.packets, next[c.kind])
		}
		next[c.kind]++
		got++
		q.advance()
	}
	wg.Wait()
	if !q.empty() || q.ready() {
		t.Fatal("inbox not empty in the end")
	}
}

func TestRoom(t *testing.T) {
	var r room
	over := make(chan struct{})
	if err := r.wait(t.Context(), over); err != nil {
		t.Fatalf("open room: %v", err)
	}
	r.close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := r.wait(ctx, over); err == nil {
		t.Fatal("shut room let a waiter in whose context had ended")
	}
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			if err := r.wait(t.Context(), over); err != nil {
				t.Error(err)
			}
		})
	}
	r.open()
	wg.Wait() // those that came after open find it open
	r.close()
	close(over)
	if err := r.wait(t.Context(), over); err != nil || len(r.waiting) != 0 {
		t.Fatalf("after the end: %v, %d waiting", err, len(r.waiting))
	}
}

func TestSpinnerStopsWhenSpinningDoesNotPay(t *testing.T) {
	s := &spinner{waiting: Adaptive, hits: 1, trial: spinProbe, penalty: spinRestMin}
	for range 100 {
		s.learn(s.spin(time.Second), time.Millisecond, true) // packets come, but too late
	}
	if s.spin(time.Second) != 0 {
		t.Fatal("still spinning after 100 misses")
	}
	spun := 0
	for range 10000 {
		d := s.spin(time.Second)
		if d > 0 {
			spun++
		}
		s.learn(d, time.Millisecond, false)
	}
	if spun == 0 || spun > 300 {
		t.Fatalf("%d spins in 10000 hopeless waits, want a few trials", spun)
	}
	for range 2 * spinRestMax { // times are better now
		s.learn(s.spin(time.Second), time.Microsecond, true)
	}
	if s.spin(time.Second) == 0 {
		t.Fatal("not spinning although it would pay")
	}
}

func TestSpinBounds(t *testing.T) {
	busy, block := newSpinner(BusyPoll), newSpinner(Block)
	if d := busy.spin(time.Millisecond); d != time.Millisecond {
		t.Errorf("busy: polls %v of 1ms", d)
	}
	if d := busy.spin(-1); d <= 0 {
		t.Errorf("busy: polls %v of for ever", d)
	}
	if d := block.spin(time.Millisecond); d != 0 {
		t.Errorf("block: polls %v", d)
	}
}

func TestGoroutineNumbersDiffer(t *testing.T) {
	self, other := goroutineNumber(), make(chan uint64)
	go func() { other <- goroutineNumber() }()
	if n := <-other; n == self || n == 0 {
		t.Fatalf("goroutines %d and %d", self, n)
	}
}
