// Package member is a process's part in the membership service: finding the system or founding it, asking the ORACLE
// for what it decides, and being one of the ORACLE's members.
//
// The ORACLE is up to Config.Size processes that replicate one Registry by consensus; its leader tells the others what
// was decided. A process has at most one request outstanding and repeats it, to one ORACLE member after another, until
// it is told Done; requests are numbered, so that repeating one does nothing twice. Guarded by the simulator's
// checkers single-primary and liveness.
//
// Everything belongs to the engine's goroutine.
package member

import (
	"fmt"
	"slices"
	"time"

	"github.com/khamsin-io/khamsin/dataplane"
	"github.com/khamsin-io/khamsin/dataplane/clock"
	"github.com/khamsin-io/khamsin/vsync/core"
	"github.com/khamsin-io/khamsin/vsync/internal/canary"
	"github.com/khamsin-io/khamsin/vsync/internal/pdu"
)

// Config describes the process and the pace.
type Config struct {
	Self      core.Address
	System    string // name; beacons of other names are ignored
	Size      int    // ORACLE members when complete
	Eligible  bool
	Hosts     []string // with any: a majority of them is needed to found a system, unless FastStart
	Host      string   // the one that this process is on; empty: none of them
	FastStart bool
	IgnoreCut bool // go on without a majority of the ORACLE
	Canary    canary.Bug
	Seed      uint64
	Channel   dataplane.Channel // of beacons
	Low       uint32            // first channel for groups
	Count     uint32            // channels for groups

	Discovery, Beacon, Gather, Request, Heartbeat, Suspect, OracleLost time.Duration
}

// Lane carries control messages to other processes: in order, without loss or duplicate, until one of the two is
// removed.
type Lane interface {
	Send(now clock.Time, to core.Address, msg []byte)
	Idle() bool // everything sent was acknowledged
}

// Hooks is what the machine tells the engine.
type Hooks interface {
	Attached(now clock.Time, system uint32)
	Proposed(now clock.Time, p *pdu.Propose)
	Decided(now clock.Time, d *pdu.Decision)
	// handlers is what the members have, when why is RefusedSignature
	Refused(now clock.Time, handle uint32, why Refusal, handlers string)
	Moved(now clock.Time) // other processes are the ORACLE, or another one leads it
	Watch(now clock.Time, w *pdu.Watch)
	Gone(now clock.Time, a core.Address, why pdu.Charge)
	OracleChanged(text string)
	Warn(text string)
	Lost(now clock.Time) // the ORACLE cannot be reached any more, or none was found
	// the ORACLE removed this process as failed
	Removed(now clock.Time, by core.Address, reason string)
	Stopped(now clock.Time) // the orderly departure is complete
}

type state uint8

const (
	seeking state = iota
	attaching
	active
	leaving
	over
)

// Machine is one process's part in the membership service.
type Machine struct {
	cfg   Config
	out   *pdu.Outbox
	lane  Lane
	hooks Hooks
	rng   uint64

	state    state
	showAt   clock.Time // see Show
	beaconAt clock.Time
	polls    election
	sought   int        // beacons sent since the search began
	foundAt  clock.Time // when to found a system, unless one is found
	giveUpAt clock.Time // when to go back from attaching to seeking
	seekAt   clock.Time // since when it seeks

	suited  uint32         // the system that this process asked last to be taken in
	asked   []core.Address // and whom of it
	part    uint32         // of a divided system
	oracle  []core.Address // as last told, leader first
	heardAt clock.Time     // when the ORACLE was last heard of
	pending []Command      // requests; the first is outstanding
	number  uint64
	retryAt clock.Time
	turn    int // which ORACLE member is asked
	accused []core.Address

	cons      *Consensus
	lead      leadership
	removedBy *Effect        // this process was removed as failed
	local     []localMessage // messages to this process itself
	lingerAt  clock.Time     // when a process that was taken out in order may go
	dismissed bool           // the ORACLE can do without this process
	lingered  int            // how often it waited for last acknowledgements
	departBy  clock.Time     // when it goes in any case
}

// lingerMax is how often a departing ORACLE member waits another eighth of a request interval for last
// acknowledgements.
const lingerMax = 8

