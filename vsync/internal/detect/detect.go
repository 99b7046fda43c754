// Package detect finds processes that have fallen silent. Every process sends signs of life to a few watchers and
// watches as many targets; the ORACLE assigns both, so that the cost for each process and interval does not grow with
// the system.
//
// A watcher that was late itself (descheduled, stopped) does not hold its own lateness against its targets: the time
// it was not running does not count. Before it accuses it looks once more, a little later, since the sign of life that
// it misses may lie in its own socket. A target that was never heard of may not know its watcher, because the ORACLE's
// leader failed between telling one and the other; it gets time until another leader has told both. For the same reason
// a process goes on for that time with signs of life to a watcher that was relieved.
//
// A dead process is not waited for: a watcher holds a line to each target, a connection that the target's kernel closes
// when the process ends. Whoever keeps the lines says so by OnClosed. A connection may end for other reasons, so the
// target is asked for a sign of life first, a few times within some milliseconds, and accused when it gives none.
// Everything belongs to the engine's goroutine.
package detect

import (
	"fmt"
	"slices"
	"time"

	"github.com/khamsin-io/khamsin/dataplane"
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
	Line        uint16        // port where lines to this process end; zero: there are none
}

// Flags of a sign of life.
const (
	flagAsk    = 1 // the sender wants one at once
	flagAnswer = 2 // this is it; the sequence number is that of the question
)

// A target whose line is closed is asked asks times, and accused askEvery after the last one.
const (
	asks     = 3
	askEvery = 5 * time.Millisecond
)

// Line asks for a line to a target, or says that it is not wanted any more.
type Line struct {
	To   core.Address
	Port uint16 // zero: not wanted any more
}

// Accusation says whom to accuse, and why.
type Accusation struct {
	Who core.Address
	Why string
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
	heard   bool       // ever
	doubted clock.Time // when it was found silent for too long; zero: it was not
	accused bool
	line    uint16     // port of the line; zero: none
	asked   int        // how often, since the line was closed
	askAt   clock.Time // when to ask again, or accuse
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
	lookAt   clock.Time // when to look at the targets
	question uint64     // number of the last one
	// Lines are changes for whoever keeps the lines, to be taken and cleared by the caller.
	Lines []Line
	Sent  uint64 // signs of life
	Heard uint64
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
	for i := range d.targets {
		if t := &d.targets[i]; t.line != 0 && !slices.Contains(m.Targets, t.addr) {
			d.Lines = append(d.Lines, Line{To: t.addr})
		}
	}
	d.targets, d.watchers = targets, m.Watchers
	d.beatAt = now
	d.look()
}

// relieve notes which watchers are none any more.
func (d *Detector) relieve(now clock.Time, watchers []core.Address) {
	for _, w := range d.watchers {
		d.former = append(d.former, former{w, now.Add(patience * d.cfg.Suspect)})
	}
	d.former = slices.DeleteFunc(d.former, func(f former) bool { return slices.Contains(watchers, f.addr) })
	d.former = d.former[max(0, len(d.former)-formerMax):]
}

// OnLife takes a sign of life in. It gives one at once when it is asked to.
func (d *Detector) OnLife(now clock.Time, h *wire.Header, from dataplane.Endpoint) {
	if h.Flags&flagAsk != 0 {
		d.live(h.View, from, flagAnswer, h.Seq)
		return
	}
	for i := range d.targets {
		t := &d.targets[i]
		if t.addr.Incarnation != h.View {
			continue
		}
		d.Heard++
		t.heardAt, t.heard, t.doubted = now, true, 0
		if h.Flags&flagAnswer != 0 && h.Seq == d.question {
			t.asked = 0
		}
		if t.line == 0 && h.Group != 0 && h.Group <= portMax && !t.accused {
			t.line = uint16(h.Group)
			d.Lines = append(d.Lines, Line{To: t.addr, Port: t.line})
		}
	}
	d.look()
}

const portMax = 1<<16 - 1

// OnClosed is told that the line to a target was closed at its other end.
func (d *Detector) OnClosed(now clock.Time, incarnation uint64) {
	for i := range d.targets {
		if t := &d.targets[i]; t.addr.Incarnation == incarnation && !t.accused && t.asked == 0 {
			d.question++
			d.ask(now, t)
		}
	}
	d.look()
}

