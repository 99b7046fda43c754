package member

import (
	"fmt"
	"time"

	"slices"

	"github.com/khamsin-io/khamsin/dataplane"
	"github.com/khamsin-io/khamsin/dataplane/clock"
	"github.com/khamsin-io/khamsin/vsync/core"
	"github.com/khamsin-io/khamsin/vsync/internal/pdu"
)

// watchersEach is how many processes watch each process.
const watchersEach = 2

type gathering struct {
	group string
	at    clock.Time
}

// leadership is what an ORACLE member keeps beside the replicated state.
type leadership struct {
	leading    bool
	beatAt     clock.Time
	beats      int
	welcomeAt  clock.Time
	electAt    clock.Time   // when to stand for election
	heardAt    clock.Time   // a follower: when the leader was last heard of
	suspect    core.Address // a leader that was accused
	charge     Command      // by whom, and why
	gather     []gathering
	assigned   map[core.Address]*pdu.Watch
	epoch      uint64
	heard      map[uint64]clock.Time // ORACLE members by incarnation
	changed    bool
	voters     []core.Address // before the change that is under way
	splitTold  bool
	splitHeard int          // announcements of another system
	transfer   core.Address // who was asked to lead instead
	recallAt   clock.Time   // when that is called off
}

// idle returns the leadership of a process that is no ORACLE member.
func idle() leadership {
	never := clock.Never
	return leadership{beatAt: never, electAt: never, welcomeAt: never, recallAt: never}
}

// submit hands a command to the log, here or (by forwarding) at the leader.
func (m *Machine) submit(now clock.Time, c *Command) {
	if m.cons == nil {
		return
	}
	if c.Op == opRemove && !c.Orderly && c.Number == 0 {
		if m.cons.Registry.Alive(c.By) { // a hint: the request itself is on its way to one of the ORACLE
			m.suspectLeader(now, c)
		}
		return
	}
	if c.Op == opRemove && !c.Orderly {
		if c.Who == m.cfg.Self && len(m.cons.Voters()) == 1 {
			// The whole ORACLE would be gone, and whoever hears the accusation is alive.
			m.hooks.Warn(fmt.Sprintf("%v accuses this process, the only member of the ORACLE: %s; ignored", c.By,
				c.Reason))
			m.tell(now, c.By, pdu.TypeDone, &pdu.Done{Number: c.Number})
			return
		}
		m.suspectLeader(now, c)
	}
	m.cons.Propose(c)
}

func (m *Machine) onConsensus(now clock.Time, from uint64, data []byte) {
	if m.cons == nil {
		if m.state != active {
			return
		}
		m.cons = follow(m.cfg.Self)
		m.lead.beatAt = clock.Never
	}
	if m.lead.heard == nil {
		m.lead.heard = map[uint64]clock.Time{}
	}
	m.lead.heard[from] = now
	// Refused: not wanted, from a member that is none any more, or malformed.
	led, err := m.cons.Step(from, data, m.loyal(now))
	if err == nil && m.cons.Leader() && len(m.cons.Learners()) > 0 {
		m.rebalance(now) // a learner may have caught up
	}
	if err != nil || !led {
		return
	}
	m.lead.heardAt = now
	if m.lead.suspect.Incarnation != from {
		m.lead.suspect = core.NoAddress
		m.awaitLeader(now)
	}
}

// drain applies what was committed and, on the leader, tells it.
func (m *Machine) drain(now clock.Time) {
	if m.cons == nil {
		return
	}
	applied := m.cons.Drain()
	for _, o := range m.cons.Outgoing {
		to := m.cons.address(o.To)
		if i := slices.IndexFunc(m.oracle,
			func(a core.Address) bool { return a.Incarnation == o.To }); to.IsZero() && i >= 0 {
			to = m.oracle[i] // a replica that has not got its first snapshot yet
		}
		if to.IsZero() {
			continue
		}
		m.lane.Send(now, to, append([]byte{byte(pdu.TypeConsensus)}, o.Data...))
	}
	m.cons.Outgoing = m.cons.Outgoing[:0]
	leading := m.cons.Leader()
	if leading && !m.lead.leading {
		m.takeOver(now, applied)
	}
	m.lead.leading = leading
	for _, a := range applied {
		if a.Conf {
			m.lead.changed = true
			m.greetVoters(now)
			m.dismiss(now, leading)
			m.onOracleChange(now, leading)
		}
		for i := range a.Effects {
			m.effect(now, &a.Effects[i], leading)
		}
		m.lead.epoch = max(m.lead.epoch, m.cons.Registry.base+a.Index)
	}
	if leading && len(applied) > 0 {
		m.complete(now)
		m.assignWatchers(now)
		m.rebalance(now)
	}
	if leading && m.lead.changed {
		m.lead.changed = false
		m.welcomeAll(now)
	}
}

