package vsync

import (
	"fmt"

	"github.com/khamsin-io/khamsin/dataplane"
	"github.com/khamsin-io/khamsin/dataplane/clock"
	"github.com/khamsin-io/khamsin/dataplane/wire"
	"github.com/khamsin-io/khamsin/vsync/internal/engine"
	"github.com/khamsin-io/khamsin/vsync/internal/host"
)

// Flow is a number of packets and their bytes.
type Flow struct {
	Packets uint64
	Bytes   uint64
}

func (f Flow) minus(g Flow) Flow { return Flow{f.Packets - g.Packets, f.Bytes - g.Bytes} }

// Direction is what a system counted of the packets that it sent, or of those that it received.
type Direction struct {
	Unicast     Flow   // to or from one process, all kinds
	Multicast   Flow   // to or from an IP multicast address, all kinds
	Stability   Flow   // those of both that say only how far streams are stable
	Acks        uint64 // packets that acknowledge
	Naks        uint64 // packets that ask for what is missing
	Duplicates  uint64 // sent: packets sent again; received: packets that were there already
	Dropped     uint64 // lost for want of room, here
	Tokens      uint64 // of token rings, which this version has not
	TokenResent uint64 // likewise
}

// IOStats is what a system counted since its start. Unicast and multicast packets are told apart by the address that
// they were sent to; where a network has no multicast, all are unicast. A multicast does not come back to its sender,
// unless the transport has the capability LoopsBack: the loss of a network is what all members sent, multicasts times
// the number of the others, against what they received.
type IOStats struct {
	Sent     Direction
	Received Direction
	TCP      bool // the unicast packets travel over TCP
	Refused  struct {
		BadChecksum uint64 // damaged on the way
		Unsigned    uint64 // not signed in a system with a key, or signed in one without
		Forged      uint64 // signed with another key
		Replayed    uint64 // signed, and came before
		Malformed   uint64
		Foreign     uint64 // of other programs, and of other systems
		Stale       uint64 // of groups or views that are over, and of other parts of a divided system
	}
	Tuning *Tuning // what the autotuner set, and why; nil when it is off
}

// Sub returns what was counted since an earlier moment.
func (s IOStats) Sub(earlier IOStats) IOStats {
	s.Sent, s.Received = s.Sent.sub(earlier.Sent), s.Received.sub(earlier.Received)
	s.Refused.BadChecksum -= earlier.Refused.BadChecksum
	s.Refused.Unsigned -= earlier.Refused.Unsigned
	s.Refused.Forged -= earlier.Refused.Forged
	s.Refused.Replayed -= earlier.Refused.Replayed
	s.Refused.Malformed -= earlier.Refused.Malformed
	s.Refused.Foreign -= earlier.Refused.Foreign
	s.Refused.Stale -= earlier.Refused.Stale
	return s
}

func (d Direction) sub(e Direction) Direction {
	return Direction{
		Unicast: d.Unicast.minus(e.Unicast), Multicast: d.Multicast.minus(e.Multicast),
		Stability: d.Stability.minus(e.Stability), Acks: d.Acks - e.Acks, Naks: d.Naks - e.Naks,
		Duplicates: d.Duplicates - e.Duplicates, Dropped: d.Dropped - e.Dropped, Tokens: d.Tokens - e.Tokens,
		TokenResent: d.TokenResent - e.TokenResent,
	}
}

// String returns the numbers in the form of the manual's GetIOState, and below them the autotuner's decisions, a line
// each, if it has made any.
func (s IOStats) String() string {
	udp := func(d Direction) (Flow, Flow) {
		if s.TCP {
			return Flow{}, d.Unicast
		}
		return d.Unicast, Flow{}
	}
	out, outTCP := udp(s.Sent)
	in, inTCP := udp(s.Received)
	text := fmt.Sprintf("Summary of network statistics:\n"+
		"    SENT: %d UDP (%d bytes; %d were resent), %d tokens, %d IPMC (%d bytes; %d were stability packets), "+
		"%d TCP (%d bytes), %d Acks, %d Nacks.\n"+
		"    RECV: %d UDP (%d were dups; %d bytes), %d tokens, %d IPMC (%d bytes; %d were stability packets), "+
		"%d TCP (%d bytes); %d were dups, %d Acks, %d Nacks, %d token-triggered resends\n",
		out.Packets, out.Bytes, s.Sent.Duplicates, s.Sent.Tokens, s.Sent.Multicast.Packets, s.Sent.Multicast.Bytes,
		s.Sent.Stability.Packets, outTCP.Packets, outTCP.Bytes, s.Sent.Acks, s.Sent.Naks,
		in.Packets, s.Received.Duplicates, in.Bytes, s.Received.Tokens, s.Received.Multicast.Packets,
		s.Received.Multicast.Bytes, s.Received.Stability.Packets, inTCP.Packets, inTCP.Bytes, s.Received.Duplicates,
		s.Received.Acks, s.Received.Naks, s.Received.TokenResent)
	if s.Tuning != nil {
		for _, d := range s.Tuning.Decisions {
			text += fmt.Sprintf("    TUNED after %v: %s from %d to %d: %s\n", d.After, d.Setting, d.From, d.To, d.Why)
		}
	}
	return text
}

// IOStats returns what the system counted of its packets. A system that is over says only what its transport counted.
func (s *System) IOStats() IOStats {
	if s == nil {
		return IOStats{}
	}
	var sent, received host.Tally
	var c engine.Counters
	s.host.Do(func(clock.Time) {
		sent, received = s.host.Tallies()
		c = s.engine.Counters()
	})
	t := s.host.TransportStats()
	st := IOStats{Sent: direction(&sent), Received: direction(&received), TCP: s.caps.Name == "tcp"}
	st.Sent.Duplicates, st.Received.Duplicates = c.Streams.Resent+c.LinkResent, c.Streams.Duplicates
	st.Sent.Dropped, st.Received.Dropped = t.SendDropped, dropped(t)
	st.Refused.BadChecksum = c.BadCRC
	st.Refused.Unsigned, st.Refused.Forged, st.Refused.Replayed = c.Unsigned, c.Forged, c.Replayed
	st.Refused.Malformed = c.Malformed + c.Short + c.Streams.Malformed
	st.Refused.Foreign = c.Foreign + c.OtherSystem + t.ReceiveForeign
	st.Refused.Stale = c.NoGroup + c.OldView + c.EarlyDropped + c.OtherPart
	if t, on := s.Tuning(); on {
		st.Tuning = &t
	}
	return st
}

func dropped(t dataplane.Stats) uint64 {
	return t.ReceiveDropped + t.ReceiveOversize + t.ReceiveUndersize
}

// direction sums a tally.
func direction(t *host.Tally) Direction {
	var d Direction
	sum := func(to *Flow, x host.Traffic) {
		to.Packets += x.Packets
		to.Bytes += x.Bytes
	}
	for kind := range host.TallyKinds {
		one, many := t.Unicast[kind], t.Multicast[kind]
		sum(&d.Unicast, one)
		sum(&d.Multicast, many)
		switch wire.Kind(kind) {
		case wire.KindAck, wire.KindLinkAck:
			d.Acks += one.Packets + many.Packets
		case wire.KindNak:
			d.Naks += one.Packets + many.Packets
		case wire.KindSync:
			sum(&d.Stability, one)
			sum(&d.Stability, many)
		}
	}
	return d
}
