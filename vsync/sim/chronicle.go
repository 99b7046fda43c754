package sim

import (
	"fmt"
	"slices"
	"sync"

	"github.com/khamsin-io/khamsin/dataplane/clock"
	"github.com/khamsin-io/khamsin/vsync/core"
)

// Chronicle is the history of one group of real systems, as their applications see it, for the checkers that judge
// simulated worlds. The members share a process and a clock. All methods, and those of its witnesses, may be called by
// any goroutine.
type Chronicle struct {
	source clock.Source

	mu    sync.Mutex
	h     *history
	names map[uint64]core.Address // by incarnation: how reports call a process
}

// Fate says how a membership ended.
type Fate uint8

// The fates.
const (
	Crashed Fate = iota // killed, and its last calls may have been in vain
	Left                // it asked for it
	Failed              // the system declared it failed, or ended
)

// Witness writes down what one member of the group sees. What it is told after End it ignores.
type Witness struct {
	c     *Chronicle
	life  *life
	state replica
	view  core.ViewID
	over  bool
}

// NewChronicle returns an empty history of a group whose Safe messages need a number of copies, as in a JoinRequest.
func NewChronicle(source clock.Source, copies int) *Chronicle {
	return &Chronicle{
		source: source,
		h:      &history{groups: []string{"group"}, safeOf: []int{copies}, anonymous: map[place]*message{}},
		names:  map[uint64]core.Address{},
	}
}

// Member adds a process that is about to join: run number run of a host. It must be called before the process joins.
func (c *Chronicle) Member(host, run int, addr core.Address) *Witness {
	c.mu.Lock()
	defer c.mu.Unlock()
	name := core.Address{PID: uint32(firstPID + host*runsOfHost + run), Incarnation: addr.Incarnation}
	c.names[addr.Incarnation] = name
	p := &processRecord{id: len(c.h.processes), node: host, run: run, addr: name, system: 1}
	c.h.processes = append(c.h.processes, p)
	l := &life{id: len(c.h.lives), process: p, joinedAt: c.source.Now()}
	c.h.lives = append(c.h.lives, l)
	return &Witness{c: c, life: l}
}

// runsOfHost is how far apart the numbers of two hosts are in reports of views.
const runsOfHost = 100

// note writes an entry, unless the member's part is over. The caller holds the lock.
func (w *Witness) note(e entry) {
	if w.over {
		return
	}
	e.at = w.c.source.Now()
	w.life.log = append(w.life.log, e)
}

// Init notes that the member begins without a state.
func (w *Witness) Init() {
	w.c.mu.Lock()
	defer w.c.mu.Unlock()
	w.note(entry{kind: entryInit})
}

// State returns the member's state, for a joiner.
func (w *Witness) State() []byte {
	w.c.mu.Lock()
	defer w.c.mu.Unlock()
	w.note(entry{kind: entryMakeState})
	return w.state.encode(nil)
}

// Load notes that the member begins with what State returned elsewhere.
func (w *Witness) Load(state []byte) error {
	w.c.mu.Lock()
	defer w.c.mu.Unlock()
	if len(state) != replicaLen {
		return fmt.Errorf("sim: a state of %d bytes, want %d", len(state), replicaLen)
	}
	w.state.decode(state)
	w.note(entry{kind: entryState, state: w.state})
	return nil
}

// View notes that the member installed a view.
func (w *Witness) View(v *core.View) {
	w.c.mu.Lock()
	defer w.c.mu.Unlock()
	named := &core.View{
		ID: v.ID, Members: w.c.rename(v.Members), Joined: w.c.rename(v.Joined), Left: w.c.rename(v.Left),
	}
	w.view = v.ID
	w.note(entry{kind: entryView, view: named, viewID: v.ID})
}

// rename returns the addresses as reports call them.
func (c *Chronicle) rename(list []core.Address) []core.Address {
	var out []core.Address
	for _, a := range list {
		if name, known := c.names[a.Incarnation]; known {
			a = name
		}
		out = append(out, a)
	}
	return out
}

// Sending notes that the member is about to multicast a message, and returns the number that must travel in it. One
// goroutine of a member may send at a time. Sent must follow.
func (w *Witness) Sending(f core.Flavour, size int) (number uint64) {
	w.c.mu.Lock()
	defer w.c.mu.Unlock()
	m := w.c.h.addMessage(&message{sender: w.life, flavour: f, size: size, submitted: w.c.source.Now(),
		view: w.view, handled: len(w.life.log)})
	return uint64(m.id)
}

// Sent notes whether the message was accepted.
func (w *Witness) Sent(number uint64, accepted bool) {
	w.c.mu.Lock()
	defer w.c.mu.Unlock()
	if m := w.c.h.byID(number); accepted && !m.accepted {
		m.accept()
	}
}

// accept gives a message its place in the order of its sender. The caller holds the lock.
func (m *message) accept() {
	l := m.sender
	m.accepted = true
	if m.flavour != core.Unordered && m.flavour != core.Raw {
		m.number = 1
		for i := len(l.sent) - 1; i >= 0 && m.number == 1; i-- {
			m.number = max(m.number, l.sent[i].number+1)
		}
	}
	l.sent = append(l.sent, m)
}

// Deliver notes a multicast: the view and the sender that it came with, and its number.
func (w *Witness) Deliver(v *core.View, sender core.Address, number uint64) error {
	w.c.mu.Lock()
	defer w.c.mu.Unlock()
	m := w.c.h.byID(number)
	if m == nil || m.isPeer() {
		return w.c.bad("%v was given message %d, which nobody multicast", w.life, number)
	}
	if name := w.c.names[sender.Incarnation]; name != m.sender.process.addr {
		return w.c.bad("%v was given %v as of %v", w.life, m, sender)
	}
	if !w.over {
		w.state.apply(m)
	}
	w.note(entry{kind: entryMessage, message: m, viewID: v.ID, sender: v.Rank(sender)})
	return nil
}

