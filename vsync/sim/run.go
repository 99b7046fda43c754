package sim

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/khamsin-io/khamsin/dataplane/clock"
	"github.com/khamsin-io/khamsin/vsync/core"
)

// Bounds of a run.
const (
	startSpread   = 40 * time.Millisecond  // the first processes start within
	warmUp        = 100 * time.Millisecond // before the first fault
	afterglow     = 20 * time.Millisecond  // applications go on sending after all has healed
	convergeBound = 20 * time.Second       // until everything alive agrees
	quietTime     = 50 * time.Millisecond  // for which it must stay so
	drainBound    = 5 * time.Second        // until a world at rest holds next to no frames
	stopBound     = 10 * time.Second       // until a process that was stopped is over
	heldMax       = 64                     // frames that a process may hold when the world is at rest
	stillMax      = 1 << 20                // events at one moment of the virtual clock
)

// Run plays the world of a seed and judges it.
func Run(o Options) *Result { return NewWorld(o).Run() }

// Run plays the world to its end and judges it. It can be called once.
func (w *World) Run() *Result {
	if w.guard(w.play) {
		w.guard(w.shutDown)
	}
	return w.result()
}

// result closes what is left and lets the checkers judge.
func (w *World) result() *Result {
	for len(w.live) > 0 {
		p := w.live[0]
		w.live = w.live[1:]
		_ = p.arena.Close() // an engine that panicked keeps its frames
	}
	w.stats.Virtual = w.now.Sub(0)
	r := &Result{Seed: w.opts.Seed, TraceHash: w.trace.hash, Weather: w.weather, Stats: w.stats}
	r.Failures = append(slices.Clone(w.history.failures), judge(w.history)...)
	return r
}

// play lets the first three phases happen: faults, healing, convergence.
func (w *World) play() {
	w.populate()
	w.sending = true
	w.drawPlan(newRandom(w.opts.Seed, drawPlan+1<<8), clock.Time(warmUp))
	w.runUntil(clock.Time(warmUp+w.opts.Faults), nil)
	w.heal()
	w.runUntil(w.now.Add(afterglow), nil)
	w.sending = false
	if !w.converge("") {
		return
	}
	w.probe()
	if !w.converge(" after every member sent once more") {
		return
	}
	for _, p := range w.live {
		for _, m := range p.members {
			if !m.over {
				m.life.rest = len(m.life.log)
			}
		}
	}
	w.checkMemory()
}

// populate starts the first processes. The founder of the system starts first; it joins groups late in some seeds, so
// that others are the oldest members.
func (w *World) populate() {
	for range w.opts.Nodes {
		n := w.addNode()
		at := clock.Time(w.nodeDraw.upTo(startSpread))
		mask := w.drawMask()
		if n.number == 1 {
			at = 0
			if w.nodeDraw.chance(0.6) {
				mask = 0
			}
		}
		w.agenda.add(event{at: at, kind: eventLaunch, node: n, arg: mask})
	}
}

// heal ends every fault.
func (w *World) heal() {
	w.trace.printf(w.now, "-", "all faults end")
	w.healed = true
	w.net.heal()
	for _, n := range w.nodes {
		if n.pausedUntil > w.now {
			n.pausedUntil = w.now
			w.onWake(n)
		}
	}
	for _, p := range slices.Clone(w.live) {
		if p.cutAfter > 0 {
			w.end(p, crashed, nil)
			continue
		}
		for _, m := range p.members {
			m.slow = 0
			if m.stalled > w.now {
				m.stalled = w.now
				m.later(eventHandle, 0)
				m.later(eventRetry, 0)
			}
		}
	}
	w.bury()
}

// converge waits until the world is at rest and stays so for a while, and complains when that takes too long.
func (w *World) converge(when string) bool {
	deadline := w.now.Add(convergeBound)
	since := clock.Never
	reason := ""
	ok := w.runUntil(deadline, func() bool {
		reason = w.unrest()
		if reason != "" {
			since = clock.Never
			return false
		}
		since = min(since, w.now)
		return w.now.Sub(since) >= quietTime
	})
	if !ok {
		w.history.complain(checkLiveness, w.now, "no rest within %v%s: %s", convergeBound, when, reason)
		w.dump()
	}
	return ok
}

// dump writes the state of every engine to the trace.
func (w *World) dump() {
	if w.trace.out == nil {
		return
	}
	for _, p := range w.live {
		if d, ok := p.engine.(interface{ Dump() string }); ok {
			w.trace.printf(w.now, p.name(), "%s", d.Dump())
		}
	}
}

// unrest tells why the world is not at rest; empty when it is.
func (w *World) unrest() string {
	for _, s := range w.systems {
		s.look(w)
	}
	for _, p := range w.live {
		if !p.attached {
			if w.isLost(p) {
				continue
			}
			return p.name() + " has not been admitted to the system"
		}
		if p.system.lost {
			return p.name() + " goes on, though its ORACLE has lost its majority"
		}
		for _, m := range p.members {
			if w.waitsForHosts(m) {
				continue
			}
			if why := m.idle(w.now); why != "" {
				return fmt.Sprintf("%v in %s %s", m.life, w.history.groups[m.life.group], why)
			}
		}
	}
	for _, s := range w.systems {
		for g := range w.history.groups {
			if why := w.groupUnrest(s, g); why != "" {
				return w.history.groups[g] + ": " + why
			}
		}
	}
	return w.peerUnrest()
}

