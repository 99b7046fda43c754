package xdp

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/khamsin-io/khamsin/dataplane"
	"github.com/khamsin-io/khamsin/dataplane/clock"
)

// route says how a host is reached.
type route struct {
	hop    [4]byte // neighbour on the link: the host, or a gateway
	mac    mac
	direct bool // by this interface, from here, and the neighbour's address is known
	stale  bool // the kernel is not sure that the neighbour is still there
	fixed  bool // not by this interface at all: waiting for the neighbour is in vain
}

// Limits and intervals of a resolver.
const (
	routesMax    = 4096            // hosts that are remembered
	wantsMax     = 64              // questions that wait
	refreshEvery = clock.Time(3e9) // what is known is looked up again
	askEvery     = clock.Time(5e6) // a host that is not known yet is asked for again
	loneEvery    = clock.Time(1e8) // who else listens is looked up again
)

// resolver knows, from the kernel's tables, how hosts are reached, and which channels nobody else on this host listens
// to. The sender asks and never waits: what is not known goes through the stack, which finds out by itself, and a
// goroutine of the resolver's looks it up meanwhile.
type resolver struct {
	ifIndex int
	handle  *netlink.Handle
	igmp    *os.File // the kernel's list of multicast memberships, in the interface's namespace

	routes atomic.Pointer[map[[4]byte]route]
	lonely atomic.Pointer[map[dataplane.Channel]bool] // channels with no listener but this transport

	wants   chan [4]byte
	refresh chan struct{}
	look    chan struct{}
	done    chan struct{}
	over    sync.WaitGroup

	asked, refreshed, looked clock.Time // the sender's

	text   []byte // scratch of the goroutine
	counts map[dataplane.Channel]int

	mu     sync.Mutex
	joined map[dataplane.Channel]bool // channels that this transport has joined
}

const membershipsFile = "/proc/thread-self/net/igmp"

// newResolver starts a resolver for an interface in the calling thread's network namespace.
func newResolver(ifIndex int) (*resolver, error) {
	r := &resolver{
		ifIndex: ifIndex,
		wants:   make(chan [4]byte, wantsMax),
		refresh: make(chan struct{}, 1),
		look:    make(chan struct{}, 1),
		done:    make(chan struct{}),
		joined:  map[dataplane.Channel]bool{},
		counts:  map[dataplane.Channel]int{},
	}
	r.routes.Store(&map[[4]byte]route{})
	r.lonely.Store(&map[dataplane.Channel]bool{})
	var err error
	if r.handle, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
		return nil, fmt.Errorf("xdp: netlink: %w", err)
	}
	if r.igmp, err = os.Open(membershipsFile); err != nil {
		r.handle.Close()
		return nil, fmt.Errorf("xdp: memberships: %w", err)
	}
	r.over.Add(1)
	go r.run()
	return r, nil
}

// close ends the resolver.
func (r *resolver) close() error {
	close(r.done)
	r.over.Wait()
	r.handle.Close()
	return r.igmp.Close()
}

// poke asks for something without waiting.
func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default: // it is asked for
	}
}

