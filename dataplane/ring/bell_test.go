package ring

import (
	"runtime"
	"sync"
	"testing"
	"time"
)

const testTimeout = 10 * time.Second

func TestRingBeforeWaitIsKept(t *testing.T) {
	b := NewBell()
	if b.WaitTimeout(0, 0) {
		t.Fatal("a fresh bell was rung")
	}
	b.Ring()
	b.Ring()
	if !b.WaitTimeout(0, 0) {
		t.Fatal("the ring was lost")
	}
	if b.WaitTimeout(0, 0) {
		t.Fatal("two rings woke twice")
	}
}

func TestTimeoutIsHonoured(t *testing.T) {
	b := NewBell()
	for _, spin := range []time.Duration{0, time.Millisecond, time.Hour} {
		start := time.Now()
		if b.WaitTimeout(spin, 3*time.Millisecond) {
			t.Fatal("woken by nobody")
		}
		if took := time.Since(start); took < 3*time.Millisecond {
			t.Fatalf("spin %v: back after %v, want 3ms at least", spin, took)
		}
	}
	b.Ring()
	if !b.WaitTimeout(0, time.Hour) {
		t.Fatal("the bell does not work after a time-out")
	}
}

// untilAsleep waits for the consumer to lie down.
func untilAsleep(b *Bell) {
	for b.state.Load() != bellAsleep {
		runtime.Gosched()
	}
}

func TestRingWakesSleeper(t *testing.T) {
	for name, wait := range map[string]func(*Bell) bool{
		"wait":    func(b *Bell) bool { b.Wait(0); return true },
		"timeout": func(b *Bell) bool { return b.WaitTimeout(0, testTimeout) },
	} {
		t.Run(name, func(t *testing.T) {
			b := NewBell()
			woken := make(chan bool)
			for range 100 {
				go func() { woken <- wait(b) }()
				untilAsleep(b)
				b.Ring()
				if !<-woken {
					t.Fatal("not woken")
				}
			}
		})
	}
}

// A burst of rings while the consumer sleeps leaves one wake-up, and none behind.
func TestBurstWakesOnce(t *testing.T) {
	b := NewBell()
	woken := make(chan struct{})
	go func() { b.Wait(0); woken <- struct{}{} }()
	untilAsleep(b)
	var wg sync.WaitGroup
	for range 8 {
		wg.Add(1)
		go func() { defer wg.Done(); b.Ring() }()
	}
	wg.Wait()
	<-woken
	if len(b.wakeup) != 0 {
		t.Fatal("a second wake-up is left over")
	}
	b.WaitTimeout(0, 0) // rings that came after the wake-up
	if b.WaitTimeout(0, time.Millisecond) {
		t.Fatal("woken again by the same burst")
	}
}

// The narrow places, each entered on purpose: a ring between the last look and the sleep, and one as the time-out
// passes.
func TestRingAtTheLastMoment(t *testing.T) {
	b := NewBell()
	b.Ring()
	if !b.sleep(time.After(testTimeout)) {
		t.Fatal("a ring just before the sleep was lost")
	}
	b.state.Store(bellAsleep)
	b.Ring()
	if !b.giveUp() || len(b.wakeup) != 0 {
		t.Fatalf("a ring just before giving up was lost, or its wake-up is left over (%d)", len(b.wakeup))
	}
	b.state.Store(bellAsleep)
	if b.giveUp() || b.WaitTimeout(0, 0) {
		t.Fatal("rung by nobody")
	}
}

// No element is ever left behind by a consumer that sleeps: the test ends.
func TestNoLostWakeUp(t *testing.T) {
	for _, spin := range []time.Duration{0, 5 * time.Microsecond} {
		const producers, each = 4, 3000
		q, b := NewMPSC[stamp](32), NewBell()
		for p := range producers {
			go func() {
				for n := 0; n < each; {
					if q.Push(stamp{p, n}) {
						b.Ring()
						n++
					} else {
						runtime.Gosched()
					}
				}
			}()
		}
		drain(t, producers, each, func(buf []stamp) int {
			for {
				if n := q.PopN(buf); n > 0 {
					return n
				}
				if !b.WaitTimeout(spin, testTimeout) {
					t.Fatalf("asleep for %v with %d in the ring", testTimeout, q.Len())
				}
			}
		})
	}
}

// Time-outs that race with rings lose none and leave no wake-up behind.
func TestTimeoutRacesWithRing(t *testing.T) {
	b := NewBell()
	rings := make(chan struct{})
	go func() {
		for range rings {
			b.Ring()
		}
	}()
	defer close(rings)
	for range 500 {
		rings <- struct{}{}
		for !b.WaitTimeout(0, time.Microsecond) {
		}
		if len(b.wakeup) != 0 {
			t.Fatal("a wake-up is left over")
		}
	}
}

func TestBellDoesNotAllocate(t *testing.T) {
	b := NewBell()
	b.WaitTimeout(0, time.Microsecond) // makes the timer
	if n := testing.AllocsPerRun(100, func() {
		b.Ring()
		b.Wait(0)
		b.WaitTimeout(0, time.Microsecond)
	}); n != 0 {
		t.Fatalf("%v allocations, want 0", n)
	}
}
