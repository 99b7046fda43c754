package tree

import (
	"encoding/binary"
	"errors"

	"github.com/khamsin-io/khamsin/dataplane"
	"github.com/khamsin-io/khamsin/dataplane/clock"
	"github.com/khamsin-io/khamsin/dataplane/frame"
)

// A packet that must be passed on has a head in front:
//
//	0    1    2        4         5       6
//	| 'k'| 'T'| number | family  | flags | number addresses | the packet
//
// The number is little endian. With family 4 an address is 4 bytes and a port; with family 6, 16 and a port; ports are
// big endian. A packet without a head begins with a byte that is not 'k'.
//
// With flagRoute there are two addresses, and the packet is for the process of the first one alone, and from the
// second. With flagPass the packet is not for its receiver, only for those of the list. With flagLife there is neither
// a list nor a packet.
const (
	magic0    = 'k'
	magic1    = 'T'
	family4   = 4
	family6   = 6
	flagRoute = 1
	flagPass  = 2
	flagLife  = 4
)

// entryBytes returns the size of an address in a list, by the family that all of it has.
func entryBytes(list []dataplane.Endpoint) (size int, family byte) {
	for i := range list {
		if !list[i].AddrPort().Addr().Is4() {
			return entryBytesIPv6, family6
		}
	}
	return entryBytesIPv4, family4
}

// listMax returns how many members fit the room kept for lists.
func listMax(members []dataplane.Endpoint) int {
	size, _ := entryBytes(members)
	return (reserve - headBytes) / size
}

// wrap returns a new frame with a head for a list in front of a packet's payload.
func (t *Transport) wrap(pool *frame.Pool, f frame.Frame, below []dataplane.Endpoint, flags byte) (frame.Frame, bool) {
	w, ok := pool.Get()
	if !ok {
		return w, false
	}
	payload := t.inner.Arena().Bytes(f)
	size, family := entryBytes(below)
	w.Len = uint32(headBytes + size*len(below) + len(payload))
	b := t.inner.Arena().Bytes(w)
	b[0], b[1], b[4], b[5] = magic0, magic1, family, flags
	binary.LittleEndian.PutUint16(b[2:], uint16(len(below)))
	at := headBytes
	for i := range below {
		at += copy(b[at:], below[i].IP[16+2-size:])
		binary.BigEndian.PutUint16(b[at:], uint16(below[i].Port))
		at += 2
	}
	copy(b[at:], payload)
	return w, true
}

// list is a head that was read.
type list struct {
	entries []byte // in place
	size    int    // of each
	head    int    // bytes of all
	flags   byte
}

// parse reads a head; found is false when there is none, ok when it is bad.
func parse(b []byte) (l list, found, ok bool) {
	if len(b) < 2 || b[0] != magic0 || b[1] != magic1 {
		return l, false, true
	}
	if len(b) < headBytes {
		return l, true, false
	}
	switch b[4] {
	case family4:
		l.size = entryBytesIPv4
	case family6:
		l.size = entryBytesIPv6
	default:
		return l, true, false
	}
	n := int(binary.LittleEndian.Uint16(b[2:]))
	l.flags, l.head = b[5], headBytes+n*l.size
	if l.flags == flagLife {
		return l, true, n == 0 && len(b) == headBytes
	}
	if n == 0 || l.head > reserve || l.head >= len(b) || l.flags == flagRoute && n != 2 || l.flags > flagPass {
		return l, true, false
	}
	l.entries = b[headBytes:l.head]
	return l, true, true
}

// at returns member i of a list.
func (l *list) at(i int) dataplane.Endpoint {
	e := l.entries[i*l.size : (i+1)*l.size]
	var x dataplane.Endpoint
	if l.size == entryBytesIPv4 {
		x.IP[10], x.IP[11] = 0xff, 0xff
	}
	copy(x.IP[16+2-l.size:], e[:l.size-2])
	x.Port = uint32(binary.BigEndian.Uint16(e[l.size-2:]))
	return x
}

// Receive receives from the inner transport, takes heads off, and passes on what must be.
func (t *Transport) Receive(batch []dataplane.Packet, wait dataplane.Wait) (int, error) {
	n, err := t.inner.Receive(batch, t.live(wait))
	if n == 0 {
		return n, err
	}
	known := *t.known.Load()
	now := int64(t.clock.Now())
	var last dataplane.Endpoint
	kept := 0
	for i := range batch[:n] {
		p := &batch[i]
		if p.From != last {
			last = p.From
			if k := known[last]; k != nil {
				k.heard.Store(now)
			}
		}
		l, found, ok := parse(t.inner.Arena().Bytes(p.Frame))
		if !ok {
			t.malformed.Inc()
		}
		if !ok || found && !t.take(p, &l, known) {
			t.inner.Arena().Release(p.Frame)
			continue
		}
		batch[kept] = *p
		kept++
	}
	clear(batch[kept:n])
	t.sendRelayed()
	return kept, err
}

