// Package order decides when a received packet may be delivered: in its sender's order, after its causes, at its place
// in the total order, when enough members hold it.
//
// The members of a view keep one queue of contiguous packets for each sender, and only the packet at a queue's head can
// be delivered; so one sender's multicasts are delivered in the order sent whatever their flavours (Unordered ones
// overtake). The total order is a function of rank 0's stream: a control record in it gives the next places to so many
// ordered packets of a member, and rank 0's own ordered packets take the next place where they stand. Nothing else
// carries numbers, so when a view ends, agreeing on how much of each stream is delivered is agreeing on the order too.
//
// Guarded by the simulator's checkers fifo, causal, total-order and uniform.
package order

import (
	"slices"

	"github.com/khamsin-io/khamsin/dataplane/invariant"
	"github.com/khamsin-io/khamsin/vsync/core"
	"github.com/khamsin-io/khamsin/vsync/internal/canary"
	"github.com/khamsin-io/khamsin/vsync/internal/pdu"
)

// Packets is what the gate needs to know of the streams.
type Packets interface {
	ReceivedTo(r core.Rank) core.Seq  // contiguous
	DeliveredTo(r core.Rank) core.Seq // passed the gate
	Flags(r core.Rank, q core.Seq) uint8
	Payload(r core.Rank, q core.Seq) []byte // of control records
	// Deliver hands a packet on and moves DeliveredTo; false means no room now: call Run again later.
	Deliver(r core.Rank, q core.Seq) bool
	// Held tells whether enough acceptors hold a safe packet and the record that gives it its place in rank 0's stream.
	Held(r core.Rank, q, placedBy core.Seq) bool
}

// place is a run in the total order, and where in rank 0's stream it was given.
type place struct {
	rank  core.Rank
	count uint32
	by    core.Seq
}

// Gate is the order of one view at one member.
type Gate struct {
	self   core.Rank
	n      int
	pkts   Packets
	canary canary.Bug

	places   []place // total order not yet delivered; a queue with its head at first
	first    int
	toNumber []Run      // rank 0: ordered packets received and not yet given places
	cause    []core.Seq // what my last causal record told of each stream

	work    []core.Rank // ranks whose head may be deliverable
	inWork  []bool
	waiting []core.Rank // ranks whose head waits for its causes
	final   []core.Seq  // the cut, while closing; nil before
}

// New returns the gate of a fresh view of n members.
func New(self core.Rank, n int, pkts Packets, bug canary.Bug) *Gate {
	return &Gate{self: self, n: n, pkts: pkts, canary: bug, inWork: make([]bool, n), cause: make([]core.Seq, n)}
}

// Received says that a stream became contiguous from above from up to to. It returns false when a record is malformed.
func (g *Gate) Received(r core.Rank, from, to core.Seq) bool {
	ok := true
	for q := from + 1; q <= to; q++ {
		flags := g.pkts.Flags(r, q)
		switch {
		case flags&pdu.FlagOrder != 0:
			ok = r == 0 && g.takePlaces(g.pkts.Payload(r, q), q) && ok
		case pdu.FlavourOf(flags).Ordered() && r == 0:
			g.addPlace(place{0, 1, q})
		case pdu.FlavourOf(flags).Ordered() && g.self == 0:
			g.addToNumber(r)
		}
	}
	g.touch(r)
	return ok
}

func (g *Gate) takePlaces(b []byte, by core.Seq) bool {
	for len(b) > 0 {
		run, rest, ok := DecodeRun(b, g.n)
		if !ok || run.Rank == 0 {
			return false
		}
		g.addPlace(place{run.Rank, run.Count, by})
		b = rest
	}
	return true
}

func (g *Gate) addPlace(p place) {
	if n := len(g.places); n > g.first && g.places[n-1].rank == p.rank && g.places[n-1].by == p.by {
		g.places[n-1].count += p.count
	} else {
		g.places = append(g.places, p)
	}
	if len(g.places) == g.first+1 {
		g.touch(p.rank)
	}
}

func (g *Gate) addToNumber(r core.Rank) {
	if n := len(g.toNumber); n > 0 && g.toNumber[n-1].Rank == r {
		g.toNumber[n-1].Count++
		return
	}
	g.toNumber = append(g.toNumber, Run{r, 1})
}

// Unnumbered returns the ordered packets that rank 0 has received and not given places, in the order received. The
// caller sends an order record of them, as far as it has room, and calls Numbered.
func (g *Gate) Unnumbered() []Run { return g.toNumber }

// Numbered forgets the first n of Unnumbered, which went into an order record.
func (g *Gate) Numbered(n int) { g.toNumber = slices.Delete(g.toNumber, 0, n) }

