package sim

import (
	"testing"

	"github.com/khamsin-io/khamsin/vsync/core"
)

func TestJoinerState(t *testing.T) {
	join := func(taken int) func() *book {
		return func() *book {
			b, v := pair()
			list := []*message{b.send(1, core.Total), b.send(2, core.FIFO), b.send(1, core.Total)}
			b.deliver(1, list...)
			b.deliver(2, list...)
			w := b.view(2, v, 1, 2, 3)
			b.install(w, 1, 2)
			var r replica
			for _, m := range list[:taken] {
				r.apply(m)
			}
			b.write(3, entry{kind: entryState, state: r})
			b.install(w, 3)
			return b
		}
	}
	expect(t, []handmade{
		{"the state at the view", "", join(3)},
		{"a state that lacks a message", checkState, join(2)},
	})
}

func TestLostState(t *testing.T) {
	lose := func(how fate) func() *book {
		return func() *book {
			b, v := pair()
			w := b.view(2, v, 1, 2, 3)
			b.install(w, 1, 2)
			b.die(left, 1)
			b.die(how, 2)
			b.install(b.view(3, w, 3), 3)
			return b
		}
	}
	expect(t, []handmade{
		{"the last member that had it crashed", "", lose(crashed)},
		{"all that had it left", checkState, lose(left)},
	})
}

func TestFlushIsStable(t *testing.T) {
	flush := func(delivered, done bool, k int) func() *book {
		return func() *book {
			b, v := trio()
			m := b.send(1, core.FIFO)
			b.deliver(1, m)
			b.life(1).flushes = []*flushRecord{{at: b.now, covers: 1, k: k, done: done, entry: len(b.life(1).log)}}
			b.die(crashed, 1)
			if delivered {
				b.deliver(2, m)
				b.deliver(3, m)
			}
			w := b.view(2, v, 2, 3, 4)
			b.install(w, 2, 3)
			return b
		}
	}
	expect(t, []handmade{
		{"all survivors have it", "", flush(true, true, 0)},
		{"nobody has it", checkFlush, flush(false, true, 0)},
		{"nobody has it, and the flush was not over", "", flush(false, false, 0)},
		{"nobody has it, and one copy was enough", "", flush(false, true, 1)},
		{"nobody has it, and two copies were promised", checkFlush, flush(false, true, 2)},
	})
}

func TestAccuracy(t *testing.T) {
	gone := func(how fate, clean, disturbed bool) func() *book {
		return func() *book {
			b, _ := pair()
			b.h.clean = clean
			b.die(how, 2)
			b.life(2).process.disturb = disturbed
			return b
		}
	}
	expect(t, []handmade{
		{"a crash", "", gone(crashed, true, false)},
		{"declared failed in rough weather", "", gone(failed, false, false)},
		{"declared failed after a pause", "", gone(failed, true, true)},
		{"declared failed without a reason", checkAccuracy, gone(failed, true, false)},
	})
}

func TestPeerOrder(t *testing.T) {
	two := func(swap, twice bool) func() *book {
		return func() *book {
			b, _ := pair()
			var list []*message
			for range 2 {
				m := b.h.addMessage(&message{sender: b.life(1), to: b.life(2).process, accepted: true, size: 5})
				list = append(list, m)
			}
			if swap {
				list[0], list[1] = list[1], list[0]
			}
			b.peer(2, list[0])
			b.peer(2, list[1])
			if twice {
				b.peer(2, list[1])
			}
			return b
		}
	}
	expect(t, []handmade{
		{"in order", "", two(false, false)},
		{"out of order", checkPeer, two(true, false)},
		{"twice", checkPeer, two(false, true)},
	})
}

func TestLostPeerMessage(t *testing.T) {
	b, _ := pair()
	m := b.h.addMessage(&message{sender: b.life(1), to: b.life(2).process, accepted: true, size: 5})
	if b.h.lostPeer() != m {
		t.Fatal("a message between two live members that did not arrive was not found")
	}
	b.die(crashed, 2)
	if b.h.lostPeer() != nil {
		t.Fatal("a message to a dead process counts as lost")
	}
}
