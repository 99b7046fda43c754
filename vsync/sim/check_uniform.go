package sim

import "github.com/khamsin-io/khamsin/vsync/core"

// judgeUniform checks that SafeSend is uniform: a Safe message delivered by any member, even by one that crashes at
// once, is delivered by every member that goes on to the next view. This holds when fewer members end in the view
// than copies of the message had to exist before it was delivered.
func judgeUniform(x *index) {
	for _, key := range x.views {
		if !x.copiesSurvive(key) {
			continue
		}
		spans := x.byView[key]
		got := make([]map[*message]bool, len(spans))
		for i, s := range spans {
			got[i] = make(map[*message]bool)
			for _, e := range s.ordered() {
				got[i][e.message] = true
			}
		}
		for _, s := range spans {
			for _, e := range s.ordered() {
				if e.message.flavour != core.Safe {
					continue
				}
				for i, other := range spans {
					if other.survives && !got[i][e.message] {
						x.fail(e.at, []*life{s.life, other.life},
							"in view %d of group %d %v delivered %v, and %v never did",
							key.id, key.group, s.life, e.message, other.life)
					}
				}
			}
		}
	}
}

// copiesSurvive tells whether fewer members of a view ended in it than copies of a Safe message had to exist.
func (x *index) copiesSurvive(key viewKey) bool {
	spans := x.byView[key]
	n := spans[0].view.Size()
	copies := n
	switch want := x.h.safeOf[key.group]; {
	case want < 0:
		copies = n/2 + 1
	case want > 0:
		copies = min(n, want)
	}
	gone := n
	for _, s := range spans {
		gone -= btoi(s.survives)
	}
	return gone < copies
}
