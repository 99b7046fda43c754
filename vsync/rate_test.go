package vsync

import (
	"context"
	"testing"
	"time"
)

// burst returns how many messages of n bytes a limiter lets go at once.
func burst(l *limiter, now time.Time, n int) int {
	count := 0
	for l.take(now, n) == 0 {
		count++
	}
	return count
}

// rows: FLC-14, FLC-15, FLC-17, FLC-18, FLC-21
func TestLimiter(t *testing.T) {
	start := time.Unix(1000, 0)
	for limit, want := range map[int]int{20: 38, 4: 7, 1: 1} {
		l := newLimiter(Rate{Messages: limit}, start)
		if n := burst(l, start, 10); n != want {
			t.Errorf("limit %d: a burst of %d, want %d", limit, n, want)
		}
		if d := l.take(start, 10); d != time.Second {
			t.Errorf("limit %d: wait %v", limit, d)
		}
		if n := burst(l, start.Add(time.Second), 10); n != limit {
			t.Errorf("limit %d: %d in the next interval", limit, n)
		}
		if n := burst(l, start.Add(time.Hour), 10); n != want {
			t.Errorf("limit %d: a burst of %d after an hour, want %d", limit, n, want)
		}
	}
	// Four in 200 ms are as many as twenty in a second, in smaller bursts.
	smooth := newLimiter(Rate{Messages: 4, Per: 200 * time.Millisecond}, start)
	total := 0
	for i := range 50 {
		total += burst(smooth, start.Add(time.Duration(i)*200*time.Millisecond), 1)
	}
	if total != 7+49*4 {
		t.Errorf("%d messages in ten seconds", total)
	}
	// Bytes have a bucket of their own; a message above the whole allowance goes, and is paid for.
	l := newLimiter(Rate{Bytes: 1000}, start)
	if n := burst(l, start, 100); n != 19 {
		t.Errorf("%d messages of 100 bytes", n)
	}
	at := start.Add(time.Second)
	if n := burst(l, at, 5000); n != 1 {
		t.Errorf("%d messages of 5000 bytes", n)
	}
	wait := 0
	for ; l.take(at, 100) != 0; wait++ {
		at = at.Add(time.Second)
	}
	if wait != 5 {
		t.Errorf("paid for after %d seconds, want 5", wait)
	}
}

// rows: FLC-12, FLC-13, FLC-16, FLC-19, FLC-20, PAR-40
func TestRateLimitOfAGroup(t *testing.T) {
	var groups []*Group
	got, refused := make(chan Address, 1000), make(chan error, 1)
	groups = crowd(t, 2, func(i int, g *Group) {
		must(g.Handle(1, func(m *Message, n int) {
			if i == 1 {
				got <- m.From
			}
		}))
		must(g.Handle(2, func(m *Message) {
			for i := 0; ; i++ {
				if err := g.Send(m.Context(), 1, i); err != nil {
					refused <- err
					return
				}
			}
		}))
	})
	g := groups[0]
	if g.limiter.Load() != nil {
		t.Error("a limiter that nobody asked for")
	}
	for _, bad := range []Rate{{Messages: -1}, {Messages: 1, Per: 49 * time.Millisecond}} {
		wantErr(t, "bad rate", g.SetRate(bad), ErrArgument)
	}
	must(g.SetRate(Rate{Messages: 4, Per: RateMin}))
	start := time.Now()
	for i := range 23 { // 7 at once, then 4 in each of 4 intervals
		must(g.Send(within(t), 1, i))
		must(groups[1].Send(within(t), 1, i)) // not limited
	}
	if d := time.Since(start); d < 3*RateMin {
		t.Errorf("23 messages took %v", d)
	}
	for range 46 {
		take(t, got)
	}
	ctx, cancel := context.WithCancel(within(t))
	cancel()
	for err := error(nil); ; {
		if err = g.Send(ctx, 1, 0); err != nil {
			wantErr(t, "cancelled", err, context.Canceled)
			break
		}
	}
	must(g.SendBytesTo(within(t), g.sys.Address(), 2, nil)) // point-to-point is not limited
	wantErr(t, "in a handler", take(t, refused), ErrWouldBlock)
	must(g.SetRate(Rate{}))
	for i := range 100 {
		must(g.Send(within(t), 3, i))
	}
	bad := groups[0].sys.NewGroup("bad", WithRateLimit(Rate{Per: 1}))
	wantErr(t, "join with a bad rate", bad.Join(within(t)), ErrArgument)
}
