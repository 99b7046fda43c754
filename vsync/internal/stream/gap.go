package stream

import (
	"encoding/binary"

	"github.com/khamsin-io/khamsin/dataplane"
	"github.com/khamsin-io/khamsin/dataplane/clock"
	"github.com/khamsin-io/khamsin/dataplane/wire"
	"github.com/khamsin-io/khamsin/vsync/core"
)

// A negative acknowledgement names one stream and the packets missing of it: rank, then ranges, each as the distance
// from the end of the range before and a length, all as varints.

const (
	nakRanges  = 32  // ranges in one packet
	nakPackets = 256 // packets asked for at once
	nakBackoff = 8   // doublings of the interval at most
)

// watchGap looks whether a stream has a gap and sets the time to ask for it. Progress starts the patience anew.
func (s *Stream) watchGap(now clock.Time, r int, progress bool) {
	in := &s.in[r]
	if in.knownTo <= in.receivedTo {
		in.nakAt, in.nakTries = clock.Never, 0
		return
	}
	if progress {
		in.nakTries = 0
	}
	if in.nakAt == clock.Never || progress {
		in.nakAt = now.Add(s.cfg.Nak)
	}
	if !in.inGaps {
		in.inGaps = true
		s.gaps = append(s.gaps, r)
	}
}

// Deadline returns when Tick has something to do.
func (s *Stream) Deadline() clock.Time {
	t := min(s.ackAt, s.syncAt)
	for _, r := range s.gaps {
		t = min(t, s.in[r].nakAt)
	}
	return t
}

// Tick does what is due.
func (s *Stream) Tick(now clock.Time) {
	if s.ackAt <= now {
		s.sendAcks(now)
	}
	if s.syncAt <= now {
		s.sendSync(now)
	}
	keep := s.gaps[:0]
	for _, r := range s.gaps {
		in := &s.in[r]
		if in.knownTo <= in.receivedTo {
			in.inGaps = false
			in.nakAt = clock.Never
			continue
		}
		if in.nakAt <= now {
			s.Ask(core.Rank(r), in.knownTo, s.cfg.Peers[r])
			in.nakAt = now.Add(s.cfg.Nak << min(in.nakTries+2, nakBackoff))
			in.nakTries++
		}
		keep = append(keep, r)
	}
	s.gaps = keep
}

// Ask sends a negative acknowledgement for what is missing here of a stream up to q, and returns how many packets it
// asked for.
func (s *Stream) Ask(r core.Rank, q core.Seq, holder dataplane.Endpoint) int {
	in := &s.in[r]
	if s.frozen { // a sender may have numbered more than the window allowed it to send; frames are the limit
		in.wantedTo = max(in.wantedTo, min(q, in.receivedTo+core.Seq(s.out.Arena().Rx().Cap())))
	}
	b := binary.AppendUvarint(s.scratch[:0], uint64(r))
	end, asked, ranges := core.Seq(0), 0, 0
	for a := in.receivedTo + 1; a <= q && asked < nakPackets && ranges < nakRanges; a++ {
		if !in.held.get(a).IsZero() {
			continue
		}
		z := a
		for z+1 <= q && in.held.get(z+1).IsZero() && asked+int(z-a)+1 < nakPackets {
			z++
		}
		b = binary.AppendUvarint(b, uint64(a-end))
		b = binary.AppendUvarint(b, uint64(z-a+1))
		asked += int(z-a) + 1
		ranges++
		end, a = z, z
	}
	s.scratch = b[:0]
	if asked == 0 {
		return 0
	}
	h := wire.Header{Kind: wire.KindNak, Group: s.cfg.Group, View: uint64(s.cfg.View), Rank: uint32(s.cfg.Self)}
	if f, ok := s.out.Make(&h, b); ok {
		s.Count.NaksSent++
		s.out.Unicast(f, holder)
	}
	return asked
}