// take takes the head off a packet and passes on what must be. It returns false when the packet is for others alone.
func (t *Transport) take(p *dataplane.Packet, l *list, known map[dataplane.Endpoint]*peer) bool {
	if l.flags == flagLife {
		if k := known[p.From]; k != nil {
			k.lives.Store(int64(t.clock.Now()))
		}
		return false
	}
	whole := p.Frame
	p.Frame.Off += uint32(l.head)
	p.Frame.Len -= uint32(l.head)
	genuine := t.cfg.Genuine == nil || t.cfg.Genuine(t.inner.Arena().Bytes(p.Frame))
	if !genuine {
		t.forged.Inc()
	}
	switch {
	case l.flags == flagRoute && l.at(0) == t.Local():
		p.From = l.at(1)
		return true
	case !genuine:
	case l.flags != flagRoute:
		t.passOn(p.Frame, l, known)
	case known[p.From] == nil:
		t.unknown.Inc()
	default:
		t.inner.Arena().Retain(whole)
		t.relay = append(t.relay, dataplane.Packet{Frame: whole, To: t.rings.Load().hop(l.at(0), t.clock.Now())})
	}
	return l.flags == 0
}

// passOn makes the copies of a packet for the members of its list that this process knows. The frames are of the Rx
// pool, which is Receive's.
func (t *Transport) passOn(f frame.Frame, l *list, known map[dataplane.Endpoint]*peer) {
	members := t.direct[:0]
	for i := range len(l.entries) / l.size {
		e := l.at(i)
		if known[e] == nil || e == t.Local() {
			t.unknown.Inc()
			continue
		}
		members = append(members, e)
	}
	t.direct = members
	now := t.clock.Now()
	if r := t.rings.Load(); len(r.list) > 0 {
		t.split(r, f, now)
		return
	}
	if len(members) <= t.fanOut() {
		for _, e := range members {
			t.pass(f, branch{to: e})
		}
		return
	}
	loud, silent, _ := t.bySilence(members, now)
	for _, b := range draw(append(loud, silent...), len(loud), t.fanOut()) {
		t.pass(f, b)
	}
}

// split makes the copies of a packet for t.direct by their next steps.
func (t *Transport) split(r *rings, f frame.Frame, now clock.Time) {
	for members := t.direct; len(members) > 0; {
		b := branch{to: r.hop(members[0], now), below: t.below[:0], pass: true}
		rest := members[:0]
		for _, e := range members {
			switch {
			case e == b.to:
				b.pass = false
			case r.hop(e, now) == b.to:
				b.below = append(b.below, e)
			default:
				rest = append(rest, e)
			}
		}
		t.below, members = b.below, rest
		t.pass(f, b)
	}
}

// pass makes one copy.
func (t *Transport) pass(f frame.Frame, b branch) {
	arena := t.inner.Arena()
	if len(b.below) == 0 {
		arena.Retain(f)
	} else {
		var ok bool
		if f, ok = t.wrap(arena.Rx(), f, b.below, b.flags()); !ok {
			t.starved.Inc()
			return
		}
	}
	t.relay = append(t.relay, dataplane.Packet{Frame: f, To: b.to})
}

// flags returns those of the head of a copy with a list.
func (b *branch) flags() byte {
	if b.pass {
		return flagPass
	}
	return 0
}

// sendRelayed hands what is to be passed on to the inner transport. What it does not take is lost: a relay holds up
// nothing but its own part of the tree.
func (t *Transport) sendRelayed() {
	if len(t.relay) == 0 {
		return
	}
	at := 0
	t.wire.Lock()
	for at < len(t.relay) {
		n, err := t.inner.Send(t.relay[at:])
		at += n
		t.relayed.Add(uint64(n))
		if err == nil && n > 0 {
			continue
		}
		if errors.Is(err, dataplane.ErrClosed) || err == nil {
			break
		}
		t.inner.Arena().Release(t.relay[at].Frame)
		at++
	}
	t.wire.Unlock()
	for _, p := range t.relay[at:] {
		t.inner.Arena().Release(p.Frame)
	}
	clear(t.relay)
	t.relay = t.relay[:0]
}
