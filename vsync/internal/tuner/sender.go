package tuner

import (
	"fmt"
	"slices"
	"time"

	"github.com/khamsin-io/khamsin/dataplane/clock"
)

// knob is what an experiment turns.
type knob uint8

const (
	knobPacket knob = iota
	knobWindow
)

func (k knob) String() string { return [...]string{"packet", "window"}[k] }

// sender is the part that looks at how much of what this process sends has to be sent again.
type sender struct {
	sent, resent uint64 // of intervals that count for the next judgement
	quiet        int    // of these, in a row, without enough of them

	// The experiment under way, when testing.
	testing bool
	up      bool // a larger window is tried, not a smaller one
	knob    knob
	before  int     // the setting
	was     float64 // the share sent again
	passed  int     // intervals with enough traffic since the change

	packets []int      // sizes that are still to be tried, longest first
	floor   float64    // the share sent again that no setting helped against
	floorAt clock.Time // when it was last seen
	retryAt clock.Time // no experiment against loss before
	retry   time.Duration

	bad    int // smallest window known to lose; zero when none is
	badAt  clock.Time
	forget time.Duration
	growAt clock.Time // a larger window is tried when no loss was seen until then
	grow   time.Duration
	grown  bool // the last change of the window that was kept made it larger
}

// Packet sizes that are tried against loss: what tunnels, and then every network, carry without fragments.
const (
	packetTunnel  = 1372
	packetMinimum = 548 // of an IPv4 packet of 576 bytes, which every host takes
)

func (s *sender) init(cfg Config) {
	s.retry, s.grow, s.forget = retryFirst, growFirst, forgetting
	for _, size := range []int{cfg.Unbroken, packetTunnel, packetMinimum} {
		if size > 0 && size < cfg.Start.Packet && !slices.Contains(s.packets, size) {
			s.packets = append(s.packets, size)
		}
	}
	slices.SortFunc(s.packets, func(a, b int) int { return b - a })
}

// stepSender judges the window and the packet size.
func (t *Tuner) stepSender(now clock.Time, d Sample) {
	s := &t.sender
	s.sent, s.resent = s.sent+d.Sent, s.resent+d.Resent
	if s.sent < evidence {
		if s.quiet++; s.quiet == quietMax {
			s.sent, s.resent, s.quiet = 0, 0, 0
		}
		return
	}
	s.quiet = 0
	if s.testing {
		t.watch(now)
		return
	}
	loss := share(s.resent, s.sent)
	s.sent, s.resent = 0, 0
	if loss >= s.floor/2 {
		s.floorAt = now
	} else if now >= s.floorAt.Add(forgetting) {
		s.floor = 0
	}
	if loss > t.tolerable() {
		s.growAt = now.Add(s.grow)
		if now >= s.retryAt {
			t.against(now, loss)
		}
		return
	}
	t.maybeGrow(now, loss)
}

// tolerable returns the share of packets sent again that calls for nothing.
func (t *Tuner) tolerable() float64 { return max(trigger, floorTimes*t.sender.floor) }

// against starts an experiment against loss: a shorter packet when it travels in fragments, else half the window.
func (t *Tuner) against(now clock.Time, loss float64) {
	fragments := t.cfg.Unbroken > 0 && t.now.Packet > t.cfg.Unbroken
	half := max(t.now.Window/2, t.cfg.WindowMin)
	switch {
	case fragments && t.tryPacket(now, loss):
	case half < t.now.Window:
		t.try(now, knobWindow, half, loss, "is less lost when less is under way?")
	case t.now.Window < t.cfg.Start.Window:
		t.giveUp(now, loss)
	}
}

// tryPacket starts an experiment with the next shorter packet, and returns false when all were tried.
func (t *Tuner) tryPacket(now clock.Time, loss float64) bool {
	s := &t.sender
	for len(s.packets) > 0 {
		size := s.packets[0]
		s.packets = s.packets[1:]
		if size < t.now.Packet {
			t.try(now, knobPacket, size, loss, "is a shorter packet lost less often?")
			return true
		}
	}
	return false
}

// giveUp opens the window again: the smallest one loses as well, so that the window is not what loses.
func (t *Tuner) giveUp(now clock.Time, loss float64) {
	s := &t.sender
	old := t.now.Window
	t.now.Window, s.bad, s.grown = t.cfg.Start.Window, 0, true
	t.bearWith(now, loss)
	t.decide(now, "window", old, t.now.Window,
		fmt.Sprintf("%.2f %% of the packets are sent again even with the smallest window", 100*loss))
}

