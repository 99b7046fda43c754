package host

import (
	"github.com/khamsin-io/khamsin/dataplane"
	"github.com/khamsin-io/khamsin/dataplane/wire"
)

// TallyKinds is one more than the greatest kind of packet that a Tally tells apart.
const TallyKinds = int(wire.KindPoison) + 1

// Traffic is a number of packets and their bytes.
type Traffic struct{ Packets, Bytes uint64 }

// Tally counts packets by kind, as the first bytes say: unchecked, so that malformed ones are among them. Kind 0 is
// what says no known kind.
type Tally struct {
	Unicast, Multicast [TallyKinds]Traffic
}

// count adds packets that are about to be sent, or were received.
func (t *Tally) count(h *Host, packets []dataplane.Packet) {
	for i := range packets {
		p := &packets[i]
		b := h.arena.Bytes(p.Frame)
		kind := 0
		if len(b) > wire.KindOffset && int(b[wire.KindOffset]&^wire.SignedBit) < TallyKinds {
			kind = int(b[wire.KindOffset] &^ wire.SignedBit)
		}
		c := &t.Unicast[kind]
		if p.Channel != 0 {
			c = &t.Multicast[kind]
		}
		c.Packets++
		c.Bytes += uint64(len(b))
	}
}

// Tallies returns what was sent and received, by kind. It must be called inside Do.
func (h *Host) Tallies() (sent, received Tally) { return h.own.sent, h.own.received }
