package sim

// judgeCreation checks that nothing is delivered that was not sent. Bytes, sender, flavour and group of each message
// are compared when it is delivered (identify in traffic.go); what is left for here is that nothing is delivered
// before it was accepted, and that no more reliable messages without bytes arrive from a member than it sent.
func judgeCreation(x *index) {
	empties := make(map[*life]int, len(x.h.lives))
	for _, l := range x.h.lives {
		for _, m := range l.sent {
			empties[l] += btoi(m.size == 0)
		}
	}
	for _, l := range x.h.lives {
		got := make(map[*life]int)
		for i := range l.log {
			e := &l.log[i]
			if e.kind != entryMessage {
				continue
			}
			m := e.message
			if e.at < m.submitted {
				x.fail(e.at, []*life{l, m.sender}, "%v delivered %v before it was sent", l, m)
			}
			if m.size > 0 || !m.isReliable() {
				continue
			}
			if got[m.sender]++; got[m.sender] == empties[m.sender]+1 {
				x.fail(e.at, []*life{l, m.sender}, "%v delivered more than the %d empty messages that %v sent", l,
					empties[m.sender], m.sender)
			}
		}
	}
}
