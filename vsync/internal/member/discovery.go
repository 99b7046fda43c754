package member

import (
	"fmt"
	"slices"
	"time"

	"github.com/khamsin-io/khamsin/dataplane"
	"github.com/khamsin-io/khamsin/dataplane/clock"
	"github.com/khamsin-io/khamsin/dataplane/wire"
	"github.com/khamsin-io/khamsin/vsync/core"
	"github.com/khamsin-io/khamsin/vsync/internal/canary"
	"github.com/khamsin-io/khamsin/vsync/internal/pdu"
)

// What a beacon says.
const (
	beaconSeek     = 1 + iota // multicast: I am looking for a system
	beaconOffer               // unicast: here is one, and its ORACLE
	beaconAnnounce            // multicast: I lead a system
)

// announceEvery is how many beats of the leader lie between two announcements.
const announceEvery = 5

type beacon struct {
	what   byte
	system string
	from   core.Address
	found  bool // beaconSeek: the sender may found a system
	number int  // beaconSeek: how many of its beacons came before; beaconAnnounce: processes of the system
	oracle []core.Address

	// Of a beaconSeek where the ORACLE's hosts are listed, see founding.go.
	host  string // that the sender is on
	stamp uint64 // the sender's time
	vote  core.Address
	echo  uint64 // stamp of the last beacon of the process that the vote is for
}

func (b *beacon) Append(w *pdu.Writer) {
	w.Byte(b.what)
	w.String(b.system)
	w.Address(b.from)
	w.Bool(b.found)
	w.Uint(uint64(b.number))
	w.Addresses(b.oracle)
	w.String(b.host)
	w.Uint(b.stamp)
	w.Address(b.vote)
	w.Uint(b.echo)
}

func (b *beacon) Decode(r *pdu.Reader) {
	b.what, b.system, b.from, b.found = r.Byte(), r.String(), r.Address(), r.Bool()
	b.number, b.oracle = int(r.Uint()), r.Addresses()
	b.host, b.stamp, b.vote, b.echo = r.String(), r.Uint(), r.Address(), r.Uint()
}

func (m *Machine) beacon(now clock.Time, what byte, to dataplane.Endpoint) {
	b := &beacon{what: what, system: m.cfg.System, from: m.cfg.Self, found: m.cfg.Eligible}
	switch {
	case what == beaconSeek:
		b.number = m.sought
		m.vote(now, b)
	case m.cons != nil && m.cons.Electable():
		b.oracle, b.number = m.cons.Voters(), len(m.cons.Registry.procs)
	default:
		b.oracle = m.oracle
	}
	var w pdu.Writer
	b.Append(&w)
	if len(w.B) > m.out.Room() {
		return
	}
	f, ok := m.out.Make(&wire.Header{Kind: wire.KindBeacon, View: m.cfg.Self.Incarnation}, w.B)
	if !ok {
		return
	}
	if to.IsZero() {
		m.out.Multicast(f, m.cfg.Channel)
	} else {
		m.out.Unicast(f, to)
	}
}

// seek (again) looks for a system.
func (m *Machine) seek(now clock.Time) {
	m.state = seeking
	m.sought, m.seekAt = 0, now
	m.out.System = 0
	m.oracle = nil
	m.beaconAt = now
	m.foundAt = clock.Never
	if m.cfg.Eligible {
		m.foundAt = now.Add(m.cfg.Discovery)
		m.polls.warnAt = now.Add(m.cfg.Discovery + m.voteHold())
	}
}

// SeeksInVain tells whether this process looks for a system, and has done so for as long as a founder does.
func (m *Machine) SeeksInVain(now clock.Time) bool {
	return m.state == seeking && now.Sub(m.seekAt) >= m.cfg.Discovery
}

func (m *Machine) tickDiscovery(now clock.Time) {
	if m.giveUpAt <= now {
		m.giveUpAt = clock.Never
		m.seek(now)
	}
	if m.state != seeking {
		return
	}
	if m.foundAt <= now {
		if m.elected(now) {
			m.found(now)
			return
		}
		m.explain(now)
		m.foundAt = now.Add(m.cfg.Beacon)
	}
	if m.beaconAt <= now {
		m.beacon(now, beaconSeek, dataplane.Endpoint{})
		m.sought++
		m.beaconAt = now.Add(m.cfg.Beacon + m.cfg.Beacon*1/4)
	}
}

// showEvery is how often a process shows itself to those that it cannot understand.
const showEvery = 50 * time.Millisecond

// Show answers a beacon that was not to be opened with one of this process, so that who sent it knows that there is a
// system of this name. Whoever sends many is answered now and then.
func (m *Machine) Show(now clock.Time) {
	if m.state == active && m.cons != nil && now >= m.showAt {
		m.showAt = now.Add(showEvery)
		m.beacon(now, beaconAnnounce, dataplane.Endpoint{})
	}
}

// IsBeacon tells whether a payload is a beacon of somebody else in a system of this name.
func (m *Machine) IsBeacon(payload []byte) bool {
	var b beacon
	return pdu.Decode(&b, payload) == nil && b.system == m.cfg.System && b.from != m.cfg.Self && b.from.Incarnation != 0
}

// OnBeacon takes a beacon in. The system is the one that the packet's sender is part of, zero for none.
func (m *Machine) OnBeacon(now clock.Time, system uint32, payload []byte) {
	var b beacon
	if !m.IsBeacon(payload) || pdu.Decode(&b, payload) != nil {
		return
	}
	switch b.what {
	case beaconSeek:
		m.onSeek(now, &b)
	case beaconOffer, beaconAnnounce:
		m.onOffer(now, system, &b)
	}
	m.settle(now)
}

