package vsync

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// Rate limits what this process sends to a group. Zero fields do not limit.
type Rate struct {
	Messages int           // multicasts in each interval
	Bytes    int           // bytes of multicasts, as they are encoded, in each interval
	Per      time.Duration // the interval, at least RateMin; zero means a second
}

// RateMin is the shortest interval of a Rate.
const RateMin = 50 * time.Millisecond

// Validate reports what is wrong with r, or nil.
func (r Rate) Validate() error {
	switch {
	case r.Messages < 0 || r.Bytes < 0:
		return fmt.Errorf("%w: a rate of %d messages and %d bytes", ErrArgument, r.Messages, r.Bytes)
	case r.Per != 0 && r.Per < RateMin:
		return fmt.Errorf("%w: an interval of %v is shorter than %v", ErrArgument, r.Per, RateMin)
	}
	return nil
}

// ages is how many intervals an unused allowance lives: half of it is lost in each.
const ages = 32

// bucket holds tokens by age. An interval adds limit new ones and halves those of each older one, rounding down, so
// that a sender that was idle may send a burst of a little less than twice the limit: 38 for a limit of 20.
type bucket struct {
	limit int
	by    [ages]int
	sum   int
	debt  int // of messages that were longer than what was there; later intervals pay
}

func newBucket(limit int) bucket {
	b := bucket{limit: limit}
	for range ages {
		b.age()
	}
	return b
}

// age passes an interval.
func (b *bucket) age() {
	b.sum = 0
	for i := ages - 1; i > 0; i-- {
		b.by[i] = b.by[i-1] / 2
		b.sum += b.by[i]
	}
	pay := min(b.debt, b.limit)
	b.debt -= pay
	b.by[0] = b.limit - pay
	b.sum += b.by[0]
}

// spend takes n tokens, the oldest first. It may go into debt.
func (b *bucket) spend(n int) {
	if b.limit == 0 {
		return
	}
	for i := ages - 1; i >= 0 && n > 0; i-- {
		take := min(n, b.by[i])
		b.by[i] -= take
		b.sum -= take
		n -= take
	}
	b.debt += n
}

// has tells whether a message of n tokens may go: when they are there, or when it is longer than an idle sender's whole
// allowance and nothing is owed.
func (b *bucket) has(n int) bool {
	return b.limit == 0 || b.debt == 0 && (b.sum >= n || n > b.limit && b.sum >= b.limit)
}

// limiter is a rate in force.
type limiter struct {
	mu       sync.Mutex
	per      time.Duration
	messages bucket
	bytes    bucket
	due      time.Time // end of the present interval
}

func newLimiter(r Rate, now time.Time) *limiter {
	if r.Per == 0 {
		r.Per = time.Second
	}
	return &limiter{
		per: r.Per, messages: newBucket(r.Messages), bytes: newBucket(r.Bytes), due: now.Add(r.Per),
	}
}

// take takes what a message of n bytes needs, or returns how long to wait before trying again.
func (l *limiter) take(now time.Time, n int) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := 0; !now.Before(l.due); i++ {
		if i >= 2*ages { // long idle: everything has its final age
			l.due = now.Add(l.per)
			break
		}
		l.messages.age()
		l.bytes.age()
		l.due = l.due.Add(l.per)
	}
	if !l.messages.has(1) || !l.bytes.has(n) {
		return l.due.Sub(now)
	}
	l.messages.spend(1)
	l.bytes.spend(n)
	return 0
}

// SetRate limits what this process multicasts to the group, from now on: senders wait until the rate lets them. The
// zero Rate ends the limit. The unused allowance of an interval counts half in the next, a quarter in the one after,
// and so on. Other members are not concerned. Point-to-point messages are not limited.
func (g *Group) SetRate(r Rate) error {
	if err := r.Validate(); err != nil {
		return g.fail("set rate", err)
	}
	if r.Messages == 0 && r.Bytes == 0 {
		g.limiter.Store(nil)
		return nil
	}
	g.limiter.Store(newLimiter(r, time.Now()))
	return nil
}

// pace waits until the rate lets a message of n bytes go.
func (g *Group) pace(ctx context.Context, n int) error {
	l := g.limiter.Load()
	if l == nil {
		return nil
	}
	for {
		d := l.take(time.Now(), n)
		if d <= 0 {
			return nil
		}
		if g.inner.OnHandler() {
			return fmt.Errorf("%w: the rate limit is reached", ErrWouldBlock)
		}
		timer := time.NewTimer(d)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return context.Cause(ctx)
		case <-g.inner.Ending():
			timer.Stop()
			return g.inner.Err()
		}
	}
}
