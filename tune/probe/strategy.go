package probe

import (
	"time"

	"github.com/khamsin-io/khamsin/dataplane"
)

// strategy is a way to wait for packets, by the name that vsync's configuration has for it. The order is that of the
// processor time they take.
type strategy struct {
	name string
	spin time.Duration // how long to poll before sleeping
}

const (
	spinForever   = time.Hour
	strategyCount = 3
)

// strategies lists them all.
func strategies() [strategyCount]strategy {
	return [...]strategy{{"block", 0}, {"adaptive", 50 * time.Microsecond}, {"busy", spinForever}}
}

// strategyOf returns the number of a strategy.
func strategyOf(name string) (uint8, bool) {
	for i, s := range strategies() {
		if s.name == name {
			return uint8(i), true
		}
	}
	return 0, false
}

// wait returns how to wait for at most limit.
func (s strategy) wait(limit time.Duration) dataplane.Wait {
	return dataplane.Wait{Spin: min(s.spin, limit), Timeout: limit}
}
