// Package flow is what stands in front of a member's stream: the queue of messages that wait for the window, packed
// into packets as they wait.
//
// A message goes out at once when the window is open; messages that must wait share packets. The queue is bounded: its
// limit is what turns into back-pressure for the application. Everything belongs to the engine's goroutine.
package flow

import (
	"encoding/binary"

	"github.com/khamsin-io/khamsin/dataplane/frame"
	"github.com/khamsin-io/khamsin/dataplane/invariant"
	"github.com/khamsin-io/khamsin/vsync/core"
	"github.com/khamsin-io/khamsin/vsync/internal/pdu"
)

// Unit is a packet that waits for its number. A message in fragments is several units that follow each other.
type Unit struct {
	Frame frame.Frame
	Flags uint8
	size  int // bytes of its messages
}

// Packer is a member's queue of unnumbered packets.
type Packer struct {
	out   *pdu.Outbox
	units []Unit
	first int
	bytes int
	limit int
	added uint64 // units ever added
	taken uint64 // units ever taken
}

// New returns an empty queue that takes up to limit bytes of messages.
func New(out *pdu.Outbox, limit int) *Packer { return &Packer{out: out, limit: limit} }

// Len returns the number of units that wait.
func (p *Packer) Len() int { return len(p.units) - p.first }

// Bytes returns the payload bytes that wait.
func (p *Packer) Bytes() int { return p.bytes }

// Added returns how many units were ever added; Taken, how many were taken. Taken reaching an earlier Added means that
// everything added until then has its number.
func (p *Packer) Added() uint64 { return p.added }

// Taken returns how many units were ever taken.
func (p *Packer) Taken() uint64 { return p.taken }

// room returns the largest payload of a packet that is begun now.
func (p *Packer) room() int { return p.out.Packet() - p.out.Head() }

// HeadMax is the greatest length of a message's head.
const HeadMax = 16

// Append queues a message, head followed by body, copying it. False means no room: the limit is reached, or there are
// no frames. A message is taken whole or not at all; one above the limit is taken when the queue is empty.
func (p *Packer) Append(f core.Flavour, head, body []byte) bool {
	if len(head) > HeadMax {
		invariant.Fail("flow: a head of %d bytes", len(head))
	}
	size := len(head) + len(body)
	if p.Len() > 0 && p.bytes+size > p.limit {
		return false
	}
	var room [binary.MaxVarintLen64 + HeadMax]byte
	prefix := append(binary.AppendUvarint(room[:0], uint64(size)), head...)
	if len(prefix)+len(body) > p.room() {
		return p.fragment(f, prefix, body, size)
	}
	flags := pdu.Flags(f)
	if last := len(p.units) - 1; last >= p.first {
		u := &p.units[last]
		if u.Flags == flags && int(u.Frame.Len)+len(prefix)+len(body) <= p.out.Packet() {
			u.Frame = p.out.ExtendBy(u.Frame, prefix, body)
			p.bytes += size
			u.size += size
			return true
		}
	}
	fr, ok := p.out.Alloc()
	if !ok {
		return false
	}
	p.push(Unit{p.out.ExtendBy(fr, prefix, body), flags, size})
	return true
}

func (p *Packer) push(u Unit) {
	p.units = append(p.units, u)
	p.bytes += u.size
	p.added++
}

// fragment queues a message in pieces; the first starts with the length of the whole. All are of one length, the last
// one filled up with zeros, so that a transport can send them, and those of messages like this one, in one go.
func (p *Packer) fragment(f core.Flavour, prefix, body []byte, size int) bool {
	mark, bytes, added := len(p.units), p.bytes, p.added
	flags := pdu.Flags(f) | pdu.FlagFragment | pdu.FlagFirst
	whole := len(prefix) + len(body)
	pieces := (whole + p.room() - 1) / p.room()
	room := (whole + pieces - 1) / pieces
	for first := true; first || len(body) > 0; first = false {
		fr, ok := p.out.Alloc()
		if !ok {
			for _, u := range p.units[mark:] {
				p.out.Arena().Tx().Release(u.Frame)
			}
			p.units, p.bytes, p.added = p.units[:mark], bytes, added
			return false
		}
		left := room
		if first {
			fr = p.out.Extend(fr, prefix)
			left -= len(prefix)
		}
		n := min(left, len(body))
		fr = p.out.Extend(fr, body[:n])
		if body = body[n:]; len(body) > 0 {
			flags |= pdu.FlagMore
		} else {
			fr = p.out.Pad(fr, left-n)
		}
		p.push(Unit{fr, flags, size - len(body)})
		size = len(body)
		flags = pdu.Flags(f) | pdu.FlagFragment
	}
	return true
}

// Front returns the unit whose turn it is. There must be one.
func (p *Packer) Front() Unit { return p.units[p.first] }

// Take removes the front unit; its frame becomes the caller's.
func (p *Packer) Take() Unit {
	invariant.Check(p.Len() > 0, "flow: Take from an empty queue")
	u := p.units[p.first]
	p.units[p.first] = Unit{}
	p.first++
	p.taken++
	if p.first == len(p.units) {
		p.units, p.first, p.bytes = p.units[:0], 0, 0
	} else {
		p.bytes -= u.size
		p.compact()
	}
	return u
}

func (p *Packer) compact() {
	if p.first > 64 && p.first > len(p.units)/2 {
		p.units = p.units[:copy(p.units, p.units[p.first:])]
		p.first = 0
	}
}

// Release gives up every frame.
func (p *Packer) Release() {
	for _, u := range p.units[p.first:] {
		p.out.Arena().Tx().Release(u.Frame)
	}
	p.units, p.first, p.bytes = nil, 0, 0
}
