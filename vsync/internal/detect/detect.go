// Package detect finds processes that have fallen silent. Every process sends signs of life to a few watchers and
// watches as many targets; the ORACLE assigns both, so that the cost for each process and interval does not grow with
// the system.
//
// A watcher that was late itself (descheduled, stopped) does not hold its own lateness against its targets: the time
// it was not running does not count. Before it accuses it looks once more, a little later, since the sign of life that
// it misses may lie in its own socket. A target that was never heard of may not know its watcher, because the ORACLE's
// leader failed between telling one and the other; it gets time until another leader has told both. For the same reason
// a process goes on for that time with signs of life to a watcher that was relieved. Everything belongs to the engine's
// goroutine.
package detect

import (
	"slices"
	"time"

	"github.com/khamsin-io/khamsin/dataplane/clock"
	"github.com/khamsin-io/khamsin/dataplane/wire"
	"github.com/khamsin-io/khamsin/vsync/core"
	"github.com/khamsin-io/khamsin/vsync/internal/pdu"
)

// Config sets the pace.
type Config struct {
	Incarnation uint64
	Interval    time.Duration // between signs of life
	Suspect     time.Duration // silence after which a target is accused
}

// lookAgain is the part of an interval after which a watcher looks a second time.
const lookAgain = 4

// patience is how many times longer a target may be silent that was never heard of: so long that the ORACLE can elect a
// new leader meanwhile.
const patience = 3

// formerMax is how many relieved watchers still get signs of life, at most.
const formerMax = 8

// former is a watcher that was relieved, and may not know yet.
type former struct {
	addr  core.Address
	until clock.Time
}

type target struct {
	addr    core.Address
	heardAt clock.Time
	heard   bool // ever
	doubted bool // silent for too long when last looked at
	accused bool
}

// Detector is one process's part in failure detection.
type Detector struct {
	cfg      Config
	out      *pdu.Outbox
	epoch    uint64
	targets  []target
	watchers []core.Address
	former   []former
	beatAt   clock.Time
	lookAt   clock.Time // when to look a second time
	Sent     uint64     // signs of life
	Heard    uint64
}

// New returns a detector without assignment.
func New(cfg Config, out *pdu.Outbox) *Detector {
	return &Detector{cfg: cfg, out: out, beatAt: clock.Never, lookAt: clock.Never}
}

// Assign takes an assignment of the ORACLE. Targets that stay keep their history; new ones start with a full span.
func (d *Detector) Assign(now clock.Time, m *pdu.Watch) {
	if m.Epoch <= d.epoch {
		return
	}
	d.epoch = m.Epoch
	targets := make([]target, 0, len(m.Targets))
	for _, a := range m.Targets {
		t := target{addr: a, heardAt: now}
		if i := slices.IndexFunc(d.targets, func(t target) bool { return t.addr == a }); i >= 0 {
			t = d.targets[i]
		}
		targets = append(targets, t)
	}
	d.relieve(now, m.Watchers)
	d.targets, d.watchers = targets, m.Watchers
	d.beatAt = now
}

// relieve notes which watchers are none any more.
func (d *Detector) relieve(now clock.Time, watchers []core.Address) {
	for _, w := range d.watchers {
		d.former = append(d.former, former{w, now.Add(patience * d.cfg.Suspect)})
	}
	d.former = slices.DeleteFunc(d.former, func(f former) bool { return slices.Contains(watchers, f.addr) })
	d.former = d.former[max(0, len(d.former)-formerMax):]
}

// OnLife notes a sign of life of a process.
func (d *Detector) OnLife(now clock.Time, incarnation uint64) {
	for i := range d.targets {
		if d.targets[i].addr.Incarnation == incarnation {
			d.Heard++
			d.targets[i].heardAt, d.targets[i].heard, d.targets[i].doubted = now, true, false
		}
	}
}

// Deadline returns when Tick has something to do.
func (d *Detector) Deadline() clock.Time { return min(d.beatAt, d.lookAt) }

// Tick sends signs of life and returns the targets that have been silent for too long, each once for its silence.
func (d *Detector) Tick(now clock.Time) []core.Address {
	if now < d.Deadline() {
		return nil
	}
	if late := now.Sub(d.Deadline()); late > d.cfg.Interval {
		for i := range d.targets {
			d.targets[i].heardAt = d.targets[i].heardAt.Add(late)
		}
	}
	d.lookAt = clock.Never
	if d.beatAt <= now {
		d.beatAt = now.Add(d.cfg.Interval)
		d.beat(now)
	}
	var silent []core.Address
	for i := range d.targets {
		if d.targets[i].silent(now, d.cfg.Suspect) {
			silent = append(silent, d.targets[i].addr)
		} else if d.targets[i].doubted && !d.targets[i].accused {
			d.lookAt = now.Add(d.cfg.Interval / lookAgain)
		}
	}
	return silent
}

// silent tells whether a target is to be accused now. The first time that it has been silent for too long it is only
// doubted.
func (t *target) silent(now clock.Time, limit time.Duration) bool {
	if !t.heard {
		limit *= patience
	}
	switch {
	case t.accused || now.Sub(t.heardAt) <= limit:
		t.doubted = false
	case !t.doubted:
		t.doubted = true
	default:
		t.accused = true
		return true
	}
	return false
}

// beat sends signs of life to the watchers, and to those who may not know that they are none any more.
func (d *Detector) beat(now clock.Time) {
	for _, w := range d.watchers {
		d.live(w)
	}
	d.former = slices.DeleteFunc(d.former, func(f former) bool { return f.until <= now })
	for i := range d.former {
		d.live(d.former[i].addr)
	}
}

func (d *Detector) live(w core.Address) {
	h := wire.Header{Kind: wire.KindHeartbeat, View: d.cfg.Incarnation, Rank: uint32(w.Incarnation)}
	if f, ok := d.out.Make(&h, nil); ok {
		d.Sent++
		d.out.Unicast(f, w.Endpoint())
	}
}
