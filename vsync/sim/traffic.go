package sim

import (
	"bytes"
	"encoding/binary"
	"slices"
	"time"

	"github.com/khamsin-io/khamsin/dataplane/clock"
	"github.com/khamsin-io/khamsin/vsync/core"
	"github.com/khamsin-io/khamsin/vsync/internal/engine"
)

// making is a state on its way to joiners.
type making struct {
	token uint64
	rest  []byte
	full  bool
}

// newMessage makes a message of a member. The size grows to what its name takes.
func (m *member) newMessage(f core.Flavour, size int) *message {
	msg := &message{group: m.life.group, sender: m.life, flavour: f, size: size}
	m.p.w.history.addMessage(msg)
	if size > 0 {
		msg.size = max(size, len(binary.AppendUvarint(nil, uint64(msg.id))))
	}
	return msg
}

// content appends the bytes of a message: its number, then bytes that follow from it.
func (msg *message) content(b []byte) []byte {
	if msg.size == 0 {
		return b
	}
	from := len(b)
	b = binary.AppendUvarint(b, uint64(msg.id))
	if msg.text != "" {
		return append(b, msg.text...)
	}
	x := uint64(msg.id) << 32
	for len(b)-from < msg.size {
		x = mix(x)
		b = binary.LittleEndian.AppendUint64(b, x)
	}
	return b[:from+msg.size]
}

// identify tells which message was delivered, and complains and returns nil when nobody sent such a one.
func (m *member) identify(d *engine.Delivery, payload []byte, index int) *message {
	w := m.p.w
	if m.view == nil || d.Sender < 0 || int(d.Sender) >= m.view.Size() {
		w.history.complain(checkContract, w.now, "%v: delivery from rank %d of %s", m.life, d.Sender, viewText(m.view))
		return nil
	}
	if len(payload) == 0 {
		return w.history.empty(m, d, index)
	}
	id, _ := binary.Uvarint(payload)
	msg := w.history.byID(id)
	w.scratch = w.scratch[:0]
	if msg != nil {
		w.scratch = msg.content(w.scratch)
	}
	bad := func(what string) *message {
		w.history.complain(checkCreation, w.now, "%v was given %d bytes in view %d from rank %d seq %d: %s (%v)",
			m.life, len(payload), d.ViewID, d.Sender, d.Seq, what, msg)
		return nil
	}
	switch {
	case msg == nil:
		return bad("no message has this number")
	case !bytes.Equal(w.scratch, payload):
		return bad("not the bytes that were sent")
	case msg.isPeer() || msg.group != m.life.group:
		return bad("it was sent elsewhere")
	case !msg.accepted:
		return bad("it was never accepted")
	case m.view.Members[d.Sender] != msg.sender.process.addr:
		return bad("another sender")
	case d.Flavour != msg.flavour:
		return bad("another flavour: " + d.Flavour.String())
	}
	return msg
}

// empty returns the message without bytes that stands at a place, which is its only name.
func (h *history) empty(m *member, d *engine.Delivery, index int) *message {
	at := place{system: m.p.record.system, group: m.life.group, view: d.ViewID, sender: d.Sender, seq: d.Seq,
		index: index}
	if msg := h.anonymous[at]; msg != nil {
		return msg
	}
	msg := &message{group: m.life.group, flavour: d.Flavour, accepted: true, view: d.ViewID}
	for _, l := range h.lives {
		if l.group == m.life.group && l.process.addr == m.view.Members[d.Sender] {
			msg.sender = l
		}
	}
	if msg.sender == nil {
		return nil
	}
	h.anonymous[at] = h.addMessage(msg)
	return msg
}

// burst is one round of a member's application.
func (m *member) burst() {
	w := m.p.w
	if m.over || m.leaving || !w.sending {
		m.sendArmed = false
		return
	}
	if len(m.outbox) == 0 {
		for range 1 + w.apps.IntN(w.mix.Burst) {
			m.sendOne()
		}
		if w.apps.chance(w.mix.Flush) {
			m.flush(m.drawCopies())
		}
	}
	if m.budget > 0 {
		m.later(eventSend, w.apps.around(w.mix.Interval))
	}
}

// sendOne sends a message of the mix.
func (m *member) sendOne() {
	w := m.p.w
	if m.budget <= 0 {
		return
	}
	m.budget--
	if w.apps.chance(w.mix.Peer) {
		m.sendPeer()
		return
	}
	m.sendDrawn(w.drawFlavour())
}

