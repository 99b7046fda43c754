package engine

import (
	"container/heap"
	"fmt"

	"github.com/khamsin-io/khamsin/dataplane"
	"github.com/khamsin-io/khamsin/dataplane/clock"
	"github.com/khamsin-io/khamsin/dataplane/frame"
	"github.com/khamsin-io/khamsin/dataplane/loan"
	"github.com/khamsin-io/khamsin/dataplane/wire"
	"github.com/khamsin-io/khamsin/vsync/core"
	"github.com/khamsin-io/khamsin/vsync/internal/detect"
	"github.com/khamsin-io/khamsin/vsync/internal/link"
	"github.com/khamsin-io/khamsin/vsync/internal/member"
	"github.com/khamsin-io/khamsin/vsync/internal/pdu"
	"github.com/khamsin-io/khamsin/vsync/internal/seal"
	"github.com/khamsin-io/khamsin/vsync/internal/xfer"
)

// Engine is the whole protocol state of one process.
type Engine struct {
	cfg Config
	now clock.Time
	box *pdu.Outbox
	out Output

	links  *link.Links
	member *member.Machine
	detect *detect.Detector

	groups    []*group          // by handle-1; nil when over
	byName    map[string]*group // the group that is not over, of each name
	byLid     map[uint32]*group
	dirty     []*group
	timers    timers
	channels  map[dataplane.Channel]int // subscriptions by number of groups
	transfers map[uint64]*xfer.Outgoing
	nextXfer  uint64

	ring     *seal.Ring            // nil without a key
	clash    bool                  // a beacon of a system of this name was not to be opened
	genuine  bool                  // somebody else's packet was
	suspects map[uint64]string     // by incarnation: why this process accused it
	charges  map[uint64]pdu.Charge // by incarnation: why the ORACLE removed it
	leavers  int                   // groups that this process ever wanted to leave
	stopping bool
	stopBy   clock.Time // when a stop is over even if nobody answers
	over     bool
	kick     bool // lanes that keep messages should offer them again

	lender      loan.Lender
	joined      []byte // see join
	windowLimit int    // of unstable packets of this process in a group: see Tune
	count       Counters
}

// Counters counts what the engine saw beside its groups' streams.
type Counters struct {
	Received, Short, Foreign, BadCRC, Malformed, OtherSystem, NoGroup, OldView, EarlyDropped uint64

	Unsigned, Forged, Replayed uint64 // refused because of the key

	OtherPart uint64 // packets and poison of another part of a divided system
	RawLost   uint64 // raw messages of which a part had come

	HeartbeatsSent, HeartbeatsHeard, LinkSent, LinkResent, Starved uint64
	Streams                                                        StreamCounters
}

// New returns an engine that is not yet started.
func New(cfg Config) (*Engine, error) {
	if cfg.Arena == nil || cfg.Self.Incarnation == 0 || cfg.MTU < 256 {
		return nil, fmt.Errorf("engine: an arena, an incarnation and an MTU of at least 256 bytes are needed")
	}
	fillDefaults(&cfg)
	e := &Engine{
		stopBy: clock.Never, cfg: cfg, box: pdu.NewOutbox(cfg.Arena, cfg.MTU), byName: map[string]*group{},
		byLid:    map[uint32]*group{},
		channels: map[dataplane.Channel]int{}, transfers: map[uint64]*xfer.Outgoing{},
		suspects: map[uint64]string{}, charges: map[uint64]pdu.Charge{}, windowLimit: cfg.Limits.Window,
	}
	if cfg.Key != nil {
		var err error
		if e.ring, err = seal.NewRing(cfg.Key, cfg.Self.Incarnation); err != nil {
			return nil, err
		}
		e.box.Protect(e.ring, true)
	} else {
		e.box.Protect(nil, !cfg.NoSums)
	}
	t := cfg.Timing
	e.links = link.New(link.Config{
		Incarnation: cfg.Self.Incarnation, Retry: t.LinkRetry, Ack: t.Ack, GiveUp: t.Stuck,
		Lender: &e.lender,
	}, e.box, e)
	e.detect = detect.New(detect.Config{
		Incarnation: cfg.Self.Incarnation, Interval: t.Heartbeat, Suspect: e.plantHaste(t.Suspect),
		Line: cfg.Line,
	}, e.box)
	e.member = member.New(member.Config{
		Self: cfg.Self, System: cfg.System, Size: cfg.Oracle.Size, Eligible: cfg.Oracle.Eligible,
		FastStart: cfg.Oracle.FastStart, Hosts: cfg.Oracle.Hosts, Host: cfg.Oracle.Host,
		IgnoreCut: cfg.Oracle.IgnoreCut, Canary: cfg.Canary, Seed: cfg.Seed,
		Channel: cfg.Channels.Low, Low: uint32(cfg.Channels.Low) + 1, Count: uint32(cfg.Channels.Count - 1),
		Discovery: t.Discovery, Beacon: t.Beacon, Gather: t.Gather, Request: t.Request, Heartbeat: t.Heartbeat,
		Suspect: t.Suspect, OracleLost: t.OracleLost,
	}, e.box, (*controlLane)(e), (*hooks)(e))
	return e, nil
}

