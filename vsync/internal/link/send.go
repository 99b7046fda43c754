package link

import (
	"encoding/binary"
	"math/bits"

	"github.com/khamsin-io/khamsin/dataplane/clock"
	"github.com/khamsin-io/khamsin/dataplane/frame"
	"github.com/khamsin-io/khamsin/dataplane/wire"
)

// pump makes packets of queued messages as the window allows. Messages that had to wait share packets.
func (l *Links) pump(now clock.Time, x *lane) {
	for !x.queue.empty() && len(x.unacked) < window {
		ok := false
		if n := l.fitting(x); n > 1 {
			ok = l.sendMany(x, n)
		} else {
			ok = l.sendPiece(x)
		}
		if !ok {
			if !x.starved {
				x.starved = true
				l.starved = append(l.starved, x)
			}
			break
		}
	}
	if (len(x.unacked) > 0 || !x.queue.empty()) && x.retryAt == clock.Never {
		x.retryAt = now.Add(l.cfg.Retry)
		x.waitsAt = now
		l.activate(x)
	}
}

// fitting returns how many of the messages that wait fit into one packet, with their lengths.
func (l *Links) fitting(x *lane) int {
	if x.cut > 0 {
		return 1 // what is left of a long one
	}
	room := l.out.Room()
	for i := range x.queue.len() {
		n := len(x.queue.at(i).bytes)
		if room -= n + lengthLen(n); room < 0 {
			return i
		}
	}
	return x.queue.len()
}

// lengthLen returns how many bytes a length takes.
func lengthLen(n int) int { return (bits.Len(uint(n)|1) + 6) / 7 }

// sendMany makes a packet of the first n messages.
func (l *Links) sendMany(x *lane, n int) bool {
	f, ok := l.out.Alloc()
	if !ok {
		return false
	}
	var length [binary.MaxVarintLen64]byte
	for range n {
		m := x.queue.first()
		f = l.out.ExtendBy(f, length[:binary.PutUvarint(length[:], uint64(len(m.bytes)))], m.bytes)
		x.queued -= len(m.bytes)
		l.reuse(m)
		x.queue.pop()
	}
	l.transmit(x, f, flagMany)
	return true
}

// sendPiece makes a packet of the first message, or of as much of it as fits.
func (l *Links) sendPiece(x *lane) bool {
	m := x.queue.first()
	n := min(len(m.bytes)-x.cut, l.out.Room())
	f, ok := l.out.Alloc()
	if !ok {
		return false
	}
	f = l.out.Extend(f, m.bytes[x.cut:x.cut+n])
	x.cut += n
	x.queued -= n
	if x.cut < len(m.bytes) {
		l.transmit(x, f, flagMore)
		return true
	}
	l.reuse(m)
	x.queue.pop()
	x.cut = 0
	l.transmit(x, f, 0)
	return true
}

// transmit sends a packet under the lane's next number, and keeps it until it is acknowledged.
func (l *Links) transmit(x *lane, f frame.Frame, flags uint8) {
	x.sentTo++
	l.out.Finish(f, &wire.Header{
		Kind: wire.KindLink, Flags: flags, Group: x.id.group, View: l.cfg.Incarnation, Seq: uint64(x.sentTo),
		Rank: uint32(x.id.peer & incMask), Aux: uint32(x.id.kind),
	})
	x.unacked = append(x.unacked, f)
	l.out.Arena().Retain(f)
	l.out.Unicast(f, x.ep)
	l.Count.Sent++
}
