package sim

import (
	"time"

	"github.com/khamsin-io/khamsin/vsync/core"
)

// Mix is what the applications of a run do.
type Mix struct {
	Interval     time.Duration // mean time between two bursts of a member
	Burst        int           // messages of a burst, at most
	Budget       int           // messages of one member, at most
	Flavours     [6]int        // weight of each core.Flavour
	SizeMax      int           // bytes
	StateMax     int           // bytes of a state
	AsyncState   bool          // an application goes on handling deliveries while it hands over a state
	Peer         float64       // share of messages that go to one member
	Flush        float64       // of bursts that end in a Flush
	FlushSome    float64       // of Flushes: those that want the messages at some members only
	Reply        float64       // of deliveries that cause another message, divided by the group's size
	ConsumeBatch int           // packets that an application consumes before it says so
}

// drawMix draws what the applications do.
func drawMix(r random) Mix {
	m := Mix{
		Interval: r.between(500*time.Microsecond, 20*time.Millisecond), Burst: 1 + r.IntN(12), Budget: 50 + r.IntN(250),
		SizeMax: 200, StateMax: r.IntN(4000), ConsumeBatch: 1,
		Flavours: [6]int{core.FIFO: 4, core.Total: 4, core.Causal: 2, core.Safe: 2, core.Unordered: 1, core.Raw: 1},
	}
	if r.chance(0.5) {
		m.SizeMax = r.IntN(12000)
	}
	if r.chance(0.2) {
		m.StateMax = r.IntN(200_000)
	}
	m.AsyncState = r.chance(0.3)
	if r.chance(0.3) {
		m.ConsumeBatch = 1 + r.IntN(16)
	}
	if r.chance(0.5) {
		m.Peer = 0.2 * r.Float64()
	}
	if r.chance(0.6) {
		m.Flush = 0.5 * r.Float64()
	}
	if r.chance(0.5) {
		m.Reply = 0.6 * r.Float64()
	}
	if r.chance(0.15) { // a flood
		m.Interval, m.Burst, m.Budget = r.between(50*time.Microsecond, time.Millisecond), 60, 800
	}
	if r.chance(0.3) { // one flavour alone
		only := r.IntN(len(m.Flavours) - 1)
		m.Flavours = [6]int{}
		m.Flavours[only] = 1
	}
	return m
}

// drawRareUse draws what applications seldom do, and makes many members send little each.
func (w *World) drawRareUse(r random) {
	if r.chance(0.3) {
		w.mix.FlushSome = r.Float64()
	}
	if w.weather.Storm >= membersMax {
		w.mix.Budget, w.mix.Interval = w.mix.Budget/8, 8*w.mix.Interval
	}
}

// drawFlavour draws one flavour of the mix.
func (w *World) drawFlavour() core.Flavour {
	total := 0
	for _, weight := range w.mix.Flavours {
		total += weight
	}
	n := w.apps.IntN(total)
	for f, weight := range w.mix.Flavours {
		if n -= weight; n < 0 {
			return core.Flavour(f)
		}
	}
	return core.FIFO
}

// drawSize draws the length of a message: mostly small, some empty, some around a packet's end, some of several
// packets.
func (w *World) drawSize() int {
	switch r := w.apps; {
	case r.chance(0.04):
		return 0
	case r.chance(0.06):
		return max(1, w.opts.MTU-100+r.IntN(150))
	case r.chance(0.3):
		return 1 + r.IntN(max(1, w.mix.SizeMax))
	}
	return 1 + w.apps.IntN(100)
}

// drawCopies draws how many members a Flush waits for; 0 means all.
func (m *member) drawCopies() int {
	if m.view == nil || !m.p.w.apps.chance(m.p.w.mix.FlushSome) {
		return 0
	}
	return 1 + m.p.w.apps.IntN(m.view.Size())
}