// Start begins discovery. It is called once.
func (e *Engine) Start(now clock.Time) {
	e.now = now
	e.subscribe(e.cfg.Channels.Low)
	e.member.Start(now)
}

// Output returns what is to be done since the last Reset of the output.
func (e *Engine) Output() *Output {
	e.settle()
	e.out.Packets = append(e.out.Packets, e.box.Packets...)
	clear(e.box.Packets)
	e.box.Packets = e.box.Packets[:0]
	e.out.Lines = append(e.out.Lines, e.detect.Lines...)
	e.detect.Lines = e.detect.Lines[:0]
	return &e.out
}

// settle finishes the turn: groups that were touched transmit what they can.
func (e *Engine) settle() {
	for len(e.dirty) > 0 || e.kick {
		if e.kick {
			e.kick = false
			if !e.over {
				e.links.Kick(e.now)
			}
			continue
		}
		g := e.dirty[len(e.dirty)-1]
		e.dirty = e.dirty[:len(e.dirty)-1]
		g.dirty = false
		g.settle(e.now)
		e.retime(g)
	}
}

func (e *Engine) touch(g *group) {
	if !g.dirty {
		g.dirty = true
		e.dirty = append(e.dirty, g)
	}
}

// Deadline returns the earliest time at which Tick has something to do.
func (e *Engine) Deadline() clock.Time {
	if e.over {
		return clock.Never
	}
	e.settle()
	t := min(e.links.Deadline(), e.member.Deadline(), e.detect.Deadline(), e.stopBy)
	if len(e.timers) > 0 {
		t = min(t, e.timers[0].due)
	}
	return t
}

// Tick runs what is due.
func (e *Engine) Tick(now clock.Time) {
	if e.over {
		return
	}
	e.now = now
	if e.stopBy <= now {
		e.finish(ErrStopped)
		return
	}
	if e.links.Deadline() <= now {
		e.links.Tick(now)
		e.roomForState()
	}
	for _, a := range e.detect.Tick(now) {
		e.accuse(a.Who, a.Why)
	}
	if e.member.Deadline() <= now {
		e.member.Tick(now)
	}
	for len(e.timers) > 0 && e.timers[0].due <= now && !e.over {
		g := e.timers[0]
		g.tick(now)
		e.settle()
		e.retime(g)
	}
}

// LineClosed is told that the other end of a line (Output.Lines) was closed: its process may be dead.
func (e *Engine) LineClosed(now clock.Time, incarnation uint64) {
	if !e.over {
		e.now = now
		e.detect.OnClosed(now, incarnation)
	}
}

// LineOpen is told that a line that was closed is open again, to the same process.
func (e *Engine) LineOpen(now clock.Time, incarnation uint64) {
	if !e.over {
		e.now = now
		e.detect.OnOpen(now, incarnation)
	}
}

// accuse reports a process to the ORACLE.
func (e *Engine) accuse(who core.Address, why string) {
	if _, did := e.suspects[who.Incarnation]; did || e.over {
		return
	}
	e.suspects[who.Incarnation] = why
	e.out.Events = append(e.out.Events, Event{Kind: EventSuspect, Peer: who, Text: why})
	e.member.Accuse(e.now, who, why)
}

// Receive takes in a batch of packets and one reference of each frame.
func (e *Engine) Receive(now clock.Time, batch []dataplane.Packet) {
	e.now = now
	for i := range batch {
		if e.over {
			e.box.Arena().Tx().Release(batch[i].Frame)
			continue
		}
		e.receive(now, &batch[i])
	}
}

func (e *Engine) receive(now clock.Time, p *dataplane.Packet) {
	b := e.box.Arena().Bytes(p.Frame)
	var h wire.Header
	if err := e.decode(&h, b); err != nil {
		e.countBad(err)
		e.box.Arena().Tx().Release(p.Frame)
		return
	}
	e.count.Received++
	if h.System != e.box.System && h.Kind != wire.KindBeacon {
		e.count.OtherSystem++
		e.box.Arena().Tx().Release(p.Frame)
		return
	}
	switch h.Kind {
	case wire.KindData, wire.KindRaw, wire.KindAck, wire.KindNak, wire.KindSync:
		e.receiveGroup(now, &h, p)
		return
	case wire.KindLink:
		if e.links.Dead(h.View) {
			e.poison(h.View, p.From)
		}
		e.links.OnPacket(now, &h, p.Frame, p.From)
		return
	case wire.KindLinkAck:
		e.links.OnAck(now, &h)
		e.roomForState()
		e.leaversGoOn(now)
	case wire.KindBeacon:
		e.genuine = e.genuine || e.member.IsBeacon(b[e.box.Head():])
		e.member.OnBeacon(now, h.System, b[e.box.Head():])
	case wire.KindHeartbeat:
		if e.links.Dead(h.View) {
			e.poison(h.View, p.From)
		} else if e.links.Mine(&h) {
			e.detect.OnLife(now, &h, p.From)
		}
	case wire.KindPoison:
		e.onPoison(&h, b[e.box.Head():])
	}
	e.box.Arena().Tx().Release(p.Frame)
}

