package member

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"github.com/khamsin-io/khamsin/dataplane"
)

// form1 makes a group of one process that is already part of the system.
func (w *twins) form1(name string, who int, own bool) *group {
	w.t.Helper()
	w.do(Command{Op: opJoin, By: addr(who), Group: name, Own: own})
	w.apply(Command{Op: opGather, Group: name})
	return w.a.byName[name]
}

// Groups that wish for a channel have one to themselves, as long as there are enough; one is left to all others, so
// that the wish breaks no limit. A wish is met too when no channel is without groups: those stay, and no more come.
//
// rows: IPM-13, IPM-14
func TestOwnChannels(t *testing.T) {
	w := newTwins(t)
	w.add(1, 2)
	w.form1("early", 1, false)
	users := map[dataplane.Channel]int{}
	owners := map[dataplane.Channel]bool{}
	for i := range 30 {
		g := w.form1(fmt.Sprint("wish ", i), 1, true)
		users[g.channel]++
		if owners[g.channel] = g.own; g.own && users[g.channel] > 1 {
			t.Errorf("wish %d shares channel %d", i, g.channel)
		}
		if g.own != (i < 24) {
			t.Errorf("wish %d of 25 channels is met: %v", i, g.own)
		}
	}
	if len(users) > 25 {
		t.Errorf("%d channels are used of 25", len(users))
	}
	for i := range 50 {
		if g := w.form1(fmt.Sprint("other ", i), 2, false); owners[g.channel] {
			t.Fatalf("other %d got channel %d, which has an owner", i, g.channel)
		}
	}
	if late := w.a.byName["early"]; owners[late.channel] {
		t.Errorf("the group that was there first lost channel %d, though others had none", late.channel)
	}
	w.restore()

	// An owner's end makes room for the next wish, and what a group wishes at its next birth counts.
	w.do(Command{Op: opLeave, By: addr(1), Group: "wish 3"})
	w.commit("wish 3")
	free := w.a.byName["wish 3"].channel
	if g := w.form1("next", 2, true); !g.own || g.channel != free {
		t.Errorf("channel %d is free: the next wish got %d, its own: %v", free, g.channel, g.own)
	}
	if g := w.form1("wish 3", 2, false); g.own || owners[g.channel] && g.channel != free || g.channel == free {
		t.Errorf("born again without a wish, the group has channel %d, its own: %v", g.channel, g.own)
	}
	if g := w.form1("wish 25", 2, false); g.own { // a second member, whose wish does not count
		t.Error("the wish of a later member counts")
	}
}

// However groups begin and end, with wishes and without: owners are fewer than channels, have different ones, and no
// group gets one of theirs when it begins.
func TestChannelHistories(t *testing.T) {
	const count = 4
	rapid.Check(t, func(t *rapid.T) {
		w := newTwins(t)
		w.a, w.b = NewRegistry(5000, count), NewRegistry(5000, count)
		w.add(1, 2, 3)
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			name := fmt.Sprint(rapid.IntRange(1, 7).Draw(t, "group"))
			who := rapid.IntRange(1, 3).Draw(t, "who")
			g := w.a.byName[name]
			lived := g != nil && g.live()
			switch rapid.IntRange(0, 5).Draw(t, "what") {
			case 0, 1, 2:
				w.do(Command{Op: opJoin, By: addr(who), Group: name, Own: rapid.Bool().Draw(t, "own")})
			case 3:
				w.apply(Command{Op: opGather, Group: name})
			case 4:
				w.do(Command{Op: opLeave, By: addr(who), Group: name})
			default:
				if g != nil && g.pending != nil {
					w.commit(name)
				}
			}
			if rapid.IntRange(0, 9).Draw(t, "restore") == 0 {
				w.restore()
			}
			w.check()
			w.checkOwners(count)
			if g = w.a.byName[name]; !lived && g != nil && g.live() {
				w.checkBirth(g)
			}
		}
	})
}

func (w *twins) checkOwners(count int) {
	w.t.Helper()
	owners := map[dataplane.Channel]*group{}
	for _, g := range w.a.groups {
		if g.channel < 5000 || g.channel >= dataplane.Channel(5000+count) {
			w.t.Fatalf("%v: group %q has channel %d", w.log, g.name, g.channel)
		}
		if !g.own || !g.live() {
			continue
		}
		if other := owners[g.channel]; other != nil {
			w.t.Fatalf("%v: groups %q and %q own channel %d", w.log, g.name, other.name, g.channel)
		}
		owners[g.channel] = g
	}
	if len(owners) >= count {
		w.t.Fatalf("%v: no channel is left to groups that do not own one", w.log)
	}
}

func (w *twins) checkBirth(g *group) {
	w.t.Helper()
	for _, o := range w.a.groups {
		if o != g && o.own && o.live() && o.channel == g.channel {
			w.t.Fatalf("%v: group %q began on the channel of group %q", w.log, g.name, o.name)
		}
	}
}
