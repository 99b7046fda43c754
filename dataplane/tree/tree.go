// Package tree gives channels to a transport that has none: a multicast goes to about ten members, each of which passes
// it on to its share of the others, so that no member sends much more than ten packets for one, and nobody is further
// away than the logarithm of the group's size.
//
// The sender draws the tree, anew for every packet if need be, and each packet carries the list of those that its
// receiver must pass it on to. So relays keep no state that could be old, and a tree without a member that died is
// there as soon as its sender knows: members that were not heard of for a while become leaves, and nobody waits for
// them. What is lost under a relay that dies is asked for and sent again by the protocols above, as any other loss.
//
// Where a process may not talk to all others directly (Config.Neighbours) packets go by way of some: see ring.go.
//
// The members of a channel are told by SetRoster, once for each group that uses it; packets to a channel without a
// roster go to the seeds, which is how processes find each other. A relay passes packets on only to members of its own
// rosters, so that a stranger cannot use it against others.
//
// A Transport wraps another one and is used by the same goroutines: what the sender sends leaves in its Send, and what
// a relay passes on leaves in its Receive.
package tree

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/khamsin-io/khamsin/dataplane"
	"github.com/khamsin-io/khamsin/dataplane/clock"
	"github.com/khamsin-io/khamsin/dataplane/counters"
	"github.com/khamsin-io/khamsin/dataplane/frame"
)

// Defaults and limits.
const (
	DefaultFanOut  = 10
	FanOutMax      = 255
	reserve        = 256                    // bytes of a packet that are kept free for the list
	silentAfter    = 500 * time.Millisecond // a member that was not heard of for so long is passed over as a relay
	replanAfter    = 50 * time.Millisecond  // how often the sender looks who is silent
	headBytes      = 6
	entryBytesIPv4 = 6
	entryBytesIPv6 = 18
)

// Config says how a tree is made.
type Config struct {
	FanOut int                  // packets that a member sends for one; default DefaultFanOut
	Direct bool                 // no relays: the sender sends to everybody
	Seeds  []dataplane.Endpoint // where packets to a channel without a roster go

	// Neighbours bounds with how many others a process talks directly. When the members of its rosters are more,
	// packets to the others, multicasts or not, go by way of neighbours. Zero: no bound.
	Neighbours int

	// Genuine tells whether a packet is one of the system's; the goroutine in Receive calls it. Others are not passed
	// on to anybody. Default: all are.
	Genuine func(packet []byte) bool
}

// Stats counts what the tree did.
type Stats struct {
	Multicasts uint64 // packets to channels that Send took
	Copies     uint64 // packets that left for them, as the first sender
	Relayed    uint64 // packets that were passed on
	Malformed  uint64 // packets with a list that is none
	Unknown    uint64 // members of lists that this process does not know
	Forged     uint64 // packets that were not passed on because they are not genuine
	Starved    uint64 // copies given up for want of a frame
}

// Transport is a transport with channels.
type Transport struct {
	inner  dataplane.Transport
	cfg    Config
	caps   dataplane.Caps
	clock  clock.Source
	closed atomic.Bool

	known atomic.Pointer[map[dataplane.Endpoint]*peer] // members of all rosters; replaced, never changed
	rings atomic.Pointer[rings]                        // likewise

	wire   sync.Mutex // held around the inner Send
	relay  []dataplane.Packet
	direct []dataplane.Endpoint // scratch of a relay
	below  []dataplane.Endpoint // likewise
	lifeAt clock.Time           // when neighbours hear of this process again; Receive's

	mu       sync.Mutex // guards what follows: subscriptions and rosters
	rosters  map[key][]dataplane.Endpoint
	channels map[dataplane.Channel]*plan
	out      []dataplane.Packet // expanded and not yet taken by the inner transport; Send's

	multicasts, copies, short                    counters.Counter // Send's
	relayed, malformed, unknown, forged, starved counters.Counter // Receive's
}

// key names one group's part of a channel's members.
type key struct {
	channel dataplane.Channel
	group   uint32
}

// peer is what is known of one member.
type peer struct {
	heard atomic.Int64 // clock.Time of the last packet
	lives atomic.Int64 // clock.Time when it last said, as a neighbour, that it lives
}