// departFactor bounds an orderly departure, in request intervals.
const departFactor = 10

type localMessage struct {
	t pdu.Type
	m pdu.Message
}

// New returns a machine that is not yet started.
func New(cfg Config, out *pdu.Outbox, lane Lane, hooks Hooks) *Machine {
	never := clock.Never
	m := &Machine{cfg: cfg, out: out, lane: lane, hooks: hooks, rng: cfg.Seed | 1, state: seeking}
	m.number = 1 // the request to be taken in
	m.beaconAt, m.foundAt, m.giveUpAt, m.retryAt = never, never, never, never
	m.lingerAt, m.departBy = never, never
	m.lead = idle()
	return m
}

// Start begins to look for a system, or founds one at once when so configured.
func (m *Machine) Start(now clock.Time) {
	if m.cfg.FastStart {
		m.found(now)
		return
	}
	m.seek(now)
}

func (m *Machine) random(n int) int {
	m.rng ^= m.rng << 13
	m.rng ^= m.rng >> 7
	m.rng ^= m.rng << 17
	return int(m.rng % uint64(n))
}

// Active tells whether the process is part of a system.
func (m *Machine) Active() bool { return m.state == active || m.state == leaving }

// Oracle returns the ORACLE's members as last told, leader first.
func (m *Machine) Oracle() []core.Address { return m.oracle }

// Processes returns the system's processes, oldest first, as a member of the ORACLE knows them; nil elsewhere.
func (m *Machine) Processes() []core.Address {
	if m.cons == nil || !m.cons.Electable() {
		return nil
	}
	return m.cons.Registry.Processes()
}

// Leader tells whether this process leads the ORACLE.
func (m *Machine) Leader() bool { return m.cons != nil && m.cons.Leader() }

// Quorums returns, for an ORACLE member, the sets of incarnations of each of which a majority is needed.
func (m *Machine) Quorums() [][]uint64 {
	if m.cons == nil || !m.cons.Electable() {
		return nil
	}
	return m.cons.Quorums()
}

// Request queues a command for the ORACLE.
func (m *Machine) Request(now clock.Time, c Command) {
	m.number++
	c.By, c.Number = m.cfg.Self, m.number
	m.pending = append(m.pending, c)
	if len(m.pending) == 1 {
		m.ask(now)
		m.settle(now)
	}
}

// Accuse asks the ORACLE to remove a process. When it is an ORACLE member itself, the others must do without it.
func (m *Machine) Accuse(now clock.Time, who core.Address, reason string) {
	if who == m.cfg.Self || slices.Contains(m.accused, who) || !m.Active() {
		return
	}
	m.accused = append(m.accused, who)
	charge := Command{Op: opRemove, By: m.cfg.Self, Who: who, Reason: reason}
	m.suspectLeader(now, &charge)
	m.hint(now, &charge)
	m.Request(now, charge)
	if i := slices.Index(m.oracle, who); i >= 0 && m.retryAt != clock.Never {
		m.retryAt = now
	}
}

// hint tells all of the ORACLE that its leader is accused, when that is so. Those who do not know would deny their
// votes to whoever stands for election.
func (m *Machine) hint(now clock.Time, charge *Command) {
	if len(m.oracle) == 0 || m.oracle[0] != charge.Who {
		return
	}
	for _, to := range m.oracle[1:] {
		if to != m.cfg.Self && !slices.Contains(m.accused, to) {
			m.lane.Send(now, to, append([]byte{byte(pdu.TypeRequest)}, charge.Encode()...))
		}
	}
}

// Join asks for membership in a group.
func (m *Machine) Join(now clock.Time, c Command) {
	c.Op = opJoin
	m.Request(now, c)
}

// Leave asks to be left out of a group's next view. Through is the view up to which every state that this member had to
// make was received. Asking again, with a later view, is how a member that leaves says that it has handed the state
// over. Asking again is also how it finds out that it is no member any more, when nobody could tell it.
func (m *Machine) Leave(now clock.Time, c Command) {
	c.Op = opLeave
	for i := range m.pending {
		if p := &m.pending[i]; p.Op == opLeave && p.Handle == c.Handle && p.Through == c.Through {
			return
		}
	}
	m.Request(now, c)
}

