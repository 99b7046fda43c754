package tree

import (
	"math/bits"
	"slices"
	"time"

	"github.com/khamsin-io/khamsin/dataplane"
	"github.com/khamsin-io/khamsin/dataplane/clock"
)

// Where a process may not be connected with all others, each has a few neighbours, and packets to the others go by way
// of them. The members of a roster form a ring, in the order of their addresses. The neighbours of a member are those
// that are 1, and so on in growing steps up to half the ring, behind it and before it: so each has as many neighbours
// as any other, and is the neighbour of those that are its own.
//
// A packet goes round the ring, always forward, by the longest step that does not pass its destination. So it comes
// nearer with every step, whatever the relays think of who is a member, and takes about as many steps as the number of
// members has bits. A multicast takes the same ways, together as long as they are the same: its list is split at every
// relay by the next step. A neighbour that was not heard of for a while is passed over; where there is no step left
// the destination is reached directly. Neighbours tell each other that they live, and that they are neighbours.
//
// Of several rosters the large ones come first, and one whose members are all reached already adds no ring.

// lifeEvery is how often neighbours hear of each other at least.
const lifeEvery = 150 * time.Millisecond

// rings says by whom everybody is reached. It is never changed.
type rings struct {
	list       []*ring
	ways       map[dataplane.Endpoint]way
	neighbours []dataplane.Endpoint // of all rings
}

// ring is one roster, from the process itself on.
type ring struct {
	members []dataplane.Endpoint
	peers   []*peer // what is known of them
	steps   []int   // places of the neighbours, ascending
}

// way is where a member stands.
type way struct {
	ring *ring
	at   int
}

// noRings is when everybody is reached directly.
var noRings = &rings{} // immutable: empty

// newRings lays rings through rosters when their members are more than a process may have neighbours.
func (t *Transport) newRings(known map[dataplane.Endpoint]*peer) *rings {
	others := len(known)
	if known[t.Local()] != nil {
		others--
	}
	if t.cfg.Neighbours == 0 || t.cfg.Direct || others <= t.cfg.Neighbours {
		return noRings
	}
	var rosters [][]dataplane.Endpoint
	for _, list := range t.rosters {
		list = slices.Compact(slices.SortedFunc(slices.Values(list), compare))
		if at, found := slices.BinarySearchFunc(list, t.Local(), compare); found {
			rosters = append(rosters, slices.Concat(list[at:], list[:at]))
		}
	}
	slices.SortFunc(rosters, func(a, b []dataplane.Endpoint) int {
		if len(a) != len(b) {
			return len(b) - len(a)
		}
		return slices.CompareFunc(a, b, compare)
	})
	r := &rings{ways: map[dataplane.Endpoint]way{}}
	for _, list := range rosters {
		x := &ring{members: list}
		fresh := false
		for i, e := range list {
			x.peers = append(x.peers, known[e])
			if _, have := r.ways[e]; !have && i > 0 {
				r.ways[e] = way{x, i}
				fresh = true
			}
		}
		if fresh {
			r.list = append(r.list, x)
		}
	}
	for _, x := range r.list {
		x.steps = steps(len(x.members), t.neighbours(len(x.members))/len(r.list))
		for _, at := range x.steps {
			if e := x.members[at]; !slices.Contains(r.neighbours, e) {
				r.neighbours = append(r.neighbours, e)
			}
		}
	}
	return r
}

// neighbours returns how many neighbours a member of a ring of n should have.
func (t *Transport) neighbours(n int) int {
	return min(t.cfg.Neighbours, max(t.cfg.FanOut, 2*bits.Len(uint(n))))
}

