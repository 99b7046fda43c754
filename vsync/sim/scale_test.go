package sim

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/khamsin-io/khamsin/vsync/core"
	"github.com/khamsin-io/khamsin/vsync/internal/engine"
)

// scaleDelay is the time of every packet on its way. It is long against all else, so that the virtual time of a change
// tells how many packets wait for one another.
const scaleDelay = 2 * time.Millisecond

// scaleSends is how many multicasts are counted.
const scaleSends = 8

// cost is what something took.
type cost struct {
	packets, bytes, arrived, steps float64
	took                           time.Duration
}

func (w *World) cost() cost {
	s := &w.stats
	return cost{float64(s.Packets), float64(s.Bytes), float64(s.Arrived), float64(s.Steps), time.Duration(w.now)}
}

// less returns the costs without others.
func (c cost) less(d cost) cost {
	return cost{c.packets - d.packets, c.bytes - d.bytes, c.arrived - d.arrived, c.steps - d.steps, c.took - d.took}
}

func (c cost) by(n float64) cost {
	return cost{c.packets * n, c.bytes * n, c.arrived * n, c.steps * n, time.Duration(float64(c.took) * n)}
}

// rounds returns how many times a packet travelled while something took place.
func (c cost) rounds() float64 { return float64(c.took) / float64(scaleDelay) }

// scaleWorld returns a calm world of so many processes that are part of the system and of no group.
func scaleWorld(t *testing.T, nodes int) *World {
	t.Helper()
	timing, limits := engine.Defaults()
	timing.Gather, timing.Nak, timing.Sync = 500*time.Microsecond, 3*scaleDelay, 6*scaleDelay
	limits.Window, limits.Queue = 32, 256
	w := NewWorld(Options{
		Seed: 1, Nodes: nodes, Groups: 1, Oracle: 3, Faults: time.Second, Weather: &Weather{Delay: scaleDelay},
		Mix:      &Mix{Burst: 1, Flavours: [6]int{core.FIFO: 1}, StateMax: 1000, ConsumeBatch: 1},
		TxChunks: 4096, RxChunks: 4096, timing: &timing, limits: &limits,
	})
	w.history.safeOf[0] = 0
	w.every = 200 * time.Microsecond
	for range nodes {
		w.launch(w.addNode())
	}
	w.scaleRest(t, "attaching")
	w.runUntil(w.now.Add(200*time.Millisecond), nil)
	return w
}

// scaleRest waits until all agree.
func (w *World) scaleRest(t *testing.T, what string) {
	t.Helper()
	why := ""
	if !w.runUntil(w.now.Add(10*time.Second), func() bool { why = w.unrest(); return why == "" }) {
		t.Fatalf("%s of %d processes: %.300s", what, len(w.live), why)
	}
}

// measure returns what f cost, beyond what the same time costs when nothing happens.
func (w *World) measure(t *testing.T, what string, f func()) cost {
	t.Helper()
	before := w.cost()
	f()
	w.scaleRest(t, what)
	c := w.cost().less(before)
	const idle = 400 * time.Millisecond
	w.runUntil(w.now.Add(idle), nil) // what is still on its way
	before = w.cost()
	w.runUntil(w.now.Add(idle), nil)
	rest := w.cost().less(before).by(float64(c.took) / float64(idle))
	rest.took = 0
	return c.less(rest)
}

// joinAll makes processes join the group at the same moment.
func (w *World) joinAll(list []*process) {
	for _, p := range list {
		p.join(0)
		w.settle(p)
	}
}

// scaleRow is what was measured with one number of members.
type scaleRow struct {
	members                                int
	send, order, safe, join, failure, herd cost
	wall                                   time.Duration
}

// scale measures a group of so many members, and as many that join a group of three at once.
func scale(t *testing.T, members int) scaleRow {
	start := time.Now()
	row := scaleRow{members: members}
	w := scaleWorld(t, members)
	w.joinAll(w.live)
	w.scaleRest(t, "forming a group")
	if v := w.live[0].members[0].view; v.ID != 1 || v.Size() != members {
		t.Errorf("%d processes that join at once get view %d of %d members", members, v.ID, v.Size())
	}
	sender := w.live[members/2].members[0]
	each := func(f core.Flavour) cost {
		return w.measure(t, "sending", func() {
			for range scaleSends {
				sender.send(f, 100)
				w.settle(sender.p)
				w.runUntil(w.now.Add(20*time.Millisecond), nil)
			}
		}).by(1. / scaleSends)
	}
	row.send, row.order, row.safe = each(core.FIFO), each(core.Total), each(core.Safe)
	joiner := w.launch(w.addNode())
	w.scaleRest(t, "attaching one more")
	w.runUntil(w.now.Add(400*time.Millisecond), nil)
	row.join = w.measure(t, "one join", func() { w.joinAll([]*process{joiner}) })
	row.failure = w.measure(t, "one failure", func() {
		victim := w.live[members-1]
		w.end(victim, crashed, nil)
		w.bury()
		m := w.live[0].members[0]
		if err := m.p.engine.Report(m.p.now(), m.handle, victim.addr, "crashed"); err != nil {
			t.Fatal(err)
		}
		w.settle(m.p)
	})
	w.finish(t)
	row.herd = scaleHerd(t, members)
	row.wall = time.Since(start)
	return row
}

