package sim

import (
	"math/rand/v2"
	"time"
)

// random draws for one purpose. Each purpose has a stream of its own, so that a change in how many numbers the
// applications draw does not change the weather.
type random struct{ *rand.Rand }

// The purposes.
const (
	drawWeather = iota + 1
	drawPlan
	drawNetwork
	drawApplications
	drawNodes
	drawOracle
	drawRarities
	drawLines
	drawKey
)

// newRandom returns the stream of a purpose under a seed.
func newRandom(seed uint64, purpose uint64) random {
	return random{rand.New(rand.NewPCG(mix(seed), mix(seed+purpose<<32)))}
}

// chance returns true with probability p. It draws nothing when p is 0.
func (r random) chance(p float64) bool { return p > 0 && r.Float64() < p }

// upTo returns a duration from 0 to d, both included.
func (r random) upTo(d time.Duration) time.Duration {
	if d <= 0 {
		return 0
	}
	return time.Duration(r.Int64N(int64(d) + 1))
}

// between returns a duration from lo to hi, both included.
func (r random) between(lo, hi time.Duration) time.Duration { return lo + r.upTo(hi-lo) }

// around returns an exponentially distributed duration with the given mean, at most ten times the mean.
func (r random) around(mean time.Duration) time.Duration {
	return time.Duration(min(10, r.ExpFloat64()) * float64(mean))
}

// mix is the finalizer of splitmix64: a permutation of the 64-bit numbers whose bits look unrelated.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
