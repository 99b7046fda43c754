package sim

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/khamsin-io/khamsin/dataplane/clock"
	"github.com/khamsin-io/khamsin/vsync/core"
	"github.com/khamsin-io/khamsin/vsync/internal/engine"
)

// SmallWorld names one world of the exhaustive search: a change of a group's view, and the steps at which processes
// crash in it. A step is one thing that a process does and others can see: a packet sent, something handed to its
// application. There is no other weather, so a world follows from its name.
type SmallWorld struct {
	Change  string // one of SmallChanges
	Crashes []SmallCrash
}

// SmallCrash is a crash at a step. The packets that the process sent in the Lost steps before are lost, though its
// application saw what they were about: none gets anywhere, or they get to the node Heard only.
type SmallCrash struct {
	Node, Step, Lost, Heard int
}

// SmallResult is what became of a small world, and where one more process could crash in it.
type SmallResult struct {
	Result
	World SmallWorld
	steps []smallSteps
}

// smallSteps are the steps of a node between the last crash, or the beginning of the change, and its end.
type smallSteps struct{ node, from, to int }

// smallLost is of how many steps the packets are lost with a crash: those of the last few turns.
const smallLost = 6

// smallChange is a change of view in a group of three or four.
type smallChange struct {
	name    string
	nodes   int   // that run before
	oracle  int   // members of the ORACLE: the first nodes
	members []int // nodes in the order in which they join
	begin   func(w *World)
}

// smallChanges returns the changes that are searched.
func smallChanges() []smallChange {
	join := func(w *World) { w.onLaunch(w.addNode(), 1) }
	leave := func(n int) func(w *World) {
		return func(w *World) { w.smallMember(n, func(m *member) { m.leave() }) }
	}
	fail := func(n int) func(w *World) {
		return func(w *World) {
			if p := w.nodes[n-1].proc; p != nil {
				w.end(p, crashed, nil)
				w.bury()
			}
		}
	}
	return []smallChange{
		// The ORACLE's leader is the coordinator and makes the state as well.
		{"join", 3, 3, []int{1, 2, 3}, join},
		// Coordinator and leader are two; the leader is a member.
		{"join-beside-leader", 3, 3, []int{2, 3, 1}, join},
		// The ORACLE is one process outside of the group.
		{"join-with-one-oracle", 4, 1, []int{2, 3, 4}, join},
		// The eldest leaves, and so has the state.
		{"leave", 3, 3, []int{2, 3, 1}, leave(2)},
		{"failure", 4, 3, []int{2, 3, 1, 4}, fail(4)},
		{"failure-of-coordinator", 4, 3, []int{2, 3, 1, 4}, fail(2)},
		{"failure-of-leader", 4, 3, []int{2, 3, 1, 4}, fail(1)},
		{"join-and-failure", 3, 3, []int{2, 3, 1}, func(w *World) { join(w); fail(3)(w) }},
		{"join-and-leave", 3, 3, []int{2, 3, 1}, func(w *World) { join(w); leave(2)(w) }},
	}
}

// SmallChanges returns the names of the changes that are searched.
func SmallChanges() []string {
	var names []string
	for _, c := range smallChanges() {
		names = append(names, c.name)
	}
	return names
}

// String names the world, as ParseSmallWorld reads it: the change, and each crash as node:step, node:step-lost or
// node:step-lost>heard.
func (s SmallWorld) String() string {
	parts := []string{s.Change}
	for _, c := range s.Crashes {
		text := fmt.Sprintf("%d:%d", c.Node, c.Step)
		if c.Lost > 0 {
			text += fmt.Sprintf("-%d", c.Lost)
		}
		if c.Heard > 0 {
			text += fmt.Sprintf(">%d", c.Heard)
		}
		parts = append(parts, text)
	}
	return strings.Join(parts, "/")
}

