package sim

import (
	"slices"

	"github.com/khamsin-io/khamsin/dataplane/clock"
	"github.com/khamsin-io/khamsin/vsync/core"
)

// judgeViews checks view agreement. Of every two members that install a view of the same id in a group, both have the
// same membership, newcomers and departed. At each member ids increase, and the member is in every view that it
// installs. Members stand in the order in which they joined: those of the view before come first, in their order, and
// the newcomers behind them; Joined and Left are exactly the difference to the view before.
func judgeViews(x *index) {
	for _, key := range x.views {
		spans := x.byView[key]
		first := spans[0]
		for _, s := range spans[1:] {
			if !slices.Equal(s.view.Members, first.view.Members) || !slices.Equal(s.view.Joined, first.view.Joined) ||
				!slices.Equal(s.view.Left, first.view.Left) {
				x.fail(s.installed(), []*life{first.life, s.life}, "view %d of group %d is %s at %v and %s at %v",
					key.id, key.group, viewText(first.view), first.life, viewText(s.view), s.life)
			}
		}
	}
	for i, s := range x.spans {
		if !s.view.Contains(s.life.process.addr) {
			x.fail(s.installed(), []*life{s.life}, "%v installed %s, in which it is not", s.life, viewText(s.view))
		}
		if i > 0 && x.spans[i-1].life == s.life {
			x.judgeStep(x.spans[i-1], s)
		}
	}
}

// judgeStep checks two views that one member installed one after the other.
func (x *index) judgeStep(old, s *span) {
	if s.view.ID <= old.view.ID {
		x.fail(s.installed(), []*life{s.life}, "%v installed view %d after view %d", s.life, s.view.ID, old.view.ID)
		return
	}
	gone := make(map[core.Address]bool, len(s.view.Left))
	for _, a := range s.view.Left {
		gone[a] = true
	}
	want := old.view.Next(s.view.ID, gone, s.view.Joined)
	if !slices.Equal(want.Members, s.view.Members) || !slices.Equal(want.Left, s.view.Left) ||
		!slices.Equal(want.Joined, s.view.Joined) {
		x.fail(s.installed(), []*life{s.life}, "%v went from %s to %s, and the difference would be %s", s.life,
			viewText(old.view), viewText(s.view), viewText(want))
	}
}

// installed returns when the life installed the view of the span.
func (s *span) installed() clock.Time { return s.life.log[s.from-1].at }
