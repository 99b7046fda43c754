package sim

import (
	"fmt"
	"reflect"
	"strings"
	"time"
)

// Weather is everything that goes wrong in a run before it heals. Probabilities are per packet unless they say
// otherwise. The zero Weather is a perfect network without any event.
type Weather struct {
	Delay  time.Duration // least time on the way
	Jitter time.Duration // mean of what comes on top, exponentially distributed

	Loss          float64
	MulticastLoss float64       // of packets sent to a channel, besides Loss
	BurstLoss     float64       // while a link is in a burst (Gilbert-Elliott), besides Loss
	BurstLength   time.Duration // mean length of a burst
	BurstGap      time.Duration // mean time between two bursts of a link

	Reorder   float64 // a packet is held up and overtaken
	ReorderBy time.Duration
	Duplicate float64
	Corrupt   float64 // a copy arrives with one to three bits flipped
	RxBuffer  int     // packets that wait at a node before more are dropped; 0: no bound

	Partitions   int // splits of the nodes in two
	PartitionMax time.Duration
	OneWays      int // links that lose everything in one direction for a while
	OneWayMax    time.Duration
	Pauses       int // a node stands still
	PauseMax     time.Duration
	LongCut      bool // one of the splits lasts until processes that cannot reach the ORACLE give up
	Deaf         int  // a node receives no multicast for a while, and everything else
	Mute         int  // a node's multicasts get nowhere for a while, and everything else does
	DeafMax      time.Duration
	Drift        int // clocks run wrong by at most so many parts in a million

	SlowApps  float64       // share of members whose application is slow
	HandleMax time.Duration // what a slow application takes for a message, at most
	Stalls    int           // a member's application stands still
	StallMax  time.Duration

	Key        bool // packets are signed with a key of the system
	Lines      bool // the kernel of a process that crashes tells its watchers
	LineBreaks int  // lines between live processes that break for a moment

	Crashes     int
	CrashPairs  int // two processes crash within a millisecond
	Joins       int // new nodes
	Storm       int // nodes that join at the same moment
	Leaves      int
	Restarts    int     // crashed nodes that come back
	Terminates  int     // members that end their group for all
	Accusations int     // members that report a live member as failed
	OracleCrash bool    // the founder of the system may crash, pause and be cut off too
	CreateOnly  float64 // of joins: those that want to create the group
}

// String returns the fields that are not zero.
func (w Weather) String() string {
	var parts []string
	v := reflect.ValueOf(w)
	for i := range v.NumField() {
		if f := v.Field(i); !f.IsZero() {
			text := fmt.Sprint(f.Interface())
			if f.Kind() == reflect.Float64 {
				text = fmt.Sprintf("%.3g", f.Float())
			}
			parts = append(parts, v.Type().Field(i).Name+"="+text)
		}
	}
	if len(parts) == 0 {
		return "calm"
	}
	return strings.Join(parts, " ")
}

// Cuts tells whether the weather silences live processes for longer than packet loss would.
func (w *Weather) Cuts() bool {
	return w.Partitions > 0 || w.OneWays > 0 || w.Pauses > 0 || w.Accusations > 0 || w.Deaf+w.Mute > 0
}

// Rough tells whether so much is lost that a live process may be taken for dead without any cut.
func (w *Weather) Rough() bool {
	return w.Loss+w.MulticastLoss+w.Corrupt > 0.12 || w.BurstLoss > 0 && w.BurstLength > 20*time.Millisecond ||
		w.RxBuffer > 0 && w.RxBuffer < 64 || w.LineBreaks > 0 && (w.Loss > 0 || w.BurstLoss > 0 || w.Corrupt > 0 ||
		w.Reorder > 0 || w.Delay+10*w.Jitter > 2*time.Millisecond)
}

// healed returns what is left of the weather when nothing goes wrong any more.
func (w *Weather) healed() Weather { return Weather{Delay: w.Delay, Jitter: w.Jitter, Drift: w.Drift} }

