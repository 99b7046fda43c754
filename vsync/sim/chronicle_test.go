package sim

import (
	"slices"
	"strings"
	"testing"

	"github.com/khamsin-io/khamsin/dataplane/clock"
	"github.com/khamsin-io/khamsin/vsync/core"
)

// couple is a chronicle of two members that installed their first view.
type couple struct {
	c    *Chronicle
	a, b *Witness
	view *core.View
}

func newPair() *couple {
	addr := []core.Address{{PID: 7, Incarnation: 70}, {PID: 7, Incarnation: 71}}
	p := &couple{c: NewChronicle(clock.Monotonic(), 0)}
	p.a, p.b = p.c.Member(1, 1, addr[0]), p.c.Member(2, 1, addr[1])
	p.a.Init()
	p.a.View(&core.View{ID: 1, Members: addr[:1], Joined: addr[:1]})
	if err := p.b.Load(p.a.State()); err != nil {
		panic(err)
	}
	p.view = &core.View{ID: 2, Members: addr, Joined: addr[1:]}
	p.a.View(p.view)
	p.b.View(p.view)
	return p
}

// say makes a member multicast, and the given ones deliver.
func (p *couple) say(from *Witness, f core.Flavour, to ...*Witness) uint64 {
	n := from.Sending(f, 10)
	from.Sent(n, true)
	for _, w := range to {
		p.hear(w, n)
	}
	return n
}

func (p *couple) hear(w *Witness, n uint64) {
	from := p.view.Members[p.c.h.byID(n).sender.id]
	if err := w.Deliver(p.view, from, n); err != nil {
		panic(err)
	}
}

// caught returns the names of the checkers that complain.
func (p *couple) caught() string {
	var names []string
	for _, f := range p.c.Judge() {
		names = append(names, f.Checker)
	}
	slices.Sort(names)
	return strings.Join(slices.Compact(names), " ")
}

// tale is something that happens to a couple, and the checkers that must complain.
type tale struct {
	name, want string
	happens    func(p *couple)
}

// What real members tell a chronicle is judged like what simulated ones do.
func TestChronicle(t *testing.T) {
	for _, c := range []tale{
		{"nothing wrong", "", func(p *couple) {
			for _, f := range []core.Flavour{core.FIFO, core.Total, core.Safe, core.Causal, core.Unordered} {
				p.say(p.a, f, p.a, p.b)
				p.say(p.b, f, p.a, p.b)
			}
			n := p.a.SendingTo(p.b, 10)
			p.a.SentPeer(n, true)
			if err := p.b.DeliverPeer(n); err != nil {
				panic(err)
			}
			p.a.Flushing(0)(true)
			if why, ok := p.c.Settled(); !ok {
				panic(why)
			}
		}},
		{"twice", checkFIFO + " " + checkDuplicate, func(p *couple) {
			p.say(p.a, core.FIFO, p.a, p.b, p.b)
		}},
		{"two orders", checkTotal, func(p *couple) {
			x, y := p.say(p.a, core.Total, p.a), p.say(p.b, core.Total, p.b)
			p.hear(p.a, y)
			p.hear(p.b, x)
			p.rest()
		}},
		{"not at one of them", checkSame, func(p *couple) {
			p.say(p.a, core.FIFO, p.a)
			p.rest()
		}},
		{"a flush that was too early", checkFlush + " " + checkSame, func(p *couple) {
			p.say(p.a, core.FIFO, p.a)
			p.a.Flushing(0)(true)
			p.rest()
		}},
		{"in another's name", checkCreation, func(p *couple) {
			n := p.say(p.a, core.FIFO, p.a, p.b)
			if err := p.b.Deliver(p.view, p.view.Members[1], n); err == nil {
				panic("no error")
			}
		}},
		{"of nobody", checkCreation, func(p *couple) {
			if p.a.Deliver(p.view, p.view.Members[0], 99) == nil || p.a.DeliverPeer(99) == nil {
				panic("no error")
			}
		}},
		{"accepted by a call that failed as its process was killed", "", func(p *couple) {
			n := p.a.Sending(core.FIFO, 10)
			p.a.End(Crashed, nil)
			p.a.Sent(n, false)
			p.hear(p.b, n)
		}},
		{"of a process that was killed, after the next one", checkFIFO, func(p *couple) {
			x, y := p.say(p.a, core.FIFO), p.say(p.a, core.FIFO)
			p.a.End(Crashed, nil)
			p.hear(p.b, y)
			p.hear(p.b, x)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newPair()
			c.happens(p)
			if got := p.caught(); got != c.want {
				t.Errorf("caught by %q, want %q", got, c.want)
			}
		})
	}
}

// rest says that both live and are at rest, whatever they have delivered.
func (p *couple) rest() {
	for _, l := range p.c.h.lives {
		l.rest = len(l.log)
	}
}

// A group has not settled while a view, a state or a message is missing.
func TestChronicleSettled(t *testing.T) {
	p := newPair()
	for _, c := range []struct {
		why     string
		happens func()
		then    func()
	}{
		{"of its own to deliver", func() { p.say(p.a, core.FIFO, p.b) }, func() { p.hear(p.a, 1) }},
		{"the state is", func() { p.say(p.a, core.FIFO, p.a) }, func() { p.hear(p.b, 2) }},
		{"did not arrive", func() { p.a.SentPeer(p.a.SendingTo(p.b, 8), true) }, func() { _ = p.b.DeliverPeer(3) }},
		{"1 live", func() { p.b.End(Failed, nil) }, func() {
			p.a.View(&core.View{ID: 3, Members: p.view.Members[:1], Left: p.view.Members[1:]})
		}},
	} {
		c.happens()
		if why, ok := p.c.Settled(); ok || !strings.Contains(why, c.why) {
			t.Errorf("settled %v, %q; want %q", ok, why, c.why)
		}
		c.then()
		if why, ok := p.c.Settled(); !ok {
			t.Errorf("after that: %s", why)
		}
	}
	if s := p.c.Summary(); !strings.Contains(s, "2 members (0 crashed, 1 failed, 0 left), 3 views, 3 messages") {
		t.Error(s)
	}
}
