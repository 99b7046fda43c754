package stream

import (
	"testing"
	"time"

	"github.com/khamsin-io/khamsin/dataplane/clock"
)

// The window shrinks to what becomes stable in the time that it should take, grows while that is kept, and stays within
// its ends.
func TestWindowFollowsTheNetwork(t *testing.T) {
	const ack = time.Millisecond
	s := New(Config{Window: 1024, Ack: ack}, nil)
	packet := func(took time.Duration, full bool) {
		s.numberedTo = s.stableTo
		if full {
			s.numberedTo += s.window
		}
		s.probe, s.probeAt = 1, clock.Time(time.Second)
		s.steer(s.probeAt.Add(took))
	}
	for range 100 {
		packet(ack, true)
	}
	if s.window != 1024 {
		t.Errorf("a fast network leaves the window at %d", s.window)
	}
	packet(stableWithin*ack*4/3, true)
	if s.window != 768 {
		t.Errorf("a third too slow: the window goes from 1024 to %d, want 768", s.window)
	}
	packet(ack, false)
	if s.window != 768 {
		t.Errorf("a window that was not full grew to %d", s.window)
	}
	packet(time.Hour, true)
	if s.window != 384 {
		t.Errorf("one stall takes the window from 768 to %d, want half", s.window)
	}
	for range 100 {
		packet(time.Hour, true)
	}
	if s.window != windowLeast {
		t.Errorf("a slow network leaves the window at %d", s.window)
	}
	if small := New(Config{Window: 16, Ack: ack}, nil); small.window != 16 || small.ackEvery() != 4 {
		t.Errorf("a small window: %d, acknowledged after %d", small.window, small.ackEvery())
	}
}
