package sim

// judgeAccuracy checks that nobody is thrown out without a reason: when the weather silences no live process and loses
// packets at bearable rates, a process that neither crashes nor leaves is in the end neither declared failed nor over.
func judgeAccuracy(x *index) {
	if !x.h.clean {
		return
	}
	for _, p := range x.h.processes {
		if p.fate == failed && !p.disturb {
			x.fail(p.endedAt, nil, "%v was declared failed without a reason: %v", p, p.err)
		}
	}
	for _, l := range x.h.lives {
		if l.fate == failed && l.process.fate != failed && !l.process.disturb {
			x.fail(l.endedAt, []*life{l}, "%v lost its membership of group %d without a reason", l, l.group)
		}
	}
}
