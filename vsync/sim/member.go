package sim

import (
	"errors"
	"time"

	"github.com/khamsin-io/khamsin/dataplane/clock"
	"github.com/khamsin-io/khamsin/vsync/core"
	"github.com/khamsin-io/khamsin/vsync/internal/engine"
)

// member is the application of one process in one group: it keeps a replicated state, sends, and handles what is
// delivered as fast as it can or as slowly as the weather says.
type member struct {
	p      *process
	life   *life
	handle engine.Handle

	// What the engine has handed up.
	started   bool // the first view came
	loading   []byte
	view      *core.View
	inbox     []queued // handed up and not handled; a queue with its head at first
	first     int
	inView    int    // reliable messages handed up since the view
	inViewSum uint64 // and a commutative hash over them
	selfCount int    // own reliable messages handed up
	sequenced int    // numbers given to own messages

	// What the application does.
	state     replica
	handled   int // entries of the log that were handled
	busy      bool
	stalled   clock.Time    // it handles nothing before
	stallTold clock.Time    // the stall at whose end it will look for point-to-point messages
	slow      time.Duration // most that it takes for a message; 0: nothing
	owed      int           // packets consumed and not yet told
	peersOwed int           // point-to-point messages likewise
	peerBytes int           // and their bytes
	making    *making       // a state is being handed over; nothing else is handled meanwhile
	makings   []*making     // for the joiners of later views
	full      bool          // until EventRoom
	budget    int           // messages that it may still send
	outbox    []*message
	reliable  int // accepted reliable multicasts
	leaving   bool
	over      bool
	sendArmed bool
}

// queued is a delivery that waits for the application, and how many entries of the log it made.
type queued struct {
	engine.Delivery
	entries int
}

// join makes the process's application a member of a group.
func (p *process) join(group int) *member {
	return p.joinAs(group, engine.JoinOrCreate)
}

// joinAs makes the process's application a member of a group, or its creator.
func (p *process) joinAs(group int, mode engine.JoinMode) *member {
	w := p.w
	l := &life{id: len(w.history.lives), process: p.record, group: group, creates: mode == engine.CreateOnly,
		joinedAt: w.now}
	w.history.lives = append(w.history.lives, l)
	m := &member{p: p, life: l, budget: w.mix.Budget}
	if w.apps.chance(w.weather.SlowApps) {
		m.slow = w.apps.between(w.weather.HandleMax/4, w.weather.HandleMax)
	}
	w.trace.printf(w.now, p.name(), "joins %s", w.history.groups[group])
	m.handle = p.engine.Join(p.now(), engine.JoinRequest{
		Name: w.history.groups[group], Mode: mode, Signature: 1, SafeCopies: w.history.safeOf[group],
		Own: group%2 == 1,
	})
	p.members = append(p.members, m)
	return m
}

// take receives a delivery from the engine: this is the moment that the checkers judge.
func (m *member) take(d *engine.Delivery) {
	w := m.p.w
	w.stats.Deliveries++
	e := entry{at: w.now, viewID: d.ViewID, sender: d.Sender, seq: d.Seq}
	before := len(m.life.log)
	m.checkOrder(d)
	switch d.Kind {
	case engine.DeliverMessages, engine.DeliverWhole:
		e.kind = entryMessage
		m.takeMessages(d, e)
	case engine.DeliverView:
		e.kind, e.view = entryView, d.View
		m.view, m.started, m.inView, m.inViewSum = d.View, true, 0, 0
		w.stats.Views++
		m.record(e)
	case engine.DeliverMakeState:
		e.kind, e.view = entryMakeState, d.View
		m.record(e)
	case engine.DeliverState:
		m.loading = append(m.loading, d.Data...)
		return
	case engine.DeliverStateEnd:
		e.kind = entryState
		e.state = m.loaded()
		m.record(e)
	case engine.DeliverInit:
		e.kind = entryInit
		m.record(e)
	case engine.DeliverEnd:
		e.kind, e.err = entryEnd, d.Err
		m.record(e)
	case engine.DeliverPeer:
		e.kind = entryPeer
		m.takePeer(d, e)
		return
	}
	m.inbox = append(m.inbox, queued{*d, len(m.life.log) - before})
}

