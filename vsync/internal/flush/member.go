// Package flush ends a view: all survivors agree on which of its messages were delivered, and none goes on before every
// survivor holds all of them.
//
// The ORACLE proposes the next view. Every survivor freezes its streams and reports what it holds to the coordinator
// (the lowest-ranked survivor), which fixes the Cut: of each stream the longest prefix that the survivors together
// hold. Survivors fetch what they lack from those who hold it and say Ready. When all are ready the coordinator asks
// the ORACLE to commit the view with its Cut; only what is committed is delivered and installed. So a view that anybody
// installed is known to the ORACLE with its Cut, and a failure in between needs no guessing: either the view was
// committed, and everyone passes through it with the same messages, or nobody installed it, and the newer proposal
// starts again from the same old view.
//
// Guarded by the simulator's checkers view-agreement, same-messages and single-primary.
package flush

import (
	"time"

	"github.com/khamsin-io/khamsin/dataplane"
	"github.com/khamsin-io/khamsin/dataplane/clock"
	"github.com/khamsin-io/khamsin/vsync/core"
	"github.com/khamsin-io/khamsin/vsync/internal/canary"
	"github.com/khamsin-io/khamsin/vsync/internal/pdu"
)

// Streams is what a flush needs of the ending view's streams.
type Streams interface {
	Freeze()
	Report() []pdu.Holding
	// FirstMissing returns the first packet of a stream, above after and up to q, that is not held here.
	FirstMissing(r core.Rank, after, q core.Seq) (core.Seq, bool)
	Ask(r core.Rank, q core.Seq, holder dataplane.Endpoint) int
}

// Member is one survivor's part in a view change.
type Member struct {
	prop    *pdu.Propose
	streams Streams
	retry   time.Duration
	canary  canary.Bug

	cut   *pdu.Cut
	rank  int      // of the ending view: streams below it are complete
	after core.Seq // the stream of rank is complete up to here
	at    clock.Time
	tries int
	lacks bool
}

// NewMember begins a survivor's part: it freezes the streams and returns the report for the coordinator. HasState and
// Source of the report are the caller's to fill in.
func NewMember(p *pdu.Propose, streams Streams, retry time.Duration, bug canary.Bug) (*Member, *pdu.Report) {
	streams.Freeze()
	m := &Member{prop: p, streams: streams, retry: retry, canary: bug, at: clock.Never}
	return m, &pdu.Report{Lid: p.Base.Lid, Next: p.Next.ID, Holdings: streams.Report()}
}

// Proposal returns what is being agreed.
func (m *Member) Proposal() *pdu.Propose { return m.prop }

// OnCut takes the coordinator's cut. True means that everything is held already: say Ready.
func (m *Member) OnCut(now clock.Time, c *pdu.Cut) bool {
	if m.cut != nil || c.Next != m.prop.Next.ID || len(c.Cut) != m.prop.Base.View.Size() {
		return false
	}
	m.cut = c
	m.lacks = true
	return m.OnData(now)
}

// OnData looks whether what just arrived completes the cut. True, once, means: say Ready.
func (m *Member) OnData(now clock.Time) bool {
	if m.cut == nil || !m.lacks {
		return false
	}
	if canary.Enabled && m.canary == canary.ForgetCut {
		m.lacks, m.at = false, clock.Never
		return true
	}
	for ; m.rank < len(m.cut.Cut); m.rank, m.after = m.rank+1, 0 {
		if q, missing := m.streams.FirstMissing(core.Rank(m.rank), m.after, m.cut.Cut[m.rank]); missing {
			m.after = q - 1
			if m.at == clock.Never {
				m.fetch(now)
			}
			return false
		}
	}
	m.lacks = false
	m.at = clock.Never
	return true
}

// Deadline returns when Tick has something to do.
func (m *Member) Deadline() clock.Time { return m.at }

// Tick asks again for what is still missing.
func (m *Member) Tick(now clock.Time) {
	if m.lacks && m.at <= now {
		m.fetch(now)
	}
}

// fetch asks the holders for what is missing.
func (m *Member) fetch(now clock.Time) {
	for r, segments := range m.cut.Segments {
		for _, s := range segments {
			if _, missing := m.streams.FirstMissing(core.Rank(r), 0, s.Last); missing {
				holder := m.prop.Base.View.Members[s.Holder]
				m.streams.Ask(core.Rank(r), s.Last, holder.Endpoint())
				break
			}
		}
	}
	m.at = now.Add(m.retry << min(m.tries, 4))
	m.tries++
}