// takeOver begins a leadership: whatever the leader before may not have told is told again.
func (m *Machine) takeOver(now clock.Time, _ []Applied) {
	m.lead.beatAt, m.lead.electAt, m.lead.welcomeAt = now.Add(m.cfg.Heartbeat), clock.Never, now
	m.lead.transfer, m.lead.recallAt = core.NoAddress, clock.Never
	m.lead.assigned = nil
	m.lead.gather = nil
	m.lead.changed = true
	m.lead.heard = nil
	m.greetVoters(now)
	m.hooks.OracleChanged("leads the ORACLE")
	if !m.lead.suspect.IsZero() && m.cons.Registry.Alive(m.lead.suspect) {
		m.cons.Propose(&Command{Op: opRemove, By: m.cfg.Self, Who: m.lead.suspect,
			Reason: fmt.Sprintf("%s (says %v, of the ORACLE's leader)", m.lead.charge.Reason, m.lead.charge.By)})
	}
	m.lead.suspect = core.NoAddress
	for _, e := range m.cons.Registry.Outstanding() {
		m.effect(now, &e, true)
		if e.Kind == EffectDecided {
			m.tellLeft(now, e.Decision)
		}
	}
}

// dismiss tells those who are no ORACLE members any more, once the change is complete, that their votes are not needed.
func (m *Machine) dismiss(now clock.Time, leading bool) {
	if m.cons.Changing() {
		return
	}
	voters := m.cons.Voters()
	for _, v := range m.lead.voters {
		if leading && v != m.cfg.Self && !slices.Contains(voters, v) {
			m.tell(now, v, pdu.TypeWelcome, m.welcome())
		}
	}
	m.lead.voters = voters
}

// greetVoters gives new ORACLE members time to be heard of.
func (m *Machine) greetVoters(now clock.Time) {
	if m.lead.heard == nil {
		m.lead.heard = map[uint64]clock.Time{}
	}
	for _, set := range m.cons.Quorums() {
		for _, id := range set {
			if _, ok := m.lead.heard[id]; !ok {
				m.lead.heard[id] = now
			}
		}
	}
}

func (m *Machine) onOracleChange(now clock.Time, leading bool) {
	if !m.cons.Electable() {
		m.lead.electAt = clock.Never
		return
	}
	m.hooks.OracleChanged("is a member of the ORACLE")
	if !leading && m.lead.electAt == clock.Never {
		m.lead.heardAt = now
		m.awaitLeader(now)
	}
}

// effect does on the leader what an applied command asks for; other replicas only forget processes that are gone.
func (m *Machine) effect(now clock.Time, e *Effect, leading bool) {
	if e.Kind == EffectRemoved {
		m.forget(now, e)
	}
	if !leading {
		return
	}
	switch e.Kind {
	case EffectAdded:
		m.tell(now, e.Who, pdu.TypeWelcome, m.welcome())
	case EffectRefused:
		m.tell(now, e.Who, pdu.TypeRefuse, &pdu.Refuse{
			Name: e.Group, Reason: uint8(e.Refusal), Number: e.Number, Handlers: e.Handlers,
		})
	case EffectPropose:
		m.tell(now, e.Propose.Coordinator, pdu.TypePropose, e.Propose)
	case EffectDecided:
		if !e.Who.IsZero() { // the coordinator passes it on; those who left might be forgotten if it failed now
			m.tell(now, e.Who, pdu.TypeDecide, e.Decision)
			m.tellLeft(now, e.Decision)
			return
		}
		for _, a := range e.Members {
			m.tell(now, a, pdu.TypeDecide, e.Decision)
		}
	case EffectEnded:
		for _, a := range e.Members {
			m.tell(now, a, pdu.TypeRefuse, &pdu.Refuse{Name: e.Group, Reason: uint8(RefusedNot), Number: e.Number})
		}
	case EffectGather:
		m.lead.gather = append(m.lead.gather, gathering{e.Group, now.Add(m.cfg.Gather)})
	case EffectDone:
		m.tell(now, e.Who, pdu.TypeDone, &pdu.Done{Number: e.Number})
	}
}

