package sim

import (
	"github.com/khamsin-io/khamsin/vsync/core"
)

// judgePrimary checks that the views of a group form a single chain. All members that go on from a view go on to the
// same next view, all members that came to a view from another came from the same one, and nobody creates the group
// anew while it has a member that goes on: an application that is told to start without a state finds nobody, then or
// later, who had one before.
func judgePrimary(x *index) {
	next, prev := map[viewKey]*span{}, map[viewKey]*span{}
	for _, s := range x.spans {
		if s.next == 0 {
			continue
		}
		from, to := s.life.key(s.view.ID), s.life.key(s.next)
		if first := next[from]; first == nil {
			next[from] = s
		} else if first.next != s.next {
			x.fail(s.life.log[s.to].at, []*life{first.life, s.life},
				"from view %d of group %d %v went on to view %d and %v to view %d",
				s.view.ID, s.life.group, first.life, first.next, s.life, s.next)
		}
		if first := prev[to]; first == nil {
			prev[to] = s
		} else if first.view.ID != s.view.ID {
			x.fail(s.life.log[s.to].at, []*life{first.life, s.life},
				"to view %d of group %d %v came from view %d and %v from view %d",
				s.next, s.life.group, first.life, first.view.ID, s.life, s.view.ID)
		}
	}
	for _, l := range x.h.lives {
		x.judgeInit(l)
	}
}

// judgeInit checks a life that began without a state against the members that had one before.
func (x *index) judgeInit(l *life) {
	if len(l.log) < 2 || l.log[0].kind != entryInit || l.log[1].kind != entryView {
		return
	}
	founded := l.log[1].view.ID
	for _, s := range x.spans {
		sameGroup := s.life.sameGroup(l) && s.life != l
		if sameGroup && s.view.ID < founded && s.next >= founded {
			x.fail(l.log[0].at, []*life{l, s.life},
				"%v created group %d with view %d, while %v went from view %d to view %d",
				l, l.group, founded, s.life, s.view.ID, s.next)
		}
	}
}

// firstView returns the id of the first view that a life installed, 0 when there is none.
func (l *life) firstView() core.ViewID {
	for i := range l.log {
		if l.log[i].kind == entryView {
			return l.log[i].view.ID
		}
	}
	return 0
}