// Keep asks that a member who leaves stays for another view, because with it the group would lose its state.
func (m *Machine) Keep(now clock.Time, p *pdu.Propose, who core.Address) {
	m.Request(now, Command{Op: opKeep, Group: p.Base.Name, Who: who, Through: p.Next.ID})
}

// Terminate asks for the end of a group.
func (m *Machine) Terminate(now clock.Time, group string) {
	m.Request(now, Command{Op: opTerminate, Group: group})
}

// Commit asks for the commit of a view whose flushers are all ready.
func (m *Machine) Commit(now clock.Time, d *pdu.Decision) {
	m.Request(now, Command{Op: opCommit, Decision: d})
}

// Depart asks to be removed in order. Stopped is called when it is done.
func (m *Machine) Depart(now clock.Time) {
	if m.state != active {
		m.state = over
		m.hooks.Stopped(now)
		return
	}
	m.state = leaving
	m.departBy = now.Add(departFactor * m.cfg.Request)
	m.Request(now, Command{Op: opRemove, Who: m.cfg.Self, Orderly: true, Reason: "left"})
}

// ask sends the outstanding request to the ORACLE member whose turn it is.
func (m *Machine) ask(now clock.Time) {
	m.retryAt = clock.Never
	if len(m.pending) == 0 || len(m.oracle) == 0 || m.state == seeking || m.state == over {
		return
	}
	m.retryAt = now.Add(m.cfg.Request)
	to := m.oracle[m.turn%len(m.oracle)]
	for range m.oracle {
		if !slices.Contains(m.accused, to) {
			break
		}
		m.turn++
		to = m.oracle[m.turn%len(m.oracle)]
	}
	c := &m.pending[0]
	if to == m.cfg.Self && m.cons != nil {
		m.submit(now, c)
		return
	}
	m.lane.Send(now, to, append([]byte{byte(pdu.TypeRequest)}, c.Encode()...))
}

func (m *Machine) onDone(now clock.Time, d *pdu.Done) {
	if len(m.pending) == 0 || m.pending[0].Number != d.Number {
		return
	}
	orderly := m.pending[0].Op == opRemove && m.pending[0].Who == m.cfg.Self
	m.pending = m.pending[1:]
	m.retryAt = clock.Never
	if orderly {
		m.lingerAt = now
		if m.cons != nil {
			m.lingerAt = now.Add(m.cfg.Request / 8) // the other ORACLE members need a last acknowledgement
		}
		return
	}
	m.ask(now)
}

// OnMessage takes a control message of the membership service in.
func (m *Machine) OnMessage(now clock.Time, from uint64, t pdu.Type, body []byte) {
	if m.state == over {
		return
	}
	switch t {
	case pdu.TypeRequest:
		if c, err := DecodeCommand(body); err == nil {
			m.submit(now, c)
		}
	case pdu.TypeConsensus:
		m.onConsensus(now, from, body)
	default:
		msg := newMessage(t)
		if msg == nil || pdu.Decode(msg, body) != nil {
			return
		}
		m.handle(now, t, msg)
	}
	m.settle(now)
}

func newMessage(t pdu.Type) pdu.Message {
	switch t {
	case pdu.TypeWelcome:
		return new(pdu.Welcome)
	case pdu.TypeDone:
		return new(pdu.Done)
	case pdu.TypeRefuse:
		return new(pdu.Refuse)
	case pdu.TypeWatch:
		return new(pdu.Watch)
	case pdu.TypePropose:
		return new(pdu.Propose)
	case pdu.TypeDecide:
		return new(pdu.Decision)
	}
	return nil
}

func (m *Machine) handle(now clock.Time, t pdu.Type, msg pdu.Message) {
	switch t { // coordinators pass on the others
	case pdu.TypeWelcome, pdu.TypeDone, pdu.TypeRefuse, pdu.TypeWatch:
		m.heardAt = now
	}
	switch v := msg.(type) {
	case *pdu.Welcome:
		m.onWelcome(now, v)
	case *pdu.Done:
		m.onDone(now, v)
	case *pdu.Refuse:
		if len(m.pending) > 0 && m.pending[0].Number == v.Number {
			m.hooks.Refused(now, m.pending[0].Handle, Refusal(v.Reason), v.Handlers)
		}
	case *pdu.Watch:
		m.hooks.Watch(now, v)
	case *pdu.Propose:
		m.hooks.Proposed(now, v)
	case *pdu.Decision:
		m.hooks.Decided(now, v)
	}
}

