package sim

import "github.com/khamsin-io/khamsin/vsync/core"

// judgeSynchrony checks view-synchronous delivery: a message is delivered in the same view at all members, its sender
// is a member of that view, the label that the engine puts on it is the view that the member is in, and the view is
// not older than the one in which the sender's application had sent it. A Raw message may be lost, and otherwise
// obeys this too.
func judgeSynchrony(x *index) {
	where := make([]*span, len(x.h.messages)+1)
	for _, s := range x.spans {
		for i := s.from; i < s.to; i++ {
			e := &s.life.log[i]
			if e.kind != entryMessage {
				continue
			}
			m := e.message
			both := []*life{s.life, m.sender}
			if e.viewID != s.view.ID {
				x.fail(e.at, both, "%v is in view %d and was given %v with the label of view %d", s.life, s.view.ID,
					m, e.viewID)
			}
			if s.view.ID < m.view {
				x.fail(e.at, both, "%v delivered in view %d %v, which was sent in view %d", s.life, s.view.ID, m,
					m.view)
			}
			if !s.view.Contains(m.sender.process.addr) {
				x.fail(e.at, both, "%v delivered in %s %v, whose sender is not in it", s.life, viewText(s.view), m)
			}
			if first := where[m.id]; first == nil {
				where[m.id] = s
			} else if first.view.ID != s.view.ID {
				x.fail(e.at, []*life{first.life, s.life}, "%v delivered %v in view %d and %v in view %d", first.life, m,
					first.view.ID, s.life, s.view.ID)
			}
		}
	}
}

// deliveredIn returns for each message, by id, the view in which it was delivered; 0 when it was delivered nowhere.
func (x *index) deliveredIn() []core.ViewID {
	where := make([]core.ViewID, len(x.h.messages)+1)
	for _, s := range x.spans {
		for i := s.from; i < s.to; i++ {
			if e := &s.life.log[i]; e.kind == entryMessage {
				where[e.message.id] = s.view.ID
			}
		}
	}
	return where
}
