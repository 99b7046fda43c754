package xdp

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"sync"
	"sync/atomic"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/khamsin-io/khamsin/dataplane"
	"github.com/khamsin-io/khamsin/dataplane/clock"
)

// route says how a host is reached.
type route struct {
	hop    [16]byte // neighbour on the link: the host, or a gateway
	mac    mac
	direct bool // by this interface, from here, and the neighbour's address is known
	stale  bool // the kernel is not sure that the neighbour is still there
	fixed  bool // not by this interface at all: waiting for the neighbour is in vain
}

// Limits and intervals of a resolver.
const (
	routesMax    = 4096             // hosts that are remembered
	wantsMax     = 64               // questions that wait
	refreshEvery = clock.Time(30e9) // routes are looked up again
	askEvery     = clock.Time(5e6)  // a host that is not known yet is asked for again
	loneEvery    = clock.Time(1e8)  // who else listens is looked up again
)

// resolver knows, from the kernel's tables, how hosts are reached, and which channels nobody else on this host listens
// to. The sender asks and never waits: what is not known goes through the stack, which finds out by itself, and a
// goroutine of the resolver's looks it up meanwhile.
type resolver struct {
	ifIndex int
	v6      bool
	handle  *netlink.Handle
	members *os.File // the kernel's list of multicast memberships, in the interface's namespace

	routes atomic.Pointer[map[[16]byte]route]
	lonely atomic.Pointer[map[dataplane.Channel]bool] // channels with no listener but this transport

	namespace  netns.NsHandle
	updates    chan netlink.NeighUpdate // the kernel's news of neighbours
	neighbours map[[16]byte]neighbour   // the goroutine's

	wants   chan [16]byte
	refresh chan struct{}
	look    chan struct{}
	done    chan struct{}
	over    sync.WaitGroup

	asked, refreshed, looked clock.Time // the sender's

	text   []byte // scratch of the goroutine
	counts map[dataplane.Channel]int

	mu     sync.Mutex
	joined map[dataplane.Channel]int // sockets by which this transport, and its inlets, have joined channels
}

const (
	membershipsIPv4 = "/proc/thread-self/net/igmp"
	membershipsIPv6 = "/proc/thread-self/net/igmp6"
)

// newResolver starts a resolver for an interface in the calling thread's network namespace, and one family.
func newResolver(ifIndex int, v6 bool) (*resolver, error) {
	r := &resolver{
		ifIndex: ifIndex,
		v6:      v6,
		wants:   make(chan [16]byte, wantsMax),
		refresh: make(chan struct{}, 1),
		look:    make(chan struct{}, 1),
		done:    make(chan struct{}),
		joined:  map[dataplane.Channel]int{},
		counts:  map[dataplane.Channel]int{},

		namespace:  netns.None(),
		neighbours: map[[16]byte]neighbour{},
	}
	r.routes.Store(&map[[16]byte]route{})
	r.lonely.Store(&map[dataplane.Channel]bool{})
	if err := r.open(); err != nil {
		return nil, errors.Join(fmt.Errorf("xdp: routes and neighbours: %w", err), r.release())
	}
	r.over.Add(1)
	go r.run()
	return r, nil
}

// open acquires what release gives back, in part when it fails.
func (r *resolver) open() (err error) {
	if r.namespace, err = netns.Get(); err != nil {
		return err
	}
	if r.handle, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
		return err
	}
	file := membershipsIPv4
	if r.v6 {
		file = membershipsIPv6
	}
	if r.members, err = os.Open(file); err != nil {
		return err
	}
	return r.listen(nil)
}

// release gives back what open acquired.
func (r *resolver) release() error {
	var errs []error
	if r.handle != nil {
		r.handle.Close()
	}
	if r.members != nil {
		errs = append(errs, r.members.Close())
	}
	if r.namespace.IsOpen() {
		errs = append(errs, r.namespace.Close())
	}
	return errors.Join(errs...)
}