// OnNak sends again what a member misses and is held here, by unicast.
func (s *Stream) OnNak(h *wire.Header, payload []byte) {
	m := int(h.Rank)
	if h.Rank >= uint32(len(s.in)) || m == int(s.cfg.Self) {
		return
	}
	s.Count.NaksGot++
	owner, n := binary.Uvarint(payload)
	if n <= 0 || owner >= uint64(len(s.in)) {
		s.Count.Malformed++
		return
	}
	payload = payload[n:]
	if len(payload) == 0 {
		s.answer(m)
		return
	}
	hold := &s.in[owner].held
	end, budget := core.Seq(0), nakPackets
	for len(payload) > 0 && budget > 0 {
		skip, n1 := binary.Uvarint(payload)
		if n1 <= 0 {
			s.Count.Malformed++
			return
		}
		length, n2 := binary.Uvarint(payload[n1:])
		if n2 <= 0 {
			s.Count.Malformed++
			return
		}
		payload = payload[n1+n2:]
		first := end + core.Seq(skip)
		end = first + core.Seq(length) - 1
		for q := max(first, hold.base+1); q <= min(end, hold.top) && budget > 0; q++ {
			budget--
			s.resend(core.Rank(owner), q, s.cfg.Peers[m])
		}
	}
}

// Inquire asks a member what it holds of every stream and how far its own is stable: a negative acknowledgement that
// names no packets.
func (s *Stream) Inquire(member core.Rank) {
	if s.frozen {
		return
	}
	h := wire.Header{Kind: wire.KindNak, Group: s.cfg.Group, View: uint64(s.cfg.View), Rank: uint32(s.cfg.Self)}
	if f, ok := s.out.Make(&h, binary.AppendUvarint(s.scratch[:0], uint64(member))); ok {
		s.Count.NaksSent++
		s.out.Unicast(f, s.cfg.Peers[member])
	}
}

// answer tells one member what is held here of every stream, and how far my own is stable.
func (s *Stream) answer(member int) {
	if s.frozen {
		return
	}
	h := wire.Header{Kind: wire.KindAck, Group: s.cfg.Group, View: uint64(s.cfg.View), Rank: uint32(s.cfg.Self)}
	b := s.scratch[:0]
	for r := range s.in {
		if s.in[r].receivedTo == 0 || r == int(s.cfg.Self) {
			continue
		}
		if len(b)+3*binary.MaxVarintLen64 > s.out.Room() {
			s.emitAck(&h, b, false, member)
			b = b[:0]
		}
		b = s.appendAck(b, r)
	}
	s.scratch = b[:0]
	if len(b) > 0 {
		s.emitAck(&h, b, false, member)
	}
	if f, ok := s.out.Make(s.syncHeader(), nil); ok {
		s.Count.SyncsSent++
		s.out.Unicast(f, s.cfg.Peers[member])
	}
}

func (s *Stream) resend(owner core.Rank, q core.Seq, to dataplane.Endpoint) {
	f := s.Held(owner, q)
	if f.IsZero() {
		s.Count.Missed++
		return
	}
	s.Count.Resent++
	s.out.Arena().Retain(f)
	s.out.Unicast(f, to)
}

// Range is a run of sequence numbers, both ends included.
type Range struct{ First, Last core.Seq }

// Holdings returns how far a stream is contiguous here, and the ranges held above that.
func (s *Stream) Holdings(r core.Rank) (core.Seq, []Range) {
	in := &s.in[r]
	var islands []Range
	for q := in.receivedTo + 1; q <= in.held.top; q++ {
		if in.held.get(q).IsZero() {
			continue
		}
		if n := len(islands); n > 0 && islands[n-1].Last == q-1 {
			islands[n-1].Last = q
		} else {
			islands = append(islands, Range{q, q})
		}
	}
	return in.receivedTo, islands
}

// FirstMissing returns the first packet of a stream, above after and up to q, that is not held here.
func (s *Stream) FirstMissing(r core.Rank, after, q core.Seq) (core.Seq, bool) {
	in := &s.in[r]
	for a := max(in.receivedTo, after) + 1; a <= q; a++ {
		if in.held.get(a).IsZero() {
			return a, true
		}
	}
	return 0, false
}

// Extend makes a frozen stream contiguous up to its place in the cut, all of which must be held. What lies beyond the
// cut is never delivered; Release drops it.
func (s *Stream) Extend(r core.Rank, cut core.Seq) {
	in := &s.in[r]
	in.receivedTo = max(in.receivedTo, cut)
}
