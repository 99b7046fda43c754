// Package stream is the reliable part of multicast: in one view, every member numbers its packets, receivers ask for
// what they miss, acknowledge what they hold, and forget what everyone holds.
//
// The ladder of positions of one stream, at each member: discardedTo <= stableTo, deliveredTo <= receivedTo <= knownTo.
// The owner of a stream alone decides what is stable (received by every member of the view) and says so in its packets.
// Receivers acknowledge two positions: receivedTo, which makes packets stable, and deliveredTo, which opens the owner's
// window when the application has taken them. A Stream lives as long as its view; at the view's end Freeze stops
// it, and package flush decides what is still delivered.
//
// A Stream belongs to its engine's goroutine. It never delivers; it tells how far each stream is contiguous.
package stream

import (
	"fmt"
	"time"

	"github.com/khamsin-io/khamsin/dataplane"
	"github.com/khamsin-io/khamsin/dataplane/clock"
	"github.com/khamsin-io/khamsin/dataplane/frame"
	"github.com/khamsin-io/khamsin/dataplane/invariant"
	"github.com/khamsin-io/khamsin/dataplane/wire"
	"github.com/khamsin-io/khamsin/vsync/core"
	"github.com/khamsin-io/khamsin/vsync/internal/canary"
	"github.com/khamsin-io/khamsin/vsync/internal/pdu"
)

// Config describes one view of one group at one member.
type Config struct {
	Self    core.Rank
	Peers   []dataplane.Endpoint // by rank, own included
	Channel dataplane.Channel    // zero: packets go to each member by unicast
	Group   uint32
	View    core.ViewID
	Window  int           // packets of one sender that are not stable
	Nak     time.Duration // age of a gap before it is asked for
	Ack     time.Duration // age of a packet before it is acknowledged
	Sync    time.Duration // age of an unstable packet before its sender asks for acknowledgements
	Canary  canary.Bug
}

// RoomFactor bounds how far a sender may be ahead of the slowest application, in windows.
const RoomFactor = 2

// Counters counts what the stream saw. All numbers are packets unless they say otherwise.
type Counters struct {
	Sent, Resent, Received, Duplicates, Ahead   uint64
	AcksSent, AcksReceived, NaksSent, NaksGot   uint64
	SyncsSent, SyncsReceived, Malformed, Missed uint64
}

// inbound is what this member knows of one member's stream, its own included.
type inbound struct {
	held        held
	receivedTo  core.Seq // contiguous
	deliveredTo core.Seq // handed to the application
	stableTo    core.Seq // as the owner said
	knownTo     core.Seq // highest number heard of
	wantedTo    core.Seq // asked for up to here: taken in though it is beyond what the window allows
	nakAt       clock.Time
	nakTries    int
	inGaps      bool     // listed in Stream.gaps
	inAcks      bool     // listed in Stream.owed
	toldTo      core.Seq // receivedTo as last acknowledged
	toldTaken   core.Seq // deliveredTo as last acknowledged
}

// acked is what one member said of my stream.
type acked struct {
	receivedTo, deliveredTo core.Seq
	seenTo                  core.Seq   // deliveredTo when Stuck last looked
	seenAt                  clock.Time // when that was first so, while more waited; 0 while nothing does
}

// Stream is one view's streams at one member.
type Stream struct {
	cfg  Config
	out  *pdu.Outbox
	in   []inbound
	gaps []int // ranks with gaps, in the order noticed
	owed []int // ranks whose acknowledgement is due

	acks       []acked  // by rank: what each member holds of my stream
	numberedTo core.Seq // my packets that have a number
	sentTo     core.Seq // those that were transmitted
	stableTo   core.Seq // those that every member holds
	takenTo    core.Seq // those that every member's application took
	saidTo     core.Seq // stableTo as last told

	window  core.Seq   // packets that may be unstable now, at most cfg.Window: see steer
	probe   core.Seq   // the packet whose way to stability is timed; 0: none
	probeAt clock.Time // when it was transmitted

	ackAt     clock.Time
	syncAt    clock.Time
	syncTries int
	frozen    bool
	limit     core.Seq // of my unstable packets: the window, unless SetLimit made it smaller

	watchers []Observer
	scratch  []byte
	Count    Counters
}

// Observer hears every member's acknowledgement of every stream; package safe needs them.
type Observer interface {
	OnAck(member, owner core.Rank, receivedTo core.Seq)
}

// New returns the streams of a fresh view.
func New(cfg Config, out *pdu.Outbox) *Stream {
	n := len(cfg.Peers)
	s := &Stream{
		cfg: cfg, out: out, in: make([]inbound, n), acks: make([]acked, n), ackAt: clock.Never, syncAt: clock.Never,
		window: core.Seq(min(cfg.Window, windowFirst)), limit: core.Seq(cfg.Window),
	}
	for r := range s.in {
		s.in[r].nakAt = clock.Never
	}
	return s
}