var _ dataplane.Transport = (*Transport)(nil)

// New returns a transport that gives channels to inner, which it closes.
func New(inner dataplane.Transport, cfg Config) (*Transport, error) {
	if cfg.FanOut == 0 {
		cfg.FanOut = DefaultFanOut
	}
	if cfg.FanOut < 1 || cfg.FanOut > FanOutMax {
		return nil, fmt.Errorf("tree: FanOut %d is not from 1 to %d", cfg.FanOut, FanOutMax)
	}
	caps := inner.Caps()
	caps.Multicast, caps.LoopsBack, caps.Large = true, false, 0 // a packet may be on its way to many
	if !cfg.Direct {
		caps.MTU -= reserve
	}
	if caps.MTU < 1 {
		return nil, fmt.Errorf("tree: packets of %d bytes leave no room for %d bytes of list", caps.MTU+reserve,
			reserve)
	}
	t := &Transport{
		inner: inner, cfg: cfg, caps: caps, clock: clock.Monotonic(), rosters: map[key][]dataplane.Endpoint{},
		channels: map[dataplane.Channel]*plan{},
	}
	t.known.Store(&map[dataplane.Endpoint]*peer{})
	t.rings.Store(noRings)
	return t, nil
}

// SetRoster says who uses a channel for one group; none, nil, ends that. The own endpoint may be among them. The
// goroutine that calls Send.
func (t *Transport) SetRoster(ch dataplane.Channel, group uint32, members []dataplane.Endpoint) {
	t.mu.Lock()
	defer t.mu.Unlock()
	k := key{ch, group}
	if len(members) == 0 {
		delete(t.rosters, k)
	} else {
		t.rosters[k] = slices.Clone(members)
	}
	t.channels[ch] = t.newPlan(ch)
	if len(t.channels[ch].members) == 0 {
		delete(t.channels, ch)
	}
	old := *t.known.Load()
	known := make(map[dataplane.Endpoint]*peer)
	for _, list := range t.rosters {
		for _, e := range list {
			if known[e] = old[e]; known[e] == nil {
				known[e] = new(peer)
				known[e].lives.Store(int64(t.clock.Now())) // it has its time
			}
		}
	}
	t.known.Store(&known)
	t.rings.Store(t.newRings(known))
	for _, p := range t.channels {
		p.drawn = nil
	}
}

// Caps says what the transport can do.
func (t *Transport) Caps() dataplane.Caps { return t.caps }

// Arena returns the inner transport's arena.
func (t *Transport) Arena() *frame.Arena { return t.inner.Arena() }

// Local returns the inner transport's endpoint.
func (t *Transport) Local() dataplane.Endpoint { return t.inner.Local() }

// Inner returns the transport that moves the packets.
func (t *Transport) Inner() dataplane.Transport { return t.inner }

// Subscribe does nothing but check: what comes is decided by those who send.
func (t *Transport) Subscribe(ch dataplane.Channel) error { return t.check(ch) }

// Unsubscribe does nothing but check.
func (t *Transport) Unsubscribe(ch dataplane.Channel) error { return t.check(ch) }

func (t *Transport) check(ch dataplane.Channel) error {
	switch {
	case t.closed.Load():
		return dataplane.ErrClosed
	case ch < dataplane.ChannelMin || ch > dataplane.ChannelMax:
		return dataplane.ErrBadChannel
	}
	return nil
}

