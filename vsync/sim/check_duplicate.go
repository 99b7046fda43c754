package sim

// judgeDuplicates checks that no member delivers a reliable message twice: the network may double what it carries, and
// repairs may arrive after what they repair. Raw messages are passed on as the network brings them.
func judgeDuplicates(x *index) {
	last := make([]*life, len(x.h.messages)+1)
	for _, l := range x.h.lives {
		for i := range l.log {
			e := &l.log[i]
			if e.kind != entryMessage || !e.message.isReliable() {
				continue
			}
			if last[e.message.id] == l {
				x.fail(e.at, []*life{l}, "%v delivered %v twice", l, e.message)
			}
			last[e.message.id] = l
		}
	}
}
