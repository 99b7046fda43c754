// Package pdu builds the packets that the protocol machines emit, and encodes the control messages that they exchange.
// The machines share one Outbox for each engine; everything here belongs to the engine's goroutine.
package pdu

import (
	"github.com/khamsin-io/khamsin/dataplane"
	"github.com/khamsin-io/khamsin/dataplane/frame"
	"github.com/khamsin-io/khamsin/dataplane/invariant"
	"github.com/khamsin-io/khamsin/dataplane/wire"
)

// Outbox collects the packets of one turn and makes the frames they travel in.
type Outbox struct {
	Packets []dataplane.Packet
	System  uint32 // stamped on every packet made
	Starved uint64 // frames that were wanted while the pool was empty

	auth   Authenticator // nil: packets have a checksum alone
	head   int           // bytes in front of a payload
	naked  bool          // packets have not even that
	arena  *frame.Arena
	mtu    int
	packet int // longest packet of a stream, at most mtu
}

// NewOutbox returns an outbox that takes its frames from the arena's Tx pool and makes packets of at most mtu bytes.
func NewOutbox(arena *frame.Arena, mtu int) *Outbox {
	return &Outbox{arena: arena, mtu: mtu, packet: mtu, head: wire.HeaderLen}
}

// Authenticator signs packets. What it writes stands between header and payload, in Overhead bytes.
type Authenticator interface {
	Seal(packet []byte)
	Overhead() int
}

// Protect makes all packets signed from now on, or, with neither an authenticator nor a checksum, not even checked. It
// must be called before the first packet is made.
func (o *Outbox) Protect(auth Authenticator, checksum bool) {
	o.naked = auth == nil && !checksum
	if o.auth = auth; auth != nil {
		o.head = wire.HeaderLen + auth.Overhead()
	}
}

// Head returns how many bytes stand in front of a payload.
func (o *Outbox) Head() int { return o.head }

// Arena returns the arena of the frames.
func (o *Outbox) Arena() *frame.Arena { return o.arena }

// MTU returns the largest packet in bytes, header included.
func (o *Outbox) MTU() int { return o.mtu }

// Room returns the largest payload in bytes.
func (o *Outbox) Room() int { return o.mtu - o.head }

// Packet returns the longest packet of a stream in bytes, header included: MTU, unless SetPacket made it shorter.
func (o *Outbox) Packet() int { return o.packet }

// SetPacket makes packets of streams that are begun from now on at most so long, though with room for some payload.
// Other packets may still be of MTU.
func (o *Outbox) SetPacket(bytes int) { o.packet = max(o.head+wire.HeaderLen, min(bytes, o.mtu)) }

// Alloc returns a fresh frame of header length, to which payload is added with Extend. The caller owns it. False means
// that the pool is empty.
func (o *Outbox) Alloc() (frame.Frame, bool) {
	f, ok := o.arena.Tx().Get()
	if !ok {
		o.Starved++
		return f, false
	}
	f.Len = uint32(o.head)
	return f, true
}

// Extend appends payload bytes to a frame that Alloc made and that nobody else holds yet.
func (o *Outbox) Extend(f frame.Frame, payload []byte) frame.Frame {
	return o.ExtendBy(f, payload, nil)
}

// ExtendBy is Extend with head, then payload.
func (o *Outbox) ExtendBy(f frame.Frame, head, payload []byte) frame.Frame {
	at := f.Len
	f.Len += uint32(len(head) + len(payload))
	if int(f.Len) > o.mtu {
		invariant.Fail("pdu: packet of %d bytes above the MTU of %d", f.Len, o.mtu)
	}
	to := o.arena.Bytes(f)[at:]
	copy(to[copy(to, head):], payload)
	return f
}

// Pad makes the packet n bytes of zeros longer.
func (o *Outbox) Pad(f frame.Frame, n int) frame.Frame {
	at := f.Len
	f.Len += uint32(n)
	if int(f.Len) > o.mtu {
		invariant.Fail("pdu: packet of %d bytes above the MTU of %d", f.Len, o.mtu)
	}
	clear(o.arena.Bytes(f)[at:])
	return f
}

// Finish writes the header and seals the packet. Its bytes must not change afterwards.
func (o *Outbox) Finish(f frame.Frame, h *wire.Header) {
	h.System = o.System
	b := o.arena.Bytes(f)
	h.Encode(b)
	if o.auth != nil {
		o.auth.Seal(b)
	}
	if !o.naked {
		wire.Seal(b)
	}
}

// Make returns a sealed packet with the given payload, owned by the caller. False means that the pool is empty: the
// packet is as good as lost, which every protocol here survives.
func (o *Outbox) Make(h *wire.Header, payload []byte) (frame.Frame, bool) {
	f, ok := o.Alloc()
	if !ok {
		return f, false
	}
	f = o.Extend(f, payload)
	o.Finish(f, h)
	return f, true
}

// Unicast emits a packet to one process and takes the caller's reference of the frame.
func (o *Outbox) Unicast(f frame.Frame, to dataplane.Endpoint) {
	o.Packets = append(o.Packets, dataplane.Packet{Frame: f, To: to})
}

// Multicast emits a packet to a channel and takes the caller's reference of the frame.
func (o *Outbox) Multicast(f frame.Frame, ch dataplane.Channel) {
	o.Packets = append(o.Packets, dataplane.Packet{Frame: f, Channel: ch})
}