// DrawWeather draws the weather of a seed. Each hazard is there in some seeds only, so that the others are seen
// clearly.
func DrawWeather(seed uint64) Weather {
	r := newRandom(seed, drawWeather)
	w := Weather{Delay: r.between(5*time.Microsecond, 100*time.Microsecond)}
	if r.chance(0.2) {
		w.Delay = r.between(time.Millisecond, 5*time.Millisecond)
	}
	w.Jitter = r.upTo(w.Delay)
	if r.chance(0.2) {
		w.Jitter = r.upTo(3 * time.Millisecond)
	}
	w.drawPackets(r)
	w.drawNodes(r)
	w.drawMembers(r)
	w.drawRarities(newRandom(seed, drawRarities))
	w.drawLines(newRandom(seed, drawLines))
	w.Key = newRandom(seed, drawKey).chance(keyChance)
	return w
}

func (w *Weather) drawPackets(r random) {
	if r.chance(0.7) {
		w.Loss = 0.2 * r.Float64() * r.Float64()
	}
	if r.chance(0.2) {
		w.MulticastLoss = 0.3 * r.Float64()
	}
	if r.chance(0.3) {
		w.BurstLoss = 0.3 + 0.7*r.Float64()
		w.BurstLength = r.between(time.Millisecond, 60*time.Millisecond)
		w.BurstGap = r.between(50*time.Millisecond, 500*time.Millisecond)
	}
	if r.chance(0.5) {
		w.Reorder = 0.2 * r.Float64()
		w.ReorderBy = r.between(100*time.Microsecond, 20*time.Millisecond)
	}
	if r.chance(0.5) {
		w.Duplicate = 0.1 * r.Float64()
	}
	if r.chance(0.4) {
		w.Corrupt = 0.05 * r.Float64()
	}
	if r.chance(0.2) {
		w.RxBuffer = 16 + r.IntN(500)
	}
}

func (w *Weather) drawNodes(r random) {
	if r.chance(0.2) {
		w.Partitions = 1 + r.IntN(2)
		w.PartitionMax = r.between(20*time.Millisecond, 1500*time.Millisecond)
	}
	if r.chance(0.15) {
		w.OneWays = 1 + r.IntN(3)
		w.OneWayMax = r.between(10*time.Millisecond, 800*time.Millisecond)
	}
	if r.chance(0.25) {
		w.Pauses = 1 + r.IntN(3)
		w.PauseMax = r.between(5*time.Millisecond, 1500*time.Millisecond)
	}
	if r.chance(0.5) {
		w.Drift = 1 + r.IntN(2000)
	}
}

func (w *Weather) drawMembers(r random) {
	if r.chance(0.4) {
		w.SlowApps = 0.5 * r.Float64()
		w.HandleMax = r.between(50*time.Microsecond, 5*time.Millisecond)
	}
	if r.chance(0.2) {
		w.Stalls = 1 + r.IntN(3)
		w.StallMax = r.between(10*time.Millisecond, 500*time.Millisecond)
	}
	if r.chance(0.6) {
		w.Crashes = 1 + r.IntN(3)
	}
	if r.chance(0.15) {
		w.CrashPairs = 1
	}
	if r.chance(0.5) {
		w.Joins = 1 + r.IntN(2)
	}
	if r.chance(0.15) {
		w.Storm = 2 + r.IntN(4)
	}
	if r.chance(0.4) {
		w.Leaves = 1 + r.IntN(3)
	}
	if r.chance(0.4) {
		w.Restarts = 1 + r.IntN(2)
	}
	if r.chance(0.1) {
		w.Accusations = 1
	}
}

// keyChance is the share of worlds with a key.
const keyChance = 0.3

func (w *Weather) drawLines(r random) {
	if w.Lines = r.chance(0.5); w.Lines && r.chance(0.4) {
		w.LineBreaks = 1 + r.IntN(3)
	}
}

// drawRarities draws what happens in few seeds only.
func (w *Weather) drawRarities(r random) {
	if w.Partitions > 0 && r.chance(0.3) {
		w.LongCut = true
	}
	if r.chance(0.1) {
		w.Deaf, w.Mute = r.IntN(3), r.IntN(3)
		w.DeafMax = r.between(10*time.Millisecond, time.Second)
	}
	if r.chance(0.1) {
		w.Terminates = 1 + r.IntN(2)
	}
	if r.chance(0.2) {
		w.CreateOnly = 0.5 * r.Float64()
	}
	if r.chance(0.015) {
		w.Storm = 10 + r.IntN(stormMax-9)
	}
}
