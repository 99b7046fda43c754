package sim

// judgePeer checks point-to-point messages: a member delivers each at most once and, of one sender, in the order in
// which they were sent. That they are what was sent is checked when they are delivered, that they arrive between two
// live members belongs to liveness.
func judgePeer(x *index) {
	for _, l := range x.h.lives {
		last := make(map[*life]*message)
		for i := range l.peers {
			e := &l.peers[i]
			if before := last[e.message.sender]; before != nil && e.message.id <= before.id {
				x.fail(e.at, []*life{l}, "%v delivered %v behind %v", l, e.message, before)
			}
			last[e.message.sender] = e.message
		}
	}
}