// ParseSmallWorld reads what String wrote.
func ParseSmallWorld(text string) (SmallWorld, error) {
	parts := strings.Split(text, "/")
	s := SmallWorld{Change: parts[0]}
	if !slices.Contains(SmallChanges(), s.Change) {
		return s, fmt.Errorf("no change is called %q: there are %s", s.Change, strings.Join(SmallChanges(), ", "))
	}
	for _, part := range parts[1:] {
		var c SmallCrash
		rest, heard, hears := strings.Cut(part, ">")
		rest, lost, loses := strings.Cut(rest, "-")
		node, step, ok := strings.Cut(rest, ":")
		read := func(text string, present bool) (n int) {
			n, err := strconv.Atoi(text)
			ok = ok && (!present || err == nil && n > 0)
			return n
		}
		c.Node, c.Step, c.Lost, c.Heard = read(node, true), read(step, true), read(lost, loses), read(heard, hears)
		if !ok || hears && !loses {
			return s, fmt.Errorf("%q is not a crash: write node:step, node:step-lost or node:step-lost>heard", part)
		}
		s.Crashes = append(s.Crashes, c)
	}
	return s, nil
}

// Next returns the worlds that are the same up to the last crash, and have one more behind it, before the group is at
// rest again: at each step of each process, with all its packets, and with the last ones lost on the way to all but one
// node or, for a first crash, to all. A second crash loses packets only when the first did not.
func (r *SmallResult) Next() []SmallWorld {
	var next []SmallWorld
	for _, s := range r.steps {
		heard := 0
		for _, other := range r.steps {
			if heard == 0 && other.node != s.node && other.to > 0 {
				heard = other.node
			}
		}
		for step := s.from + 1; step <= s.to; step++ {
			variants := []SmallCrash{
				{s.node, step, 0, 0}, {s.node, step, smallLost, heard}, {s.node, step, smallLost, 0},
			}
			if one := r.World.Crashes; len(one) > 0 {
				variants = variants[:2-btoi(one[0].Lost > 0)]
			}
			for _, c := range variants {
				next = append(next, SmallWorld{r.World.Change, append(slices.Clone(r.World.Crashes), c)})
			}
		}
	}
	return next
}

// PlaySmallWorld plays a small world and judges it. The planted bug may be empty; see Canaries. The timeline goes to
// trace unless it is nil.
func PlaySmallWorld(s SmallWorld, bug string, trace io.Writer) *SmallResult {
	changes := smallChanges()
	i := slices.IndexFunc(changes, func(c smallChange) bool { return c.name == s.Change })
	if i < 0 {
		return &SmallResult{World: s, Result: Result{Failures: []Failure{{
			Checker: checkInvariant, Text: fmt.Sprintf("sim: no change is called %q", s.Change),
		}}}}
	}
	c := changes[i]
	timing, limits := smallLimits()
	w := NewWorld(Options{
		Seed: 1, Nodes: c.nodes, Groups: 1, Oracle: c.oracle, Faults: time.Second, MTU: 600,
		Weather:  &Weather{Delay: 100 * time.Microsecond, OracleCrash: true},
		Mix:      &Mix{Burst: 1, Flavours: [6]int{core.FIFO: 1}, StateMax: 3000, ConsumeBatch: 1},
		TxChunks: 512, RxChunks: 512, Canary: bug, Trace: trace, timing: &timing, limits: &limits,
	})
	w.history.safeOf[0] = 0
	w.every = time.Millisecond
	r := &SmallResult{World: s}
	if w.guard(func() { w.playSmall(&c, r) }) {
		w.guard(w.closeSmall)
	}
	r.Result = *w.result()
	return r
}

// smallLimits returns short times, so that little happens but what is searched, and small tables.
func smallLimits() (engine.Timing, engine.Limits) {
	t, l := engine.Defaults()
	t.Discovery, t.Beacon, t.Gather = 6*time.Millisecond, 2*time.Millisecond, 500*time.Microsecond
	t.Heartbeat, t.Suspect, t.Step = 6*time.Millisecond, 15*time.Millisecond, 20*time.Millisecond
	t.Request, t.OracleLost, t.LinkRetry = 12*time.Millisecond, 60*time.Millisecond, 5*time.Millisecond
	t.Sync = 8 * time.Millisecond
	l.Window, l.Queue, l.JoinerQueue, l.Pending, l.Transfer = 32, 64, 64<<10, 64<<10, 64<<10
	return t, l
}

// Bounds of a small world.
const (
	smallBound = 5 * time.Second       // until the group is at rest again
	smallQuiet = 20 * time.Millisecond // for which it must stay so: a process that is silent is noticed meanwhile
)

