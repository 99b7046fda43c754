package sim

import (
	"slices"
	"time"

	"github.com/khamsin-io/khamsin/dataplane/clock"
	"github.com/khamsin-io/khamsin/vsync/internal/engine"
)

// faultKind says what goes wrong, or changes.
type faultKind uint8

// The kinds of faults.
const (
	faultCrash faultKind = iota
	faultCrashPair
	faultJoin
	faultStorm
	faultLeave
	faultRejoin
	faultRestart
	faultPartition
	faultUnpartition
	faultOneWay
	faultPause
	faultStall
	faultAccuse
	faultTerminate
	faultDeaf
	faultMute
	faultLine
)

// String returns the word that stands in traces.
func (k faultKind) String() string {
	return [...]string{"crash", "crash pair", "join", "storm", "leave", "rejoin", "restart", "partition", "unpartition",
		"one-way", "pause", "stall", "accuse", "terminate", "deaf", "mute", "line"}[k]
}

// fault is one entry of a run's plan. Whom it hits is drawn when it happens, among those who are there.
type fault struct {
	at   clock.Time
	kind faultKind
	last time.Duration
	size int
}

// drawPlan spreads the weather's events over the time of the faults.
func (w *World) drawPlan(r random, start clock.Time) {
	end := w.opts.Faults
	add := func(count int, kind faultKind, last time.Duration) {
		for range count {
			f := fault{at: start.Add(r.upTo(end)), kind: kind, last: r.upTo(last)}
			w.plan = append(w.plan, f)
		}
	}
	wx := &w.weather
	add(wx.Crashes, faultCrash, 0)
	add(wx.CrashPairs, faultCrashPair, 0)
	add(wx.Joins, faultJoin, 0)
	add(wx.Leaves, faultLeave, 0)
	add(wx.Leaves/2, faultRejoin, 0)
	add(wx.Restarts, faultRestart, 0)
	add(wx.Partitions, faultPartition, wx.PartitionMax)
	add(wx.OneWays, faultOneWay, wx.OneWayMax)
	add(wx.Pauses, faultPause, wx.PauseMax)
	add(wx.Stalls, faultStall, wx.StallMax)
	add(wx.Accusations, faultAccuse, 0)
	add(wx.Terminates, faultTerminate, 0)
	add(wx.Deaf, faultDeaf, wx.DeafMax)
	add(wx.Mute, faultMute, wx.DeafMax)
	lines := newRandom(w.opts.Seed, drawLines+1<<8)
	for range wx.LineBreaks {
		w.plan = append(w.plan, fault{at: start.Add(lines.upTo(end)), kind: faultLine})
	}
	if wx.LongCut {
		w.plan = append(w.plan, fault{at: start.Add(r.upTo(end / 10)), kind: faultPartition, last: end})
	}
	if wx.Storm > 0 {
		w.plan = append(w.plan, fault{at: start.Add(r.upTo(end)), kind: faultStorm, size: wx.Storm})
	}
	for i := range w.plan {
		w.agenda.add(event{at: w.plan[i].at, kind: eventFault, arg: i})
	}
}

// onFault lets one entry of the plan happen.
func (w *World) onFault(f *fault) {
	if w.healed {
		return
	}
	w.trace.printf(w.now, "-", "fault: %v for %v", f.kind, f.last)
	switch f.kind {
	case faultCrash:
		w.crash(w.victim())
	case faultCrashPair:
		w.crash(w.victim())
		w.crash(w.victim())
	case faultJoin:
		w.onLaunch(w.addNode(), w.drawMask())
	case faultStorm:
		for range f.size {
			n := w.addNode()
			at := w.now.Add(w.nodeDraw.upTo(time.Millisecond))
			w.agenda.add(event{at: at, kind: eventLaunch, node: n, arg: w.drawMask()})
		}
	case faultLeave:
		w.onMember(func(m *member) { m.leave() })
	case faultRejoin:
		w.rejoin()
	case faultRestart:
		w.restart()
	case faultPartition:
		w.partition(f.last)
	case faultUnpartition:
		w.net.side = nil
	case faultOneWay:
		w.oneWay(f.last)
	case faultPause:
		w.pauseNode(w.victim(), f.last)
	case faultStall:
		w.onMember(func(m *member) { m.stalled = w.now.Add(f.last) })
	case faultAccuse:
		w.accuse()
	case faultTerminate:
		w.onMember(func(m *member) { m.terminate() })
	case faultDeaf:
		w.deafen(w.victim(), f.last)
	case faultMute:
		w.silence(w.victim(), f.last)
	case faultLine:
		w.breakLine()
	}
}

// drawMask draws the groups that a new process joins: mostly all.
func (w *World) drawMask() int {
	all := 1<<len(w.history.groups) - 1
	if w.nodeDraw.chance(0.7) {
		return all
	}
	return 1 + w.nodeDraw.IntN(all)
}

// drawMode draws whether a join wants to create the group.
func (w *World) drawMode() engine.JoinMode {
	if w.nodeDraw.chance(w.weather.CreateOnly) {
		return engine.CreateOnly
	}
	return engine.JoinOrCreate
}

// mayFail tells whether the weather may hit a process.
func (w *World) mayFail(p *process) bool { return p.node.number != 1 || w.weather.OracleCrash }

