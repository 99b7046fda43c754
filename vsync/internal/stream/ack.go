package stream

import (
	"encoding/binary"
	"time"

	"github.com/khamsin-io/khamsin/dataplane/clock"
	"github.com/khamsin-io/khamsin/dataplane/wire"
	"github.com/khamsin-io/khamsin/vsync/core"
)

// An acknowledgement is a list of entries, one for each stream: rank, receivedTo, and how far deliveredTo is behind it,
// all as varints.

// flagAsk in a Sync's flags asks for acknowledgements at once.
const flagAsk = 1

// ackFew is the number of streams up to which acknowledgements go to their owners alone rather than to everyone.
const ackFew = 1

// owe notes that a stream's progress must be acknowledged: at the latest after Config.Ack, and at once when soon
// packets are unacknowledged (soon of zero: only the timer).
func (s *Stream) owe(now clock.Time, r int, soon int) {
	if s.frozen {
		return
	}
	in := &s.in[r]
	if !in.inAcks {
		in.inAcks = true
		s.owed = append(s.owed, r)
	}
	if soon > 0 && (in.receivedTo-in.toldTo >= core.Seq(soon) || in.deliveredTo-in.toldTaken >= core.Seq(soon)) {
		s.ackAt = min(s.ackAt, now) // when this turn is over, once for all that it brings
		return
	}
	if s.ackAt == clock.Never {
		s.ackAt = now.Add(s.cfg.Ack)
	}
}

// AckNow sends what acknowledgements are owed; the engine calls it when an ordered delivery waits for them.
func (s *Stream) AckNow(now clock.Time) {
	if len(s.owed) > 0 && !s.frozen {
		s.sendAcks(now)
	}
}

// Hasten makes the acknowledgements that are owed due at once: a SafeSend waits for them.
func (s *Stream) Hasten() {
	if !s.frozen {
		s.ackAt = min(s.ackAt, 0)
	}
}

// AskNow tells how far my stream goes and asks every member to acknowledge at once.
func (s *Stream) AskNow(now clock.Time) {
	if !s.frozen && s.stableTo < s.sentTo {
		s.sendSync(now)
	}
}

// sendAcks acknowledges every owed stream, to the owner alone when few are owed and nobody observes, else to everyone.
func (s *Stream) sendAcks(clock.Time) {
	s.ackAt = clock.Never
	everyone := len(s.owed) > ackFew || len(s.watchers) > 0
	h := wire.Header{Kind: wire.KindAck, Group: s.cfg.Group, View: uint64(s.cfg.View), Rank: uint32(s.cfg.Self)}
	b := s.scratch[:0]
	for _, r := range s.owed {
		in := &s.in[r]
		in.inAcks = false
		in.toldTo, in.toldTaken = in.receivedTo, in.deliveredTo
		if len(b)+3*binary.MaxVarintLen64 > s.out.Room() {
			s.emitAck(&h, b, everyone, r)
			b = b[:0]
		}
		b = s.appendAck(b, r)
		if !everyone {
			s.emitAck(&h, b, false, r)
			b = b[:0]
		}
	}
	if len(b) > 0 {
		s.emitAck(&h, b, true, 0)
	}
	s.owed = s.owed[:0]
	s.scratch = b[:0]
}

func (s *Stream) appendAck(b []byte, r int) []byte {
	in := &s.in[r]
	b = binary.AppendUvarint(b, uint64(r))
	b = binary.AppendUvarint(b, uint64(in.receivedTo))
	return binary.AppendUvarint(b, uint64(in.receivedTo-in.deliveredTo))
}

func (s *Stream) emitAck(h *wire.Header, payload []byte, everyone bool, owner int) {
	f, ok := s.out.Make(h, payload)
	if !ok {
		return
	}
	s.Count.AcksSent++
	if !everyone {
		s.out.Unicast(f, s.cfg.Peers[owner])
		return
	}
	s.transmit(f)
	s.out.Arena().Tx().Release(f)
}

// OnAck takes an acknowledgement in. It returns true when my own stream's stability or room grew.
func (s *Stream) OnAck(now clock.Time, h *wire.Header, payload []byte) bool {
	m := core.Rank(h.Rank)
	if h.Rank >= uint32(len(s.in)) || m == s.cfg.Self || s.frozen {
		return false
	}
	s.Count.AcksReceived++
	grew := false
	for len(payload) > 0 {
		owner, received, taken, rest, ok := decodeAck(payload)
		if !ok || int(owner) >= len(s.in) || taken > received {
			s.Count.Malformed++
			return grew
		}
		payload = rest
		for _, w := range s.watchers {
			w.OnAck(m, owner, received)
		}
		if owner == s.cfg.Self {
			grew = s.noteAck(now, m, received, taken) || grew
		}
	}
	return grew
}

