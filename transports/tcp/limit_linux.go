package tcp

import (
	"time"

	"golang.org/x/sys/unix"

	"github.com/khamsin-io/khamsin/dataplane"
	"github.com/khamsin-io/khamsin/dataplane/clock"
)

// How connections are kept below Config.Connections. A part of them is spare: when others than spare ones are in use,
// connections that nothing was sent or received by for a while are retired, those that were used least recently first.
// Whoever still wants in when all are in use waits in the system's queue, where nothing is lost, until there is room,
// which is made by retiring one that is in use, and another only a while later: peers take turns then, slowly.
//
// A connection is retired in order: this end says that it sends no more and goes on receiving; the other end sends what
// is left of a packet, and closes; then this end closes. So a packet that was written to it arrives.
const (
	spareShare = 4                      // one in so many connections is spare,
	spareMost  = 16                     // up to this many
	idleAfter  = 500 * time.Millisecond // unused for so long, a connection may be retired when it is one too many
	turnEvery  = 50 * time.Millisecond  // how often one that is in use is retired, at most
)

// spare returns how many connections are spare: half of them for those that this process dials, so that others who want
// in do not keep it from that.
func (c *Config) spare() int { return min(spareMost, max(1, c.Connections/spareShare)) }

// enough returns how many connections there should be at most.
func (c *Config) enough() int { return c.Connections - c.spare() }

// room returns how many there may be when another one is accepted.
func (c *Config) room() int { return c.Connections - c.spare()/2 }

// Enough returns how many connections may be in use without any being retired.
func (t *Transport) Enough() int { return t.cfg.enough() }

// crowded tells whether there are more, and trim has work. Any goroutine may ask.
func (t *Transport) crowded() bool { return t.present.Load() > uint64(t.cfg.enough()) }

// Waited returns how often connections had to wait until there was room for them.
func (t *Transport) Waited() uint64 { return t.waited.Load() }

// trim retires connections while there are too many, as far as it may. The caller holds mu.
func (t *Transport) trim(now clock.Time) {
	for len(t.links)-t.ending > t.cfg.enough() {
		var oldest *link
		for _, l := range t.links {
			switch {
			case l.touched:
			case l.stage == stageDialling && now >= l.used.Add(idleAfter): // nothing is under way on it
				t.giveUp(l)
				t.refuse(l.peer)
			case l.stage == stageOpen && len(l.rest) == 0 && (oldest == nil || l.used < oldest.used):
				oldest = l
			}
		}
		if oldest == nil {
			return
		}
		if now < oldest.used.Add(idleAfter) { // in use
			if !t.paused && len(t.links) < t.cfg.Connections || t.ending > 0 || now < t.turnAt {
				return
			}
			t.turnAt = now.Add(turnEvery)
		}
		t.retire(oldest, now)
	}
}

// retire begins the end of an open connection that nothing waits to leave by. The caller holds mu.
func (t *Transport) retire(l *link, now clock.Time) {
	l.stage, l.since = stageLeaving, now
	t.ending++
	t.retired.Inc()
	t.forget(l)
	_ = unix.Shutdown(l.fd, unix.SHUT_WR)
}

// pause leaves strangers in the system's queue until there is room. The caller holds mu.
func (t *Transport) pause(yes bool) {
	if t.paused == yes {
		return
	}
	t.paused = yes
	event := unix.EpollEvent{Fd: int32(t.listener)}
	if !yes {
		event.Events = unix.EPOLLIN
	} else {
		t.waited.Inc()
	}
	_ = unix.EpollCtl(t.epoll, unix.EPOLL_CTL_MOD, t.listener, &event)
}

// settle decides between two connections that a pair of processes made at the same moment: the one that the lower
// endpoint dialled stays. Received is the one that just introduced itself. The caller holds mu.
func (t *Transport) settle(received *link, now clock.Time) {
	dialled := t.peers[received.peer]
	switch {
	case dialled == nil:
		t.peers[received.peer] = received
	case dialled.stage == stageOpen && !dialled.touched && len(dialled.rest) == 0 && lower(received.peer, t.local):
		t.retire(dialled, now)
		t.peers[received.peer] = received
	}
}

func lower(a, b dataplane.Endpoint) bool {
	if a.IP != b.IP {
		return string(a.IP[:]) < string(b.IP[:])
	}
	return a.Port < b.Port
}

// drain writes what is left of a packet to a peer that sends no more, and then closes.
func (t *Transport) drain(l *link) {
	t.mu.Lock()
	n, err := unix.SendmsgN(l.fd, l.rest, nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
	if err == nil {
		l.rest = l.rest[:copy(l.rest, l.rest[n:])]
	}
	over := len(l.rest) == 0 || err != nil && err != unix.EAGAIN && err != unix.EINTR && err != unix.ENOBUFS
	if over {
		l.rest = nil
	}
	t.mu.Unlock()
	if over {
		t.close(l)
	}
}