// Causes appends to dst what this member delivered since its last causal record, and remembers it as told.
func (g *Gate) Causes(dst []Cause) []Cause {
	for r := range g.cause {
		if d := g.pkts.DeliveredTo(core.Rank(r)); d > g.cause[r] && core.Rank(r) != g.self {
			g.cause[r] = d
			dst = append(dst, Cause{core.Rank(r), d})
		}
	}
	return dst
}

func (g *Gate) touch(r core.Rank) {
	if !g.inWork[r] {
		g.inWork[r] = true
		g.work = append(g.work, r)
	}
}

// TouchSafe makes the gate look again at the head of the total order: acceptors acknowledged something.
func (g *Gate) TouchSafe() {
	if len(g.places) > g.first {
		g.touch(g.places[g.first].rank)
	}
}

// SafeWait tells what the total order waits for when a safe packet at its head is received and not yet held by the
// acceptors: the sender, the packet, and the record of its place.
func (g *Gate) SafeWait() (r core.Rank, q, by core.Seq, waits bool) {
	if len(g.places) == g.first {
		return 0, 0, 0, false
	}
	p := g.places[g.first]
	q = g.pkts.DeliveredTo(p.rank) + 1
	if q > g.pkts.ReceivedTo(p.rank) || pdu.FlavourOf(g.pkts.Flags(p.rank, q)) != core.Safe {
		return 0, 0, 0, false
	}
	return p.rank, q, p.by, !g.pkts.Held(p.rank, q, p.by)
}

// Run delivers what may be delivered, until nothing more may or there is no room.
func (g *Gate) Run() {
	for len(g.work) > 0 {
		r := g.work[len(g.work)-1]
		g.work = g.work[:len(g.work)-1]
		g.inWork[r] = false
		if !g.runRank(r) {
			g.touch(r)
			return
		}
	}
}

// runRank delivers from the head of one member's queue. False means no room.
func (g *Gate) runRank(r core.Rank) bool {
	for {
		q := g.pkts.DeliveredTo(r) + 1
		if q > g.pkts.ReceivedTo(r) {
			return true
		}
		flags := g.pkts.Flags(r, q)
		flavour := pdu.FlavourOf(flags)
		if flags&pdu.FlagCause != 0 && !g.satisfied(r, g.pkts.Payload(r, q)) {
			if !slices.Contains(g.waiting, r) {
				g.waiting = append(g.waiting, r)
			}
			return true
		}
		if flavour.Ordered() && !g.mayTake(r, q, flavour) {
			return true
		}
		if !g.pkts.Deliver(r, q) {
			return false
		}
		if flavour.Ordered() {
			g.took(r)
		}
		g.release()
	}
}

// release makes the gate look again at those who wait for causes, after any delivery.
func (g *Gate) release() {
	for _, w := range g.waiting {
		g.touch(w)
	}
	g.waiting = g.waiting[:0]
}

func (g *Gate) satisfied(r core.Rank, b []byte) bool {
	if canary.Enabled && g.canary == canary.IgnoreCause {
		return true
	}
	for len(b) > 0 {
		c, rest, ok := DecodeCause(b, g.n)
		if !ok {
			return true // counted on receipt; a sender that writes nonsense harms only its own order
		}
		if c.Rank != r && g.pkts.DeliveredTo(c.Rank) < c.Seq {
			return false
		}
		b = rest
	}
	return true
}

// mayTake tells whether the ordered packet at the head of r's queue has the next place in the total order.
func (g *Gate) mayTake(r core.Rank, q core.Seq, f core.Flavour) bool {
	if canary.Enabled && g.canary == canary.OwnOrderFirst && r == g.self && r != 0 && g.final == nil {
		return true
	}
	if len(g.places) == g.first || g.places[g.first].rank != r {
		return false
	}
	if f != core.Safe || g.final != nil {
		return true
	}
	return g.pkts.Held(r, q, g.places[g.first].by)
}

func (g *Gate) took(r core.Rank) {
	if g.first == len(g.places) || g.places[g.first].rank != r {
		invariant.Check(canary.Enabled, "order: rank %d took a place that is not its own", r)
		return
	}
	p := &g.places[g.first]
	if p.count--; p.count == 0 {
		g.first++
		if g.first == len(g.places) {
			g.places, g.first = g.places[:0], 0
		} else if g.first > 256 && g.first > len(g.places)/2 {
			g.places = g.places[:copy(g.places, g.places[g.first:])]
			g.first = 0
		}
	}
	if len(g.places) > g.first {
		g.touch(g.places[g.first].rank)
	}
}
