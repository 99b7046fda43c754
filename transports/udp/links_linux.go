package udp

import (
	"encoding/binary"
	"slices"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/khamsin-io/khamsin/dataplane"
	"github.com/khamsin-io/khamsin/dataplane/clock"
	"github.com/khamsin-io/khamsin/dataplane/counters"
)

// links are the interfaces of a transport that has more than one.
//
// Multicasts leave by all of them. A process is known by the address that it has on its first interface, whichever
// network a packet takes, and of its multicasts one copy is taken: those that come by the interface by which it was
// heard last, until nothing came by that for linkSilence while copies came by another one. Unicast leaves by one
// interface: by that on which the other process's last unicast came, since it hears us by that one, or on which its
// multicasts are taken, whichever was decided last; but when nothing came by that one for linkSilence while multicasts
// came by another, by the other. So processes that share several networks go on when one of these fails, in one
// direction or in both. A process that was never heard is sent to by the first interface.
//
// Without multicast, what goes to a process from which nothing came for linkSilence leaves by all interfaces, and of
// that one copy is taken as of multicasts. Unicast takes the interface by which the other's is taken; but second copies
// say that the other one hears nothing, so when something was sent to it just now, unicast takes another one for a
// while. Not for good: that one may fail as well, and then nothing tells.
type links struct {
	indexes []int32 // of the interfaces, the first one first
	local   [16]byte
	v6      bool
	lone    bool // there is no multicast
	clock   clock.Source

	mu      sync.RWMutex // held to change peers, which Receive alone does, and by Send to look at it
	peers   map[dataplane.Endpoint]*peer
	doubled counters.Counter
}

// peer is another process.
type peer struct {
	hear int32        // the interface by which its multicasts are taken; Receive only
	at   clock.Time   // when something came by that; Receive only
	send atomic.Int32 // the interface by which it is sent to
	sure clock.Time   // when something came by that; Receive only

	// Without multicast:
	heard  atomic.Int64 // when something was taken
	sent   atomic.Int64 // when something was sent by one interface
	turned clock.Time   // when second copies changed that interface last; Receive only
}

const (
	linkSilence = 50 * time.Millisecond
	turnedFor   = 5 * linkSilence // that unicast takes another interface than that by which the other one is heard
	peersMax    = 4096            // that are remembered
)

// openLinks makes the links of a transport with more than one interface. Local is known.
func (t *Transport) openLinks() {
	if len(t.cfg.indexes) == 0 {
		return
	}
	t.links = &links{
		indexes: t.cfg.indexes, local: t.local.IP, v6: t.cfg.family().v6, lone: t.cfg.GroupPort == 0, clock: t.clock,
		peers: make(map[dataplane.Endpoint]*peer),
	}
	t.receiver.links, t.sender.links = t.links, t.links
}

// has tells whether an interface is one of the links.
func (l *links) has(index int32) bool { return slices.Contains(l.indexes, index) }

// take notes that a message came and tells whether it is to be handed out: it is not a second copy.
func (l *links) take(from dataplane.Endpoint, index int32, multicast bool) bool {
	if !l.has(index) {
		return true // unicast on the host
	}
	now := l.clock.Now()
	p := l.peers[from]
	if l.lone && p != nil {
		return p.takeLone(index, now)
	}
	if p != nil && p.send.Load() == index {
		p.sure = now
	}
	switch {
	case p == nil:
		p = &peer{hear: index, at: now}
		p.sendBy(index, now)
		p.heard.Store(int64(now))
		l.add(from, p)
	case !multicast:
		p.sendBy(index, now)
	case p.hear == index:
		p.at = now
		if now.Sub(p.sure) > linkSilence {
			p.sendBy(index, now)
		}
	case now.Sub(p.at) <= linkSilence:
		return false
	default:
		p.hear, p.at = index, now
		p.sendBy(index, now)
	}
	return true
}

// takeLone is take where there is no multicast.
func (p *peer) takeLone(index int32, now clock.Time) bool {
	if p.hear != index && now.Sub(p.at) <= linkSilence {
		p.turn(index, now)
		return false
	}
	if p.hear != index || now.Sub(p.turned) > turnedFor {
		p.hear = index
		p.sendBy(index, now)
	}
	p.at = now
	p.heard.Store(int64(now))
	return true
}

