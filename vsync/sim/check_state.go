package sim

import "slices"

// judgeState checks state transfer: the state of an application at a view event, which is the state that it began
// with and everything delivered since, is the same at all members that install the view. A joiner begins with the
// state that was made for it, so its state at its first view equals that of the old members at the same view: no
// message is both in the state and delivered to the joiner, and none is in neither. A joiner begins without a state
// only in a new group, or when members crashed that could have handed it over: leaving does not lose it.
func judgeState(x *index) {
	for _, l := range x.h.lives {
		x.judgeLostState(l)
	}
	type witness struct {
		life  *life
		state replica
	}
	seen := map[viewKey]witness{}
	for _, l := range x.h.lives {
		var r replica
		joined := false
		for i := range l.log {
			e := &l.log[i]
			switch e.kind {
			case entryState:
				r, joined = e.state, true
			case entryMessage:
				r.apply(e.message)
			case entryView:
				key := l.key(e.view.ID)
				w, ok := seen[key]
				if !ok {
					seen[key] = witness{l, r}
				} else if w.state != r {
					x.fail(e.at, []*life{w.life, l},
						"at view %d of group %d the state is %v at %v, and %v at %v (which %s)",
						key.id, key.group, w.state, w.life, r, l, began(joined))
					return // what follows from a wrong state says nothing new
				}
			}
		}
	}
}

// judgeLostState checks a life that began without a state: if it was a member of the last view that anybody installed
// before its own first one, and all who did install that view left by their own will, they took the state with them.
func (x *index) judgeLostState(l *life) {
	first := l.firstView()
	if len(l.log) == 0 || l.log[0].kind != entryInit || first == 0 {
		return
	}
	var before []*span
	for _, key := range x.views {
		if key.system == l.process.system && key.group == l.group && key.id < first {
			before = x.byView[key]
		}
	}
	if len(before) == 0 || !before[0].view.Contains(l.process.addr) {
		return
	}
	if !slices.ContainsFunc(before, func(s *span) bool { return s.life.fate != left || s.life.process == l.process }) {
		x.fail(l.log[0].at, []*life{l, before[0].life},
			"%v was in view %d of group %d and began without a state in view %d: those who had one left with it",
			l, before[0].view.ID, l.group, first)
	}
}

func began(joined bool) string {
	if joined {
		return "loaded a state"
	}
	return "began without one"
}
