package sim

import (
	"testing"

	"github.com/khamsin-io/khamsin/vsync/core"
)

func TestCreateOnly(t *testing.T) {
	joins := func(old bool) func() *book {
		return func() *book {
			b := newBook(3)
			var before *core.View
			if old {
				before = b.view(1, nil, 1)
				b.install(before, 1)
			}
			b.life(2).creates = true
			w := b.view(2, before, 2)
			if old {
				w = b.view(2, before, 1, 2)
				b.write(2, entry{kind: entryState})
				b.install(w, 1)
			}
			b.install(w, 2)
			return b
		}
	}
	refuse := func(others bool) func() *book {
		return func() *book {
			b := newBook(1)
			if others {
				b, _ = pair()
			}
			b.life(1).creates = true
			b.life(1).log = nil
			b.die(refused, 1)
			return b
		}
	}
	expect(t, []handmade{
		{"a group that was not there", "", joins(false)},
		{"a group that was there", checkCreate, joins(true)},
		{"refused beside another", "", refuse(true)},
		{"refused alone", checkCreate, refuse(false)},
	})
}

func TestTermination(t *testing.T) {
	end := func(asked, delivered, goesOn bool) func() *book {
		return func() *book {
			b, v := trio()
			b.life(3).terminates = asked
			m := b.send(1, core.FIFO)
			b.deliver(1, m)
			if delivered {
				b.deliver(2, m)
			}
			b.deliver(3, m)
			b.die(ended, 1, 2)
			if goesOn {
				b.install(b.view(2, v, 3), 3)
			} else {
				b.die(ended, 3)
			}
			return b
		}
	}
	expect(t, []handmade{
		{"all end with the same messages", "", end(true, true, false)},
		{"nobody asked for it", checkEnd, end(false, true, false)},
		{"one lacks a message", checkSame, end(true, false, false)},
		{"one goes on", checkEnd, end(true, true, true)},
	})
}