// scaleHerd measures so many processes that join a group of three at once: one change of view must cover them.
func scaleHerd(t *testing.T, joiners int) cost {
	w := scaleWorld(t, joiners+3)
	w.joinAll(w.live[:3])
	w.scaleRest(t, "forming a group of three")
	w.runUntil(w.now.Add(100*time.Millisecond), nil)
	old := w.live[0].members[0].view.ID
	c := w.measure(t, "joining at once", func() { w.joinAll(w.live[3:]) })
	for _, p := range w.live {
		if v := p.members[0].view; v.ID != old+1 || v.Size() != joiners+3 {
			t.Fatalf("%s: %d joiners at once bring view %d of %d members, after view %d", p.name(), joiners, v.ID,
				v.Size(), old)
		}
	}
	w.finish(t)
	return c
}

// finish ends the world and lets the checkers judge.
func (w *World) finish(t *testing.T) {
	t.Helper()
	for _, p := range w.live {
		p.members[0].life.rest = len(p.members[0].life.log)
	}
	w.closeSmall()
	if r := w.result(); r.Failed() {
		var b strings.Builder
		r.Report(&b)
		t.Errorf("%.2000s", b.String())
	}
}

// growth checks that nothing grows faster than the page says.
func growth(t *testing.T, rows []scaleRow) {
	t.Helper()
	for i := range rows {
		n := float64(rows[i].members)
		for _, k := range []struct {
			what     string
			got, max float64
		}{
			{"packets of a Send per member", rows[i].send.packets / n, 2},
			{"arrivals of a Send per member", rows[i].send.arrived / n, 4},
			{"packets of an OrderedSend per member", rows[i].order.packets / n, 5},
			{"arrivals of an OrderedSend per member", rows[i].order.arrived / n, 10},
			{"packets of a SafeSend per member", rows[i].safe.packets / n, 5},
			{"arrivals of a SafeSend per pair of members", rows[i].safe.arrived / n / n, 5},
		} {
			if k.got > k.max {
				t.Errorf("%s: %.1f with %.0f members, and no more than %.1f should be", k.what, k.got, n, k.max)
			}
		}
		if i == 0 {
			continue
		}
		before := float64(rows[i-1].members)
		for _, k := range []struct {
			what     string
			now, old cost
		}{
			{"a join", rows[i].join, rows[i-1].join}, {"a failure", rows[i].failure, rows[i-1].failure},
			{"joins at once", rows[i].herd, rows[i-1].herd},
		} {
			if k.now.bytes/n/n > 1.25*k.old.bytes/before/before {
				t.Errorf("%s: %.0f bytes with %.0f members and %.0f with %.0f: more than the square", k.what,
					k.now.bytes, n, k.old.bytes, before)
			}
		}
	}
}