// payload returns the part of a packet behind what stands in front of its payload.
func (e *Engine) payload(f frame.Frame) frame.Frame {
	f.Off += uint32(e.box.Head())
	f.Len -= uint32(e.box.Head())
	return f
}

func (e *Engine) receiveGroup(now clock.Time, h *wire.Header, p *dataplane.Packet) {
	g := e.byLid[h.Group]
	if g == nil {
		e.count.NoGroup++
		e.box.Arena().Tx().Release(p.Frame)
		return
	}
	g.receive(now, h, p)
	e.touch(g)
}

// bury ends the lanes with a process that was removed, and remembers why, to tell it should it be alive.
func (e *Engine) bury(a core.Address, why pdu.Charge) {
	e.links.Close(a.Incarnation)
	e.charges[a.Incarnation] = why
}

// poison tells a process that was removed that it is no longer part of the system.
func (e *Engine) poison(incarnation uint64, to dataplane.Endpoint) {
	why := e.charges[incarnation]
	m := &pdu.Poison{Accuser: why.By, Teller: e.cfg.Self, Part: e.member.Part(), Reason: why.Reason}
	var w pdu.Writer
	m.Append(&w)
	h := wire.Header{Kind: wire.KindPoison, View: e.cfg.Self.Incarnation, Rank: uint32(incarnation)}
	if len(w.B) > e.box.Room() {
		return
	}
	if f, ok := e.box.Make(&h, w.B); ok {
		e.box.Unicast(f, to)
	}
}

func (e *Engine) onPoison(h *wire.Header, body []byte) {
	var m pdu.Poison
	if h.Rank != uint32(e.cfg.Self.Incarnation) || pdu.Decode(&m, body) != nil {
		e.count.Malformed++
		return
	}
	if e.cfg.Oracle.IgnoreCut && m.Part != e.member.Part() {
		e.count.OtherPart++
		return
	}
	e.finish(&PoisonError{Accuser: m.Accuser, Teller: m.Teller, Reason: m.Reason})
}

// finish ends everything without telling anybody.
func (e *Engine) finish(err error) {
	if e.over {
		return
	}
	e.over = true
	e.member.End()
	for _, g := range e.groups {
		if g != nil {
			g.end(err)
		}
	}
	e.links.Release()
	e.plantKeepFrame()
	e.out.Events = append(e.out.Events, Event{Kind: EventOver, Err: err})
}

// Over tells whether the engine is finished.
func (e *Engine) Over() bool { return e.over }

// Release gives every frame that the engine still holds back to the arena. The engine is of no use afterwards.
func (e *Engine) Release() {
	e.finish(ErrStopped)
	e.Output()
	for _, p := range e.out.Packets {
		e.box.Arena().Tx().Release(p.Frame)
	}
	for _, d := range e.out.Deliveries {
		if !d.Frame.IsZero() {
			e.box.Arena().Tx().Release(d.Frame)
		}
	}
	e.out.Reset()
}

func (e *Engine) subscribe(ch dataplane.Channel) {
	e.channels[ch]++
	if e.channels[ch] == 1 {
		e.out.Subscribe = append(e.out.Subscribe, ch)
	}
}

// want tells the transport which group's packets are wanted, should it filter.
func (e *Engine) want(ch dataplane.Channel, lid uint32, wanted bool) {
	e.out.Groups = append(e.out.Groups, GroupChange{Channel: ch, Group: lid, Wanted: wanted})
}

func (e *Engine) unsubscribe(ch dataplane.Channel) {
	e.channels[ch]--
	if e.channels[ch] == 0 {
		delete(e.channels, ch)
		e.out.Unsubscribe = append(e.out.Unsubscribe, ch)
	}
}

// timers is the heap of groups by deadline.
type timers []*group

func (t timers) Len() int { return len(t) }
func (t timers) Less(i, j int) bool {
	return t[i].due < t[j].due || (t[i].due == t[j].due && t[i].handle < t[j].handle)
}
func (t timers) Swap(i, j int) { t[i], t[j] = t[j], t[i]; t[i].at, t[j].at = i, j }

// Push is heap.Interface's.
func (t *timers) Push(x any) {
	g := x.(*group)
	g.at = len(*t)
	*t = append(*t, g)
}

// Pop is heap.Interface's.
func (t *timers) Pop() any {
	old := *t
	g := old[len(old)-1]
	old[len(old)-1] = nil
	*t = old[:len(old)-1]
	g.at = -1
	return g
}

// retime puts a group's deadline into the heap.
func (e *Engine) retime(g *group) {
	due := g.deadline()
	switch {
	case g.at < 0 && due != clock.Never:
		g.due = due
		heap.Push(&e.timers, g)
	case g.at >= 0 && due == clock.Never:
		heap.Remove(&e.timers, g.at)
	case g.at >= 0 && due != g.due:
		g.due = due
		heap.Fix(&e.timers, g.at)
	}
}