// record appends to the log.
func (m *member) record(e entry) {
	w := m.p.w
	m.life.log = append(m.life.log, e)
	id := uint64(e.kind)
	if e.message != nil {
		id |= uint64(e.message.id) << 8
	}
	w.trace.note(traceDeliver, w.now, uint64(m.life.id), id)
	if w.trace.out != nil {
		w.trace.printf(w.now, m.p.name(), "%s: %s", w.history.groups[m.life.group], e.String())
	}
	if w.onEntry != nil {
		w.onEntry(m, &m.life.log[len(m.life.log)-1])
	}
}

// checkOrder holds the kinds of deliveries to the order that the engine's contract gives.
func (m *member) checkOrder(d *engine.Delivery) {
	bad := func(format string, args ...any) {
		m.p.w.history.complain(checkContract, m.p.w.now, "%v: "+format, append([]any{m.life}, args...)...)
	}
	isMessage := d.Kind == engine.DeliverMessages || d.Kind == engine.DeliverWhole
	switch {
	case m.over:
		bad("delivery of kind %d after the end", d.Kind)
	case isMessage && !m.started:
		bad("a message before the first view")
	case d.Kind == engine.DeliverView && (d.View == nil || d.View.Rank(m.p.addr) == core.NoRank):
		bad("a view without its receiver: %s", viewText(d.View))
	case m.started && (d.Kind == engine.DeliverState || d.Kind == engine.DeliverStateEnd ||
		d.Kind == engine.DeliverInit):
		bad("state after the first view (kind %d)", d.Kind)
	case d.Kind == engine.DeliverMakeState && (len(m.life.log) == 0 || d.View == nil):
		bad("asked to make a state without having one, or for no view")
	case d.Kind == engine.DeliverView && !m.started && len(m.life.log) == 0:
		bad("the first view came without state or init")
	}
	if d.Kind == engine.DeliverEnd {
		m.over = true
	}
}

// takeMessages records the messages of one packet, or one message that came in pieces.
func (m *member) takeMessages(d *engine.Delivery, e entry) {
	w := m.p.w
	if d.Kind == engine.DeliverWhole {
		e.message = m.identify(d, d.Data, 0)
		m.recordMessage(e)
		return
	}
	rest := d.Data
	if !d.Frame.IsZero() {
		rest = m.p.arena.Bytes(d.Frame)
	}
	for i := 0; len(rest) > 0; i++ {
		msg, tail, ok := engine.NextMessage(rest)
		if !ok {
			w.history.complain(checkCreation, w.now, "%v: packet view %d rank %d seq %d is cut off in message %d of it",
				m.life, d.ViewID, d.Sender, d.Seq, i)
			return
		}
		e.message = m.identify(d, msg, i)
		m.recordMessage(e)
		rest = tail
	}
}

func (m *member) recordMessage(e entry) {
	if e.message == nil {
		return // reported
	}
	m.p.w.stats.Delivered++
	if e.message.isReliable() {
		m.inView++
		m.inViewSum += mix(uint64(e.message.id))
		if e.message.sender == m.life {
			m.selfCount++
		}
	}
	m.record(e)
}

// consume tells the engine, sooner or later, that the application is done with one more packet.
func (m *member) consume() {
	m.owed++
	m.settleOwed()
}

// settleOwed reports what was consumed when it is a batch, or when nothing more is waiting.
func (m *member) settleOwed() {
	if m.owed == 0 || m.owed < m.p.w.mix.ConsumeBatch && m.first < len(m.inbox) {
		return
	}
	m.p.engine.Consumed(m.p.now(), m.handle, m.owed)
	m.owed = 0
}

// handleNext lets one application of the process that is free handle one delivery. It returns false when nobody has
// anything to do now.
func (p *process) handleNext() bool {
	for _, m := range p.members {
		if !m.busy && !m.blocked() && m.first < len(m.inbox) {
			if m.stalled > p.w.now {
				m.busy = true
				m.later(eventHandle, m.stalled.Sub(p.w.now))
				continue
			}
			m.handle1()
			return true
		}
	}
	return false
}

