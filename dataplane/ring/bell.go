package ring

import (
	"runtime"
	"sync/atomic"
	"time"

	"github.com/khamsin-io/khamsin/dataplane/clock"
)

// States of a Bell. A ring in any of them leads to bellRung; only the consumer leaves bellRung.
const (
	bellQuiet  = iota // the consumer is awake and nobody rang since its last Wait
	bellRung          // somebody rang: the next Wait returns at once
	bellAsleep        // the consumer sleeps on the channel, or is about to
)

// spinBurst is how many times a spinning Wait looks at the bell between two looks at the clock.
const spinBurst = 32

// Bell wakes a consumer that has nothing to do. Producers make their work visible (push to a ring), then Ring; the
// consumer takes all the work it finds, then calls Wait, and takes again. A ring is never lost: Wait returns at once
// when somebody rang since the last Wait returned. However many rings there are while the consumer sleeps, it is
// woken once.
//
// Ring may be called by any goroutine, Wait and WaitTimeout by the consumer only.
type Bell struct {
	state  atomic.Uint32
	_      pad
	wakeup chan struct{} // holds at most the one wake-up that follows bellAsleep
	clock  clock.Source
	timer  *time.Timer // made by the first wait with a time-out, then reused
	spins  bool        // spinning is no use when the producer has no processor to run on
}

// NewBell returns a bell that nobody rang.
func NewBell() *Bell {
	return &Bell{wakeup: make(chan struct{}, 1), clock: clock.Monotonic(), spins: runtime.GOMAXPROCS(0) > 1}
}

// Ring wakes the consumer, or makes its next Wait return at once. While the consumer is busy only the first ring of a
// burst writes; the others are one load.
func (b *Bell) Ring() {
	if b.state.Load() == bellRung {
		return
	}
	if b.state.Swap(bellRung) == bellAsleep {
		b.wakeup <- struct{}{} // never blocks: the consumer must take it before it can be asleep again
	}
}

// Wait returns when somebody rang since the last wait returned by a ring. It polls for spin before it sleeps.
func (b *Bell) Wait(spin time.Duration) { b.WaitTimeout(spin, -1) }

// WaitTimeout is Wait with an end: it returns true when somebody rang, and false when the time-out passed first. It
// polls for spin, which is part of the time-out. A negative time-out never passes; one of zero polls once.
func (b *Bell) WaitTimeout(spin, timeout time.Duration) bool {
	if b.state.Load() == bellRung {
		return b.answer()
	}
	if timeout == 0 {
		return false
	}
	forever := timeout < 0
	if !forever {
		spin = min(spin, timeout)
	}
	if b.spins && spin > 0 {
		rung, spent := b.spinFor(spin)
		if rung {
			return b.answer()
		}
		timeout -= spent
	}
	if forever {
		return b.sleep(nil)
	}
	if timeout <= 0 {
		return false
	}
	if b.timer == nil {
		b.timer = time.NewTimer(timeout)
	} else {
		b.timer.Reset(timeout)
	}
	defer b.timer.Stop()
	return b.sleep(b.timer.C)
}

// spinFor polls until somebody rings or spin has passed, and returns whether it was rung and the time spent.
func (b *Bell) spinFor(spin time.Duration) (rung bool, spent time.Duration) {
	start := b.clock.Now()
	for spent < spin {
		for range spinBurst {
			if b.state.Load() == bellRung {
				return true, spent
			}
		}
		spent = b.clock.Now().Sub(start)
	}
	return false, spent
}

// answer takes note of a ring. What was visible before it is visible to the consumer from here on.
func (b *Bell) answer() bool {
	b.state.Swap(bellQuiet)
	return true
}

// sleep blocks until somebody rings, or something comes from expired.
func (b *Bell) sleep(expired <-chan time.Time) bool {
	if !b.state.CompareAndSwap(bellQuiet, bellAsleep) {
		return b.answer()
	}
	select {
	case <-b.wakeup:
		return b.answer()
	case <-expired:
		return b.giveUp()
	}
}

// giveUp ends a sleep whose time is over, unless somebody rang at the last moment.
func (b *Bell) giveUp() bool {
	if b.state.CompareAndSwap(bellAsleep, bellQuiet) {
		return false
	}
	<-b.wakeup // there or on its way: whoever rang saw us asleep
	return b.answer()
}