// route returns how a host is reached, as far as that is known. Sender only.
func (r *resolver) route(ip [4]byte, now clock.Time) route {
	known, ok := (*r.routes.Load())[ip]
	if (!ok || !known.direct && !known.fixed) && now-r.asked >= askEvery {
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

// follow makes a channel one that the resolver looks up, with nobody known to listen. Until then it counts as shared.
func (r *resolver) follow(ch dataplane.Channel) { r.note(ch, false, false) }

// note records that this transport has joined a channel, or left it. Until the next look it counts as shared.
func (r *resolver) note(ch dataplane.Channel, change, joined bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if change {
		delete(r.joined, ch)
		if joined {
			r.joined[ch] = true
		}
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
func (r *resolver) learn(ip [4]byte) {
	next := maps.Clone(*r.routes.Load())
	if len(next) >= routesMax {
		clear(next)
	}
	next[ip] = r.lookUp(ip)
	r.addNeighbours(next)
	r.routes.Store(&next)
}

// relearn looks up the neighbours of all known hosts again, and the routes to those that had none.
func (r *resolver) relearn() {
	next := maps.Clone(*r.routes.Load())
	for ip, old := range next { // order-free: each is looked up by itself
		if !old.direct {
			next[ip] = r.lookUp(ip)
		}
	}
	r.addNeighbours(next)
	r.routes.Store(&next)
}

// lookUp returns the way to a host, without the neighbour's address.
func (r *resolver) lookUp(ip [4]byte) route {
	found, err := r.handle.RouteGet(net.IP(ip[:]))
	if err != nil || len(found) == 0 {
		return route{} // no route now: asked for again
	}
	way := &found[0]
	if way.LinkIndex != r.ifIndex || way.Type == unix.RTN_LOCAL {
		return route{fixed: true}
	}
	hop := ip
	if gw := way.Gw.To4(); gw != nil {
		hop = [4]byte(gw)
	}
	return route{hop: hop}
}

// States in which the kernel itself would use a neighbour's address.
const (
	usable = netlink.NUD_REACHABLE | netlink.NUD_PERMANENT | netlink.NUD_NOARP | netlink.NUD_STALE | netlink.NUD_DELAY |
		netlink.NUD_PROBE
	certain = netlink.NUD_REACHABLE | netlink.NUD_PERMANENT | netlink.NUD_NOARP
)

// addNeighbours fills in the neighbours' addresses.
func (r *resolver) addNeighbours(routes map[[4]byte]route) {
	neighbours, err := r.handle.NeighList(r.ifIndex, netlink.FAMILY_V4)
	if err != nil {
		return // a dump that was interrupted: what is known stays
	}
	known := make(map[[4]byte]*netlink.Neigh, len(neighbours))
	for i := range neighbours {
		if ip := neighbours[i].IP.To4(); ip != nil && len(neighbours[i].HardwareAddr) == len(mac{}) {
			known[[4]byte(ip)] = &neighbours[i]
		}
	}
	for ip, way := range routes { // order-free: each is changed by itself
		way.direct = false
		if n := known[way.hop]; n != nil && !way.fixed && n.State&usable != 0 {
			way.mac, way.direct, way.stale = mac(n.HardwareAddr), true, n.State&certain == 0
		}
		routes[ip] = way
	}
}

// lookAround finds out which of the followed channels nobody else listens to.
func (r *resolver) lookAround() {
	clear(r.counts)
	text, err := r.readMemberships()
	if err != nil || !scanMemberships(text, r.ifIndex, r.counts) {
		return // until it works again all are as they were
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	now := *r.lonely.Load()
	var next map[dataplane.Channel]bool
	for ch, was := range now { // order-free: each is looked up by itself
		own := 0
		if r.joined[ch] {
			own = 1
		}
		alone := r.counts[ch] <= own
		if alone == was {
			continue
		}
		if next == nil {
			next = maps.Clone(now)
		}
		next[ch] = alone
	}
	if next != nil {
		r.lonely.Store(&next)
	}
}

// readMemberships returns the kernel's list of memberships, in a buffer that is used again.
func (r *resolver) readMemberships() ([]byte, error) {
	r.text = r.text[:0]
	for {
		if len(r.text) == cap(r.text) {
			r.text = slices.Grow(r.text, 4096)
		}
		n, err := r.igmp.ReadAt(r.text[len(r.text):cap(r.text)], int64(len(r.text)))
		r.text = r.text[:len(r.text)+n]
		if errors.Is(err, io.EOF) || err == nil && n == 0 {
			return r.text, nil
		}
		if err != nil {
			return nil, err
		}
	}
}

// scanMemberships reads /proc/net/igmp: a line for each interface, beginning with its index, and behind it a line,
// beginning with a tab, for each group: its address in hexadecimal as it lies in memory, and how many sockets joined. It
// puts the numbers of an interface into counts, and returns false when the text is not like that.
func scanMemberships(text []byte, ifIndex int, counts map[dataplane.Channel]int) bool {
	_, text, _ = bytes.Cut(text, newline) // the heading
	mine := false
	for len(text) > 0 {
		var line []byte
		line, text, _ = bytes.Cut(text, newline)
		if len(line) == 0 {
			return false
		}
		first, rest := nextField(line)
		if line[0] != '\t' {
			index, ok := number(first, 10)
			if !ok {
				return false
			}
			mine = index == uint64(ifIndex)
			continue
		}
		second, _ := nextField(rest)
		group, ok := number(first, 16)
		users, ok2 := number(second, 10)
		if !ok || !ok2 || group > math.MaxUint32 || users > math.MaxInt32 {
			return false
		}
		if mine {
			var ip [4]byte
			binary.NativeEndian.PutUint32(ip[:], uint32(group))
			counts[channelOf(ip)] = int(users)
		}
	}
	return true
}

var newline = []byte{'\n'} // immutable: never written

// nextField returns the first field of a line, and what stands behind it.
func nextField(line []byte) (field, rest []byte) {
	line = bytes.TrimLeft(line, " \t")
	end := bytes.IndexAny(line, " \t")
	if end < 0 {
		end = len(line)
	}
	return line[:end], line[end:]
}

// number reads a number; unlike package strconv it takes bytes.
func number(b []byte, base uint64) (n uint64, ok bool) {
	for _, c := range b {
		digit := uint64(99)
		switch {
		case c >= '0' && c <= '9':
			digit = uint64(c - '0')
		case c >= 'A' && c <= 'F':
			digit = uint64(c-'A') + 10
		}
		if digit >= base || n > math.MaxUint64/base-base {
			return 0, false
		}
		n = n*base + digit
	}
	return n, len(b) > 0
}
