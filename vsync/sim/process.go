package sim

import (
	"errors"
	"fmt"
	"slices"

	"github.com/khamsin-io/khamsin/dataplane"
	"github.com/khamsin-io/khamsin/dataplane/clock"
	"github.com/khamsin-io/khamsin/dataplane/frame"
	"github.com/khamsin-io/khamsin/dataplane/invariant"
	"github.com/khamsin-io/khamsin/vsync/core"
	"github.com/khamsin-io/khamsin/vsync/internal/engine"
)

// node is one host: a clock, a place in the network and at most one process at a time.
type node struct {
	number      int        // from 1
	offset      clock.Time // its clock at the start of the world
	drift       int64      // its clock gains so many parts in a million
	pausedUntil clock.Time
	deafUntil   clock.Time // no multicast reaches it
	muteUntil   clock.Time // its multicasts get nowhere
	deferred    []event    // what came due while it was paused
	proc        *process   // nil while nothing runs
	runs        int
	links       []link // by the number of the node to which they lead; grows
	inbox       []*packet
	pollPending bool
}

// name returns how traces call the node.
func (n *node) name() string { return fmt.Sprintf("n%d", n.number) }

// local returns what the node's clock shows at a time of the world.
func (n *node) local(at clock.Time) clock.Time { return n.offset + at + at*clock.Time(n.drift)/1e6 }

// world returns the first time of the world at which the node's clock shows at least the given time.
func (n *node) world(local clock.Time) clock.Time {
	if local == clock.Never {
		return clock.Never
	}
	at := max(0, (local-n.offset)/(1e6+clock.Time(n.drift))*1e6)
	for step := clock.Time(1 << 21); step > 0; step /= 2 {
		for n.local(at+step) < local {
			at += step
		}
	}
	if n.local(at) < local {
		at++
	}
	return at
}

// process is one run of one engine and its applications.
type process struct {
	w        *World
	node     *node
	record   *processRecord
	addr     core.Address
	arena    *frame.Arena
	engine   machine
	members  []*member            // by handle's first use; ended ones stay
	channels []dataplane.Channel  // subscribed
	timerAt  clock.Time           // earliest pending eventTimer; Never: none
	batch    []dataplane.Packet   // reused
	events   []engine.Event       // reused
	flushing map[uint64]*flushing // by token; only looked up
	attached bool
	system   *system
	stopping bool
	over     bool
	ambush   ambush
	steps    int  // packets sent, and things handed to the application, since they are counted
	cutAfter int  // steps until it crashes; -1: it does not
	mutedFor int  // for so many steps before it crashes its packets are lost
	mute     bool // its packets are lost
	heardBy  int  // on the way to all but this node; 0: on the way to all
}

// flushing is a Flush that is under way.
type flushing struct {
	m      *member
	record *flushRecord
}

// name returns how traces call the process.
func (p *process) name() string {
	if p.record.run == 1 {
		return p.node.name()
	}
	return p.record.String()
}

// now returns the time on the process's clock.
func (p *process) now() clock.Time { return p.node.local(p.w.now) }

// launch starts a new process on a node.
func (w *World) launch(n *node) *process {
	n.runs++
	rec := &processRecord{id: len(w.history.processes), node: n.number, run: n.runs}
	rec.addr = w.address(n)
	w.history.processes = append(w.history.processes, rec)
	arena, err := frame.New(frame.Config{ChunkSize: 2048, TxChunks: w.opts.TxChunks, RxRuns: w.opts.RxChunks,
		RunChunks: 1})
	invariant.Check(err == nil, "sim: arena of node %d: %v", n.number, err)
	p := &process{
		w: w, node: n, record: rec, addr: rec.addr, arena: arena, timerAt: clock.Never, cutAfter: -1,
		flushing: map[uint64]*flushing{},
	}
	p.engine, err = w.opts.engine(w.engineConfig(p))
	invariant.Check(err == nil, "sim: engine of node %d: %v", n.number, err)
	n.proc = p
	w.byEndpoint[p.addr.Endpoint()] = n
	w.live = append(w.live, p)
	w.placeCrash(p)
	w.stats.Processes++
	w.trace.printf(w.now, p.name(), "starts as %v", p.addr)
	p.engine.Start(p.now())
	w.settle(p)
	return p
}