// groupUnrest tells why the members of a group do not agree yet.
func (w *World) groupUnrest(s *system, group int) string {
	var members []*member
	for _, p := range w.live {
		for _, m := range p.members {
			if m.life.group == group && p.system == s && !m.over && !w.waitsForHosts(m) {
				members = append(members, m)
			}
		}
	}
	for _, m := range members {
		first := members[0]
		switch {
		case m.view.ID != first.view.ID:
			return fmt.Sprintf("%v is in view %d and %v in view %d", m.life, m.view.ID, first.life, first.view.ID)
		case m.view.Size() != len(members) || !slices.ContainsFunc(m.view.Members, func(a core.Address) bool {
			return a == m.p.addr
		}):
			return fmt.Sprintf("%v is in %s, and %d members are alive", m.life, viewText(m.view), len(members))
		case m.inView != first.inView || m.inViewSum != first.inViewSum:
			return fmt.Sprintf("in view %d %v was given %d messages and %v %d", m.view.ID, m.life, m.inView, first.life,
				first.inView)
		}
	}
	return ""
}

// peerUnrest tells which point-to-point message between two live members has not arrived.
func (w *World) peerUnrest() string {
	if w.mix.Peer == 0 {
		return ""
	}
	if m := w.history.lostPeer(); m != nil {
		return fmt.Sprintf("%v for %v has not arrived", m, m.to)
	}
	return ""
}

// probe lets every member send once more, and flush.
func (w *World) probe() {
	for _, p := range slices.Clone(w.live) {
		for _, m := range p.members {
			if !m.over {
				m.send(w.drawFlavour(), 10)
				m.send(core.Total, 10)
				m.flush(0)
			}
		}
		w.settle(p)
	}
}

// checkMemory complains about processes that hold many frames though their applications have been at rest for a while.
// Until then lanes may still repeat what nobody waits for any more.
func (w *World) checkMemory() {
	const frugal = "%v holds %d frames %v after the world came to rest, and %d are allowed"
	w.runUntil(w.now.Add(drainBound), func() bool { return w.mostHeld() <= heldMax })
	w.stats.HeldMax = w.mostHeld()
	for _, p := range w.live {
		if held := p.arena.Outstanding(); held > heldMax {
			w.history.complain(checkMemory, w.now, frugal, p.record, held, drainBound, heldMax)
			w.dump()
		}
	}
}

// mostHeld returns how many frames the process holds that holds most.
func (w *World) mostHeld() int {
	most := 0
	for _, p := range w.live {
		most = max(most, p.arena.Outstanding())
	}
	return most
}

// shutDown stops every process in order. A founder that alone is the whole ORACLE goes last, when all others are over.
func (w *World) shutDown() {
	order := slices.Clone(w.live)
	w.nodeDraw.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
	if w.opts.Oracle == 1 {
		slices.SortStableFunc(order, func(a, b *process) int {
			return btoi(a.node.number == 1) - btoi(b.node.number == 1)
		})
	}
	for i, p := range order {
		if i == len(order)-1 {
			w.awaitEnd(order[:i])
		}
		if p.over {
			continue
		}
		w.trace.printf(w.now, p.name(), "is told to stop")
		p.stopping = true
		p.engine.Stop(p.now())
		w.settle(p)
		w.bury()
		if w.nodeDraw.chance(0.5) {
			w.runUntil(w.now.Add(w.nodeDraw.upTo(30*time.Millisecond)), nil)
		} else {
			w.awaitEnd(order[i : i+1])
		}
	}
	w.awaitEnd(order)
	for _, p := range slices.Clone(w.live) {
		w.end(p, stopped, nil)
	}
	w.bury()
}

// awaitEnd waits for processes that were told to stop, and complains about those that take too long.
func (w *World) awaitEnd(list []*process) {
	allOver := func() bool { return !slices.ContainsFunc(list, func(p *process) bool { return !p.over }) }
	if allOver() || w.runUntil(w.now.Add(stopBound), allOver) {
		return
	}
	for _, p := range list {
		if !p.over {
			w.history.complain(checkLiveness, w.now, "%v is not over %v after it was told to stop", p.record, stopBound)
		}
	}
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// stackLines returns the frames of a stack that lie in this module, nearest first.
func stackLines(stack []byte) []string {
	var lines []string
	for _, l := range strings.Split(string(stack), "\n") {
		if strings.Contains(l, "khamsin") && strings.HasPrefix(l, "\t") && len(lines) < 12 {
			l, _, _ = strings.Cut(strings.TrimSpace(l), " +0x")
			if i := strings.Index(l, "/vsync/"); i >= 0 {
				l = l[i+1:]
			}
			lines = append(lines, l)
		}
	}
	return lines
}
