package sim

import (
	"testing"

	"github.com/khamsin-io/khamsin/vsync/core"
)

func TestViewAgreement(t *testing.T) {
	expect(t, []handmade{
		{"a crash and a join", "", func() *book {
			b, v := trio()
			b.die(crashed, 1)
			b.install(b.view(2, v, 2, 3, 4), 2, 3)
			return b
		}},
		{"other members under the same id", checkViews, func() *book {
			b, v := trio()
			b.install(b.view(2, v, 1, 2), 1)
			b.install(b.view(2, v, 1, 2, 3), 2)
			return b
		}},
		{"other newcomers under the same id", checkViews, func() *book {
			b, v := pair()
			w := b.view(2, v, 1, 2, 3)
			bad := *w
			bad.Joined = nil
			b.install(w, 1)
			b.install(&bad, 2)
			return b
		}},
		{"ids that decrease", checkViews, func() *book {
			b, v := pair()
			w := b.view(5, v, 1, 2, 3)
			b.install(w, 1, 2)
			b.install(b.view(4, w, 1, 2), 1)
			return b
		}},
		{"a member that is not in its view", checkViews, func() *book {
			b, v := pair()
			b.install(b.view(2, v, 1), 1, 2)
			return b
		}},
		{"ranks out of the order of joining", checkViews, func() *book {
			b, v := pair()
			b.install(b.view(2, v, 2, 1, 3), 1, 2)
			return b
		}},
		{"departed who were not there", checkViews, func() *book {
			b, v := pair()
			w := b.view(2, v, 1, 2, 3)
			w.Left = addresses(4)
			b.install(w, 1, 2)
			return b
		}},
	})
}

func TestSinglePrimary(t *testing.T) {
	expect(t, []handmade{
		{"a group that died out and came back", "", func() *book {
			b, _ := pair()
			b.die(crashed, 1, 2)
			b.install(b.view(2, nil, 3), 3)
			return b
		}},
		{"two views after one", checkPrimary, func() *book {
			b, v := pair()
			b.install(b.view(2, v, 1), 1)
			b.install(b.view(3, v, 2), 2)
			return b
		}},
		{"one view after two", checkPrimary + " " + checkViews, func() *book {
			b, v := trio()
			b.install(b.view(2, v, 1, 2), 1)
			w := &core.View{ID: 3, Members: addresses(1, 2), Left: addresses(3)}
			b.install(w, 2)
			w1 := &core.View{ID: 3, Members: addresses(1, 2), Left: addresses(3)}
			b.install(w1, 1)
			return b
		}},
		{"created anew beside living members", checkPrimary, func() *book {
			b, v := pair()
			w := b.view(2, v, 1, 2, 3)
			b.install(w, 1, 2, 3) // 3 begins with init
			return b
		}},
	})
}

func TestViewSynchrony(t *testing.T) {
	expect(t, []handmade{
		{"one view for all", "", func() *book {
			b, v := pair()
			m := b.send(1, core.FIFO)
			b.install(b.view(2, v, 1, 2, 3), 1, 2)
			b.deliver(1, m)
			b.deliver(2, m)
			b.rest(1, 2)
			return b
		}},
		{"two views", checkSame + " " + checkState + " " + checkSynchrony, func() *book {
			b, v := pair()
			m := b.send(1, core.FIFO)
			b.deliver(1, m)
			b.install(b.view(2, v, 1, 2, 3), 1, 2)
			b.deliver(2, m)
			return b
		}},
		{"older than its sending", checkSynchrony, func() *book {
			b, v := trio()
			b.install(b.view(2, v, 1, 2), 1)
			m := b.send(1, core.Raw)
			b.deliver(2, m)
			b.deliver(3, m)
			return b
		}},
		{"sender was removed", checkSynchrony, func() *book {
			b, v := trio()
			m := b.send(3, core.FIFO)
			b.install(b.view(2, v, 1, 2), 1, 2)
			b.deliver(1, m)
			b.deliver(2, m)
			return b
		}},
		{"label of another view", checkSynchrony, func() *book {
			b, _ := pair()
			m := b.send(1, core.FIFO)
			b.deliver(1, m)
			b.life(1).log[len(b.life(1).log)-1].viewID = 7
			return b
		}},
	})
}

func TestSameMessages(t *testing.T) {
	expect(t, []handmade{
		{"any order between two senders", "", func() *book {
			b, v := trio()
			m, n := b.send(1, core.FIFO), b.send(2, core.FIFO)
			b.deliver(1, m, n)
			b.deliver(2, n, m)
			b.install(b.view(2, v, 1, 2), 1, 2)
			return b
		}},
		{"one that only the dead delivered", "", func() *book {
			b, v := trio()
			m := b.send(3, core.FIFO)
			b.deliver(3, m)
			b.die(crashed, 3)
			b.install(b.view(2, v, 1, 2), 1, 2)
			return b
		}},
		{"one that only one survivor delivered", checkSame + " " + checkState, func() *book {
			b, v := trio()
			m := b.send(3, core.FIFO)
			b.deliver(1, m)
			b.install(b.view(2, v, 1, 2), 1, 2)
			return b
		}},
		{"one that only one delivered before the world came to rest", checkSame, func() *book {
			b, _ := trio()
			m := b.send(3, core.Unordered)
			b.deliver(1, m)
			b.deliver(3, m)
			b.rest(1, 2, 3)
			return b
		}},
		{"raw ones do not count", "", func() *book {
			b, v := trio()
			b.deliver(1, b.send(3, core.Raw))
			b.install(b.view(2, v, 1, 2), 1, 2)
			return b
		}},
	})
}