// bearWith remembers a share of loss that no setting helps against, and waits longer before the next experiment.
func (t *Tuner) bearWith(now clock.Time, loss float64) {
	s := &t.sender
	s.floor, s.floorAt = max(s.floor, loss), now
	s.retryAt = now.Add(s.retry)
	s.retry = min(2*s.retry, pauseMax)
}

// try begins an experiment.
func (t *Tuner) try(now clock.Time, k knob, to int, loss float64, why string) {
	s := &t.sender
	s.testing, s.knob, s.before, s.was, s.passed = true, k, *t.setting(k), loss, 0
	s.up = to > s.before
	s.sent, s.resent = 0, 0
	*t.setting(k) = to
	t.decide(now, k.String(), s.before, to, fmt.Sprintf("%.2f %% of the packets were sent again; %s", 100*loss, why))
}

func (t *Tuner) setting(k knob) *int {
	if k == knobPacket {
		return &t.now.Packet
	}
	return &t.now.Window
}

// watch counts the intervals of an experiment and judges it at its end.
func (t *Tuner) watch(now clock.Time) {
	s := &t.sender
	s.passed++
	if s.passed <= settling {
		s.sent, s.resent = 0, 0
		return
	}
	vague := !s.up && float64(s.sent)*s.was < evidenceLost && s.passed < settling+judgingMax
	if s.passed < settling+judging || vague {
		return // what was counted stays, for the judgement
	}
	loss := share(s.resent, s.sent)
	s.sent, s.resent, s.testing = 0, 0, false
	switch {
	case s.up && loss > t.tolerable():
		t.refuseUp(now, loss)
	case s.up:
		s.growAt, s.grown = now.Add(s.grow), true
	case helped(s.was, loss):
		t.accept(now, loss)
	default:
		t.takeBack(now, loss)
	}
}

// helped tells whether an experiment made a difference: half as much is lost, or, when most is lost, a quarter more
// arrives. What a full buffer loses of half a window is hardly less of a share when the window is many times too large,
// but twice the share arrives; of loss that strikes at random neither share changes.
func helped(before, after float64) bool {
	const more = 1.25
	return after <= before/2 || 1-after > more*(1-before)
}

// refuseUp goes back from a window that was too large.
func (t *Tuner) refuseUp(now clock.Time, loss float64) {
	s := &t.sender
	tried := t.now.Window
	t.now.Window = s.before
	s.bad, s.badAt = tried, now
	s.grow = min(2*s.grow, pauseMax)
	s.growAt = now.Add(s.grow)
	t.decide(now, "window", tried, s.before, fmt.Sprintf("%.2f %% of the packets were sent again with more", 100*loss))
}

// accept keeps what helped.
func (t *Tuner) accept(now clock.Time, loss float64) {
	s := &t.sender
	if s.knob == knobWindow {
		s.bad, s.badAt = s.before, now
		if s.grown { // it was too early to grow
			s.grow = min(2*s.grow, pauseMax)
		}
		s.grown = false
	}
	s.growAt = now.Add(s.grow)
	t.decide(now, s.knob.String(), *t.setting(s.knob), *t.setting(s.knob),
		fmt.Sprintf("kept: %.2f %% are sent again, %.2f %% before", 100*loss, 100*s.was))
	if loss > t.tolerable() {
		t.against(now, loss)
	}
}

// takeBack undoes what did not help. When nothing is left to try, it remembers how much loss there is whatever is set.
func (t *Tuner) takeBack(now clock.Time, loss float64) {
	s := &t.sender
	tried, was := *t.setting(s.knob), s.was
	*t.setting(s.knob) = s.before
	t.decide(now, s.knob.String(), tried, s.before,
		fmt.Sprintf("taken back: %.2f %% are sent again, %.2f %% before", 100*loss, 100*was))
	if !t.tryPacket(now, was) {
		t.bearWith(now, min(loss, was))
	}
}

// maybeGrow tries a larger window after a time without loss: half of the way to the smallest that was bad.
func (t *Tuner) maybeGrow(now clock.Time, loss float64) {
	s := &t.sender
	if s.bad > 0 && now >= s.badAt.Add(s.forget) {
		s.bad = 0
		s.forget = min(2*s.forget, pauseMax)
	}
	limit := t.cfg.Start.Window
	if s.bad > 0 {
		limit = min(limit, s.bad)
	}
	const near = 8 // a step of less than a part in so many is not worth a disturbance
	step := (limit - t.now.Window + 1) / 2
	if limit == t.cfg.Start.Window && s.bad == 0 {
		step = min(limit-t.now.Window, t.now.Window)
	}
	if now < s.growAt || step <= t.now.Window/near && s.bad > 0 || step == 0 {
		return
	}
	t.try(now, knobWindow, t.now.Window+step, loss, "is there room for more?")
}
