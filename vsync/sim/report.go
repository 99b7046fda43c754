package sim

import (
	"fmt"
	"io"
)

// Failed tells whether a guarantee did not hold.
func (r *Result) Failed() bool { return len(r.Failures) > 0 }

// Caught tells whether a checker reported.
func (r *Result) Caught(checker string) bool {
	for i := range r.Failures {
		if r.Failures[i].Checker == checker {
			return true
		}
	}
	return false
}

// Report writes what failed, where, what the members concerned saw, and how to play it again.
func (r *Result) Report(out io.Writer) {
	if !r.Failed() {
		fmt.Fprintf(out, "seed %d: nothing failed\n", r.Seed)
		return
	}
	for i := range r.Failures {
		f := &r.Failures[i]
		fmt.Fprintf(out, "seed %d: %s: at %s: %s\n", r.Seed, f.Checker, stamp(f.At), f.Text)
		for _, line := range f.Log {
			fmt.Fprintf(out, "    %s\n", line)
		}
	}
	fmt.Fprintf(out, "seed %d: weather: %v\n", r.Seed, r.Weather)
	fmt.Fprintf(out, "seed %d: play it again: make sim-seed SEED=%d\n", r.Seed, r.Seed)
}

// String returns one line: virtual time, sizes and the hash.
func (r *Result) String() string {
	s := &r.Stats
	return fmt.Sprintf("seed %d: %v virtual, %d events, %d processes (%d crashed), %d packets (%d lost, %d damaged), "+
		"%d messages, %d delivered, %d views, full %d times, at most %d frames held at rest, hash %016x",
		r.Seed, s.Virtual, s.Events, s.Processes, s.Crashes, s.Packets, s.Lost, s.Damaged, s.Messages, s.Delivered,
		s.Views, s.Full, s.HeldMax, r.TraceHash)
}
