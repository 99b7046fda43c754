package host

import (
	"github.com/khamsin-io/khamsin/dataplane"
	"github.com/khamsin-io/khamsin/dataplane/clock"
	"github.com/khamsin-io/khamsin/vsync/internal/engine"
)

// tryOwn takes the engine when it is free. The Loop model's engine is never free.
func (h *Host) tryOwn() bool {
	return h.owner.Load() == ownFree && h.owner.CompareAndSwap(ownFree, ownHeld)
}

// letGo makes the engine free, and wakes the receiver when that waits for it.
func (h *Host) letGo() {
	h.owner.Store(ownFree)
	if h.wanted.Load() && h.wanted.CompareAndSwap(true, false) {
		h.transport.Wake()
	}
}

// begin opens a turn: it takes in what others left, in the order packets, commands. Owner only.
func (h *Host) begin() clock.Time {
	now := h.clock.Now()
	h.takeIn(now)
	return now
}

// enter opens a turn for a command of the caller's own when the engine is free and everything that was left before has
// been taken in; else it returns false, and the command must go behind the others.
func (h *Host) enter() (clock.Time, bool) {
	if !h.tryOwn() {
		return 0, false
	}
	now := h.begin()
	if h.inbox.empty() {
		return now, true
	}
	h.finish(now)
	return 0, false
}

// takeIn passes the engine what waits in rx and in the inbox, at most one lap of each.
func (h *Host) takeIn(now clock.Time) {
	if h.rx.Len() > 0 {
		n := h.rx.PopN(h.own.batch)
		h.own.received.count(h, h.own.batch[:n])
		h.engine.Receive(now, h.own.batch[:n])
		clear(h.own.batch[:n])
	}
	for range inboxSlots {
		c := h.inbox.peek()
		if c == nil {
			return
		}
		h.execute(now, c)
		h.inbox.advance()
	}
}

// execute carries out one command of the inbox.
func (h *Host) execute(now clock.Time, c *command) {
	switch c.kind {
	case cmdSubmit:
		c.group.submitStaged(now, c)
	case cmdConsumed:
		c.group.reportConsumed(now, c.eaten)
	case cmdCall:
		c.call.run(h, now)
		c.call.finish()
	}
}

// end closes a turn: due timers, output, the deadline for the sleeper. It tells whether it woke an executor. Owner
// only.
func (h *Host) end(now clock.Time) (woke bool) {
	if now >= h.engine.Deadline() {
		h.engine.Tick(now)
	}
	if now >= h.tuning.due {
		h.tune(now)
	}
	woke = h.carryOut(now)
	h.publishDeadline(now)
	return woke
}

// finish ends the turn that the caller began and lets go of the engine, taking it again as long as others left
// something meanwhile. After roundsMax turns for others the rest is the receiver's: a sender must get back to its own
// work. It tells whether it woke an executor.
func (h *Host) finish(now clock.Time) (woke bool) {
	woke = h.end(now)
	return h.letGoAndLook() || woke
}

// letGoAndLook is the second half of finish: it lets go and looks again.
func (h *Host) letGoAndLook() (woke bool) {
	for range roundsMax {
		h.letGo()
		if !h.pending() || !h.tryOwn() {
			return woke
		}
		woke = h.end(h.begin()) || woke
	}
	h.letGo()
	if h.pending() {
		h.transport.Wake()
	}
	return woke
}

// pending tells whether something waits for an owner.
func (h *Host) pending() bool { return h.inbox.ready() || h.rx.Len() > 0 }

// kick makes somebody run a turn for what the caller just left: the caller when the engine is free, else its owner, who
// looks again after letting go; in the Loop model the loop.
func (h *Host) kick() {
	if h.cfg.Model == Loop {
		if h.sleepUntil.Load() != 0 {
			h.ring()
		}
		return
	}
	if h.tryOwn() {
		h.finish(h.begin())
	}
}

// ring wakes the loop.
func (h *Host) ring() {
	select {
	case h.bell <- struct{}{}:
	default:
	}
}

// publishDeadline tells when the next turn is due, and wakes the sleeper when it would sleep past that.
func (h *Host) publishDeadline(now clock.Time) {
	d := h.engine.Deadline()
	if len(h.own.unsent) > 0 {
		d = min(d, h.own.retryAt)
	}
	if h.deadline.Load() == int64(d) {
		return
	}
	h.deadline.Store(int64(d))
	// Dekker: the sleeper stores sleepUntil, then reads deadline again. One of the two sees the other's store.
	if h.cfg.Model == Combining && int64(d) < h.sleepUntil.Load() {
		h.transport.Wake()
	}
}

// carryOut does what the engine wants done, until it wants no more, and tells whether it woke an executor. Owner only.
func (h *Host) carryOut(now clock.Time) (woke bool) {
	for {
		out := h.engine.Output()
		h.subscribe(out)
		h.deliver(out.Deliveries)
		woke = h.wakeQueues() || woke // before the packets leave: a system call lets others run
		h.send(now, out.Packets)
		h.keepLines(out.Lines)
		for i := range out.Events {
			h.onEvent(&out.Events[i])
		}
		out.Reset()
		if len(h.own.roomed) == 0 {
			break
		}
		for i, g := range h.own.roomed {
			h.own.roomed[i] = nil
			g.resubmit(now)
		}
		h.own.roomed = h.own.roomed[:0]
	}
	return h.wakeQueues() || woke
}

// wakeQueues wakes the executors that got deliveries in this turn, but for those whose handlers the receiver will call
// in place, and tells whether there were any.
func (h *Host) wakeQueues() (woke bool) {
	for i, q := range h.own.dirty {
		h.own.dirty[i] = nil
		q.marked = false
		q.publish()
		switch {
		case h.own.receiving && q.inline != nil:
			h.own.inline = append(h.own.inline, q.inline)
		case q.wake():
			woke = true
		}
	}
	h.own.dirty = h.own.dirty[:0]
	return woke
}

// rostering is a transport that must be told who listens to a channel.
type rostering interface {
	SetRoster(ch dataplane.Channel, group uint32, members []dataplane.Endpoint)
}

// subscribe opens and closes multicast channels.
func (h *Host) subscribe(out *engine.Output) {
	if r, ok := h.transport.(rostering); ok {
		for _, x := range out.Rosters {
			r.SetRoster(x.Channel, x.Group, x.Members)
		}
	}
	for _, ch := range out.Subscribe {
		if err := h.transport.Subscribe(ch); err != nil {
			h.journal.add(line{text: "subscribe", channel: ch, err: err})
		}
	}
	h.admit(out.Groups)
	for _, ch := range out.Unsubscribe {
		if err := h.transport.Unsubscribe(ch); err != nil {
			h.journal.add(line{text: "unsubscribe", channel: ch, err: err})
		}
	}
}

// admit tells a transport that filters which groups' packets are wanted.
func (h *Host) admit(changes []engine.GroupChange) {
	filter, ok := h.transport.(dataplane.GroupFilter)
	if !ok {
		return
	}
	for _, c := range changes {
		change, text := filter.Revoke, "revoke group"
		if c.Wanted {
			change, text = filter.Admit, "admit group"
		}
		if err := change(c.Channel, c.Group); err != nil {
			h.journal.add(line{text: text, channel: c.Channel, err: err})
		}
	}
}
