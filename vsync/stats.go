package vsync

import "github.com/khamsin-io/khamsin/dataplane"

// Stats counts what a system did since Start. Protocol counts are of the present views of its groups.
type Stats struct {
	Transport dataplane.Stats

	PacketsSent     uint64 // multicast packets of this process, each counted once
	Retransmissions uint64 // packets of any sender that this process sent again because somebody asked
	PacketsReceived uint64 // multicast packets of others that were new
	Duplicates      uint64 // that came once more
	NaksSent        uint64 // requests for what was missing
	NaksReceived    uint64
	AcksSent        uint64
	AcksReceived    uint64
	BadPackets      uint64 // dropped: wrong checksum, cut off, malformed or of another system
	Starved         uint64 // times that no frame was free to send with
}

// Stats returns what was counted so far. It costs a turn of the protocols: call it now and then, not for each message.
func (s *System) Stats() Stats {
	if s == nil {
		return Stats{}
	}
	t, c := s.host.Stats()
	return Stats{
		Transport:       t,
		PacketsSent:     c.Streams.Sent,
		Retransmissions: c.Streams.Resent,
		PacketsReceived: c.Streams.Received,
		Duplicates:      c.Streams.Duplicates,
		NaksSent:        c.Streams.NaksSent,
		NaksReceived:    c.Streams.NaksGot,
		AcksSent:        c.Streams.AcksSent,
		AcksReceived:    c.Streams.AcksReceived,
		BadPackets: c.Short + c.Foreign + c.BadCRC + c.Malformed + c.OtherSystem + c.Streams.Malformed +
			c.Unsigned + c.Forged + c.Replayed,
		Starved: c.Starved,
	}
}
