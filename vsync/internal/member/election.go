package member

import (
	"slices"
	"time"

	"github.com/khamsin-io/khamsin/dataplane/clock"
	"github.com/khamsin-io/khamsin/vsync/internal/canary"
)

// suspectLeader makes an ORACLE member stand for election when the leader is accused, the elder ones sooner.
func (m *Machine) suspectLeader(now clock.Time, c *Command) {
	who := c.Who
	if m.cons == nil || m.cons.Leader() || who == m.cfg.Self || m.cons.LeaderID() != who.Incarnation ||
		m.lead.suspect == who {
		return
	}
	m.lead.suspect, m.lead.charge = who, *c
	m.lead.electAt = min(m.lead.electAt, now.Add(m.cfg.Heartbeat/2*m.place()))
}

// place returns how many ORACLE members are elder than this one, the leader not counted.
func (m *Machine) place() time.Duration {
	return max(0, time.Duration(slices.Index(m.cons.Voters(), m.cfg.Self)-1))
}

// awaitLeader sets when this ORACLE member stands for election unless it hears of the leader before. Elder members are
// quicker, and no two wait equally long, so that votes are seldom split.
func (m *Machine) awaitLeader(now clock.Time) {
	jitter := m.cfg.Heartbeat * time.Duration(m.random(100)) / 200
	m.lead.electAt = now.Add(m.cfg.Suspect + m.cfg.Heartbeat*m.place() + jitter)
}

// loyal tells whether this ORACLE member has a leader that it heard of lately and nobody accuses.
func (m *Machine) loyal(now clock.Time) bool {
	if m.cons.Leader() {
		return m.quorumHeard(now, m.cfg.Suspect)
	}
	lead := m.cons.LeaderID()
	return lead != 0 && lead != m.lead.suspect.Incarnation && now.Sub(m.lead.heardAt) < m.cfg.Suspect/2
}

// stand makes an ORACLE member without a leader stand for election, now and again a little later.
func (m *Machine) stand(now clock.Time) {
	if m.cons.Leader() || !m.cons.Electable() {
		return
	}
	if canary.Enabled && m.cfg.Canary == canary.TwoPrimaries {
		m.cons = found(m.cfg.Self, m.cons.Registry) // decides alone from now on
		return
	}
	m.cons.Campaign()
	m.lead.electAt = now.Add(m.cfg.Heartbeat + m.cfg.Heartbeat*time.Duration(m.random(100))/100)
}