// Observe adds an observer of acknowledgements.
func (s *Stream) Observe(o Observer) { s.watchers = append(s.watchers, o) }

// ReceivedTo returns how far the stream of a member is contiguous here.
func (s *Stream) ReceivedTo(r core.Rank) core.Seq { return s.in[r].receivedTo }

// DeliveredTo returns how far the stream of a member was handed to the application here.
func (s *Stream) DeliveredTo(r core.Rank) core.Seq { return s.in[r].deliveredTo }

// NumberedTo returns the number of my last packet.
func (s *Stream) NumberedTo() core.Seq { return s.numberedTo }

// StableTo returns how far my own stream is held by every member.
func (s *Stream) StableTo() core.Seq { return s.stableTo }

// StableAt returns how far a member's stream is known to be held by every member.
func (s *Stream) StableAt(r core.Rank) core.Seq { return s.in[r].stableTo }

// Broadcast transmits a packet that is not numbered to every member, without taking the frame.
func (s *Stream) Broadcast(f frame.Frame) { s.transmit(f) }

// Held returns the frame of a packet, which stays the stream's; the zero frame when it is not held.
func (s *Stream) Held(r core.Rank, q core.Seq) frame.Frame { return s.in[r].held.get(q) }

// Flags returns the flags of a packet that is held; false when it is not.
func (s *Stream) Flags(r core.Rank, q core.Seq) (flags uint8, ok bool) {
	x := s.in[r].held.slot(q)
	return x.flags, !x.frame.IsZero()
}

// HeldBy returns how many members hold my stream up to q, this one included.
func (s *Stream) HeldBy(q core.Seq) int {
	n := 1
	for r := range s.acks {
		if r != int(s.cfg.Self) && s.acks[r].receivedTo >= q {
			n++
		}
	}
	return n
}

// Dump describes my stream in one line.
func (s *Stream) Dump() string {
	return fmt.Sprintf("numbered to %d, sent to %d, stable to %d, taken to %d, frozen %v, acks %v", s.numberedTo,
		s.sentTo,
		s.stableTo, s.takenTo, s.frozen, s.acks)
}

// SetLimit makes the window of my own packets smaller than the view's, or opens it again up to that. What the others
// expect of me does not change.
func (s *Stream) SetLimit(packets int) { s.limit = core.Seq(max(1, min(packets, s.cfg.Window))) }

// Open tells whether the windows allow another packet to be numbered now.
func (s *Stream) Open() bool { return s.Room() > 0 }

// Number gives the next number of my stream to a frame made by the outbox (header room and payload), seals it, and
// takes the frame. It is received here at once; Pump transmits it. Flags are those of package order.
func (s *Stream) Number(f frame.Frame, flags uint8) core.Seq {
	invariant.Check(!s.frozen, "stream: packet numbered in a frozen view %d", s.cfg.View)
	s.numberedTo++
	q := s.numberedTo
	s.out.Finish(f, &wire.Header{
		Kind: wire.KindData, Flags: flags, Group: s.cfg.Group, View: uint64(s.cfg.View), Seq: uint64(q),
		Rank: uint32(s.cfg.Self), Aux: uint32(q - s.stableTo),
	})
	own := &s.in[s.cfg.Self]
	own.held.put(q, f, flags)
	own.receivedTo, own.knownTo = q, q
	return q
}

// Pump transmits what is numbered, as far as the window allows.
func (s *Stream) Pump(now clock.Time) {
	if s.frozen {
		return
	}
	limit := min(s.numberedTo, s.stableTo+core.Seq(2*s.cfg.Window))
	if s.sentTo >= limit {
		if len(s.in) == 1 {
			s.alone()
		}
		return
	}
	for s.sentTo < limit {
		s.sentTo++
		s.transmit(s.Held(s.cfg.Self, s.sentTo))
		s.Count.Sent++
	}
	if s.probe == 0 {
		s.probe, s.probeAt = s.sentTo, now
	}
	s.saidTo = s.stableTo
	s.syncTries = 0
	s.syncAt = now.Add(s.cfg.Sync)
	if len(s.in) == 1 {
		s.alone()
	}
}

// alone makes everything stable in a view of one member.
func (s *Stream) alone() {
	s.sentTo = s.numberedTo
	s.stableTo = s.numberedTo
	s.takenTo = s.in[0].deliveredTo
	s.in[0].stableTo = s.stableTo
	s.saidTo = s.stableTo
	s.syncAt = clock.Never
	s.discard(0)
}

