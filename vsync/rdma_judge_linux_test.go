//go:build cgo && rdma

package vsync

import (
	"fmt"
	"slices"
)

// judgeRecords checks what members of one group promise each other, and returns what is broken. The first record is of
// a member that was there from first to last.
func judgeRecords(records []record) []string {
	var faults []string
	fault := func(format string, args ...any) { faults = append(faults, fmt.Sprintf(format, args...)) }
	first := records[0]
	want := first.between()
	for _, r := range records {
		r.judgeSelf(fault)
		got := r.between()
		for i, v := range got {
			j := slices.IndexFunc(want, func(w viewSpan) bool { return w.id == v.id })
			switch {
			case j < 0:
				fault("%s went through view %d, which %s did not", r.Name, v.id, first.Name)
			case !slices.Equal(v.members, want[j].members):
				fault("view %d has members %v at %s, and %v at %s", v.id, v.members, r.Name, want[j].members,
					first.Name)
			case r.Killed && i == len(got)-1: // it ended in this view: what it delivered is the beginning
				if !isPrefix(v.numbers, want[j].numbers) {
					fault("%s delivered in its last view %d what the survivors did not begin with", r.Name, v.id)
				}
			case !slices.Equal(v.numbers, want[j].numbers):
				fault("in view %d %s delivered %d messages and %s %d, or in another order", v.id, r.Name,
					len(v.numbers), first.Name, len(want[j].numbers))
			}
		}
		for i := 1; i < len(got); i++ { // one chain: no view is left out
			j := slices.IndexFunc(want, func(w viewSpan) bool { return w.id == got[i-1].id })
			if j >= 0 && j+1 < len(want) && want[j+1].id != got[i].id {
				fault("%s went from view %d to %d, %s to %d", r.Name, got[i-1].id, got[i].id, first.Name, want[j+1].id)
			}
		}
		if !r.Killed && !slices.Equal(r.State, first.State) {
			fault("the state of %s has %d messages, that of %s %d, or in another order", r.Name, len(r.State),
				first.Name, len(first.State))
		}
	}
	return faults
}

// judgeSelf checks what a member promises by itself: nothing twice, each sender's messages in their order without a
// gap, nothing that nobody sent, and all of its own.
func (r *record) judgeSelf(fault func(format string, args ...any)) {
	next := map[uint64]uint64{} // by sender
	for _, n := range r.State {
		if n >= markers {
			continue
		}
		sender, i := n>>20, n&(1<<20-1)
		if sender < 1 || sender > 4 || i >= perMember {
			fault("%s delivered %d, which nobody sent", r.Name, n)
		}
		if i != next[sender] {
			fault("%s delivered message %d of sender %d after %d others of it", r.Name, i, sender, next[sender])
		}
		next[sender] = i + 1
	}
	if own := next[r.Base>>20]; r.Base != 0 && !r.Killed && own != perMember {
		fault("%s delivered %d of its own %d messages", r.Name, own, perMember)
	}
}

// viewSpan is a view and what was delivered in it, in order.
type viewSpan struct {
	id      ViewID
	members []string
	numbers []uint64
}

// between cuts a record at its views.
func (r *record) between() []viewSpan {
	var list []viewSpan
	for _, e := range r.Entries {
		if e.Change {
			list = append(list, viewSpan{id: e.View, members: r.Views[len(list)]})
		} else if len(list) > 0 {
			last := &list[len(list)-1]
			last.numbers = append(last.numbers, e.Number)
		}
	}
	return list
}

func isPrefix(short, long []uint64) bool {
	return len(short) <= len(long) && slices.Equal(short, long[:len(short)])
}
