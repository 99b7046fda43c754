package xdp

import (
	"maps"
	"runtime"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// neighbour is a host on the link, as the kernel knows it.
type neighbour struct {
	mac   mac
	state int
}

// States in which the kernel itself would use a neighbour's address, and those in which it is sure of it.
const (
	usable = netlink.NUD_REACHABLE | netlink.NUD_PERMANENT | netlink.NUD_NOARP | netlink.NUD_STALE | netlink.NUD_DELAY |
		netlink.NUD_PROBE
	certain = netlink.NUD_REACHABLE | netlink.NUD_PERMANENT | netlink.NUD_NOARP
)

// listen asks the kernel for what it knows about neighbours, and for all news, in a namespace, or where the calling
// thread is when that is nil.
func (r *resolver) listen(namespace *netns.NsHandle) error {
	updates := make(chan netlink.NeighUpdate, wantsMax)
	err := netlink.NeighSubscribeWithOptions(updates, r.done, netlink.NeighSubscribeOptions{
		Namespace: namespace, ListExisting: true,
	})
	if err != nil {
		close(updates)
		r.updates = updates
		return err
	}
	r.updates = updates
	return nil
}

// relistenPause is how long a resolver waits before it listens again.
const relistenPause = 100 * time.Millisecond

// relisten starts anew when news were lost. Meanwhile packets go through the stack. It returns false when it is time
// to end.
func (r *resolver) relisten() bool {
	clear(r.neighbours)
	r.republish()
	select {
	case <-r.done:
		return false
	case <-time.After(relistenPause):
	}
	_ = r.listenAgain() // when it fails the channel is closed, and we are here again
	return true
}

// listenAgain listens from whatever thread. To change a thread's namespace takes a privilege, so that is done only when
// it must be.
func (r *resolver) listenAgain() error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	here, err := netns.Get()
	if err != nil {
		return err
	}
	defer here.Close()
	if here.Equal(r.namespace) {
		return r.listen(nil)
	}
	return r.listen(&r.namespace)
}

// onNeighbour takes in one piece of news.
func (r *resolver) onNeighbour(u *netlink.NeighUpdate) {
	ip := u.IP.To16()
	if u.LinkIndex != r.ifIndex || ip == nil || (u.IP.To4() == nil) != r.v6 {
		return
	}
	hop := [16]byte(ip)
	old, had := r.neighbours[hop]
	if u.Type == unix.RTM_DELNEIGH || len(u.HardwareAddr) != len(mac{}) {
		if !had {
			return
		}
		delete(r.neighbours, hop)
	} else {
		now := neighbour{mac: mac(u.HardwareAddr), state: u.State}
		if had && now == old {
			return
		}
		r.neighbours[hop] = now
	}
	r.republish()
}

// republish shows the sender the routes with what is known of their neighbours.
func (r *resolver) republish() {
	next := maps.Clone(*r.routes.Load())
	changed := false
	for ip, way := range next { // order-free: each is changed by itself
		if now := r.through(way); now != way {
			next[ip] = now
			changed = true
		}
	}
	if changed {
		r.routes.Store(&next)
	}
}

// through returns a route with what is known of its neighbour.
func (r *resolver) through(way route) route {
	n, known := r.neighbours[way.hop]
	way.direct = known && !way.fixed && n.state&usable != 0
	way.mac, way.stale = mac{}, false
	if way.direct {
		way.mac, way.stale = n.mac, n.state&certain == 0
	}
	return way
}
