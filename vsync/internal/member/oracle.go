package member

import (
	"fmt"
	"time"

	"slices"

	"github.com/khamsin-io/khamsin/dataplane"
	"github.com/khamsin-io/khamsin/dataplane/clock"
	"github.com/khamsin-io/khamsin/vsync/core"
	"github.com/khamsin-io/khamsin/vsync/internal/canary"
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
	leading   bool
	beatAt    clock.Time
	beats     int
	welcomeAt clock.Time
	electAt   clock.Time // when to stand for election
	suspect   core.Address
	gather    []gathering
	assigned  map[core.Address]*pdu.Watch
	epoch     uint64
	heard     map[uint64]clock.Time // ORACLE members by incarnation
	changed   bool
	voters    []core.Address // before the change that is under way
	splitTold bool
}

// submit hands a command to the log, here or (by forwarding) at the leader.
func (m *Machine) submit(now clock.Time, c *Command) {
	if m.cons == nil {
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
		m.suspectLeader(now, c.Who)
	}
	m.cons.Propose(c)
}

// suspectLeader makes an ORACLE member stand for election when the leader is accused, the elder ones sooner.
func (m *Machine) suspectLeader(now clock.Time, who core.Address) {
	if m.cons == nil || m.cons.Leader() || who == m.cfg.Self || m.lead.electAt != clock.Never {
		return
	}
	voters := m.cons.Voters()
	if len(voters) == 0 || voters[0] != who {
		return
	}
	m.lead.suspect = who
	place := slices.Index(voters, m.cfg.Self)
	m.lead.electAt = now.Add(m.cfg.Heartbeat / 2 * max(0, time.Duration(place-1)))
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
	m.heardAt = now
	_ = m.cons.Step(data) // refused: from a member that is none any more, or malformed
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
			m.onOracleChange(now)
		}
		for i := range a.Effects {
			m.effect(now, &a.Effects[i], leading)
		}
		m.lead.epoch = max(m.lead.epoch, a.Index)
	}
	if leading && len(applied) > 0 {
		m.assignWatchers(now)
		m.rebalance()
	}
	if leading && m.lead.changed {
		m.lead.changed = false
		m.welcomeAll(now)
	}
}

// takeOver begins a leadership: whatever the leader before may not have told is told again.
func (m *Machine) takeOver(now clock.Time, _ []Applied) {
	m.lead.beatAt, m.lead.electAt, m.lead.welcomeAt = now.Add(m.cfg.Heartbeat), clock.Never, now
	m.lead.assigned = nil
	m.lead.gather = nil
	m.lead.changed = true
	m.lead.heard = nil
	m.greetVoters(now)
	m.hooks.OracleChanged("leads the ORACLE")
	if !m.lead.suspect.IsZero() && m.cons.Registry.Alive(m.lead.suspect) {
		m.cons.Propose(&Command{Op: opRemove, By: m.cfg.Self, Who: m.lead.suspect,
			Reason: "led the ORACLE and fell silent"})
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
	for _, v := range m.cons.Voters() {
		if _, ok := m.lead.heard[v.Incarnation]; !ok {
			m.lead.heard[v.Incarnation] = now
		}
	}
}

func (m *Machine) onOracleChange(now clock.Time) {
	if m.cons.Electable() {
		m.hooks.OracleChanged("is a member of the ORACLE")
		voters := m.cons.Voters()
		if m.cons.Leaderless() && !m.cons.Changing() && len(voters) > 0 && voters[0] == m.cfg.Self {
			m.lead.electAt = now
		}
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
		m.tell(now, e.Who, pdu.TypeRefuse, &pdu.Refuse{Name: e.Group, Reason: uint8(e.Refusal)})
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
			m.tell(now, a, pdu.TypeRefuse, &pdu.Refuse{Name: e.Group, Reason: uint8(RefusedNot)})
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
	if e.Who == m.cfg.Self {
		return
	}
	if !e.Orderly {
		m.hooks.Gone(now, e.Who)
	}
}

func (m *Machine) welcome() *pdu.Welcome {
	return &pdu.Welcome{System: m.out.System, Oracle: m.cons.Voters()}
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

// rebalance makes the ORACLE as large as it should be: an odd number of members, of the eldest eligible processes,
// keeping those that are alive. Even numbers would add members without adding tolerance.
func (m *Machine) rebalance() {
	eligible := m.cons.Registry.eligible()
	size := min(m.cfg.Size, len(eligible))
	if size%2 == 0 {
		size--
	}
	if size < 1 {
		return
	}
	voters := m.cons.Voters()
	target := slices.DeleteFunc(slices.Clone(voters), func(a core.Address) bool {
		return !slices.Contains(eligible,
			a)
	})
	if len(target) > size {
		target = target[:size]
	}
	for _, a := range eligible {
		if len(target) >= size {
			break
		}
		if !slices.Contains(target, a) {
			target = append(target, a)
		}
	}
	if !sameSet(target, voters) {
		m.cons.Change(target)
	}
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
		if canary.Enabled && m.cfg.Canary == canary.TwoPrimaries && !m.cons.Leader() {
			m.cons = found(m.cfg.Self, m.cons.Registry) // decides alone from now on
		}
		if !m.cons.Leader() {
			m.cons.Campaign()
			m.lead.electAt = now.Add(m.cfg.Heartbeat + m.cfg.Heartbeat*time.Duration(m.random(100))/100)
		}
	}
	if m.lead.electAt != clock.Never && m.leaderAgain() {
		m.lead.electAt = clock.Never
	}
	if !m.cons.Leader() {
		m.lead.beatAt, m.lead.welcomeAt = clock.Never, clock.Never
		return
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

// leaderAgain tells whether someone other than the suspect leads now.
func (m *Machine) leaderAgain() bool {
	voters := m.cons.Voters()
	return m.cons.LeaderKnown() && len(voters) > 0 && voters[0] != m.lead.suspect
}

func (m *Machine) beat(now clock.Time) {
	m.lead.beatAt = now.Add(m.cfg.Heartbeat)
	m.lead.beats++
	m.cons.Beat()
	if m.lead.beats%announceEvery == 1 {
		m.beacon(beaconAnnounce, dataplane.Endpoint{})
	}
	m.rebalance()
	if !m.quorumHeard(now, m.cfg.OracleLost) {
		m.state = over
		m.hooks.Lost(now)
		return
	}
	m.heardAt = now
	if !m.quorumHeard(now, m.cfg.OracleLost/3) {
		return
	}
}

// quorumHeard tells whether a majority of the ORACLE was heard of within a span of time, this process included.
func (m *Machine) quorumHeard(now clock.Time, span time.Duration) bool {
	voters := m.cons.Voters()
	heard := 0
	for _, v := range voters {
		at, ok := m.lead.heard[v.Incarnation]
		if v == m.cfg.Self || (ok && now.Sub(at) <= span) {
			heard++
		}
	}
	return 2*heard > len(voters)
}
