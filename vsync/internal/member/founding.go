package member

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/khamsin-io/khamsin/dataplane/clock"
	"github.com/khamsin-io/khamsin/vsync/core"
)

// Where the hosts of the ORACLE are listed, a process founds a system only while a majority of those hosts vote for it,
// its own among them. Processes vote in the beacons by which they seek. Each votes for one process at a time, itself or
// a better one that votes for itself, and takes its vote back only when that process votes for another or was not heard
// for voteHold. A vote repeats the stamp of the last beacon that it answers, and counts for voteFresh after that was
// sent, by the clock of the process that sent it. So however long packets take, no vote counts for a process after it
// was given to another one, and of two founders at most one has a majority. A host with several processes counts when
// all of them that are heard agree; they are taken to reach the same hosts. Guarded by the simulator's checker
// single-primary.
//
// A founder may be cut off just then, before those that voted for it are in its system, and lose their votes to another
// one. So its ORACLE lets nobody join a group before processes on a majority of the hosts are in the system: no view is
// ever made in a system that a minority founded. When such a founder hears of the other system it gives its own up.
//
// What is left: a process that ended has forgotten its vote, and one whose request to be taken in arrived, but not the
// answer, looks for a system again when it has waited in vain.

// ballotsMax is how many processes' votes are kept.
const ballotsMax = 256

// ballot is the last vote of another process.
type ballot struct {
	from core.Address
	host string
	vote core.Address
	echo clock.Time // of this process's own clock
	at   clock.Time // when it came
}

// election is the founding as this process sees it.
type election struct {
	choice  core.Address // who it votes for
	echo    uint64       // stamp of the choice's last beacon
	heardAt clock.Time   // when that came
	ballots []ballot
	short   bool       // this process founded a system that lacks hosts
	warnAt  clock.Time // when to say what founding waits for
}

// voteFresh returns how long a vote counts.
func (m *Machine) voteFresh() time.Duration { return max(m.cfg.Discovery, 8*m.cfg.Beacon) }

// voteHold returns how long a vote is kept for a process that is not heard any more. It exceeds voteFresh by more than
// clocks can differ.
func (m *Machine) voteHold() time.Duration { return 3 * m.voteFresh() }

// votes tells whether this process takes part in the founding of a system by a majority of hosts.
func (m *Machine) votes() bool { return len(m.cfg.Hosts) > 0 && m.cfg.Host != "" && m.cfg.Eligible }

// vote puts this process's vote into a beacon.
func (m *Machine) vote(now clock.Time, b *beacon) {
	if !m.votes() {
		return
	}
	m.reconsider(now)
	b.host, b.stamp, b.vote, b.echo = m.cfg.Host, uint64(now), m.polls.choice, m.polls.echo
}

// reconsider takes the vote back from a process that was not heard for long.
func (m *Machine) reconsider(now clock.Time) {
	p := &m.polls
	if p.choice != m.cfg.Self && (p.choice == core.Address{} || now.Sub(p.heardAt) > m.voteHold()) {
		p.choice, p.echo = m.cfg.Self, 0
	}
}

// onVote takes in the vote of a process that seeks, and decides anew about this process's.
func (m *Machine) onVote(now clock.Time, b *beacon) {
	if !m.votes() || !b.found || !slices.Contains(m.cfg.Hosts, b.host) {
		return
	}
	m.note(now, ballot{from: b.from, host: b.host, vote: b.vote, echo: clock.Time(b.echo), at: now})
	m.reconsider(now)
	p := &m.polls
	switch {
	case b.from == p.choice && b.vote != b.from:
		p.choice, p.echo = m.cfg.Self, 0 // it gave up
	case b.from == p.choice, p.choice == m.cfg.Self && b.vote == b.from && b.from.Compare(m.cfg.Self) < 0:
		p.choice, p.echo, p.heardAt = b.from, b.stamp, now
	}
}

// note keeps a vote in place of the one that its process gave before. Old ones make room.
func (m *Machine) note(now clock.Time, b ballot) {
	p := &m.polls
	p.ballots = slices.DeleteFunc(p.ballots, func(o ballot) bool {
		return o.from == b.from || now.Sub(o.at) > m.voteFresh()
	})
	if len(p.ballots) < ballotsMax {
		p.ballots = append(p.ballots, b)
	}
}

// elected tells whether this process may found a system.
func (m *Machine) elected(now clock.Time) bool {
	if len(m.cfg.Hosts) == 0 {
		return true
	}
	m.reconsider(now)
	return m.polls.choice == m.cfg.Self && len(m.supporters(now)) > len(m.cfg.Hosts)/2
}

// supporters returns the hosts that vote for this process.
func (m *Machine) supporters(now clock.Time) (hosts []string) {
	for _, h := range m.cfg.Hosts {
		agrees := h == m.cfg.Host
		for i := range m.polls.ballots {
			b := &m.polls.ballots[i]
			if b.host != h || now.Sub(b.at) > m.voteFresh() {
				continue
			}
			if b.vote != m.cfg.Self {
				agrees = false
				break
			}
			agrees = agrees || b.echo > 0 && b.echo <= now && now.Sub(b.echo) <= m.voteFresh()
		}
		if agrees {
			hosts = append(hosts, h)
		}
	}
	return hosts
}

// complete asks again for what the ORACLE did not do for want of hosts, when they are there.
func (m *Machine) complete(now clock.Time) {
	if m.polls.short && m.cons != nil && m.cons.Registry.wants == 0 {
		m.polls.short = false
		if m.retryAt != clock.Never {
			m.retryAt = now
		}
	}
}

// explain says once in a search what founding a system waits for.
func (m *Machine) explain(now clock.Time) {
	if m.polls.warnAt > now {
		return
	}
	m.polls.warnAt = clock.Never
	heard := []string{m.cfg.Host}
	for i := range m.polls.ballots {
		if h := m.polls.ballots[i].host; !slices.Contains(heard, h) {
			heard = append(heard, h)
		}
	}
	m.hooks.Warn(fmt.Sprintf("no system is found, and to found one takes processes on %d of the hosts %s: heard of %s",
		len(m.cfg.Hosts)/2+1, strings.Join(m.cfg.Hosts, ", "), strings.Join(heard, ", ")))
}
