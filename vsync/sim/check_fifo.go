package sim

// judgeFIFO checks the order of each sender: its multicasts, whatever their flavours except Unordered and Raw, are
// delivered by every member in the order in which they were sent, and from the first that a member delivers on, none
// is left out.
func judgeFIFO(x *index) {
	for _, l := range x.h.lives {
		last := make(map[*life]*message)
		for i := range l.log {
			e := &l.log[i]
			if e.kind != entryMessage || !e.message.isSequenced() {
				continue
			}
			m := e.message
			if before := last[m.sender]; before != nil && m.number != before.number+1 {
				x.fail(e.at, []*life{l, m.sender}, "%v delivered %v behind %v", l, m, before)
			}
			last[m.sender] = m
		}
	}
}