// Send sends a batch. A multicast is accepted when all its copies have left or wait for the inner transport; while any
// wait nothing more is accepted.
func (t *Transport) Send(batch []dataplane.Packet) (int, error) {
	if t.closed.Load() {
		return 0, dataplane.ErrClosed
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	accepted := 0
	for accepted < len(batch) {
		if err := t.drain(); err != nil || len(t.out) > 0 {
			return accepted, err
		}
		n, err := t.stage(batch[accepted:])
		accepted += n
		if err != nil {
			return accepted, errors.Join(t.drain(), err)
		}
	}
	return accepted, t.drain()
}

// runMax bounds how many packets are expanded at a time.
const runMax = 64

// stage expands a run of packets to one destination from the front of batch, and returns how many.
func (t *Transport) stage(batch []dataplane.Packet) (int, error) {
	ch := batch[0].Channel
	n := 0
	for n < len(batch) && n < runMax && batch[n].Channel == ch {
		if len(t.inner.Arena().Bytes(batch[n].Frame)) > t.caps.MTU {
			break
		}
		n++
	}
	switch {
	case n == 0:
		return 0, dataplane.ErrTooLarge
	case ch == 0:
		t.unicast(batch[:n])
		return n, nil
	case ch > dataplane.ChannelMax:
		return 0, dataplane.ErrBadChannel
	}
	t.multicasts.Add(uint64(n))
	before := len(t.out)
	t.expand(ch, batch[:n])
	t.copies.Add(uint64(len(t.out) - before))
	return n, nil
}

// unicast stages a run of packets, each to one process.
func (t *Transport) unicast(run []dataplane.Packet) {
	if len(t.rings.Load().list) == 0 {
		t.out = append(t.out, run...)
		return
	}
	now := t.clock.Now()
	for _, p := range run {
		if p, ok := t.route(p, now); ok {
			t.out = append(t.out, p)
		} else {
			t.short.Inc()
		}
	}
}

// expand makes the copies of a run of multicasts: all for one member, then all for the next, since that is how they
// share messages on the way.
func (t *Transport) expand(ch dataplane.Channel, run []dataplane.Packet) {
	arena := t.inner.Arena()
	if p := t.channels[ch]; p == nil {
		for _, to := range t.cfg.Seeds {
			if to != t.Local() {
				t.leaf(run, to)
			}
		}
	} else {
		for _, b := range p.branches(t) {
			if len(b.below) == 0 {
				t.leaf(run, b.to)
				continue
			}
			for i := range run {
				if f, ok := t.wrap(arena.Tx(), run[i].Frame, b.below, b.flags()); ok {
					t.out = append(t.out, dataplane.Packet{Frame: f, To: b.to})
				} else {
					t.short.Inc()
				}
			}
		}
	}
	for i := range run {
		arena.Tx().Release(run[i].Frame)
	}
}

// leaf makes the copies for a member that passes nothing on: they are the packets themselves.
func (t *Transport) leaf(run []dataplane.Packet, to dataplane.Endpoint) {
	for i := range run {
		t.inner.Arena().Retain(run[i].Frame)
		t.out = append(t.out, dataplane.Packet{Frame: run[i].Frame, To: to})
	}
}

// drain hands what is expanded to the inner transport. A packet that it refuses is dropped.
func (t *Transport) drain() error {
	at := 0
	var fault error
	t.wire.Lock()
	for at < len(t.out) {
		n, err := t.inner.Send(t.out[at:])
		at += n
		if errors.Is(err, dataplane.ErrClosed) {
			fault = err
			break
		}
		if err != nil {
			t.inner.Arena().Tx().Release(t.out[at].Frame)
			at++
			continue
		}
		if n == 0 {
			break
		}
	}
	t.wire.Unlock()
	rest := copy(t.out, t.out[at:])
	clear(t.out[rest:])
	t.out = t.out[:rest]
	return fault
}

// Wake wakes the inner transport.
func (t *Transport) Wake() { t.inner.Wake() }

// Stats returns the inner transport's counters, which count every copy, and how many packets were passed on.
func (t *Transport) Stats() dataplane.Stats {
	s := t.inner.Stats()
	s.Relayed = t.relayed.Load()
	return s
}

// TreeStats returns what the tree counted.
func (t *Transport) TreeStats() Stats {
	return Stats{
		Multicasts: t.multicasts.Load(), Copies: t.copies.Load(), Relayed: t.relayed.Load(),
		Malformed: t.malformed.Load(), Unknown: t.unknown.Load(), Forged: t.forged.Load(),
		Starved: t.starved.Load() + t.short.Load(),
	}
}

// Close closes the inner transport.
func (t *Transport) Close() error {
	if t.closed.Swap(true) {
		return nil
	}
	t.mu.Lock()
	for _, p := range t.out {
		t.inner.Arena().Release(p.Frame)
	}
	t.out = nil
	t.mu.Unlock()
	return t.inner.Close()
}
