package field

import (
	"os"
	"sync"
	"testing"
	"time"

	"github.com/khamsin-io/khamsin/dataplane/clock"
	"github.com/khamsin-io/khamsin/vsync"
	"github.com/khamsin-io/khamsin/vsync/sim"
)

// Everybody is killed at once, and started again one after the other. Those that start found a new system, which a
// majority of the hosts is needed for: hosts that are addresses of one machine count each.
//
// rows: ORC-07
func TestEverybodyIsLost(t *testing.T) {
	need(t)
	runInside(t, "TestInsideEverybodyIsLost")
}

// TestInsideEverybodyIsLost is the part of TestEverybodyIsLost that runs in a namespace.
func TestInsideEverybodyIsLost(t *testing.T) {
	if os.Getenv(insideMark) == "" {
		t.Skip("TestEverybodyIsLost runs this in a namespace")
	}
	for _, x := range overTCP {
		t.Run(x.name, func(t *testing.T) {
			f := newField(t, 1, newAddresses, x.change)
			for i := range hosts {
				f.enter(i)
			}
			pause(300 * time.Millisecond)
			f.mu.Lock()
			members := f.members
			f.members = [hosts]*member{}
			f.mu.Unlock()
			for _, m := range members {
				m.witness.End(sim.Crashed, nil)
			}
			for _, m := range members {
				m.sys.Kill()
				m.hush()
			}
			f.judge()
			f.story = sim.NewChronicle(clock.Monotonic(), vsync.Majority) // the new system's views are others
			var entering sync.WaitGroup
			for i := range hosts {
				entering.Go(func() { f.enter(i) })
				pause(100 * time.Millisecond)
			}
			entering.Wait()
			pause(300 * time.Millisecond)
			f.rest()
			f.judge()
		})
	}
}