// SendingTo is Sending of a point-to-point message.
func (w *Witness) SendingTo(to *Witness, size int) (number uint64) {
	w.c.mu.Lock()
	defer w.c.mu.Unlock()
	return uint64(w.c.h.addMessage(&message{sender: w.life, to: to.life.process, size: size,
		submitted: w.c.source.Now(), view: w.view}).id)
}

// SentPeer notes whether the point-to-point message was accepted.
func (w *Witness) SentPeer(number uint64, accepted bool) {
	w.c.mu.Lock()
	defer w.c.mu.Unlock()
	if m := w.c.h.byID(number); m != nil {
		m.accepted = accepted
	}
}

// DeliverPeer notes a point-to-point message.
func (w *Witness) DeliverPeer(number uint64) error {
	w.c.mu.Lock()
	defer w.c.mu.Unlock()
	m := w.c.h.byID(number)
	if m == nil || m.to != w.life.process {
		return w.c.bad("%v was given point-to-point message %d, which nobody sent it", w.life, number)
	}
	if !w.over {
		m.arrived++
		w.life.peers = append(w.life.peers, entry{at: w.c.source.Now(), kind: entryPeer, message: m})
	}
	return nil
}

// bad records a message that nobody sent. The caller holds the lock.
func (c *Chronicle) bad(format string, args ...any) error {
	c.h.complain(checkCreation, c.source.Now(), format, args...)
	return fmt.Errorf("sim: "+format, args...)
}

// Flushing notes that the member begins a Flush for k members, 0 for all. The function that it returns notes the end.
func (w *Witness) Flushing(k int) (over func(done bool)) {
	w.c.mu.Lock()
	defer w.c.mu.Unlock()
	f := &flushRecord{at: w.c.source.Now(), covers: len(w.life.sent), k: k}
	w.life.flushes = append(w.life.flushes, f)
	return func(done bool) {
		w.c.mu.Lock()
		defer w.c.mu.Unlock()
		f.done, f.doneAt, f.entry = done && !w.over, w.c.source.Now(), len(w.life.log)
	}
}

// End notes how the membership ended. Only the first word counts.
func (w *Witness) End(how Fate, err error) {
	w.c.mu.Lock()
	defer w.c.mu.Unlock()
	if w.over {
		return
	}
	w.over = true
	l := w.life
	l.fate, l.endedAt = [...]fate{crashed, left, failed}[how], w.c.source.Now()
	l.process.fate, l.process.endedAt, l.process.err = l.fate, l.endedAt, err
}

// Over tells whether End was called.
func (w *Witness) Over() bool {
	w.c.mu.Lock()
	defer w.c.mu.Unlock()
	return w.over
}

// Settled tells whether all members that live are in one view with each other alone, have one state, and have nothing
// of their own left to deliver: then the guarantees demand all that was sent. It notes that, for Judge, when it is so.
// Nobody may be sending.
func (c *Chronicle) Settled() (string, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var first *life
	var want replica
	living := 0
	for _, l := range c.h.lives {
		living += btoi(l.fate == alive)
	}
	for _, l := range c.h.lives {
		if l.fate != alive {
			continue
		}
		v, r, own := l.now()
		switch {
		case v == nil || len(v.Members) != living:
			return fmt.Sprintf("%d live, and %v is in %s", living, l, viewText(v)), false
		case own > 0:
			return fmt.Sprintf("%v has %d messages of its own to deliver", l, own), false
		case first == nil:
			first, want = l, r
		case r != want:
			return fmt.Sprintf("the state is %v at %v, and %v at %v", want, first, r, l), false
		}
	}
	if m := c.h.lostPeer(); m != nil {
		return fmt.Sprintf("%v to %v did not arrive", m, m.to), false
	}
	for _, l := range c.h.lives {
		if l.fate == alive {
			l.rest = len(l.log)
		}
	}
	return "", true
}

// now returns the latest view, the state, and how many reliable messages of its own the member has not delivered.
func (l *life) now() (v *core.View, r replica, own int) {
	for i := range l.log {
		switch e := &l.log[i]; e.kind {
		case entryView:
			v = e.view
		case entryState:
			r = e.state
		case entryMessage:
			r.apply(e.message)
			own -= btoi(e.message.sender == l && e.message.isReliable())
		}
	}
	for _, m := range l.sent {
		own += btoi(m.isReliable())
	}
	return v, r, own
}

// Judge returns what the checkers find.
func (c *Chronicle) Judge() []Failure {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, l := range c.h.lives { // a call of a member that was ended may have failed after it had done its work
		for i := range l.log {
			if m := l.log[i].message; m != nil && !m.isPeer() && !m.accepted && m.sender.fate != alive {
				m.accept()
			}
		}
	}
	return slices.Concat(c.h.failures, judge(c.h))
}

// Summary counts what happened.
func (c *Chronicle) Summary() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	views, delivered, peers := map[core.ViewID]bool{}, 0, 0
	fates := map[fate]int{}
	for _, l := range c.h.lives {
		fates[l.fate]++
		peers += len(l.peers)
		for i := range l.log {
			switch e := &l.log[i]; e.kind {
			case entryView:
				views[e.view.ID] = true
			case entryMessage:
				delivered++
			}
		}
	}
	return fmt.Sprintf("%d members (%d crashed, %d failed, %d left), %d views, %d messages, %d deliveries and %d "+
		"point-to-point", len(c.h.lives), fates[crashed], fates[failed], fates[left], len(views), len(c.h.messages),
		delivered, peers)
}