// A multicast costs a packet of each member, a change of view a number of rounds that does not grow, and bytes with the
// square; a thousand joiners get into a group with one change. `make scale` measures large groups and writes the page.
//
// rows: VIEW-17
func TestScaleOfGroups(t *testing.T) {
	sizes := []int{3, 30}
	large := os.Getenv("KHAMSIN_SCALE") != ""
	if large {
		sizes = append(sizes, 300, 1000)
	}
	var rows []scaleRow
	for _, n := range sizes {
		rows = append(rows, scale(t, n))
		t.Logf("%d members: %v", n, rows[len(rows)-1].wall.Round(time.Millisecond))
	}
	growth(t, rows)
	if a, b := rows[0], rows[1]; b.join.rounds() > a.join.rounds()+2 || b.failure.rounds() > a.failure.rounds()+2 {
		t.Errorf("a join takes %.0f rounds with 3 members and %.0f with 30, a failure %.0f and %.0f", a.join.rounds(),
			b.join.rounds(), a.failure.rounds(), b.failure.rounds())
	}
	if large && !t.Failed() {
		if err := os.WriteFile("../../docs/scale.md", []byte(scalePage(rows)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// scalePage writes the page of what was measured.
func scalePage(rows []scaleRow) string {
	var b strings.Builder
	b.WriteString(scaleHead)
	for _, part := range []struct {
		head string
		of   func(r *scaleRow) cost
	}{
		{scaleSend, func(r *scaleRow) cost { return r.send }}, {scaleOrder, func(r *scaleRow) cost { return r.order }},
		{scaleSafe, func(r *scaleRow) cost { return r.safe }},
	} {
		b.WriteString(part.head)
		b.WriteString("| members | packets | per member | bytes | per member | arrivals | per member | steps | " +
			"per member |\n| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n")
		for i := range rows {
			c, n := part.of(&rows[i]), float64(rows[i].members)
			fmt.Fprintf(&b, "| %.0f | %.1f | %.2f | %.0f | %.1f | %.0f | %.1f | %.0f | %.1f |\n", n, c.packets,
				c.packets/n, c.bytes, c.bytes/n, c.arrived, c.arrived/n, c.steps, c.steps/n)
		}
	}
	for _, part := range []struct {
		head string
		of   func(r *scaleRow) cost
	}{
		{scaleJoin, func(r *scaleRow) cost { return r.join }}, {scaleFail, func(r *scaleRow) cost { return r.failure }},
		{scaleHerds, func(r *scaleRow) cost { return r.herd }},
	} {
		b.WriteString(part.head)
		b.WriteString("| members | packets | per member | bytes | per member, each address | steps | virtual time | " +
			"rounds |\n| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n")
		for i := range rows {
			c, n := part.of(&rows[i]), float64(rows[i].members)
			fmt.Fprintf(&b, "| %.0f | %.0f | %.1f | %.0f | %.0f | %.0f | %.1f ms | %.0f |\n", n, c.packets,
				c.packets/n, c.bytes, c.bytes/n/n, c.steps, float64(c.took)/1e6, c.rounds())
		}
	}
	return b.String()
}

// The words of the page.
const (
	scaleHead = `# What groups cost as they grow

Written by ` + "`make scale`" + `, which plays groups of 3, 30, 300 and 1,000 members in the simulator: nothing is lost,
and every packet takes 2 ms on its way. What is sent while nothing happens, signs of life and the ORACLE's beats, is
subtracted. A packet that is multicast counts once as a packet and once at each member as an arrival; a step is one call
of an engine, which takes in all the packets that wait for it.
`
	scaleSend = `
## One Send of 100 bytes

One packet of data; an acknowledgement of each receiver, to the sender alone; and the sender's word on what is stable,
which travels with its next packet, or alone when there is none. So packets grow with the members, one for each, and so
do bytes (about 45 for an acknowledgement); what one receiver takes in does not grow: it is the sender that takes in an
acknowledgement of each.

`
	scaleOrder = `
## One OrderedSend of 100 bytes, not by rank 0

As before, for two streams: the sender's, and that of rank 0 with the record of the message's place. Linear like Send,
with about three packets for each member. An acknowledgement that is about several streams at once is multicast, though:
where many members send within the interval of acknowledgements, packets stay one for each member and interval, and
arrivals grow with the square, as below.

`
	scaleSafe = `
## One SafeSend of 100 bytes to all members

Acknowledgements go to everybody here, since every member must know when all hold the message. So the packets are still
one for each member and stream, but arrivals grow with the square: each member takes in what each other one says. This
is the term that bounds groups of this kind; SafeCopies bounds whose acknowledgements count, not who hears them.

`
	scaleJoin = `
## One member joins

Propose, Report, Cut, Ready, Decide: five messages between the coordinator and each member, so packets would be five for
each. But Propose and Decide carry the old view and the new one, an address for each member, and Report and Cut a
position for each stream: the coordinator sends n times O(n) bytes. The fifth column, bytes divided by the square of the
members, shows it: it settles. Packets grow so as soon as a message does not fit one. Rounds are the virtual time in
trips of a packet; they are constant as long as the coordinator's messages fit its frames (4,096 here, for all lanes
together), and grow beyond with what has to pass through them.

`
	scaleFail = `
## One member fails

From the report of the failure on, the time until it is noticed not counted. The same terms as for a join, without a
state to hand over.

`
	scaleHerds = `
## As many processes join a group of three at once

A single change of view covers them all: the run fails otherwise. Only the three report and get ready; the newcomers get
one Decide each, with the whole view, so that bytes grow with the square of the newcomers and packets likewise when a
view does not fit one; and each gets the state from rank 0. Processes that join one after the other would take one
change each.

`
)
