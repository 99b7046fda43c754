package member

import (
	"slices"

	"github.com/khamsin-io/khamsin/dataplane"
)

// live tells whether the group has members, or processes that wait to be its first.
func (g *group) live() bool { return g.current != nil || g.pending != nil || len(g.joining) > 0 }

// assign gives a group that begins its life a channel. Groups share channels, each taking the next one, but for those
// that wish for one of their own: no group that begins later gets such a channel. The one with the fewest groups is
// taken for that; they keep it, so that no group's packets change their way while it lives. One channel at least
// stays for all, and who wishes when the others have owners shares it.
func (r *Registry) assign(g *group, own bool) {
	r.owners = slices.DeleteFunc(r.owners, func(o *group) bool { return o == g || !o.live() })
	g.own = own && len(r.owners)+1 < int(r.span.count)
	if g.own {
		g.channel = r.emptiest(g)
		r.owners = append(r.owners, g)
		return
	}
	next := (g.lid - 1) % r.span.count
	for range r.owners {
		if r.owned(r.channel(next)) {
			next = (next + 1) % r.span.count
		}
	}
	g.channel = r.channel(next)
}

func (r *Registry) channel(index uint32) dataplane.Channel {
	return dataplane.Channel(r.span.low + index)
}

func (r *Registry) owned(ch dataplane.Channel) bool {
	return slices.ContainsFunc(r.owners, func(o *group) bool { return o.channel == ch })
}

// emptiest returns the channel without an owner that has the fewest groups, not counting g.
func (r *Registry) emptiest(g *group) dataplane.Channel {
	groups := make(map[dataplane.Channel]int)
	for _, other := range r.groups {
		if other != g && other.live() {
			groups[other.channel]++
		}
	}
	best, least := g.channel, -1
	for i := uint32(0); i < r.span.count && least != 0; i++ {
		ch := r.channel(i)
		if n := groups[ch]; !r.owned(ch) && (least < 0 || n < least) {
			best, least = ch, n
		}
	}
	return best
}