// steps returns the places of up to most neighbours in a ring of n, at least of the two beside. Each step is longer
// than the one before by the same part, as far as whole numbers allow.
func steps(n, most int) []int {
	half := n / 2
	var forward []int
	for parts := 16; ; parts++ { // of a sixteenth
		forward = forward[:0]
		for at := 1; at <= half; at = max(at+1, at*parts/16) {
			forward = append(forward, at)
		}
		if len(forward) <= max(1, most/2) {
			break
		}
	}
	list := slices.Clone(forward)
	for _, at := range forward {
		list = append(list, n-at)
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// hop returns to whom a packet for a destination goes next.
func (r *rings) hop(to dataplane.Endpoint, now clock.Time) dataplane.Endpoint {
	w, ok := r.ways[to]
	if !ok {
		return to
	}
	for i := len(w.ring.steps) - 1; i >= 0; i-- {
		at := w.ring.steps[i]
		if at == w.at || at < w.at && !w.ring.peers[at].silent(now) {
			return w.ring.members[at]
		}
	}
	return to
}

// silent tells whether a neighbour did not say for a while that it lives. Other packets do not count: they may come
// from a process that took the place of a dead one, and does not know for whom it would be a relay.
func (p *peer) silent(now clock.Time) bool { return clock.Time(p.lives.Load()).Add(silentAfter) < now }

// mark returns a number that tells apart which neighbours are silent.
func (r *rings) mark(now clock.Time) (mark uint64) {
	for _, x := range r.list {
		for _, at := range x.steps {
			if mark *= 31; x.peers[at].silent(now) {
				mark++
			}
		}
	}
	return mark
}

// draw makes branches for members by their next steps. A list that does not fit one packet takes several.
func (r *rings) draw(members []dataplane.Endpoint, now clock.Time) []branch {
	most := max(1, listMax(members))
	var list []branch
	for _, e := range members {
		to := r.hop(e, now)
		i := slices.IndexFunc(list, func(b branch) bool { return b.to == to })
		if i < 0 {
			i = len(list)
			list = append(list, branch{to: to, pass: true})
		}
		if e == to {
			list[i].pass = false
		} else {
			list[i].below = append(list[i].below, e)
		}
	}
	for i := 0; i < len(list); i++ {
		if b := &list[i]; len(b.below) > most {
			rest := branch{to: b.to, below: b.below[most:], pass: true}
			b.below = b.below[:most:most]
			list = append(list, rest)
		}
	}
	return list
}

// route returns the frame to send for a packet to one process, and to whom: the packet itself when the destination is a
// neighbour or in no ring, else a copy with a head.
func (t *Transport) route(p dataplane.Packet, now clock.Time) (dataplane.Packet, bool) {
	to := t.rings.Load().hop(p.To, now)
	if to == p.To {
		return p, true
	}
	ends := [2]dataplane.Endpoint{p.To, t.Local()}
	pool := t.inner.Arena().Tx()
	w, ok := t.wrap(pool, p.Frame, ends[:], flagRoute)
	pool.Release(p.Frame)
	return dataplane.Packet{Frame: w, To: to}, ok
}

// live tells neighbours from time to time that this process lives, and returns how long Receive may wait before it is
// due again.
func (t *Transport) live(wait dataplane.Wait) dataplane.Wait {
	neighbours := t.rings.Load().neighbours
	if len(neighbours) == 0 {
		return wait
	}
	now := t.clock.Now()
	if now >= t.lifeAt {
		t.lifeAt = now.Add(lifeEvery)
		if f, ok := t.inner.Arena().Rx().Get(); ok {
			f.Len = headBytes
			b := t.inner.Arena().Bytes(f)
			b[0], b[1], b[2], b[3], b[4], b[5] = magic0, magic1, 0, 0, family4, flagLife
			for _, e := range neighbours {
				t.inner.Arena().Retain(f)
				t.relay = append(t.relay, dataplane.Packet{Frame: f, To: e})
			}
			t.inner.Arena().Release(f)
			t.sendRelayed()
		}
	}
	if rest := t.lifeAt.Sub(now); wait.Timeout < 0 || wait.Timeout > rest {
		wait.Timeout = rest
	}
	return wait
}
