package sim

// judgeState checks state transfer: the state of an application at a view event, which is the state that it began
// with and everything delivered since, is the same at all members that install the view. A joiner begins with the
// state that was made for it, so its state at its first view equals that of the old members at the same view: no
// message is both in the state and delivered to the joiner, and none is in neither.
func judgeState(x *index) {
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
				key := viewKey{l.group, e.view.ID}
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

func began(joined bool) string {
	if joined {
		return "loaded a state"
	}
	return "began without one"
}