// sendDrawn sends a multicast of a drawn size. A Raw one fits into a packet.
func (m *member) sendDrawn(f core.Flavour) {
	size := m.p.w.drawSize()
	if f == core.Raw {
		size = max(1, min(size, m.p.w.opts.MTU-rawMargin)) // an empty one would have no name
	}
	m.send(f, size)
}

// rawMargin is how much shorter than a packet a Raw message may be at least.
const rawMargin = 64

// send sends one multicast, or puts it behind those that wait for room.
func (m *member) send(f core.Flavour, size int) *message {
	msg := m.newMessage(f, size)
	m.outbox = append(m.outbox, msg)
	m.drain()
	return msg
}

// drain submits what waits, until the engine has no room.
func (m *member) drain() {
	for len(m.outbox) > 0 && !m.full && !m.over {
		msg := m.outbox[0]
		if !m.submit(msg) {
			return
		}
		if len(m.outbox) > 0 {
			m.outbox = m.outbox[1:]
		}
	}
}

// submit hands a message to the engine and returns false when there is no room for it.
func (m *member) submit(msg *message) bool {
	w, p := m.p.w, m.p
	w.scratch = msg.content(w.scratch[:0])
	var result engine.Result
	w.stats.Steps++
	if v := p.engine.View(m.handle); v != nil {
		msg.view = v.ID
	}
	if msg.isPeer() {
		result = p.engine.SubmitTo(p.now(), m.handle, msg.to.addr, w.scratch)
	} else {
		result = p.engine.Submit(p.now(), m.handle, msg.flavour, nil, w.scratch)
	}
	w.trace.note(traceSubmit, w.now, uint64(msg.id), uint64(result))
	if w.trace.out != nil {
		w.trace.printf(w.now, p.name(), "%s: submit %v: result %d", w.history.groups[m.life.group], msg, result)
	}
	switch result {
	case engine.Accepted:
		m.accepted(msg)
	case engine.Full:
		m.full = true
		w.stats.Full++
		return false
	case engine.NotMember:
		if !m.over && !m.leaving && !p.over && !p.stopping && !msg.isPeer() {
			w.history.complain(checkContract, w.now, "%v: NotMember for %v", m.life, msg)
		}
	case engine.TooLarge:
		w.history.complain(checkContract, w.now, "%v: TooLarge for %v", m.life, msg)
	}
	return true
}

func (m *member) accepted(msg *message) {
	w := m.p.w
	msg.accepted, msg.submitted, msg.handled = true, w.now, m.handled
	w.stats.Messages++
	if msg.isPeer() {
		return
	}
	m.life.sent = append(m.life.sent, msg)
	if msg.isReliable() {
		m.reliable++
	}
	if msg.isReliable() && msg.flavour != core.Unordered && msg.size > 0 {
		m.sequenced++
		msg.number = m.sequenced
	}
}

// onRoom is told by the engine after it was full.
func (m *member) onRoom() {
	m.full = false
	m.later(eventRetry, 0)
}

// sendPeer sends a point-to-point message to a member of the view.
func (m *member) sendPeer() {
	w := m.p.w
	if m.view == nil {
		return
	}
	to := w.recordOf(m.view.Members[w.apps.IntN(m.view.Size())])
	if to == nil || to == m.p.record {
		return
	}
	msg := m.newMessage(core.FIFO, 1+w.drawSize())
	msg.to = to
	m.outbox = append(m.outbox, msg)
	m.drain()
}

// takePeer records a point-to-point message.
func (m *member) takePeer(d *engine.Delivery, e entry) {
	w := m.p.w
	m.peersOwed++
	m.peerBytes += len(d.Data)
	id, _ := binary.Uvarint(d.Data)
	msg := w.history.byID(id)
	if msg == nil || !bytes.Equal(msg.content(nil), d.Data) || msg.to != m.p.record ||
		msg.sender.process.addr != d.From ||
		msg.group != m.life.group || !msg.accepted {
		w.history.complain(checkPeer, w.now, "%v was given %d bytes from %v that were not sent to it (%v)",
			m.life, len(d.Data), w.addressName(d.From), msg)
		return
	}
	e.message = msg
	msg.arrived++
	m.life.peers = append(m.life.peers, e)
	w.trace.note(traceDeliver, w.now, uint64(m.life.id), uint64(msg.id)<<8|uint64(entryPeer))
	if w.trace.out != nil {
		w.trace.printf(w.now, m.p.name(), "%s: %s", w.history.groups[m.life.group], e.String())
	}
	if w.onEntry != nil {
		w.onEntry(m, &e)
	}
}

