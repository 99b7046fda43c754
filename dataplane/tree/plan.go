package tree

import (
	"slices"

	"github.com/khamsin-io/khamsin/dataplane"
	"github.com/khamsin-io/khamsin/dataplane/clock"
)

// plan is how one channel's packets leave from here.
type plan struct {
	members []dataplane.Endpoint // of the channel, without this process, from the one behind it on
	made    clock.Time
	silent  uint64 // how many members were silent when it was made, and which, mixed into a number
	drawn   []branch
}

// branch is one copy: to whom, and to whom he must pass it on.
type branch struct {
	to    dataplane.Endpoint
	below []dataplane.Endpoint
	pass  bool // it is not for him
}

// newPlan returns the plan of a channel. The caller holds mu. Every member begins its list behind itself, so that the
// work of relaying is spread over all.
func (t *Transport) newPlan(ch dataplane.Channel) *plan {
	var all []dataplane.Endpoint
	for k, list := range t.rosters {
		if k.channel == ch {
			all = append(all, list...)
		}
	}
	slices.SortFunc(all, compare)
	all = slices.Compact(all)
	if at, found := slices.BinarySearchFunc(all, t.Local(), compare); found {
		all = slices.Concat(all[at+1:], all[:at])
	}
	return &plan{members: all}
}

func compare(a, b dataplane.Endpoint) int {
	if c := slices.Compare(a.IP[:], b.IP[:]); c != 0 {
		return c
	}
	return int(int64(a.Port) - int64(b.Port))
}

// branches returns the copies to make, drawn anew when other members are silent than before.
func (p *plan) branches(t *Transport) []branch {
	now := t.clock.Now()
	if p.drawn != nil && now < p.made.Add(replanAfter) {
		return p.drawn
	}
	p.made = now
	if r := t.rings.Load(); len(r.list) > 0 {
		if mark := r.mark(now); p.drawn == nil || mark != p.silent {
			p.silent, p.drawn = mark, r.draw(p.members, now)
		}
		return p.drawn
	}
	loud, silent, mark := t.bySilence(p.members, now)
	if p.drawn == nil || mark != p.silent {
		p.silent = mark
		p.drawn = draw(append(loud, silent...), len(loud), t.fanOut())
	}
	return p.drawn
}

// fanOut returns the width of the tree: all, when there are to be no relays.
func (t *Transport) fanOut() int {
	if t.cfg.Direct {
		return int(^uint(0) >> 1)
	}
	return t.cfg.FanOut
}

// bySilence splits members by whether they were heard of lately, and returns a number that tells two splits apart.
// Where nobody was heard of there is no silence: nobody had anything to say.
func (t *Transport) bySilence(members []dataplane.Endpoint, now clock.Time) (loud, silent []dataplane.Endpoint,
	mark uint64) {
	known := *t.known.Load()
	for _, e := range members {
		mark *= 31
		if k := known[e]; k != nil && clock.Time(k.heard.Load()).Add(silentAfter) >= now {
			loud = append(loud, e)
			mark++
		} else {
			silent = append(silent, e)
		}
	}
	if len(loud) == 0 {
		return members, nil, 0
	}
	return loud, silent, mark
}

// draw makes branches for members, of whom the first relays may pass packets on. Lists are as equal as can be; where
// they would not fit a packet there are more branches than the fan-out.
func draw(members []dataplane.Endpoint, relays, fanOut int) []branch {
	if len(members) <= fanOut || relays == 0 {
		list := make([]branch, len(members))
		for i, e := range members {
			list[i] = branch{to: e}
		}
		return list
	}
	most := listMax(members)
	width := min(len(members), max(fanOut, (len(members)+most)/(most+1)))
	relays = min(relays, width)
	list := make([]branch, 0, width)
	rest := members[relays:]
	for i := range relays {
		share := min(most, (len(rest)+relays-i-1)/(relays-i))
		list = append(list, branch{to: members[i], below: rest[:share:share]})
		rest = rest[share:]
	}
	for _, e := range rest { // with few relays left, whom they cannot take is reached directly
		list = append(list, branch{to: e})
	}
	return list
}