func (m *Machine) onWelcome(now clock.Time, w *pdu.Welcome) {
	if len(w.Oracle) == 0 || w.System != m.out.System || !m.enter(w.Part, w.Oracle) {
		return
	}
	changed := !slices.Equal(m.oracle, w.Oracle)
	m.oracle, m.turn = w.Oracle, 0
	if m.state == attaching {
		m.state = active
		m.giveUpAt = clock.Never
		m.hooks.Attached(now, w.System)
		changed = true
	}
	if m.state == leaving && m.lingerAt != clock.Never && !slices.Contains(w.Oracle, m.cfg.Self) {
		m.dismissed = true
		m.lingerAt = now
	}
	if changed {
		m.hooks.Moved(now)
		m.ask(now)
	}
}

// settle carries out what the log committed and delivers what this process tells itself, until there is nothing more.
func (m *Machine) settle(now clock.Time) {
	for m.state != over {
		m.drain(now)
		if r := m.removedBy; r != nil {
			m.state = over
			m.hooks.Removed(now, r.By, r.Reason)
			return
		}
		if len(m.local) == 0 {
			return
		}
		l := m.local[0]
		m.local = m.local[1:]
		m.handle(now, l.t, l.m)
	}
}

// tell sends a message of the ORACLE to a process, which may be this one.
func (m *Machine) tell(now clock.Time, to core.Address, t pdu.Type, msg pdu.Message) {
	if to == m.cfg.Self {
		m.local = append(m.local, localMessage{t, msg})
		return
	}
	m.lane.Send(now, to, pdu.Encode(t, msg))
}

// Deadline returns when Tick has something to do.
func (m *Machine) Deadline() clock.Time {
	if m.state == over {
		return clock.Never
	}
	t := min(m.beaconAt, m.foundAt, m.giveUpAt, m.retryAt, m.lingerAt, m.departBy)
	t = min(t, m.lead.beatAt, m.lead.electAt, m.lead.welcomeAt, m.lead.recallAt)
	for _, g := range m.lead.gather {
		t = min(t, g.at)
	}
	if m.state == active {
		t = min(t, m.heardAt.Add(m.forkAfter()))
	}
	return t
}

// Tick does what is due.
func (m *Machine) Tick(now clock.Time) {
	if m.state == over {
		return
	}
	m.tickDiscovery(now)
	if m.retryAt <= now {
		m.turn++
		m.ask(now)
	}
	m.tickOracle(now)
	m.settle(now)
	if m.lingerAt <= now && m.cons != nil && !m.dismissed && m.waits() {
		m.lingered++
		m.lingerAt = now.Add(m.cfg.Request / 8)
	}
	switch {
	case m.lingerAt <= now || m.departBy <= now:
		m.state = over
		m.lingerAt, m.departBy = clock.Never, clock.Never
		m.hooks.Stopped(now)
	case m.state == active && now.Sub(m.heardAt) >= m.forkAfter():
		m.lost(now)
		m.settle(now)
	}
}

// waits tells whether a departing ORACLE member should stay a little: its vote is needed, or others lack its last
// messages.
func (m *Machine) waits() bool {
	return m.cons.Needed() || (!m.lane.Idle() && m.lingered < lingerMax)
}

// End stops the machine without telling anybody.
func (m *Machine) End() { m.state = over }

// Dump describes the machine in one line.
func (m *Machine) Dump() string {
	s := fmt.Sprintf("state %d, %d requests pending", m.state, len(m.pending))
	if len(m.pending) > 0 {
		s += fmt.Sprintf(" (first: op %d)", m.pending[0].Op)
	}
	if m.cons != nil {
		s += fmt.Sprintf(", voters %v, leader %x, %d processes", m.cons.Voters(), m.cons.LeaderID(),
			len(m.cons.Registry.procs))
	}
	return s
}
