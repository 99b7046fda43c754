// Package clock makes time a value.
//
// It is the only place in the module that reads the clock: every protocol machine gets the time as an argument, so that
// the same code runs on the machine's clock in production and on a virtual one in the simulator.
package clock

import (
	"math"
	"time"
)

// Time is a point in time, in nanoseconds since a start that the source chose. It never goes backwards within a source.
// Values of different sources cannot be compared.
type Time int64

// Never is later than every other time: the deadline of something that will not happen.
const Never Time = math.MaxInt64

// Add returns t+d. Adding to Never gives Never.
func (t Time) Add(d time.Duration) Time {
	if t == Never {
		return Never
	}
	return t + Time(d)
}

// Sub returns the duration t-u.
func (t Time) Sub(u Time) time.Duration { return time.Duration(t - u) }

// Source tells the time.
type Source interface {
	// Now returns the present time. It may be called by any goroutine.
	Now() Time
}

// Monotonic returns a source that reads the machine's monotonic clock, starting at 1 ns. Zero is never returned, so
// that the zero Time can mean "not set".
func Monotonic() Source { return monotonic{start: time.Now()} }

type monotonic struct{ start time.Time }

func (m monotonic) Now() Time { return Time(time.Since(m.start)) + 1 }

// Manual is a source that stands still until it is told otherwise; for tests and simulation. It is not safe for
// concurrent use.
type Manual struct{ now Time }

// Now returns the time last set.
func (m *Manual) Now() Time { return m.now }

// Set moves the clock to t. It panics when t lies before the present time.
func (m *Manual) Set(t Time) {
	if t < m.now {
		panic("clock: a manual clock cannot go backwards")
	}
	m.now = t
}