// tellLeft tells the live processes that a view leaves out.
func (m *Machine) tellLeft(now clock.Time, d *pdu.Decision) {
	for _, a := range d.View.Left {
		if m.cons.Registry.Alive(a) {
			m.tell(now, a, pdu.TypeDecide, d)
		}
	}
}

func (m *Machine) forget(now clock.Time, e *Effect) {
	switch {
	case e.Orderly:
	case e.Who == m.cfg.Self:
		m.removedBy = e
	default:
		m.hooks.Gone(now, e.Who, pdu.Charge{By: e.By, Reason: e.Reason})
	}
}

func (m *Machine) welcome() *pdu.Welcome {
	return &pdu.Welcome{System: m.out.System, Part: m.cons.Registry.part, Oracle: m.cons.Voters()}
}

func (m *Machine) welcomeAll(now clock.Time) {
	m.lead.welcomeAt = now.Add(m.cfg.OracleLost / 6)
	for i := range m.cons.Registry.procs {
		m.tell(now, m.cons.Registry.procs[i].addr, pdu.TypeWelcome, m.welcome())
	}
}

// assignWatchers lays the processes in a ring in the order they came: each is watched by those that follow it. Only
// changed assignments are sent.
func (m *Machine) assignWatchers(now clock.Time) {
	procs := m.cons.Registry.procs
	n := len(procs)
	k := min(watchersEach, n-1)
	next := make(map[core.Address]*pdu.Watch, n)
	for i := range procs {
		w := &pdu.Watch{}
		for d := 1; d <= k; d++ {
			w.Watchers = append(w.Watchers, procs[(i+d)%n].addr)
			w.Targets = append(w.Targets, procs[(i-d+n)%n].addr)
		}
		next[procs[i].addr] = w
	}
	for i := range procs {
		a := procs[i].addr
		w, old := next[a], m.lead.assigned[a]
		if old == nil || !slices.Equal(old.Watchers, w.Watchers) || !slices.Equal(old.Targets, w.Targets) {
			w.Epoch = m.lead.epoch + 1
			m.tell(now, a, pdu.TypeWatch, w)
		}
	}
	m.lead.assigned = next
}

// rebalance makes the ORACLE as large as it should be, one step at a time. Newcomers first follow the log without a
// vote, so that one who dies while it is let in costs nothing. A leader that is to go lets another one in, hands the
// lead over, and is taken out by it.
func (m *Machine) rebalance(now clock.Time) {
	c := m.cons
	target := m.target()
	if len(target) == 0 || c.Changing() {
		return
	}
	stays := slices.Contains(target, m.cfg.Self)
	if !stays {
		target = append(target, m.cfg.Self)
	}
	if !m.teach(target) {
		return
	}
	switch {
	case !sameSet(target, c.Voters()):
		for _, a := range target {
			if !c.Voter(a) && (!c.CaughtUp(a.Incarnation) || now.Sub(m.lead.heard[a.Incarnation]) > 2*m.cfg.Heartbeat) {
				return
			}
		}
		c.Change(target)
	case !stays && m.lead.transfer.IsZero():
		next := slices.IndexFunc(target, func(a core.Address) bool {
			return a != m.cfg.Self && c.CaughtUp(a.Incarnation)
		})
		if next >= 0 {
			m.lead.transfer, m.lead.recallAt = target[next], now.Add(m.cfg.Suspect)
			c.Transfer(m.lead.transfer)
		}
	}
}