// OnOpen is told that a line that was closed is open again: the target itself answered.
func (d *Detector) OnOpen(now clock.Time, incarnation uint64) {
	for i := range d.targets {
		if t := &d.targets[i]; t.addr.Incarnation == incarnation {
			t.heardAt, t.heard, t.doubted, t.asked = now, true, 0, 0
		}
	}
	d.look()
}

func (d *Detector) ask(now clock.Time, t *target) {
	t.asked++
	t.askAt = now.Add(askEvery)
	d.live(t.addr.Incarnation, t.addr.Endpoint(), flagAsk, d.question)
}

// Deadline returns when Tick has something to do.
func (d *Detector) Deadline() clock.Time { return min(d.beatAt, d.lookAt) }

// Tick sends signs of life and returns the targets to accuse, each once: those that have been silent for too long, and
// those that give no sign of life when asked.
func (d *Detector) Tick(now clock.Time) []Accusation {
	if now < d.Deadline() {
		return nil
	}
	if late := now.Sub(d.Deadline()); late > d.cfg.Interval {
		for i := range d.targets {
			d.targets[i].heardAt = d.targets[i].heardAt.Add(late)
		}
	}
	if d.beatAt <= now {
		d.beatAt = now.Add(d.cfg.Interval)
		d.beat(now)
	}
	var found []Accusation
	for i := range d.targets {
		t := &d.targets[i]
		switch {
		case t.accused:
		case t.asked > 0 && t.askAt <= now && d.unanswered(now, t):
			t.accused = true
			found = append(found, Accusation{t.addr, fmt.Sprintf(
				"its line was closed and it answered none of %d questions in %v", asks, asks*askEvery)})
		case d.silent(now, t):
			t.accused = true
			found = append(found, Accusation{t.addr, fmt.Sprintf("silent for more than %v", d.limit(t))})
		}
	}
	d.look()
	return found
}

// unanswered asks a target again, and tells whether it was asked in vain often enough. A question that is late to be
// repeated does not count: its answer may lie in a queue of this process, which was late itself.
func (d *Detector) unanswered(now clock.Time, t *target) bool {
	switch {
	case now.Sub(t.askAt) > askEvery:
		t.asked--
	case t.asked >= asks:
		return true
	}
	d.ask(now, t)
	return false
}

// look sets when to look at the targets.
func (d *Detector) look() {
	d.lookAt = clock.Never
	for i := range d.targets {
		t := &d.targets[i]
		if t.accused {
			continue
		}
		at := t.heardAt.Add(d.limit(t) + 1)
		if t.doubted != 0 {
			at = t.doubted.Add(d.cfg.Interval / lookAgain)
		}
		if t.asked > 0 {
			at = min(at, t.askAt)
		}
		d.lookAt = min(d.lookAt, at)
	}
}

// limit returns how long a target may be silent.
func (d *Detector) limit(t *target) time.Duration {
	if !t.heard {
		return patience * d.cfg.Suspect
	}
	return d.cfg.Suspect
}

// silent tells whether a target is to be accused now. The first time that it has been silent for too long it is only
// doubted.
func (d *Detector) silent(now clock.Time, t *target) bool {
	switch {
	case now.Sub(t.heardAt) <= d.limit(t):
		t.doubted = 0
	case t.doubted == 0:
		t.doubted = now
	default:
		return now.Sub(t.doubted) >= d.cfg.Interval/lookAgain
	}
	return false
}

// beat sends signs of life to the watchers, and to those who may not know that they are none any more.
func (d *Detector) beat(now clock.Time) {
	for _, w := range d.watchers {
		d.live(w.Incarnation, w.Endpoint(), 0, 0)
	}
	d.former = slices.DeleteFunc(d.former, func(f former) bool { return f.until <= now })
	for i := range d.former {
		w := d.former[i].addr
		d.live(w.Incarnation, w.Endpoint(), 0, 0)
	}
}

func (d *Detector) live(incarnation uint64, to dataplane.Endpoint, flags uint8, number uint64) {
	h := wire.Header{
		Kind: wire.KindHeartbeat, Flags: flags, View: d.cfg.Incarnation, Rank: uint32(incarnation), Seq: number,
		Group: uint32(d.cfg.Line),
	}
	if f, ok := d.out.Make(&h, nil); ok {
		d.Sent++
		d.out.Unicast(f, to)
	}
}
