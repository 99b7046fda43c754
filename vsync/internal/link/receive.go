package link

import (
	"bytes"
	"encoding/binary"

	"github.com/khamsin-io/khamsin/dataplane/clock"
	"github.com/khamsin-io/khamsin/dataplane/frame"
	"github.com/khamsin-io/khamsin/dataplane/wire"
)

// advance takes the packets that are next, until one is missing or a message is refused.
func (l *Links) advance(now clock.Time, x *lane) {
	for x.refused == nil {
		f, ok := x.ahead[x.receivedTo+1]
		if !ok {
			return
		}
		delete(x.ahead, x.receivedTo+1)
		x.receivedTo++
		x.ackOwed++
		l.take(now, x, f)
	}
}

// Kick offers the messages that were refused again.
func (l *Links) Kick(now clock.Time) {
	list := l.refused
	l.refused = nil
	for _, x := range list {
		m := x.refused
		if m == nil {
			continue
		}
		if x.refused = nil; !l.to.OnMessage(now, *m) {
			x.refused = m
			l.refused = append(l.refused, x)
			continue
		}
		behind := x.behind
		x.behind = nil
		l.takeMany(now, x, behind)
		l.advance(now, x)
		if !l.dead[x.id.peer] {
			l.sendAck(x)
		}
	}
}

// take takes the next packet of the lane in, and releases it.
func (l *Links) take(now clock.Time, x *lane, f frame.Frame) {
	var h wire.Header
	b := l.out.Arena().Bytes(f)
	if h.Peek(b) == nil {
		if b = b[l.out.Head():]; h.Flags&flagMany != 0 {
			l.takeMany(now, x, b)
		} else {
			l.takePiece(now, x, b, h.Flags&flagMore == 0)
		}
	}
	l.out.Arena().Tx().Release(f)
}

// takeMany hands the messages of a packet up. Those behind one that is refused are kept.
func (l *Links) takeMany(now clock.Time, x *lane, b []byte) {
	for len(b) > 0 && !l.dead[x.id.peer] && !l.closed {
		n, k := binary.Uvarint(b)
		if k <= 0 || n > uint64(len(b)-k) || int(n) > l.cfg.Message || len(x.partial) > 0 || x.overlong {
			l.Count.Malformed++
			return
		}
		msg, rest := b[k:k+int(n)], b[k+int(n):]
		if l.handUp(now, x, msg, nil); x.refused != nil {
			x.behind = bytes.Clone(rest)
			return
		}
		b = rest
	}
}

// takePiece appends a piece to the message being put together, and hands the message up when it is whole.
func (l *Links) takePiece(now clock.Time, x *lane, b []byte, last bool) {
	switch {
	case x.overlong:
	case len(x.partial)+len(b) > l.cfg.Message:
		l.Count.Malformed++
		x.partial, x.overlong = nil, true
	case last && len(x.partial) == 0:
		l.handUp(now, x, b, nil)
		return
	default:
		x.partial = append(x.partial, b...)
	}
	if !last {
		return
	}
	msg, overlong := x.partial, x.overlong
	x.partial, x.overlong = nil, false
	if !overlong {
		l.handUp(now, x, nil, msg)
	}
}

// handUp gives the handler a message: one that lies in a packet, and must be copied, or one that is its own.
func (l *Links) handUp(now clock.Time, x *lane, inPacket, own []byte) {
	m := Message{From: x.id.peer, Kind: x.id.kind, Group: x.id.group, Data: own}
	switch {
	case len(inPacket) == 0:
	case x.id.kind == Peer:
		m.Loan = l.cfg.Lender.Lend(len(inPacket))
		m.Loan.Add(inPacket, true)
		m.Data = m.Loan.Bytes()
	default:
		m.Data = bytes.Clone(inPacket)
	}
	if !l.to.OnMessage(now, m) {
		refused := m
		x.refused = &refused
		l.refused = append(l.refused, x)
	}
}