// eatPeers tells the engine of the point-to-point messages that the applications are done with: at once, unless they
// stand still.
func (p *process) eatPeers() {
	for _, m := range p.members {
		switch {
		case m.peersOwed == 0 || m.over:
		case m.stalled > p.w.now:
			if m.stallTold != m.stalled {
				m.stallTold = m.stalled
				m.later(eventRetry, m.stalled.Sub(p.w.now))
			}
		default:
			n, bytes := m.peersOwed, m.peerBytes
			m.peersOwed, m.peerBytes = 0, 0
			p.engine.ConsumedPeers(p.now(), m.handle, n, bytes)
		}
	}
}

// blocked tells whether the application is busy with handing over a state, and handles nothing meanwhile.
func (m *member) blocked() bool { return m.making != nil && !m.p.w.mix.AsyncState }

// handle1 starts handling the next delivery, and finishes it unless the application is slow.
func (m *member) handle1() {
	d := &m.inbox[m.first]
	isMessage := d.Kind == engine.DeliverMessages || d.Kind == engine.DeliverWhole
	if isMessage && m.slow > 0 {
		m.busy = true
		m.later(eventHandle, m.p.w.apps.upTo(m.slow))
		return
	}
	m.finish()
}

// onHandle is the end of a delay: of a handler, or of a stall.
func (m *member) onHandle() {
	m.busy = false
	if !m.blocked() && m.first < len(m.inbox) && m.stalled <= m.p.w.now {
		m.finish()
	}
}

// finish handles the delivery at the head of the inbox.
func (m *member) finish() {
	d := m.inbox[m.first]
	m.inbox[m.first] = queued{}
	m.first++
	if m.first == len(m.inbox) {
		m.inbox, m.first = m.inbox[:0], 0
	}
	switch d.Kind {
	case engine.DeliverMessages, engine.DeliverWhole:
		for range d.entries {
			m.apply(m.life.log[m.handled].message)
			m.handled++
		}
		if !d.Frame.IsZero() {
			m.p.arena.Release(d.Frame)
		}
		m.consume()
		return
	case engine.DeliverMakeState:
		m.makeState(d.Transfer)
	case engine.DeliverStateEnd:
		m.state = m.life.log[m.handled].state
	case engine.DeliverView:
		m.onView()
	}
	m.handled++
	m.settleOwed()
}

// apply is the application's handler of a multicast.
func (m *member) apply(msg *message) {
	m.state.apply(msg)
	m.p.w.onApply(m, msg)
}

// onView is the application's handler of views.
func (m *member) onView() {
	if !m.sendArmed {
		m.sendArmed = true
		m.later(eventSend, m.p.w.apps.around(m.p.w.mix.Interval))
	}
}

// later schedules something for this member.
func (m *member) later(kind eventKind, after time.Duration) {
	m.p.w.agenda.add(event{at: m.p.w.now.Add(after), kind: kind, proc: m.p, member: m})
}

// onEnded is told by the engine when the group is over for this process.
func (m *member) onEnded(err error) {
	m.life.endedAt, m.life.fate = m.p.w.now, failed
	switch {
	case errors.Is(err, engine.ErrTerminated):
		m.life.fate = ended
		m.p.w.stats.Ended++
	case errors.Is(err, engine.ErrGroupExists):
		m.life.fate = refused
		m.p.w.stats.Refused++
	case m.leaving:
		m.life.fate = left
	case m.p.stopping:
		m.life.fate = stopped
	}
	m.over = true
	m.outbox = nil
}

// drop ends the membership because the process is over, and lets go of what was not handled.
func (m *member) drop(how fate) {
	if m.life.fate == alive {
		m.life.fate, m.life.endedAt = how, m.p.w.now
	}
	m.over = true
	for ; m.first < len(m.inbox); m.first++ {
		if f := m.inbox[m.first].Frame; !f.IsZero() {
			m.p.arena.Release(f)
		}
	}
	m.inbox, m.first = nil, 0
	m.outbox, m.making, m.makings = nil, nil, nil
}