// receive gives the engine what reached the node.
func (p *process) receive() {
	n := p.node
	p.arena.Rx().Free() // takes in what came home: few frames, all of them warm
	p.arena.Tx().Free()
	batch := p.batch[:0]
	for _, pkt := range n.inbox {
		f, ok := p.arena.Rx().Get()
		if !ok || len(pkt.data) > p.arena.Room(f) {
			if ok {
				p.arena.Rx().Release(f)
			}
			p.w.stats.Lost++
			p.w.net.put(pkt)
			continue
		}
		f.Len = uint32(len(pkt.data))
		copy(p.arena.Bytes(f), pkt.data)
		batch = append(batch, dataplane.Packet{Frame: f, Channel: pkt.channel, To: pkt.to, From: pkt.from})
		p.w.trace.note(traceReceive, p.w.now, uint64(n.number), pkt.hash)
		if p.w.trace.out != nil {
			p.w.trace.printf(p.w.now, p.name(), "receive from %s: %s", p.w.endpointName(pkt.from), describe(pkt.data))
		}
		p.w.net.put(pkt)
	}
	n.inbox = n.inbox[:0]
	p.batch = batch
	if len(batch) > 0 {
		p.w.stats.Steps++
		p.w.stats.Arrived += len(batch)
		p.engine.Receive(p.now(), batch)
	}
}

// settle carries out what the engine wants until it wants nothing, and sets the timer.
func (w *World) settle(p *process) {
	for rounds := 0; !p.over; rounds++ {
		if rounds == 100_000 {
			invariant.Fail("sim: the engine of %s wants more and more at %s", p.name(), stamp(w.now))
		}
		p.eatPeers()
		out := p.engine.Output()
		if len(out.Packets)+len(out.Deliveries)+len(out.Events)+len(out.Subscribe)+len(out.Unsubscribe) > 0 {
			if !w.carryOut(p, out) {
				w.end(p, crashed, nil)
				return
			}
			continue
		}
		if !p.handleNext() {
			break
		}
	}
	w.arm(p)
}

// arm schedules the engine's deadline.
func (w *World) arm(p *process) {
	if p.over {
		return
	}
	at := max(w.now, p.node.world(p.engine.Deadline()))
	if at < p.timerAt {
		p.timerAt = at
		w.agenda.add(event{at: at, kind: eventTimer, proc: p})
	}
}

// carryOut does what the engine wants and returns false when the process crashed in the middle of it.
func (w *World) carryOut(p *process, out *engine.Output) bool {
	for _, ch := range out.Subscribe {
		w.net.subscribe(ch, p.node)
		if !slices.Contains(p.channels, ch) {
			p.channels = append(p.channels, ch)
		}
	}
	for i := range out.Packets {
		if p.ambush.springs(p.arena.Bytes(out.Packets[i].Frame)) {
			p.cutAfter = 0
		}
		if p.mayGoOn() && (!p.mute || p.heardBy > 0) {
			w.net.send(p, &out.Packets[i])
		}
		p.arena.Release(out.Packets[i].Frame)
	}
	for i := range out.Deliveries {
		d := &out.Deliveries[i]
		if m := p.member(d.Group); m != nil && p.mayGoOn() {
			m.take(d)
		} else if !d.Frame.IsZero() {
			p.arena.Release(d.Frame)
		}
	}
	p.events = append(p.events[:0], out.Events...)
	for _, ch := range out.Unsubscribe {
		p.unsubscribe(ch)
	}
	out.Reset()
	for i := range p.events {
		if p.mayGoOn() {
			p.onEvent(&p.events[i])
		}
	}
	return p.cutAfter != 0
}

// mayGoOn counts one step and returns false from the moment at which the process crashes.
func (p *process) mayGoOn() bool {
	if p.cutAfter > 0 {
		p.cutAfter--
		p.mute = p.mute || p.cutAfter < p.mutedFor
	}
	if p.cutAfter != 0 {
		p.steps++
	}
	return p.cutAfter != 0
}

func (p *process) unsubscribe(ch dataplane.Channel) {
	p.channels = slices.DeleteFunc(p.channels, func(have dataplane.Channel) bool { return have == ch })
	p.w.net.unsubscribe(ch, p.node)
}

// member returns the membership behind a handle, nil when it is not known.
func (p *process) member(h engine.Handle) *member {
	for i := len(p.members) - 1; i >= 0; i-- {
		if p.members[i].handle == h {
			return p.members[i]
		}
	}
	return nil
}

