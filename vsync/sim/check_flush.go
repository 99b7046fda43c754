package sim

// judgeFlush checks that a Flush that is over means stable: every reliable message that the member had sent before it
// is delivered by every member of the flusher's view that goes on to the next view, even when the flusher crashes at
// once. A member that came after a message's view has it in its state and does not count. A Flush that asked for k
// members only is judged when fewer than k members of the view end in it.
func judgeFlush(x *index) {
	where := x.deliveredIn()
	got := make(map[*life]map[*message]bool)
	for _, l := range x.h.lives {
		for _, f := range l.flushes {
			s := x.spanAt(l, f)
			if !f.done || s == nil {
				continue
			}
			x.judgeOneFlush(f, s, func(other *life, m *message) bool {
				if got[other] == nil {
					got[other] = other.delivered()
				}
				return got[other][m] || where[m.id] != 0 && where[m.id] < other.firstView()
			})
		}
	}
}

// judgeOneFlush judges a Flush that was over in a span.
func (x *index) judgeOneFlush(f *flushRecord, s *span, has func(l *life, m *message) bool) {
	spans := x.byView[s.life.key(s.view.ID)]
	gone := 0
	for _, other := range spans {
		gone += btoi(!other.survives)
	}
	if f.k > 0 && gone >= f.k {
		return
	}
	for _, other := range spans {
		if !other.survives {
			continue
		}
		for _, m := range s.life.sent[:f.covers] {
			if m.isReliable() && m.size > 0 && !has(other.life, m) {
				x.fail(f.doneAt, []*life{s.life, other.life},
					"a flush of %v was over at %s, and %v never delivered %v", s.life,
					stamp(f.doneAt), other.life, m)
				return
			}
		}
	}
}

// spanAt returns the span of a life in which a flush was over; nil when there is none, or when the membership was over
// before.
func (x *index) spanAt(l *life, f *flushRecord) *span {
	if f.entry > 0 && l.log[f.entry-1].kind == entryEnd {
		return nil
	}
	for _, s := range x.spans {
		if s.life == l && f.entry >= s.from && f.entry <= s.to {
			return s
		}
	}
	return nil
}

// delivered returns the messages that a life delivered.
func (l *life) delivered() map[*message]bool {
	got := make(map[*message]bool, len(l.log))
	for i := range l.log {
		if l.log[i].kind == entryMessage {
			got[l.log[i].message] = true
		}
	}
	return got
}
