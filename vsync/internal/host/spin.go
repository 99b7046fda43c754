package host

import (
	"runtime"
	"time"
)

// Constants of the adaptive strategy.
const (
	spinFor      = 50 * time.Microsecond // one wake-up of a sleeping thread costs 10 to 30 µs
	spinGain     = 1.0 / 8               // weight of the newest wait in the rate of hits
	spinHitsMin  = 0.4                   // below this rate of hits spinning costs more than it saves
	spinProbe    = 4                     // spins of one trial
	spinRestMin  = 16                    // waits without spinning after a trial that failed,
	spinRestMax  = 4096                  // doubled after each
	spinNeverFor = 2                     // with fewer processors than this, spinning keeps the others from working
)

// spinner decides how long a wait polls before it sleeps. The adaptive strategy polls while that pays: while most waits
// end within the time polled and nobody else wants the core. It finds both out by trying: a trial that does not pay
// makes the next one rarer.
type spinner struct {
	waiting Waiting
	hits    float64 // rate of waits that ended while polling
	trial   int     // spins left before the rate counts
	rest    int     // waits left without spinning
	penalty int     // rest after the next trial that fails
	crowded crowding
}

func newSpinner(w Waiting) *spinner {
	s := &spinner{waiting: w, hits: 1, trial: spinProbe, penalty: spinRestMin}
	if w == Adaptive && runtime.GOMAXPROCS(0) < spinNeverFor {
		s.waiting = Block
	}
	return s
}

// spin returns how long to poll in a wait of at most timeout; negative means for ever.
func (s *spinner) spin(timeout time.Duration) time.Duration {
	var d time.Duration
	switch {
	case s.waiting == BusyPoll:
		d = timeout
		if timeout < 0 {
			d = time.Hour
		}
	case s.waiting == Adaptive && s.rest == 0:
		d = spinFor
	}
	if timeout >= 0 {
		d = min(d, timeout)
	}
	return d
}

// learn notes how a wait with the given spin went.
func (s *spinner) learn(spin, took time.Duration, found bool) {
	if s.waiting != Adaptive {
		return
	}
	if s.rest > 0 {
		if s.rest--; s.rest == 0 {
			s.trial, s.hits = spinProbe, 1
		}
		return
	}
	hit := 0.0
	if found && took <= spin+spin/2 {
		hit = 1
	}
	s.hits += (hit - s.hits) * spinGain
	if s.trial > 0 {
		s.trial--
		return
	}
	switch {
	case s.hits < spinHitsMin || s.crowded.now():
		s.rest = s.penalty
		s.penalty = min(2*s.penalty, spinRestMax)
	case s.hits > 2*spinHitsMin:
		s.penalty = spinRestMin
	}
}
