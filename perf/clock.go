package perf

import (
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// hostClock reads the monotonic clock that all processes of a host share, at the cost of Go's own clock: it asks the
// system for the shared time once and counts on from there.
type hostClock struct {
	start time.Time
	base  int64 // shared nanoseconds at start
}

// calibrations is how often the two clocks are read next to each other; the closest pair counts.
const calibrations = 64

func newHostClock() hostClock {
	var c hostClock
	best := time.Duration(1 << 62)
	for range calibrations {
		before := time.Now()
		shared := sharedTime()
		if took := time.Since(before); took < best {
			best = took
			c = hostClock{start: before, base: shared - int64(took)/2}
		}
	}
	return c
}

// now returns shared nanoseconds, never 0.
func (c hostClock) now() int64 { return c.base + int64(time.Since(c.start)) + 1 }

// Histograms hold nanoseconds from 100 ns to a minute with three digits.
const (
	latencyMin    = 100
	latencyMax    = int64(time.Minute)
	latencyDigits = 3
)

func newHistogram() *hdrhistogram.Histogram {
	return hdrhistogram.New(latencyMin, latencyMax, latencyDigits)
}

// record notes a latency; what lies beyond the range counts as its end.
func record(h *hdrhistogram.Histogram, ns int64) {
	_ = h.RecordValue(min(max(ns, latencyMin), latencyMax)) // cannot be out of range
}