// onEvent reacts to what the engine tells outside of the delivery order.
func (p *process) onEvent(e *engine.Event) {
	w := p.w
	w.trace.note(traceEngineEvent, w.now, uint64(p.record.id)<<8|uint64(e.Kind), e.Token)
	m := p.member(e.Group)
	switch e.Kind {
	case engine.EventAttached:
		p.attached = true
		w.attach(p)
	case engine.EventOver:
		p.onOver(e.Err)
	case engine.EventEnded:
		if m != nil {
			m.onEnded(e.Err)
		}
	case engine.EventRoom, engine.EventPeerRoom:
		if m != nil {
			m.onRoom()
		}
	case engine.EventFlushed:
		p.onFlushed(e.Token)
	case engine.EventStateRoom:
		p.onStateRoom(e.Token)
	case engine.EventWarning:
		w.stats.Warnings++
	}
	if w.trace.out != nil {
		w.trace.printf(w.now, p.name(), "%s group=%d token=%d %s %s %v", eventName(e.Kind), e.Group, e.Token,
			w.addressName(e.Peer), e.Text, e.Err)
	}
}

// eventName returns the word that traces use.
func eventName(k engine.EventKind) string {
	names := [...]string{"attached", "joined", "ended", "room", "peer-room", "flushed", "state-room", "over", "oracle",
		"suspect", "warning"}
	if int(k) < len(names) {
		return names[k]
	}
	return fmt.Sprintf("event%d", k)
}

func (p *process) onFlushed(token uint64) {
	f := p.flushing[token]
	if f == nil {
		p.w.history.complain(checkContract, p.w.now, "%s: EventFlushed for token %d, which is not under way",
			p.record, token)
		return
	}
	delete(p.flushing, token)
	p.w.stats.Some += btoi(f.record.k > 0)
	if p.w.onFlush != nil {
		p.w.onFlush(f.m, f.record)
	}
	f.record.done, f.record.doneAt, f.record.entry = true, p.w.now, len(f.m.life.log)
}

func (p *process) onStateRoom(transfer uint64) {
	for _, m := range p.members {
		if m.making != nil && m.making.token == transfer {
			m.making.full = false
			m.later(eventTransfer, 0)
		}
	}
}

// onOver ends the process as its engine says.
func (p *process) onOver(err error) {
	how := failed
	if p.stopping {
		how = stopped
	}
	p.w.stats.GivenUp += btoi(errors.Is(err, engine.ErrOracleLost))
	p.w.end(p, how, err)
}

// end takes a process out of the world and checks that its arena is whole.
func (w *World) end(p *process, how fate, err error) {
	if p.over {
		return
	}
	p.over = true
	p.record.fate, p.record.endedAt, p.record.err = how, w.now, err
	w.trace.note(traceFate, w.now, uint64(p.record.id), uint64(how))
	w.trace.printf(w.now, p.name(), "is over: %v %v", how, err)
	for _, m := range p.members {
		m.drop(how)
	}
	for _, ch := range p.channels {
		w.net.unsubscribe(ch, p.node)
	}
	for _, pkt := range p.node.inbox {
		w.net.put(pkt)
	}
	p.node.inbox = p.node.inbox[:0]
	p.node.proc = nil
	delete(w.byEndpoint, p.addr.Endpoint())
	w.live = slices.DeleteFunc(w.live, func(q *process) bool { return q == p })
	w.ended = append(w.ended, p)
	if p.system != nil {
		p.system.look(w)
	}
	if how == crashed {
		w.closeLines(p)
	}
	if how == crashed && w.onCrash != nil {
		w.onCrash()
	}
}

// bury releases what ended processes still hold. It runs between two events, when no call of an engine is under way.
func (w *World) bury() {
	for _, p := range w.ended {
		out := p.engine.Output()
		for i := range out.Packets {
			p.arena.Release(out.Packets[i].Frame)
		}
		for i := range out.Deliveries {
			if f := out.Deliveries[i].Frame; !f.IsZero() {
				p.arena.Release(f)
			}
		}
		out.Reset()
		p.engine.Release()
		if n := p.arena.Outstanding(); n > 0 {
			w.history.complain(checkArena, w.now, "%s (%v) leaves %d frames behind: %d of tx, %d of rx", p.record,
				p.record.fate, n, p.arena.Tx().Cap()-p.arena.Tx().Free(), p.arena.Rx().Cap()-p.arena.Rx().Free())
		}
		_ = p.arena.Close() // what it can complain about was reported above
	}
	w.ended = w.ended[:0]
}
