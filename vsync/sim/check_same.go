package sim

import "slices"

// judgeSame checks that the members that install a view and go on to the next one deliver the same messages in between:
// for any two of them the sets are equal. Members that ended in the view are free. Raw messages do not count.
func judgeSame(x *index) {
	for _, key := range x.views {
		var first *span
		var want []int
		for _, s := range x.byView[key] {
			if !s.survives {
				continue
			}
			got := s.reliable()
			if first == nil {
				first, want = s, got
				continue
			}
			if slices.Equal(want, got) {
				continue
			}
			missing, extra := difference(want, got)
			at := x.whereFirst(first, s, missing, extra)
			x.fail(at.at, []*life{first.life, s.life},
				"in view %d of group %d %v delivered %d messages and %v %d; first difference: %v",
				key.id, key.group, first.life, len(want), s.life, len(got), at.message)
		}
	}
}

// reliable returns the sorted numbers of the reliable messages that were delivered in the span.
func (s *span) reliable() []int {
	var ids []int
	for i := s.from; i < s.to; i++ {
		if e := &s.life.log[i]; e.kind == entryMessage && e.message.isReliable() {
			ids = append(ids, e.message.id)
		}
	}
	slices.Sort(ids)
	return ids
}

// difference returns what is in only one of two sorted lists.
func difference(a, b []int) (onlyA, onlyB []int) {
	for len(a) > 0 && len(b) > 0 {
		switch {
		case a[0] < b[0]:
			onlyA, a = append(onlyA, a[0]), a[1:]
		case a[0] > b[0]:
			onlyB, b = append(onlyB, b[0]), b[1:]
		default:
			a, b = a[1:], b[1:]
		}
	}
	return append(onlyA, a...), append(onlyB, b...)
}

// whereFirst returns the first entry whose message only one of the two spans has.
func (x *index) whereFirst(a, b *span, onlyA, onlyB []int) *entry {
	for _, side := range []struct {
		s    *span
		only []int
	}{{a, onlyA}, {b, onlyB}} {
		for i := side.s.from; i < side.s.to; i++ {
			if e := &side.s.life.log[i]; e.kind == entryMessage && slices.Contains(side.only, e.message.id) {
				return e
			}
		}
	}
	return &a.life.log[a.from-1]
}
