// Package tuner decides how a process adjusts itself to what it loses: socket buffers and batches by what its own
// sockets drop, the window and the packet size by how much of what it sends has to be sent again.
//
// A Tuner is a deterministic machine: Step gets the time and the counters, and returns the settings. It reads no clock
// and starts nothing. It never oscillates, by construction: buffers and batches only grow, every packet size is tried
// once, and the window is found by halving intervals between what is known to be good and known to be bad, with
// pauses that double after every disappointment. What does not help is taken back, so that loss which has nothing to do
// with a setting (a bad cable) changes it for a second at most. Every decision is kept with its reason.
//
// A Tuner belongs to whoever owns the engine.
package tuner

import (
	"fmt"
	"time"

	"github.com/khamsin-io/khamsin/dataplane/clock"
)

// Sample is what was counted since the system started, and what the kernel granted. A counter that is smaller than in
// the sample before began anew.
type Sample struct {
	Received, Dropped uint64 // packets that the transport received, and that were lost in front of it
	Calls             uint64 // in which it received them
	Sent, Resent      uint64 // packets of own streams, and those sent again because somebody asked
	SendDropped       uint64 // packets that the socket had no room for
	ReceiveBuffer     int    // bytes granted; zero when not known
	SendBuffer        int
}

// Settings is what a tuner sets. ReceiveBuffer and SendBuffer are what to ask the kernel for.
type Settings struct {
	Window        int // unstable packets of one sender
	Packet        int // bytes of the longest packet
	Batch         int // packets taken from the transport at once
	ReceiveBuffer int
	SendBuffer    int
}

// Config is what a tuner starts from, and its bounds.
type Config struct {
	Start     Settings
	WindowMin int // the window never exceeds Start.Window
	BatchMax  int
	BufferMax int // bytes to ask for at most
	Unbroken  int // longest packet that the interface sends without IP fragments; zero when not known
}

// Decision is one change, or a change that was considered and is not possible.
type Decision struct {
	At      clock.Time
	Setting string
	From    int
	To      int
	Why     string
}

// String returns the decision as a line for a log.
func (d Decision) String() string {
	return fmt.Sprintf("%s %d -> %d: %s", d.Setting, d.From, d.To, d.Why)
}

// Constants of the control. Times are long against a round trip and short against a person's patience.
const (
	interval     = 200 * time.Millisecond // between judgements
	evidence     = 256                    // packets that a judgement needs …
	quietMax     = 10                     // … within so many intervals
	trigger      = 0.01                   // share sent again that calls for an experiment
	floorTimes   = 4                      // how far loss must rise above what no setting helped against
	settling     = 1                      // intervals after a change that do not count
	judging      = 3                      // intervals that do …
	judgingMax   = 15                     // … and as many more as it takes, up to this, until …
	evidenceLost = 30                     // … as many losses would have been seen as make chance unlikely
	retryFirst   = 5 * time.Second        // after an experiment that did not help
	growFirst    = 4 * time.Second        // without loss before a larger window is tried
	forgetting   = time.Minute            // before a window that was bad is believed in again
	pauseMax     = time.Hour
	dropShare    = 0.0001 // share lost in front of the socket that calls for a larger buffer
	fullShare    = 0.9    // of a batch, on average, that calls for a larger one
	keepMax      = 64     // decisions that are kept
)

// Tuner is the machine.
type Tuner struct {
	cfg     Config
	now     Settings
	last    Sample
	started bool
	next    clock.Time // of the next judgement

	receiver receiver
	sender   sender

	decisions []Decision // the last keepMax
	made      uint64     // of all times
}

// New returns a tuner that has made no decision.
func New(cfg Config) *Tuner {
	cfg.WindowMin = max(1, min(cfg.WindowMin, cfg.Start.Window))
	t := &Tuner{cfg: cfg, now: cfg.Start}
	t.initReceiver()
	t.sender.init(cfg)
	return t
}

// Settings returns the settings in force.
func (t *Tuner) Settings() Settings { return t.now }

// Decisions returns the last decisions, oldest first, and how many were ever made. The slice is the tuner's.
func (t *Tuner) Decisions() ([]Decision, uint64) { return t.decisions, t.made }

// Due returns when Step has something to do.
func (t *Tuner) Due() clock.Time { return t.next }

// Step takes in what was counted, and returns the settings from now on.
func (t *Tuner) Step(now clock.Time, s Sample) Settings {
	if !t.started {
		t.started, t.last, t.next = true, s, now.Add(interval)
		return t.now
	}
	if now < t.next {
		return t.now
	}
	d := since(t.last, s)
	t.last, t.next = s, now.Add(interval)
	t.stepReceiver(now, d)
	t.stepSender(now, d)
	return t.now
}

// since returns what was counted between two samples.
func since(a, b Sample) Sample {
	d := b
	d.Received, d.Dropped = delta(a.Received, b.Received), delta(a.Dropped, b.Dropped)
	d.Calls = delta(a.Calls, b.Calls)
	d.Sent, d.Resent = delta(a.Sent, b.Sent), delta(a.Resent, b.Resent)
	d.SendDropped = delta(a.SendDropped, b.SendDropped)
	return d
}

func delta(a, b uint64) uint64 {
	if b < a {
		return b
	}
	return b - a
}

// decide records a decision.
func (t *Tuner) decide(now clock.Time, setting string, from, to int, why string) {
	if len(t.decisions) == keepMax {
		t.decisions = t.decisions[:copy(t.decisions, t.decisions[1:])]
	}
	t.decisions = append(t.decisions, Decision{At: now, Setting: setting, From: from, To: to, Why: why})
	t.made++
}

// share returns part of a whole: zero when there is none, and at most one, though several members may ask for the same
// packet.
func share(part, whole uint64) float64 {
	if whole == 0 {
		return 0
	}
	return min(1, float64(part)/float64(whole))
}
