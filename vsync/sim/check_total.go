package sim

import (
	"slices"

	"github.com/khamsin-io/khamsin/vsync/core"
)

// judgeTotal checks the total order of OrderedSend and SafeSend together. In each view the members that go on to the
// next deliver the same sequence of such messages. A member that ends in the view may have delivered OrderedSends that
// died with it, which the manual calls amnesia; without those, what it delivered up to its last Safe message is the
// beginning of the others' sequence, under the condition of judgeUniform. Behind that it may have seen another order.
func judgeTotal(x *index) {
	for _, key := range x.views {
		spans := x.byView[key]
		var first *span
		var want []*entry
		for _, s := range spans {
			if s.survives {
				first, want = s, s.ordered()
				break
			}
		}
		if first == nil {
			continue
		}
		for _, s := range spans {
			if s == first {
				continue
			}
			got := s.ordered()
			if !s.survives {
				if !x.copiesSurvive(key) {
					continue
				}
				got = known(got[:lastSafe(got)], want)
			}
			x.compareOrder(first, s, want, got)
		}
	}
}

// compareOrder complains about the first place at which two members deliver different messages.
func (x *index) compareOrder(a, b *span, want, got []*entry) {
	for i, e := range got {
		if i >= len(want) {
			x.fail(e.at, []*life{a.life, b.life},
				"in view %d of group %d %v delivered %d ordered messages, and %v as number %d: %v",
				a.view.ID, a.life.group, a.life, len(want), b.life, i+1, e.message)
			return
		}
		if want[i].message != e.message {
			x.fail(e.at, []*life{a.life, b.life}, "in view %d of group %d ordered message %d is at %v %v, and at %v %v",
				a.view.ID, a.life.group, i+1, a.life, want[i].message, b.life, e.message)
			return
		}
	}
	if b.survives && len(got) < len(want) {
		x.fail(want[len(got)].at, []*life{a.life, b.life},
			"in view %d of group %d %v never delivered ordered message %d: %v",
			a.view.ID, a.life.group, b.life, len(got)+1, want[len(got)].message)
	}
}

// ordered returns the ordered messages of the span.
func (s *span) ordered() []*entry {
	var list []*entry
	for i := s.from; i < s.to; i++ {
		if e := &s.life.log[i]; e.kind == entryMessage && e.message.flavour.Ordered() {
			list = append(list, e)
		}
	}
	return list
}

// lastSafe returns how many entries there are up to and including the last Safe message.
func lastSafe(list []*entry) int {
	n := len(list)
	for n > 0 && list[n-1].message.flavour != core.Safe {
		n--
	}
	return n
}

// known returns the entries whose messages are in the other list too.
func known(list, others []*entry) []*entry {
	in := make(map[*message]bool, len(others))
	for _, e := range others {
		in[e.message] = true
	}
	return slices.DeleteFunc(list, func(e *entry) bool { return !in[e.message] })
}
