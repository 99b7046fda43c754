package tree

import (
	"encoding/binary"
	"errors"

	"github.com/khamsin-io/khamsin/dataplane"
	"github.com/khamsin-io/khamsin/dataplane/frame"
)

// A packet that must be passed on has a head in front:
//
//	0    1    2        4         5       6
//	| 'k'| 'T'| number | family  |  0    | number addresses | the packet
//
// The number is little endian. With family 4 an address is 4 bytes and a port; with family 6, 16 and a port; ports are
// big endian. A packet without a head begins with a byte that is not 'k'.
const (
	magic0  = 'k'
	magic1  = 'T'
	family4 = 4
	family6 = 6
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
func (t *Transport) wrap(pool *frame.Pool, f frame.Frame, below []dataplane.Endpoint) (frame.Frame, bool) {
	w, ok := pool.Get()
	if !ok {
		return w, false
	}
	payload := t.inner.Arena().Bytes(f)
	size, family := entryBytes(below)
	w.Len = uint32(headBytes + size*len(below) + len(payload))
	b := t.inner.Arena().Bytes(w)
	b[0], b[1], b[4], b[5] = magic0, magic1, family, 0
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
	l.head = headBytes + n*l.size
	if n == 0 || l.head > reserve || l.head >= len(b) {
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
	n, err := t.inner.Receive(batch, wait)
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
		b := t.inner.Arena().Bytes(p.Frame)
		l, found, ok := parse(b)
		if !ok {
			t.malformed.Inc()
			t.inner.Arena().Release(p.Frame)
			continue
		}
		if found {
			p.Frame.Off += uint32(l.head)
			p.Frame.Len -= uint32(l.head)
			if t.cfg.Genuine == nil || t.cfg.Genuine(b[l.head:]) {
				t.passOn(p.Frame, &l, known)
			} else {
				t.forged.Inc()
			}
		}
		batch[kept] = *p
		kept++
	}
	clear(batch[kept:n])
	t.sendRelayed()
	return kept, err
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
	arena := t.inner.Arena()
	if len(members) <= t.fanOut() {
		for _, e := range members {
			arena.Retain(f)
			t.relay = append(t.relay, dataplane.Packet{Frame: f, To: e})
		}
		return
	}
	loud, silent, _ := t.bySilence(members, t.clock.Now())
	for _, b := range draw(append(loud, silent...), len(loud), t.fanOut()) {
		if len(b.below) == 0 {
			arena.Retain(f)
			t.relay = append(t.relay, dataplane.Packet{Frame: f, To: b.to})
			continue
		}
		w, ok := t.wrap(arena.Rx(), f, b.below)
		if !ok {
			t.starved.Inc()
			continue
		}
		t.relay = append(t.relay, dataplane.Packet{Frame: w, To: b.to})
	}
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
