package sim

import "slices"

// judgeCreate checks joins that want to create a group. One that succeeds begins with the group's first view: nobody
// was there before. One that is refused is so for a reason: another had asked to join the group before the answer.
func judgeCreate(x *index) {
	for _, l := range x.h.lives {
		if !l.creates {
			continue
		}
		if s := x.firstSpan(l); s != nil && !slices.Equal(s.view.Members, s.view.Joined) {
			x.fail(s.installed(), []*life{l}, "%v was to create group %d and joined it in %s", l, l.group,
				viewText(s.view))
		}
		if l.fate == refused && !slices.ContainsFunc(x.h.lives, func(other *life) bool {
			return other != l && other.sameGroup(l) && other.joinedAt <= l.endedAt
		}) {
			x.fail(l.endedAt, []*life{l}, "%v was not let create group %d, and nobody else had asked to join it", l,
				l.group)
		}
	}
}

// firstSpan returns the first span of a life, nil when it installed no view.
func (x *index) firstSpan(l *life) *span {
	if i := slices.IndexFunc(x.spans, func(s *span) bool { return s.life == l }); i >= 0 {
		return x.spans[i]
	}
	return nil
}
