package sim

// judgeSelf checks self-delivery: a member that is alive when the healed world has come to rest has delivered every
// reliable message that the engine accepted from it. Messages without bytes have no names and are counted.
func judgeSelf(x *index) {
	for _, l := range x.h.lives {
		if l.rest == 0 {
			continue
		}
		seen := make(map[*message]bool, len(l.sent))
		empties := 0
		for i := range l.log {
			if e := &l.log[i]; e.kind == entryMessage && e.message.sender == l {
				seen[e.message] = true
				empties += btoi(e.message.size == 0 && e.message.isReliable())
			}
		}
		for _, m := range l.sent {
			if !m.isReliable() {
				continue
			}
			if m.size == 0 {
				empties--
			} else if !seen[m] {
				x.fail(m.submitted, []*life{l}, "%v never delivered its own %v", l, m)
			}
		}
		if empties < 0 {
			x.fail(l.log[l.rest-1].at, []*life{l}, "%v never delivered %d of its own empty messages", l, -empties)
		}
	}
}
