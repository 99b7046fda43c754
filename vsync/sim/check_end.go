package sim

import "slices"

// judgeEnd checks the termination of groups: a membership ends with its group only after a member had asked for that,
// and a group that ended for one of two members of the same view did not go on to another view with the other. That
// those with whom it ended delivered the same messages is for judgeSame.
func judgeEnd(x *index) {
	for _, s := range x.spans {
		l := s.life
		if l.fate != ended || s.next != 0 {
			continue
		}
		if !slices.ContainsFunc(x.h.lives, func(other *life) bool { return other.terminates && other.sameGroup(l) }) {
			x.fail(l.endedAt, []*life{l}, "%v ended with group %d, and no member had asked for that", l, l.group)
		}
		for _, other := range x.byView[l.key(s.view.ID)] {
			if other.next != 0 {
				x.fail(l.endedAt, []*life{l, other.life}, "group %d ended for %v in view %d, and %v went on to view %d",
					l.group, l, s.view.ID, other.life, other.next)
			}
		}
	}
}