// victim draws a process that may fail: in half of the cases one that is the oldest such member of a group, since that
// one has duties. Nil when there is none.
func (w *World) victim() *process {
	var all []*process
	for _, p := range w.live {
		if w.mayFail(p) && p.cutAfter < 0 {
			all = append(all, p)
		}
	}
	if len(all) == 0 {
		return nil
	}
	pick := all[w.nodeDraw.IntN(len(all))]
	if w.nodeDraw.chance(0.5) {
		return pick
	}
	for _, m := range pick.members {
		if m.view == nil || m.over {
			continue
		}
		for _, a := range m.view.Members {
			if i := slices.IndexFunc(all, func(p *process) bool { return p.addr == a }); i >= 0 {
				return all[i]
			}
		}
	}
	return pick
}

// crash stops a process: at once, or in the middle of carrying out one of its next outputs. In some cases its machine
// loses the packets that it sends last, while its application still sees what they are about.
func (w *World) crash(p *process) {
	if p == nil || p.over {
		return
	}
	w.stats.Crashes++
	p.record.disturb = true
	switch w.nodeDraw.IntN(4) {
	case 0:
		p.cutAfter, p.mute = 1+w.nodeDraw.IntN(60), true
	case 1:
		p.cutAfter = 1 + w.nodeDraw.IntN(8)
	default:
		w.end(p, crashed, nil)
	}
}

// onMember lets f happen to a member that is there, drawn among all. The founder of the system stays in its groups.
func (w *World) onMember(f func(m *member)) {
	var all []*member
	for _, p := range w.live {
		for _, m := range p.members {
			if m.started && !m.over && !m.leaving && p.node.pausedUntil <= w.now && p.cutAfter < 0 {
				all = append(all, m)
			}
		}
	}
	if len(all) == 0 {
		return
	}
	m := all[w.nodeDraw.IntN(len(all))]
	f(m)
	w.settle(m.p)
}

// rejoin lets a process that left a group join it again.
func (w *World) rejoin() {
	for _, p := range w.live {
		for _, m := range p.members {
			over := m.over && (m.life.fate == left || m.life.fate == ended)
			if over && p.node.pausedUntil <= w.now && !p.isIn(m.life.group) {
				p.joinAs(m.life.group, w.drawMode())
				w.settle(p)
				return
			}
		}
	}
}

// isIn tells whether the process is, or becomes, a member of a group.
func (p *process) isIn(group int) bool {
	return slices.ContainsFunc(p.members, func(m *member) bool { return m.life.group == group && !m.over })
}

// restart starts a new process on a node whose former one is over.
func (w *World) restart() {
	for _, n := range w.nodes {
		if n.proc == nil && n.runs > 0 && (n.number != 1 || w.weather.OracleCrash) {
			w.onLaunch(n, w.drawMask())
			return
		}
	}
}

// partition splits the nodes in two, with the founder of the system on the first side unless it may be cut off too.
func (w *World) partition(last time.Duration) {
	side := make([]bool, len(w.nodes)+1)
	for i := 1; i < len(side); i++ {
		side[i] = w.nodeDraw.chance(0.4) && (i != 1 || w.weather.OracleCrash)
	}
	w.net.side = side
	for _, p := range w.live {
		p.record.disturb = true
	}
	w.trace.printf(w.now, "-", "partition: %v for %v", side[1:], last)
	w.plan = append(w.plan, fault{kind: faultUnpartition})
	w.agenda.add(event{at: w.now.Add(last), kind: eventFault, arg: len(w.plan) - 1})
}

// oneWay makes a link lose everything in one direction.
func (w *World) oneWay(last time.Duration) {
	if len(w.live) < 2 {
		return
	}
	from := w.live[w.nodeDraw.IntN(len(w.live))]
	to := w.live[w.nodeDraw.IntN(len(w.live))]
	w.net.link(from.node, to.node).deafUntil = w.now.Add(last)
	from.record.disturb, to.record.disturb = true, true
	w.trace.printf(w.now, "-", "nothing gets from %s to %s for %v", from.name(), to.name(), last)
}

// deafen makes a node lose every multicast that is sent to it.
func (w *World) deafen(p *process, last time.Duration) {
	if p != nil {
		p.record.disturb = true
		p.node.deafUntil = max(p.node.deafUntil, w.now.Add(last))
		w.trace.printf(w.now, p.name(), "receives no multicast for %v", last)
	}
}

// silence makes every multicast of a node get nowhere.
func (w *World) silence(p *process, last time.Duration) {
	if p != nil {
		p.record.disturb = true
		p.node.muteUntil = max(p.node.muteUntil, w.now.Add(last))
		w.trace.printf(w.now, p.name(), "multicasts get nowhere for %v", last)
	}
}

// pauseNode makes a process stand still.
func (w *World) pauseNode(p *process, last time.Duration) {
	if p == nil {
		return
	}
	p.record.disturb = true
	p.node.pausedUntil = max(p.node.pausedUntil, w.now.Add(last))
	w.trace.printf(w.now, p.name(), "stands still for %v", last)
	w.agenda.add(event{at: p.node.pausedUntil, kind: eventWake, node: p.node})
}

// accuse lets a member report another one as failed.
func (w *World) accuse() {
	w.onMember(func(m *member) {
		if m.view == nil || m.view.Size() < 2 {
			return
		}
		who := m.view.Members[w.nodeDraw.IntN(m.view.Size())]
		if who == m.p.addr || nodeOf(who) == 1 && !w.weather.OracleCrash {
			return
		}
		err := m.p.engine.Report(m.p.now(), m.handle, who, "accused by the simulator")
		w.trace.printf(w.now, m.p.name(), "reports %s as failed: %v", w.addressName(who), err)
		if r := w.recordOf(who); r != nil && err == nil {
			r.disturb = true
		}
	})
}