// splitPatience is how often a lonely founder may announce itself before it is taken for one that stays.
const splitPatience = 3

// onSeek answers who looks for a system, and lets the better founder go first.
func (m *Machine) onSeek(now clock.Time, b *beacon) {
	if m.state == active && m.answers(b) {
		m.beacon(now, beaconOffer, b.from.Endpoint())
		return
	}
	if m.state == seeking {
		m.onVote(now, b)
	}
	if m.state == seeking && m.foundAt != clock.Never && b.found && !m.votes() && b.from.Compare(m.cfg.Self) < 0 {
		m.foundAt = now.Add(m.cfg.Discovery)
	}
}

// answers tells whether this process offers its system to one that looks for any. The members of the ORACLE do, not the
// leader only: while the lead passes from one to another nobody may take the system for absent. Should none of them be
// heard, some of the other processes speak for the system, and the more of them the longer it takes.
func (m *Machine) answers(b *beacon) bool {
	if m.cons != nil && m.cons.Electable() {
		return !(canary.Enabled && m.cfg.Canary == canary.LeaderOnlyOffers && !m.cons.Leader())
	}
	if canary.Enabled && m.cfg.Canary == canary.LeaderOnlyOffers {
		return false
	}
	const quiet, steps = 1, 3 // beacons that only the ORACLE answers; beacons until every process answers
	if b.number <= quiet {
		return false
	}
	return m.random(1<<(2*steps)) < 1<<(2*min(b.number-quiet, steps))
}

func (m *Machine) onOffer(now clock.Time, system uint32, b *beacon) {
	if len(b.oracle) == 0 || system == 0 {
		return
	}
	if m.state == seeking {
		m.attach(now, system, b.oracle)
		return
	}
	if b.what != beaconAnnounce || system == m.out.System || !m.Leader() || m.state != active {
		return
	}
	alone := len(m.cons.Registry.procs) <= 1 && len(m.cons.Registry.groups) == 0
	if alone && (b.number > 1 || b.from.Compare(m.cfg.Self) < 0) {
		m.dissolve(now)
		m.attach(now, system, b.oracle)
		return
	}
	if m.cons.Registry.wants > 0 && b.number > 1 {
		m.state = over // those that voted for this process went elsewhere
		m.hooks.Lost(now)
		return
	}
	if m.lead.splitHeard++; b.number <= 1 && m.lead.splitHeard <= splitPatience {
		return // it is alone, and about to dissolve
	}
	if !m.lead.splitTold {
		m.lead.splitTold = true
		m.hooks.Warn(fmt.Sprintf("another system called %q is led by %v; the two stay separate", m.cfg.System, b.from))
	}
}

func (m *Machine) attach(now clock.Time, system uint32, oracle []core.Address) {
	m.court(now, system, oracle)
	m.state = attaching
	m.beaconAt, m.foundAt = clock.Never, clock.Never
	m.giveUpAt = now.Add(4*m.cfg.Request + m.cfg.Discovery)
	m.out.System = system
	m.oracle, m.turn = oracle, 0
	m.heardAt = now
	m.enlist(now)
}

// court notes whom this process asks to be taken in. Those of another system that it asked before are given up for
// good, so that nothing is kept for them.
func (m *Machine) court(now clock.Time, system uint32, oracle []core.Address) {
	if system != m.suited {
		for _, a := range m.asked {
			if !slices.Contains(oracle, a) {
				m.hooks.Gone(now, a, pdu.Charge{Reason: "belongs to another system"})
			}
		}
		m.suited, m.asked = system, nil
	}
	for _, a := range oracle {
		if !slices.Contains(m.asked, a) {
			m.asked = append(m.asked, a)
		}
	}
}

// enlist makes the request to be taken into the system the first of all.
func (m *Machine) enlist(now clock.Time) {
	for i := range m.pending {
		if m.pending[i].Op == opAdd {
			m.ask(now)
			return
		}
	}
	add := Command{Op: opAdd, By: m.cfg.Self, Number: 1, Who: m.cfg.Self, Eligible: m.cfg.Eligible}
	m.pending = append([]Command{add}, m.pending...)
	m.ask(now)
}

// found founds a system with this process as its only ORACLE member.
func (m *Machine) found(now clock.Time) {
	m.beaconAt, m.foundAt = clock.Never, clock.Never
	m.state = attaching
	m.out.System = uint32(m.cfg.Self.Incarnation>>32) ^ uint32(m.cfg.Self.Incarnation) | 1
	m.court(now, m.out.System, nil)
	m.oracle, m.turn = []core.Address{m.cfg.Self}, 0
	m.heardAt = now
	reg := NewRegistry(m.cfg.Low, m.cfg.Count)
	if len(m.cfg.Hosts) > 1 && !m.cfg.FastStart {
		reg.wants = len(m.cfg.Hosts)/2 + 1
	}
	m.polls.short = reg.wants > 0
	m.cons = found(m.cfg.Self, reg)
	m.settle(now) // become the leader first
	m.enlist(now)
	m.settle(now)
}

// dissolve gives up a system that nobody else has joined.
func (m *Machine) dissolve(clock.Time) {
	m.cons = nil
	m.lead = idle()
	m.local = nil
}
