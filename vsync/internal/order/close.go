package order

import (
	"github.com/khamsin-io/khamsin/vsync/core"
	"github.com/khamsin-io/khamsin/vsync/internal/pdu"
)

// Close delivers the rest of a view whose end was agreed: of each stream, the packets up to its place in the cut, all
// of which are held. It is a function of the cut and of the packets, so that every member that closes the view passes
// through the same deliveries whatever it had delivered before:
//
//   - places in the total order whose packet lies beyond the cut are skipped;
//   - ordered packets without a place follow in the order of ranks;
//   - a causal record whose causes lie beyond the cut, together with all of that stream behind it, is not delivered by
//
// anyone
//
//	(nobody can have delivered it before: whoever had would have held its causes).
//
// The caller must make room for everything first: Deliver may not refuse. Close returns how far each stream was
// delivered.
func (g *Gate) Close(cut []core.Seq) []core.Seq {
	final := append([]core.Seq(nil), cut...)
	g.truncate(final)
	g.final = final
	g.placeRest(final)
	for r := range final {
		g.touch(core.Rank(r))
	}
	for {
		g.Run()
		if !g.skipLostPlace(final) {
			return final
		}
	}
}

// truncate shortens the cut of streams with causal records that can never be satisfied, until nothing changes.
func (g *Gate) truncate(final []core.Seq) {
	for changed := true; changed; {
		changed = false
		for r := range final {
			for q := g.pkts.DeliveredTo(core.Rank(r)) + 1; q <= final[r]; q++ {
				if g.pkts.Flags(core.Rank(r), q)&pdu.FlagCause != 0 && g.lost(core.Rank(r), q, final) {
					final[r] = q - 1
					changed = true
					break
				}
			}
		}
	}
}

func (g *Gate) lost(r core.Rank, q core.Seq, final []core.Seq) bool {
	b := g.pkts.Payload(r, q)
	for len(b) > 0 {
		c, rest, ok := DecodeCause(b, g.n)
		if !ok {
			return false
		}
		if c.Rank != r && c.Seq > final[c.Rank] {
			return true
		}
		b = rest
	}
	return false
}

// placeRest gives places to the ordered packets of the cut that rank 0 gave none, and takes away those that lie beyond
// it.
func (g *Gate) placeRest(final []core.Seq) {
	left := make([]uint32, g.n) // ordered packets of the cut that are neither delivered nor placed
	for r := range final {
		for q := g.pkts.DeliveredTo(core.Rank(r)) + 1; q <= final[r]; q++ {
			if pdu.FlavourOf(g.pkts.Flags(core.Rank(r), q)).Ordered() {
				left[r]++
			}
		}
	}
	kept := make([]place, 0, len(g.places)-g.first+g.n)
	for _, p := range g.places[g.first:] {
		if p.count = min(p.count, left[p.rank]); p.count > 0 {
			left[p.rank] -= p.count
			kept = append(kept, p)
		}
	}
	for r, count := range left {
		if count > 0 {
			kept = append(kept, place{core.Rank(r), count, 0})
		}
	}
	g.places, g.first = kept, 0
}

// skipLostPlace reports whether a place at the head of the order had to be skipped because its stream ends before it.
func (g *Gate) skipLostPlace(final []core.Seq) bool {
	if len(g.places) == g.first {
		return false
	}
	p := g.places[g.first]
	if g.pkts.DeliveredTo(p.rank) < final[p.rank] {
		return false
	}
	g.first++
	if len(g.places) > g.first {
		g.touch(g.places[g.first].rank)
	}
	return true
}