// playSmall forms the group, begins the change while every member sends, waits for rest, and looks whether the group
// still works.
func (w *World) playSmall(c *smallChange, r *SmallResult) {
	for range c.nodes {
		w.launch(w.addNode())
		w.runUntil(w.now.Add(8*time.Millisecond), nil)
	}
	for _, n := range c.members {
		p := w.nodes[n-1].proc
		p.join(0)
		w.settle(p)
		w.runUntil(w.now.Add(10*time.Millisecond), nil)
	}
	if !w.restSmall("while the group was formed", func() {}) {
		return
	}
	w.crashes = r.World.Crashes
	w.onCrash = func() { w.countSteps(r, true) }
	for _, p := range w.live {
		w.placeCrash(p)
	}
	w.onCrash()
	w.smallSends(c, core.FIFO, core.Total)
	w.runUntil(w.now.Add(150*time.Microsecond), nil)
	w.smallSends(c, core.Causal, core.Safe)
	c.begin(w)
	w.smallSends(c, core.Total)
	w.smallMember(c.members[len(c.members)-1], func(m *member) { m.flush(0) })
	if !w.restSmall("in the change", func() { w.countSteps(r, false) }) {
		return
	}
	w.crashes, w.onCrash = nil, nil
	if w.crashRest() && !w.restSmall("after a crash at the end of the change", func() {}) {
		return
	}
	w.probe()
	if w.restSmall("after every member sent once more", func() {}) {
		for _, p := range w.live {
			for _, m := range p.members {
				m.life.rest = len(m.life.log)
			}
		}
	}
}

// smallSends lets every member of the group send a message of each flavour.
func (w *World) smallSends(c *smallChange, flavours ...core.Flavour) {
	for _, n := range c.members {
		w.smallMember(n, func(m *member) {
			for _, f := range flavours {
				m.send(f, 20)
			}
		})
	}
}

// crashRest ends the processes that have not come to the step at which they were to crash, because the packets that
// they lost before made the others do less. It tells whether there were any.
func (w *World) crashRest() bool {
	some := false
	for _, p := range slices.Clone(w.live) {
		if p.cutAfter > 0 {
			w.end(p, crashed, nil)
			some = true
		}
	}
	w.bury()
	return some
}

// smallMember lets f happen to the member on a node, if it is still there.
func (w *World) smallMember(n int, f func(m *member)) {
	if p := w.nodes[n-1].proc; p != nil && len(p.members) > 0 {
		f(p.members[0])
		w.settle(p)
		w.bury()
	}
}

// restSmall waits for a rest that lasts, calls found at its beginning, which may come again, and complains when there
// is none.
func (w *World) restSmall(when string, found func()) bool {
	why := ""
	since := clock.Never
	ok := w.runUntil(w.now.Add(smallBound), func() bool {
		if why = w.unrest(); why != "" {
			since = clock.Never
			return false
		}
		if since == clock.Never {
			since = w.now
			found()
		}
		return w.now.Sub(since) >= smallQuiet
	})
	if !ok {
		w.history.complain(checkLiveness, w.now, "no rest within %v %s: %s", smallBound, when, why)
		w.dump()
	}
	return ok
}

// closeSmall ends all processes, so that lost frames show.
func (w *World) closeSmall() {
	for _, p := range slices.Clone(w.live) {
		w.end(p, stopped, nil)
	}
	w.bury()
}

// placeCrash gives a process the crash that is planned for its node, and begins to count its steps.
func (w *World) placeCrash(p *process) {
	p.steps = 0
	for _, c := range w.crashes {
		if c.Node == p.node.number {
			p.cutAfter, p.mutedFor, p.heardBy, p.record.disturb = c.Step, c.Lost, c.Heard, true
		}
	}
}

// countSteps notes how many steps every process has made: up to a crash, or to the end.
func (w *World) countSteps(r *SmallResult, crash bool) {
	if crash {
		r.steps = r.steps[:0]
		for _, n := range w.nodes {
			r.steps = append(r.steps, smallSteps{node: n.number})
		}
	}
	for i := range w.nodes {
		if i == len(r.steps) {
			r.steps = append(r.steps, smallSteps{node: i + 1})
		}
		s := &r.steps[i]
		if p := w.nodes[i].proc; p != nil && !p.over {
			s.to = p.steps
		}
		if crash {
			s.from = s.to
		}
	}
}