func (s *Stream) transmit(f frame.Frame) {
	if len(s.in) == 1 {
		return
	}
	if s.cfg.Channel != 0 {
		s.out.Arena().Retain(f)
		s.out.Multicast(f, s.cfg.Channel)
		return
	}
	for r, ep := range s.cfg.Peers {
		if r != int(s.cfg.Self) {
			s.out.Arena().Retain(f)
			s.out.Unicast(f, ep)
		}
	}
}

// Advance says how far a stream became contiguous by one packet: the numbers above From up to To are new.
type Advance struct {
	Rank     core.Rank
	From, To core.Seq
}

// OnData takes a data packet in, and the frame's reference with it. The frame covers the whole packet.
func (s *Stream) OnData(now clock.Time, h *wire.Header, f frame.Frame) Advance {
	r, q := core.Rank(h.Rank), core.Seq(h.Seq)
	if h.Rank >= uint32(len(s.in)) || r == s.cfg.Self || q == 0 || uint64(h.Aux) > h.Seq {
		s.refuse(f, &s.Count.Malformed, r == s.cfg.Self)
		return Advance{}
	}
	in := &s.in[r]
	s.learnStable(int(r), q-core.Seq(h.Aux))
	if q <= in.receivedTo || !in.held.get(q).IsZero() {
		if canary.Enabled && s.cfg.Canary == canary.RepairTwice && q == in.receivedTo && q > in.held.base {
			s.refuse(f, &s.Count.Duplicates, false)
			return Advance{Rank: r, From: q, To: q}
		}
		s.refuse(f, &s.Count.Duplicates, false)
		s.owe(now, int(r), 0)
		return Advance{}
	}
	if q > max(in.receivedTo+core.Seq(4*s.cfg.Window), in.wantedTo) {
		s.refuse(f, &s.Count.Ahead, false)
		return Advance{}
	}
	in.held.put(q, f, h.Flags)
	in.knownTo = max(in.knownTo, q)
	s.Count.Received++
	if s.frozen {
		return Advance{}
	}
	adv := Advance{Rank: r, From: in.receivedTo}
	for !in.held.get(in.receivedTo + 1).IsZero() {
		in.receivedTo++
	}
	if canary.Enabled && s.cfg.Canary == canary.SkipGap && in.receivedTo < in.knownTo {
		in.receivedTo = in.knownTo
	}
	adv.To = in.receivedTo
	s.watchGap(now, int(r), adv.To > adv.From)
	if adv.To > adv.From {
		s.owe(now, int(r), s.ackEvery())
	}
	return adv
}

func (s *Stream) refuse(f frame.Frame, counter *uint64, own bool) {
	if !own {
		*counter++
	}
	s.out.Arena().Tx().Release(f)
}

// learnStable takes in what an owner said of its stream's stability, and discards what can go.
func (s *Stream) learnStable(r int, stable core.Seq) {
	in := &s.in[r]
	if stable > in.stableTo {
		in.stableTo = min(stable, in.receivedTo)
		s.discard(r)
	}
}

func (s *Stream) discard(r int) {
	if canary.Enabled && s.cfg.Canary == canary.NeverDiscard {
		return
	}
	if s.frozen {
		return
	}
	in := &s.in[r]
	for limit := min(in.stableTo, in.deliveredTo); in.held.base < limit; {
		if f := in.held.drop(); !f.IsZero() {
			s.out.Arena().Tx().Release(f)
		}
	}
}

// Delivered says that the packets of a stream up to q were handed to the application and need no longer be kept for it.
func (s *Stream) Delivered(now clock.Time, r core.Rank, q core.Seq) {
	in := &s.in[r]
	if q > in.receivedTo {
		invariant.Fail("stream: delivered %d of rank %d, received to %d", q, r, in.receivedTo)
	}
	in.deliveredTo = q
	s.discard(int(r))
	if r == s.cfg.Self {
		s.recompute(now)
		return
	}
	if !s.frozen && in.deliveredTo-in.toldTaken >= core.Seq(s.ackEvery()) {
		s.owe(now, int(r), s.ackEvery())
	}
}

// Freeze stops the streams at the end of their view: nothing more is numbered, acknowledged, delivered or discarded, so
// that what this member reports stays true. Packets are still taken in, and given to those who ask.
func (s *Stream) Freeze() {
	s.frozen = true
	s.ackAt, s.syncAt = clock.Never, clock.Never
	for _, r := range s.gaps {
		s.in[r].inGaps = false
		s.in[r].nakAt = clock.Never
	}
	s.gaps = s.gaps[:0]
}

// Frozen tells whether Freeze was called.
func (s *Stream) Frozen() bool { return s.frozen }

// Release gives up every frame. The streams are of no use afterwards.
func (s *Stream) Release() {
	for r := range s.in {
		h := &s.in[r].held
		for h.base < h.top {
			if f := h.drop(); !f.IsZero() {
				s.out.Arena().Tx().Release(f)
			}
		}
	}
}
