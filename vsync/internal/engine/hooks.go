package engine

import (
	"fmt"
	"slices"

	"github.com/khamsin-io/khamsin/dataplane/clock"
	"github.com/khamsin-io/khamsin/vsync/core"
	"github.com/khamsin-io/khamsin/vsync/internal/canary"
	"github.com/khamsin-io/khamsin/vsync/internal/link"
	"github.com/khamsin-io/khamsin/vsync/internal/member"
	"github.com/khamsin-io/khamsin/vsync/internal/pdu"
)

// controlLane is the lanes of control messages as package member sees them.
type controlLane Engine

// Send queues a message.
func (c *controlLane) Send(now clock.Time, to core.Address, msg []byte) {
	c.links.Send(now, to, link.Control, 0, msg)
}

// Idle tells whether everything was acknowledged.
func (c *controlLane) Idle() bool { return c.links.Idle() }

// hooks is the engine as package member sees it.
type hooks Engine

// Attached is called when the process has become part of a system.
func (h *hooks) Attached(clock.Time, uint32) {
	if h.clash && !h.genuine { // it would be a second system of the name, beside one that it cannot talk to
		(*Engine)(h).finish(ErrOtherKey)
		return
	}
	h.out.Events = append(h.out.Events, Event{Kind: EventAttached})
}

// OracleChanged is called when this process's part in the ORACLE changes.
func (h *hooks) OracleChanged(text string) {
	h.out.Events = append(h.out.Events, Event{Kind: EventOracle, Text: text})
}

// Warn passes a line for the log on.
func (h *hooks) Warn(text string) {
	h.out.Events = append(h.out.Events, Event{Kind: EventWarning, Text: text})
}

// Removed is called in an ORACLE member that reads of its own removal in the log.
func (h *hooks) Removed(_ clock.Time, by core.Address, reason string) {
	(*Engine)(h).finish(&PoisonError{Accuser: by, Reason: reason})
}

// Lost is called when the ORACLE cannot be reached any more.
func (h *hooks) Lost(clock.Time) { (*Engine)(h).finish(ErrOracleLost) }

// Stopped is called when the departure is complete.
func (h *hooks) Stopped(clock.Time) { (*Engine)(h).finish(ErrStopped) }

// Watch is called with this process's part in failure detection.
func (h *hooks) Watch(now clock.Time, w *pdu.Watch) { h.detect.Assign(now, w) }

// Gone is called when a process was removed as failed.
func (h *hooks) Gone(_ clock.Time, a core.Address, why pdu.Charge) { (*Engine)(h).bury(a, why) }

// Refused is called when a join was refused, or a group is over for this process.
func (h *hooks) Refused(now clock.Time, handle uint32, why member.Refusal, handlers string) {
	g := (*Engine)(h).group(Handle(handle))
	if g == nil {
		return
	}
	switch why {
	case member.RefusedExists:
		g.end(ErrGroupExists)
	case member.RefusedSignature:
		g.end(&SignatureError{Handlers: handlers})
	case member.RefusedFull:
		g.end(ErrSystemFull)
	default:
		g.end(ErrLeft)
	}
	(*Engine)(h).maybeDepart(now)
}

// Moved is called when the ORACLE has changed: what its old leader knew and did not tell is asked for again.
func (h *hooks) Moved(now clock.Time) {
	for _, g := range h.groups {
		if g != nil && g.leaving && g.asked {
			g.asked = false
			g.maybeLeave(now)
		}
	}
}

// Proposed is called by the ORACLE's word to coordinate a view change.
func (h *hooks) Proposed(now clock.Time, p *pdu.Propose) {
	e := (*Engine)(h)
	if p.Coordinator != e.cfg.Self {
		return
	}
	if g := e.byName[p.Base.Name]; g != nil {
		g.coordinate(now, p)
	}
}

// Decided is called with a view that the ORACLE committed: by a coordinator, who passes it on, and by members who
// asked.
func (h *hooks) Decided(now clock.Time, d *pdu.Decision) {
	e := (*Engine)(h)
	g := e.byName[d.Name]
	if g == nil {
		return
	}
	if g.co != nil && g.co.Proposal().Next.ID == d.View.ID {
		g.spread(now, d)
	}
	g.decide(now, d)
	e.touch(g)
}

// OnMessage is called with every whole message of a lane. False means that there is no room for it now.
func (e *Engine) OnMessage(now clock.Time, m link.Message) bool {
	if e.over {
		return true
	}
	switch m.Kind {
	case link.State:
		return e.onState(now, m)
	case link.Peer, link.Reply:
		return e.onPeer(m)
	}
	if len(m.Data) == 0 || !pdu.Type(m.Data[0]).Valid() {
		e.count.Malformed++
		return true
	}
	switch t, body := pdu.Type(m.Data[0]), m.Data[1:]; t {
	case pdu.TypePropose:
		e.onPropose(now, body)
	case pdu.TypeReport, pdu.TypeCut, pdu.TypeReady:
		e.onFlush(now, m.From, t, body)
	default:
		e.member.OnMessage(now, m.From, t, body)
	}
	return true
}

// OnSilent is called when a process acknowledges no control message any more, though it may send signs of life: what
// waits for it would wait for ever.
func (e *Engine) OnSilent(_ clock.Time, peer uint64) {
	for _, a := range e.member.Oracle() {
		if a.Incarnation == peer {
			e.accuse(a, e.deaf())
			return
		}
	}
	for _, g := range e.groups {
		if g == nil {
			continue
		}
		if a := g.addressOf(peer); !a.IsZero() {
			e.accuse(a, e.deaf())
			return
		}
	}
}

func (e *Engine) deaf() string {
	return fmt.Sprintf("has acknowledged nothing for %v", e.cfg.Timing.Stuck)
}

// onPropose takes a proposal in, from the ORACLE when this process shall coordinate, else from the coordinator.
func (e *Engine) onPropose(now clock.Time, body []byte) {
	p := new(pdu.Propose)
	if pdu.Decode(p, body) != nil || !slices.Contains(p.Flushers, e.cfg.Self) {
		e.count.Malformed++
		return
	}
	g := e.byName[p.Base.Name]
	if g == nil {
		return
	}
	if p.Coordinator == e.cfg.Self {
		g.coordinate(now, p)
	} else {
		g.propose(now, p)
	}
	e.touch(g)
}

func (e *Engine) onFlush(now clock.Time, from uint64, t pdu.Type, body []byte) {
	switch t {
	case pdu.TypeReport:
		m := new(pdu.Report)
		if g := e.flushGroup(m, body, &m.Lid); g != nil {
			g.onReport(now, g.addressOf(from), m)
		}
	case pdu.TypeCut:
		m := new(pdu.Cut)
		if g := e.flushGroup(m, body, &m.Lid); g != nil {
			g.onCut(now, m)
		}
	case pdu.TypeReady:
		m := new(pdu.Ready)
		if g := e.flushGroup(m, body, &m.Lid); g != nil {
			g.onReady(now, g.addressOf(from), m)
		}
	}
}

func (e *Engine) flushGroup(m pdu.Message, body []byte, lid *uint32) *group {
	if pdu.Decode(m, body) != nil {
		e.count.Malformed++
		return nil
	}
	g := e.byLid[*lid]
	if g != nil {
		e.touch(g)
	}
	return g
}

func (e *Engine) viewWithoutLast(v *core.View) *core.View {
	if canary.Enabled && e.cfg.Canary == canary.ViewWithoutLast && v.Rank(e.cfg.Self) == 1 && v.Size() > 2 {
		w := *v
		w.Members = w.Members[:v.Size()-1]
		return &w
	}
	return v
}