// close ends the resolver.
func (r *resolver) close() error {
	close(r.done)
	r.over.Wait()
	for range r.updates { // until its goroutine has noticed
		continue
	}
	return r.release()
}

// poke asks for something without waiting.
func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default: // it is asked for
	}
}

// route returns how a host is reached, as far as that is known. Sender only.
func (r *resolver) route(ip [16]byte, now clock.Time) route {
	known, ok := (*r.routes.Load())[ip]
	noWay := !ok || known.hop == [16]byte{} && !known.fixed // else the neighbour's address comes by itself
	if noWay && now-r.asked >= askEvery {
		r.asked = now
		select {
		case r.wants <- ip:
		default:
		}
	}
	if now-r.refreshed >= refreshEvery {
		r.refreshed = now
		poke(r.refresh)
	}
	return known
}

// alone tells whether nobody else on this host listens to a channel, as far as that is known. Sender only.
func (r *resolver) alone(ch dataplane.Channel, now clock.Time) bool {
	yes, known := (*r.lonely.Load())[ch]
	if !known || now-r.looked >= loneEvery {
		if !known {
			r.follow(ch)
		}
		r.looked = now
		poke(r.look)
	}
	return yes
}

// unshared tells whether nobody else on this host listens to a channel, and asks for a look at it. Any goroutine.
func (r *resolver) unshared(ch dataplane.Channel) bool {
	poke(r.look)
	return (*r.lonely.Load())[ch]
}

// follow makes a channel one that the resolver looks up, with nobody known to listen. Until then it counts as shared.
func (r *resolver) follow(ch dataplane.Channel) { r.note(ch, 0) }

// note records that this transport, or an inlet of it, has joined a channel (1), or left it (-1). Until the next look
// it counts as shared.
func (r *resolver) note(ch dataplane.Channel, change int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.joined[ch] += change; r.joined[ch] == 0 {
		delete(r.joined, ch)
	}
	next := maps.Clone(*r.lonely.Load())
	if len(next) >= routesMax {
		clear(next)
	}
	next[ch] = false
	r.lonely.Store(&next)
	poke(r.look)
}

// run answers the sender's questions.
func (r *resolver) run() {
	defer r.over.Done()
	for {
		select {
		case <-r.done:
			return
		case u, ok := <-r.updates:
			if ok {
				r.onNeighbour(&u)
			} else if !r.relisten() {
				return
			}
		case ip := <-r.wants:
			r.learn(ip)
		case <-r.refresh:
			r.relearn()
		case <-r.look:
			r.lookAround()
		}
	}
}

// learn looks up one host.
func (r *resolver) learn(ip [16]byte) {
	now := *r.routes.Load()
	if old, ok := now[ip]; ok && old.hop != ([16]byte{}) {
		return // its neighbour is awaited
	}
	next := maps.Clone(now)
	if len(next) >= routesMax {
		clear(next)
	}
	next[ip] = r.through(r.lookUp(ip))
	r.routes.Store(&next)
}

// relearn looks up all known hosts again, since routes may have changed.
func (r *resolver) relearn() {
	next := maps.Clone(*r.routes.Load())
	for ip := range next { // order-free: each is looked up by itself
		next[ip] = r.through(r.lookUp(ip))
	}
	r.routes.Store(&next)
}

// lookUp returns the way to a host, without the neighbour's address.
func (r *resolver) lookUp(ip [16]byte) route {
	if ip[0] == 0xfe && ip[1]&0xc0 == 0x80 { // valid on a link: on this one, without a route
		return route{hop: ip}
	}
	found, err := r.handle.RouteGet(net.IP(ip[:]))
	if err != nil || len(found) == 0 {
		return route{} // no route now: asked for again
	}
	way := &found[0]
	if way.LinkIndex != r.ifIndex || way.Type == unix.RTN_LOCAL {
		return route{fixed: true}
	}
	hop := ip
	if gw := way.Gw.To16(); gw != nil && !gw.IsUnspecified() {
		hop = [16]byte(gw)
	}
	return route{hop: hop}
}