func decodeAck(b []byte) (owner core.Rank, received, taken core.Seq, rest []byte, ok bool) {
	var v [3]uint64
	for i := range v {
		x, n := binary.Uvarint(b)
		if n <= 0 {
			return 0, 0, 0, nil, false
		}
		v[i], b = x, b[n:]
	}
	if v[0] > core.MembersMax || v[2] > v[1] {
		return 0, 0, 0, nil, false
	}
	return core.Rank(v[0]), core.Seq(v[1]), core.Seq(v[1] - v[2]), b, true
}

func (s *Stream) noteAck(now clock.Time, m core.Rank, received, taken core.Seq) bool {
	a := &s.acks[m]
	if received > s.numberedTo {
		s.Count.Malformed++
		return false
	}
	if received <= a.receivedTo && taken <= a.deliveredTo {
		return false
	}
	wasLast := a.receivedTo == s.stableTo || a.deliveredTo == s.takenTo
	a.receivedTo, a.deliveredTo = max(a.receivedTo, received), max(a.deliveredTo, taken)
	s.syncTries = 0
	return wasLast && s.recompute(now)
}

// recompute finds what is stable and taken of my stream, and returns true when either grew.
func (s *Stream) recompute(now clock.Time) bool {
	if s.frozen {
		return false
	}
	own := &s.in[s.cfg.Self]
	stable, taken := s.numberedTo, own.deliveredTo
	for r := range s.acks {
		if r != int(s.cfg.Self) {
			stable = min(stable, s.acks[r].receivedTo)
			taken = min(taken, s.acks[r].deliveredTo)
		}
	}
	grew := stable > s.stableTo || taken > s.takenTo
	if s.probe != 0 && stable >= s.probe {
		s.steer(now)
	}
	s.stableTo, s.takenTo = max(stable, s.stableTo), max(taken, s.takenTo)
	own.stableTo = s.stableTo
	s.discard(int(s.cfg.Self))
	if grew && s.syncAt == clock.Never && s.stableTo > s.saidTo {
		s.syncAt = now.Add(4 * s.cfg.Sync)
	}
	return grew
}

// sendSync tells how far my stream goes and what of it is stable; while something is unstable or not yet taken it asks
// those who lag for acknowledgements.
func (s *Stream) sendSync(now clock.Time) {
	s.syncAt = clock.Never
	waiting := s.stableTo < s.sentTo || s.takenTo < s.sentTo
	if !waiting && s.saidTo == s.stableTo {
		return
	}
	h := s.syncHeader()
	if waiting {
		h.Flags |= flagAsk
		s.syncAt = now.Add(s.cfg.Sync << min(s.syncTries, 6))
		s.syncTries++
	}
	if f, ok := s.out.Make(h, nil); ok {
		s.saidTo = s.stableTo
		s.Count.SyncsSent++
		s.transmit(f)
		s.out.Arena().Tx().Release(f)
	}
}

func (s *Stream) syncHeader() *wire.Header {
	return &wire.Header{
		Kind: wire.KindSync, Group: s.cfg.Group, View: uint64(s.cfg.View), Seq: uint64(s.sentTo),
		Rank: uint32(s.cfg.Self), Aux: uint32(s.sentTo - s.stableTo),
	}
}

// OnSync takes an owner's Sync in.
func (s *Stream) OnSync(now clock.Time, h *wire.Header) {
	r := int(h.Rank)
	if h.Rank >= uint32(len(s.in)) || r == int(s.cfg.Self) || uint64(h.Aux) > h.Seq || s.frozen {
		return
	}
	in := &s.in[r]
	if core.Seq(h.Seq) > in.receivedTo+core.Seq(4*s.cfg.Window) {
		s.Count.Ahead++
		return
	}
	s.Count.SyncsReceived++
	in.knownTo = max(in.knownTo, core.Seq(h.Seq))
	s.learnStable(r, core.Seq(h.Seq-uint64(h.Aux)))
	s.watchGap(now, r, false)
	if h.Flags&flagAsk != 0 {
		s.owe(now, r, 0)
		s.ackAt = now
	}
}

// Stuck returns the members whose applications have taken nothing of my stream for as long as limit, though something
// waits for them. It must be asked from time to time while something does.
func (s *Stream) Stuck(now clock.Time, limit time.Duration) []core.Rank {
	var list []core.Rank
	for r := range s.acks {
		a := &s.acks[r]
		switch {
		case r == int(s.cfg.Self) || s.frozen || a.deliveredTo >= s.sentTo:
			a.seenAt = 0
		case a.seenAt == 0 || a.deliveredTo > a.seenTo:
			a.seenTo, a.seenAt = a.deliveredTo, now
		case now.Sub(a.seenAt) >= limit:
			list = append(list, core.Rank(r))
		}
	}
	return list
}
