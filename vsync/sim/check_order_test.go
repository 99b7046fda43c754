package sim

import (
	"testing"

	"github.com/khamsin-io/khamsin/vsync/core"
)

func TestSelfDelivery(t *testing.T) {
	expect(t, []handmade{
		{"own message came", "", func() *book {
			b, _ := pair()
			m := b.send(1, core.FIFO)
			b.deliver(1, m)
			b.deliver(2, m)
			b.rest(1, 2)
			return b
		}},
		{"own message never came", checkSelf, func() *book {
			b, _ := pair()
			b.send(1, core.FIFO)
			b.rest(1, 2)
			return b
		}},
		{"own empty message never came", checkSelf, func() *book {
			b, _ := pair()
			b.send(1, core.Unordered).size = 0
			b.rest(1, 2)
			return b
		}},
		{"whoever is dead need not", "", func() *book {
			b, _ := pair()
			b.send(1, core.FIFO)
			b.die(crashed, 1)
			return b
		}},
	})
}

func TestDuplicatesAndCreation(t *testing.T) {
	expect(t, []handmade{
		{"raw ones may be doubled", "", func() *book {
			b, _ := pair()
			m := b.send(1, core.Raw)
			b.deliver(2, m, m)
			return b
		}},
		{"twice", checkDuplicate, func() *book {
			b, _ := pair()
			m := b.send(1, core.Unordered)
			b.deliver(2, m, m)
			return b
		}},
		{"before it was sent", checkCreation, func() *book {
			b, _ := pair()
			m := b.send(1, core.Unordered)
			b.deliver(2, m)
			m.submitted = b.now + 1
			return b
		}},
		{"an empty one that nobody sent", checkCreation, func() *book {
			b, _ := pair()
			m := b.h.addMessage(&message{sender: b.life(1), flavour: core.Unordered, accepted: true})
			b.deliver(2, m)
			return b
		}},
	})
}

func TestFIFO(t *testing.T) {
	expect(t, []handmade{
		{"in order, with unordered ones anywhere", "", func() *book {
			b, _ := pair()
			m, u, n := b.send(1, core.FIFO), b.send(1, core.Unordered), b.send(1, core.Total)
			b.deliver(2, u, m, n)
			return b
		}},
		{"out of order", checkFIFO, func() *book {
			b, _ := pair()
			m, n := b.send(1, core.FIFO), b.send(1, core.Total)
			b.deliver(2, n, m)
			return b
		}},
		{"a gap", checkFIFO, func() *book {
			b, _ := pair()
			m, _, n := b.send(1, core.FIFO), b.send(1, core.FIFO), b.send(1, core.FIFO)
			b.deliver(2, m, n)
			return b
		}},
	})
}

func TestTotalOrder(t *testing.T) {
	expect(t, []handmade{
		{"the same order", "", func() *book {
			b, v := trio()
			m, n := b.send(1, core.Total), b.send(2, core.Safe)
			b.deliver(1, m, n)
			b.deliver(2, m, n)
			b.install(b.view(2, v, 1, 2), 1, 2)
			return b
		}},
		{"two orders at survivors", checkState + " " + checkTotal, func() *book {
			b, v := trio()
			m, n := b.send(1, core.Total), b.send(2, core.Total)
			b.deliver(1, m, n)
			b.deliver(2, n, m)
			b.install(b.view(2, v, 1, 2), 1, 2)
			return b
		}},
		{"two orders at rest", checkTotal, func() *book {
			b, _ := pair()
			m, n := b.send(1, core.Total), b.send(2, core.Total)
			b.deliver(1, m, n)
			b.deliver(2, n, m)
			b.rest(1, 2)
			return b
		}},
		{"an order that died with its member", "", func() *book {
			b, v := trio()
			m, n := b.send(1, core.Total), b.send(2, core.Total)
			b.deliver(1, m, n)
			b.die(crashed, 1)
			b.deliver(2, n, m)
			b.deliver(3, n, m)
			b.install(b.view(2, v, 2, 3), 2, 3)
			return b
		}},
		{"the dead one's order in front of a Safe message", checkTotal, func() *book {
			b, v := trio()
			m, n, s := b.send(1, core.Total), b.send(2, core.Total), b.send(1, core.Safe)
			b.deliver(1, m, n, s)
			b.die(crashed, 1)
			b.deliver(2, n, m, s)
			b.deliver(3, n, m, s)
			b.install(b.view(2, v, 2, 3), 2, 3)
			return b
		}},
	})
}

func TestForgottenInFrontOfSafe(t *testing.T) {
	forget := func(extra bool) func() *book {
		return func() *book {
			b, v := trio()
			m, s := b.send(1, core.Total), b.send(2, core.Safe)
			n := b.send(3, core.Total)
			b.deliver(1, m, s)
			b.die(crashed, 1)
			for i := 2; i <= 3; i++ {
				if extra {
					b.deliver(i, n, s)
				} else {
					b.deliver(i, s, n)
				}
			}
			b.install(b.view(2, v, 2, 3), 2, 3)
			return b
		}
	}
	expect(t, []handmade{
		{"an OrderedSend that only the dead delivered", "", forget(false)},
		{"one that the dead passed over", checkTotal, forget(true)},
	})
}

func TestCausal(t *testing.T) {
	cause := func(f core.Flavour, swap bool) func() *book {
		return func() *book {
			b, _ := trio()
			m := b.send(1, core.FIFO)
			b.deliver(2, m)
			n := b.send(2, f)
			if swap {
				m, n = n, m
			}
			b.deliver(3, m, n)
			return b
		}
	}
	expect(t, []handmade{
		{"the cause first", "", cause(core.Causal, false)},
		{"the effect first", checkCausal, cause(core.Causal, true)},
		{"only CausalSend promises it", "", cause(core.FIFO, true)},
		{"concurrent ones in any order", "", func() *book {
			b, _ := trio()
			m, n := b.send(1, core.Causal), b.send(2, core.Causal)
			b.deliver(3, n, m)
			b.deliver(2, m, n)
			return b
		}},
		{"a cause that was handed over and not handled", "", func() *book {
			b, _ := trio()
			m := b.send(1, core.FIFO)
			b.deliver(2, m)
			n := b.send(2, core.Causal)
			n.handled--
			b.deliver(3, n, m)
			return b
		}},
	})
}

func TestUniform(t *testing.T) {
	lost := func(copies int, f core.Flavour, dead ...int) func() *book {
		return func() *book {
			b, v := trio()
			b.h.safeOf[0] = copies
			m := b.send(1, f)
			b.deliver(dead[0], m)
			b.die(crashed, dead...)
			alive := []int{}
			for i := 1; i <= 3; i++ {
				if b.life(i).fate == 0 {
					alive = append(alive, i)
				}
			}
			b.install(b.view(2, v, alive...), alive...)
			return b
		}
	}
	expect(t, []handmade{
		{"lost with its sender", checkUniform, lost(0, core.Safe, 1)},
		{"lost with two of three", checkUniform, lost(0, core.Safe, 1, 2)},
		{"lost with as many as had copies", "", lost(2, core.Safe, 1, 2)},
		{"lost with a minority", checkUniform, lost(-1, core.Safe, 1)},
		{"OrderedSend may be forgotten", "", lost(0, core.Total, 1)},
	})
}
