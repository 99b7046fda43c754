//go:build !linux

package perf

import "time"

// sharedTime reads the wall clock, the only one that processes of a host surely share here.
func sharedTime() int64 { return time.Now().UnixNano() }

// processorTime is not measured here.
func processorTime() float64 { return 0 }

// sleeper sleeps.
type sleeper struct{}

func newSleeper() *sleeper { return &sleeper{} }

func (*sleeper) sleep(d time.Duration) { time.Sleep(d) }

func (*sleeper) close() {}
