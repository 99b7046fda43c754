package main

import (
	"encoding/binary"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"golang.org/x/sys/unix"
)

// now reads the clock that all processes of a host share.
func now() int64 {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts) // cannot fail for this clock
	return ts.Nano()
}

// stamp writes the present time into the front of a payload.
func stamp(b []byte) { binary.LittleEndian.PutUint64(b, uint64(now())) }

// age returns how long ago a payload was stamped.
func age(b []byte) int64 { return now() - int64(binary.LittleEndian.Uint64(b)) }

// newHistogram returns a histogram of nanoseconds up to ten seconds with three digits.
func newHistogram() *hdrhistogram.Histogram { return hdrhistogram.New(1, int64(10*time.Second), 3) }

// spread is what the table keeps of a histogram.
type spread struct {
	Samples  int64
	P50, P99 time.Duration
}

func spreadOf(h *hdrhistogram.Histogram) spread {
	return spread{
		Samples: h.TotalCount(), P50: time.Duration(h.ValueAtQuantile(50)), P99: time.Duration(h.ValueAtQuantile(99)),
	}
}
