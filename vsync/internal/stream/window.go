package stream

import (
	"github.com/khamsin-io/khamsin/dataplane/clock"
	"github.com/khamsin-io/khamsin/vsync/core"
)

// Constants of the window.
const (
	windowFirst   = 128 // packets of a fresh view
	windowLeast   = 64
	windowGrow    = 4  // the window grows by one part in so many
	ackEveryMax   = 16 // packets between two acknowledgements of a stream that flows
	stableWithin  = 4  // acknowledgement times in which a packet should become stable
	shrinkAtMost  = 2  // the window shrinks to one part in so many at once
	windowMinimum = 1
	companyMost   = 44 // packets that leave together: what a super-packet of 64 KiB holds
	companyPart   = 4  // of the window, at most
)

// ackEvery returns after how many packets of one stream a receiver acknowledges without waiting for its timer: so few
// that even a small window never waits for that.
func (s *Stream) ackEvery() int { return max(windowMinimum, min(s.cfg.Window/4, ackEveryMax)) }

// Busy tells whether so much of my stream is under way that an acknowledgement of it will come before long.
func (s *Stream) Busy() bool { return s.numberedTo-s.stableTo >= core.Seq(2*s.ackEvery()) }

// Room returns how many packets the windows allow to be numbered now.
func (s *Stream) Room() int {
	open := min(s.window, s.limit)
	unstable, untaken := s.numberedTo-s.stableTo, s.numberedTo-s.takenTo
	if s.frozen || unstable >= open || untaken >= RoomFactor*open {
		return 0
	}
	return int(min(open-unstable, RoomFactor*open-untaken))
}

// Company returns how many packets should leave together while the stream is busy: what a system call costs, and waking
// the receivers, is then shared by them.
func (s *Stream) Company() int {
	return int(max(windowMinimum, min(s.window, s.limit, companyMost*companyPart)/companyPart))
}

// steer fits the window to the network and to the slowest member: the packet that was timed has become stable. While
// packets take longer than they should, what is under way is only waiting in queues, and the window shrinks to what
// makes them take as long as they should; while they are faster and the window was full, it grows.
func (s *Stream) steer(now clock.Time) {
	took, goal := now.Sub(s.probeAt), stableWithin*s.cfg.Ack
	full := s.numberedTo-s.stableTo+core.Seq(s.Company()) > s.window // as full as company allows
	s.probe = 0
	switch least := core.Seq(min(s.cfg.Window, windowLeast)); {
	case took > goal:
		s.window = max(least, s.window/shrinkAtMost, core.Seq(float64(s.window)*float64(goal)/float64(took)))
	case full:
		s.window = min(core.Seq(s.cfg.Window), s.window+s.window/windowGrow+1)
	}
}