// target returns who should be the ORACLE: an odd number of members, keeping those that are alive, and then the eldest
// eligible processes. Even numbers would add members without adding tolerance.
func (m *Machine) target() []core.Address {
	eligible := m.cons.Registry.eligible()
	size := min(m.cfg.Size, len(eligible))
	if size%2 == 0 {
		size--
	}
	if size < 1 {
		return nil
	}
	target := slices.DeleteFunc(m.cons.Voters(), func(a core.Address) bool { return !slices.Contains(eligible, a) })
	target = target[:min(size, len(target))]
	for _, a := range eligible {
		if len(target) < size && !slices.Contains(target, a) {
			target = append(target, a)
		}
	}
	return target
}

// teach makes those who shall become voters learners, and nobody else, and tells whether that is so already.
func (m *Machine) teach(target []core.Address) bool {
	learners := m.cons.Learners()
	var add, remove []uint64
	for _, a := range target {
		if !m.cons.Voter(a) && !slices.Contains(learners, a.Incarnation) {
			add = append(add, a.Incarnation)
		}
	}
	for _, id := range learners {
		if !slices.ContainsFunc(target, func(a core.Address) bool { return a.Incarnation == id }) {
			remove = append(remove, id)
		}
	}
	if len(add)+len(remove) > 0 {
		m.cons.Teach(add, remove)
		return false
	}
	return true
}

func sameSet(a, b []core.Address) bool {
	if len(a) != len(b) {
		return false
	}
	for _, x := range a {
		if !slices.Contains(b, x) {
			return false
		}
	}
	return true
}

// tickOracle does what is due at an ORACLE member.
func (m *Machine) tickOracle(now clock.Time) {
	if m.cons == nil {
		return
	}
	if m.lead.electAt <= now {
		m.lead.electAt = clock.Never
		m.stand(now)
	}
	if !m.cons.Leader() {
		m.lead.beatAt, m.lead.welcomeAt, m.lead.recallAt = clock.Never, clock.Never, clock.Never
		m.lead.gather = nil // the next leader finds out for itself
		return
	}
	if m.lead.recallAt <= now {
		m.lead.transfer, m.lead.recallAt = core.NoAddress, clock.Never
		m.cons.Transfer(m.cfg.Self)
	}
	if m.lead.beatAt <= now {
		m.beat(now)
	}
	if m.lead.welcomeAt <= now && m.quorumHeard(now, m.cfg.OracleLost/3) {
		m.welcomeAll(now)
	} else if m.lead.welcomeAt <= now {
		m.lead.welcomeAt = now.Add(m.cfg.Heartbeat)
	}
	keep := m.lead.gather[:0]
	for _, g := range m.lead.gather {
		if g.at <= now {
			m.cons.Propose(&Command{Op: opGather, By: m.cfg.Self, Group: g.group})
		} else {
			keep = append(keep, g)
		}
	}
	m.lead.gather = keep
}

func (m *Machine) beat(now clock.Time) {
	m.lead.beatAt = now.Add(m.cfg.Heartbeat)
	m.lead.beats++
	m.cons.Beat()
	if m.lead.beats%announceEvery == 1 {
		m.beacon(now, beaconAnnounce, dataplane.Endpoint{})
	}
	m.rebalance(now)
	if !m.quorumHeard(now, m.cfg.OracleLost) {
		m.lost(now)
		return
	}
	if m.quorumHeard(now, m.cfg.OracleLost/3) {
		m.heardAt = now
	}
}

// quorumHeard tells whether every majority that is needed was heard of within a span of time, this process included.
func (m *Machine) quorumHeard(now clock.Time, span time.Duration) bool {
	for _, voters := range m.cons.Quorums() {
		heard := 0
		for _, v := range voters {
			at, ok := m.lead.heard[v]
			if v == m.cfg.Self.Incarnation || (ok && now.Sub(at) <= span) {
				heard++
			}
		}
		if 2*heard <= len(voters) {
			return false
		}
	}
	return true
}
