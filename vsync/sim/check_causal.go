package sim

import "github.com/khamsin-io/khamsin/vsync/core"

// judgeCausal checks causal order: before a member delivers a CausalSend it has delivered every multicast, of any
// flavour except Unordered and Raw, that the sender's application had handled in the same view before it sent. What
// the sender had handled in earlier views is settled by the view changes, which other checkers judge.
//
// A sender's multicasts are delivered without gaps (see judgeFIFO), so what it had handled of another member is
// described by one number, and so is what a receiver has delivered.
func judgeCausal(x *index) {
	where := x.deliveredIn()
	causes := make([][]cause, len(x.h.messages)+1)
	for _, l := range x.h.lives {
		l.collectCauses(where, causes)
	}
	for _, s := range x.spans {
		have := make(map[*life]int)
		for i := s.from; i < s.to; i++ {
			e := &s.life.log[i]
			if e.kind != entryMessage || !e.message.isSequenced() {
				continue
			}
			for _, c := range causes[e.message.id] {
				if have[c.sender] < c.number {
					x.fail(e.at, []*life{s.life, e.message.sender}, "%v had number %d of %v when it delivered %v, "+
						"whose sender had handled number %d", s.life, have[c.sender], c.sender, e.message, c.number)
					break
				}
			}
			have[e.message.sender] = e.message.number
		}
	}
}

// cause says that everything of a sender up to a number comes first.
type cause struct {
	sender *life
	number int
}

// collectCauses walks along the life of a sender and notes for each of its causal messages what its application had
// handled in the view in which the message was delivered.
func (l *life) collectCauses(where []core.ViewID, causes [][]cause) {
	var now []cause // of the view that the walk is in
	var view core.ViewID
	at := 0
	for _, m := range l.sent {
		for ; at < m.handled; at++ {
			switch e := &l.log[at]; {
			case e.kind == entryView:
				now, view = nil, e.view.ID
			case e.kind == entryMessage && e.message.isSequenced():
				now = raise(now, cause{e.message.sender, e.message.number})
			}
		}
		if m.flavour == core.Causal && m.size > 0 && where[m.id] == view {
			causes[m.id] = now
		}
	}
}

// raise returns the causes with one more, and leaves the old ones as they were.
func raise(list []cause, c cause) []cause {
	out := make([]cause, 0, len(list)+1)
	for _, old := range list {
		if old.sender != c.sender {
			out = append(out, old)
		}
	}
	return append(out, c)
}