// flush starts a Flush of the member's messages.
func (m *member) flush(k int) {
	w := m.p.w
	w.token++
	f := &flushRecord{at: w.now, covers: len(m.life.sent), k: k}
	m.life.flushes = append(m.life.flushes, f)
	m.p.flushing[w.token] = &flushing{m: m, record: f}
	m.p.engine.Flush(m.p.now(), m.handle, k, w.token)
}

// leave asks the engine to leave the group.
func (m *member) leave() {
	if m.leaving || m.over {
		return
	}
	m.leaving = true
	m.p.w.trace.printf(m.p.w.now, m.p.name(), "leaves %s", m.p.w.history.groups[m.life.group])
	m.outbox = nil
	m.p.engine.Leave(m.p.now(), m.handle)
}

// terminate asks the engine to end the group for all its members.
func (m *member) terminate() {
	m.life.terminates = true
	m.p.w.trace.printf(m.p.w.now, m.p.name(), "terminates %s", m.p.w.history.groups[m.life.group])
	m.p.engine.Terminate(m.p.now(), m.handle)
}

// makeState makes the state for joiners, as it is at this point of the delivery order, and begins to hand it over.
func (m *member) makeState(transfer uint64) {
	mk := &making{token: transfer, rest: stateBytes(m.state, m.p.w.mix.StateMax)}
	if m.making != nil { // the joiners of a later view wait for their turn, with the state as it is now
		m.makings = append(m.makings, mk)
		return
	}
	m.making = mk
	m.transfer()
}

// transferNext goes on to the state that waits for its turn.
func (m *member) transferNext() {
	m.making = nil
	if len(m.makings) > 0 {
		m.making, m.makings = m.makings[0], m.makings[1:]
		m.later(eventTransfer, 0)
	}
}

// transfer hands over pieces of the state, at no great speed.
func (m *member) transfer() {
	w := m.p.w
	if m.making == nil || m.making.full || m.p.over {
		return
	}
	mk := m.making
	n := min(len(mk.rest), w.apps.IntN(20_000)+1)
	switch m.p.engine.StateChunk(m.p.now(), mk.token, mk.rest[:n], n == len(mk.rest)) {
	case engine.Full:
		mk.full = true
		return
	case engine.NotMember:
		m.transferNext() // nobody needs it any more
		return
	}
	mk.rest = mk.rest[n:]
	if len(mk.rest) == 0 {
		m.transferNext()
		return
	}
	m.later(eventTransfer, w.apps.upTo(300*time.Microsecond))
}

// stateBytes encodes a state, and behind it bytes that follow from it, as many as follow from it.
func stateBytes(r replica, fillMax int) []byte {
	b := r.encode(nil)
	n := replicaLen
	if fillMax > 0 {
		n += int(mix(r.Sum) % uint64(fillMax))
	}
	for x := r.Sum; len(b) < n; {
		x = mix(x)
		b = binary.LittleEndian.AppendUint64(b, x)
	}
	return b[:n]
}

// loaded decodes the state that the joiner was given.
func (m *member) loaded() replica {
	w := m.p.w
	var r replica
	if len(m.loading) >= replicaLen {
		r.decode(m.loading)
	}
	if want := stateBytes(r, w.mix.StateMax); !bytes.Equal(m.loading, want) {
		same := 0
		for same < min(len(want), len(m.loading)) && want[same] == m.loading[same] {
			same++
		}
		w.history.complain(checkState, w.now, "%v: the state of %d bytes was never made like this: it should be %v in "+
			"%d bytes, and differs from byte %d on", m.life, len(m.loading), r, len(want), same)
	}
	m.loading = nil
	return r
}

// recordOf returns the process with an address, nil when there is none.
func (w *World) recordOf(a core.Address) *processRecord {
	i := slices.IndexFunc(w.history.processes, func(p *processRecord) bool { return p.addr == a })
	if i < 0 {
		return nil
	}
	return w.history.processes[i]
}

// idle tells what the member's application is still waiting for; empty when nothing.
func (m *member) idle(now clock.Time) string {
	switch {
	case m.first < len(m.inbox) || m.busy:
		return "has deliveries to handle"
	case m.over:
		return ""
	case !m.started:
		return "has no first view"
	case m.leaving:
		return "has not left yet"
	case m.full || len(m.outbox) > 0:
		return "waits for room to send"
	case m.making != nil:
		return "has not handed over its state"
	case m.selfCount < m.reliable:
		return "was not given all of its own messages"
	}
	for _, f := range m.life.flushes {
		if !f.done {
			return "waits for a flush since " + stamp(f.at)
		}
	}
	return ""
}