// turn makes unicast take another interface, of the two by which copies came, when the other process hears nothing of
// what was sent to it just now: not more often than it takes to see whether that helps.
func (p *peer) turn(index int32, now clock.Time) {
	if now.Sub(clock.Time(p.sent.Load())) > 2*linkSilence || now.Sub(p.turned) <= linkSilence {
		return
	}
	p.turned = now
	if p.send.Load() == index {
		index = p.hear
	}
	p.sendBy(index, now)
}

// sendBy makes unicast take an interface, by which something has come now.
func (p *peer) sendBy(index int32, now clock.Time) {
	p.send.Store(index)
	p.sure = now
}

// add remembers a peer. When there are too many all are forgotten, and known again as soon as they are heard.
func (l *links) add(from dataplane.Endpoint, p *peer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.peers) >= peersMax {
		clear(l.peers)
	}
	l.peers[from] = p
}

// to returns the interface by which a process is sent to, zero for the first one, or that all of them are to be used.
func (l *links) to(e dataplane.Endpoint) (index int32, all bool) {
	if e.IP == l.local {
		return 0, false // the kernel finds its own address only by the interface that has it
	}
	l.mu.RLock()
	p := l.peers[e]
	l.mu.RUnlock()
	if l.lone {
		now := l.clock.Now()
		if p == nil || now.Sub(clock.Time(p.heard.Load())) > linkSilence {
			return 0, true
		}
		p.sent.Store(int64(now))
	}
	if p == nil {
		return 0, false
	}
	if index := p.send.Load(); index != l.indexes[0] {
		return index, false
	}
	return 0, false
}

// copies sends those of the first messages, which hold so many packets, that are to leave by all interfaces by the
// other ones as well. What finds no room there is lost.
func (s *sender) copies(packets int) {
	end := 0
	for end < s.staged && packets >= s.spans[end].packets {
		packets -= s.spans[end].packets
		end++
	}
	for _, index := range s.links.indexes[1:] {
		for m := 0; m < end; {
			if !s.spans[m].all {
				m++
				continue
			}
			last := m
			for ; last < end && s.spans[last].all; last++ {
				s.spans[last].link = index
				s.control(last)
			}
			m = s.sendCopies(m, last)
		}
	}
}

// sendCopies sends messages whose loss does not matter, and returns end.
func (s *sender) sendCopies(m, end int) int {
	for m < end {
		sent, errno := s.transmit(m, end)
		switch {
		case sent > 0:
			for _, c := range s.spans[m : m+sent] {
				s.own.Add(int64(c.own))
			}
			m += sent
		case errno == unix.EINTR:
		case errno == unix.EAGAIN && s.waits > 0:
			s.waits--
			s.waitForRoom()
		default:
			m++
		}
	}
	return end
}

// control puts what message m needs beside its payload: the length of its packets, when it has several, and the
// interface that it leaves by, unless that is the first one.
func (s *sender) control(m int) {
	segment := 0
	if s.spans[m].packets > 1 {
		segment = s.spans[m].segment
	}
	s.headers.setSegment(m, segment)
	if link := s.spans[m].link; link != 0 {
		s.headers.addLink(m, link, s.links)
	}
}

// addLink makes message i leave by an interface, from the local address. It comes after setSegment.
func (h *headers) addLink(i int, index int32, l *links) {
	hdr := &h.msgs[i].hdr
	at := int(hdr.Controllen)
	c := (*unix.Cmsghdr)(unsafe.Pointer(&h.ctls[i][at]))
	data := h.ctls[i][at+unix.CmsgLen(0):]
	size := unix.SizeofInet4Pktinfo
	if l.v6 {
		size = unix.SizeofInet6Pktinfo
		c.Level, c.Type = unix.IPPROTO_IPV6, unix.IPV6_PKTINFO
		copy(data, l.local[:])
		binary.NativeEndian.PutUint32(data[len(l.local):], uint32(index))
	} else {
		c.Level, c.Type = unix.IPPROTO_IP, unix.IP_PKTINFO
		binary.NativeEndian.PutUint32(data, uint32(index))
		copy(data[4:8], l.local[12:])
		clear(data[8:12])
	}
	c.SetLen(unix.CmsgLen(size))
	hdr.Control = &h.ctls[i][0]
	hdr.SetControllen(at + unix.CmsgSpace(size))
}
