// Package link gives two processes reliable message lanes over datagrams: in order, without loss or duplicate, of any
// length, until one of the two is declared failed. Control messages, state transfer and point-to-point messages travel
// on lanes of their own, so that none holds up another.
//
// A lane is named by the peer's incarnation, a lane kind and a group number. It starts with its first packet; numbers
// start at 1. A lane never gives up by itself: whether a peer is gone is for the failure detector to find, and Close
// ends its lanes. Everything belongs to the engine's goroutine.
package link

import (
	"slices"
	"time"

	"github.com/khamsin-io/khamsin/dataplane"
	"github.com/khamsin-io/khamsin/dataplane/clock"
	"github.com/khamsin-io/khamsin/dataplane/frame"
	"github.com/khamsin-io/khamsin/dataplane/loan"
	"github.com/khamsin-io/khamsin/dataplane/wire"
	"github.com/khamsin-io/khamsin/vsync/core"
	"github.com/khamsin-io/khamsin/vsync/internal/pdu"
)

// Kind is the kind of a lane.
type Kind uint8

// The kinds.
const (
	Control Kind = iota // control messages
	Peer                // point-to-point messages of one group
	State               // state transfer of one group
	Reply               // replies to queries in one group: never held up by handlers
	kinds
)

// Limits of a lane.
const (
	window     = 64         // packets in flight
	aheadMax   = 4 * window // packets buffered beyond a gap
	messageMax = 1 << 30    // bytes of one message
	backoffMax = 5          // doublings of the retransmission interval
	ackEvery   = window / 4 // packets after which an acknowledgement does not wait
	flagMore   = 1          // flags: the message goes on in the next packet
	flagMany   = 2          // flags: several messages, each behind its length
	peersMax   = 1 << 16    // peers remembered
	incMask    = 1<<32 - 1  // low 32 bits of an incarnation
)

// Counters counts packets.
type Counters struct{ Sent, Resent, Received, Duplicates, Foreign, Malformed, Refused uint64 }

// Message is one whole message of a lane.
type Message struct {
	From  uint64 // the sender's incarnation
	Kind  Kind
	Group uint32
	Data  []byte
	Loan  *loan.Loan // of the memory of Data, when that can be returned: that of short point-to-point messages
}

// Handler receives whole messages. The bytes are its own, until it returns the loan.
type Handler interface {
	// OnMessage takes a message. False means that there is no room for it now: the lane keeps it and takes nothing more
	// from the network until Kick is called and the message is taken.
	OnMessage(now clock.Time, m Message) bool

	// OnSilent is told of a peer that has acknowledged nothing on a lane of control messages for Config.GiveUp, however
	// often it was sent again. It is told again after each further such time.
	OnSilent(now clock.Time, peer uint64)
}

// Config describes the process.
type Config struct {
	Incarnation uint64
	Retry       time.Duration // first retransmission
	Ack         time.Duration // longest wait before an acknowledgement
	Message     int           // bytes of one message; zero means messageMax
	GiveUp      time.Duration // without progress of a control lane before OnSilent; zero: never
	Lender      *loan.Lender  // of received messages; nil: one of its own
}

type laneID struct {
	peer  uint64
	kind  Kind
	group uint32
}

type peer struct {
	ep    dataplane.Endpoint
	lanes []*lane
}

// lane is both directions of one lane.
type lane struct {
	id laneID
	ep dataplane.Endpoint

	queue   queue // messages not yet cut into packets; the first may be partly cut
	cut     int   // bytes of the first that are cut
	queued  int   // bytes in queue
	unacked []frame.Frame
	ackedTo core.Seq // sent packets up to here are acknowledged
	sentTo  core.Seq
	retryAt clock.Time
	tries   int
	waitsAt clock.Time // since when the oldest packet waits for its acknowledgement

	receivedTo core.Seq
	ahead      map[core.Seq]frame.Frame
	partial    []byte
	overlong   bool     // the message being put together is above the limit: what is left of it is dropped
	refused    *Message // whole, and not taken by the handler
	behind     []byte   // messages of the same packet behind the refused one
	ackAt      clock.Time
	ackOwed    int
	active     bool // listed in Links.active
	starved    bool // listed in Links.starved
}

// Links is all lanes of one process.
type Links struct {
	cfg     Config
	out     *pdu.Outbox
	to      Handler
	peers   map[uint64]*peer
	dead    map[uint64]bool // incarnations whose lanes were closed
	active  []*lane         // lanes with a deadline
	refused []*lane         // lanes with a refused message
	starved []*lane         // lanes that found no frame to send with, the first to find none first
	closed  bool            // nothing is sent or taken any more
	spare   int             // bytes of spares
	spares  [][]byte        // buffers of sent messages
	Count   Counters
}

// New returns the lanes of a process, none open.
func New(cfg Config, out *pdu.Outbox, to Handler) *Links {
	if cfg.Message == 0 {
		cfg.Message = messageMax
	}
	if cfg.Lender == nil {
		cfg.Lender = new(loan.Lender)
	}
	return &Links{cfg: cfg, out: out, to: to, peers: map[uint64]*peer{}, dead: map[uint64]bool{}}
}

func (l *Links) lane(id laneID, ep dataplane.Endpoint) *lane {
	p := l.peers[id.peer]
	if p == nil {
		p = &peer{ep: ep}
		l.peers[id.peer] = p
	}
	for _, x := range p.lanes {
		if x.id == id {
			return x
		}
	}
	x := &lane{id: id, ep: ep, retryAt: clock.Never, ackAt: clock.Never}
	p.lanes = append(p.lanes, x)
	return x
}

func (l *Links) activate(x *lane) {
	if !x.active {
		x.active = true
		l.active = append(l.active, x)
	}
}

// Send queues a message; the bytes become the lane's. Messages to processes whose lanes were closed are dropped.
func (l *Links) Send(now clock.Time, to core.Address, k Kind, group uint32, msg []byte) {
	if l.dead[to.Incarnation] || l.closed {
		return
	}
	l.enqueue(now, l.lane(laneID{to.Incarnation, k, group}, to.Endpoint()), outgoing{bytes: msg})
}

func (l *Links) enqueue(now clock.Time, x *lane, m outgoing) {
	x.queue.push(m)
	x.queued += len(m.bytes)
	l.pump(now, x)
}

// Queued returns the bytes of a lane that wait to be sent.
func (l *Links) Queued(to core.Address, k Kind, group uint32) int {
	p := l.peers[to.Incarnation]
	if p == nil {
		return 0
	}
	for _, x := range p.lanes {
		if x.id == (laneID{to.Incarnation, k, group}) {
			return x.queued
		}
	}
	return 0
}

// Acked tells whether everything sent on a lane was acknowledged, or its peer is gone.
func (l *Links) Acked(to core.Address, k Kind, group uint32) bool {
	p := l.peers[to.Incarnation]
	if p == nil {
		return true
	}
	for _, x := range p.lanes {
		if x.id == (laneID{to.Incarnation, k, group}) {
			return x.queue.empty() && len(x.unacked) == 0
		}
	}
	return true
}

// Idle tells whether everything sent to a process was acknowledged.
func (l *Links) Idle() bool {
	for _, x := range l.active {
		if len(x.unacked) > 0 || !x.queue.empty() {
			return false
		}
	}
	return true
}

// Close ends all lanes with a process. What comes from that incarnation later is dropped.
func (l *Links) Close(incarnation uint64) {
	l.dead[incarnation] = true
	p := l.peers[incarnation]
	if p == nil {
		return
	}
	for _, x := range p.lanes {
		l.drop(x)
	}
	delete(l.peers, incarnation)
}

// Dead tells whether a process's lanes were closed.
func (l *Links) Dead(incarnation uint64) bool { return l.dead[incarnation] }

func (l *Links) drop(x *lane) {
	for _, f := range x.unacked {
		l.out.Arena().Tx().Release(f)
	}
	for _, f := range x.ahead { // order-free: every frame goes
		l.out.Arena().Tx().Release(f)
	}
	x.unacked, x.ahead, x.queue, x.queued, x.partial, x.refused = nil, nil, queue{}, 0, nil, nil
	x.behind = nil
	x.retryAt, x.ackAt = clock.Never, clock.Never
}

// Release gives up every frame.
func (l *Links) Release() {
	l.closed = true
	for _, p := range l.peers { // order-free: every frame goes
		for _, x := range p.lanes {
			l.drop(x)
		}
	}
	l.active = nil
}

// OnAck takes an acknowledgement in.
func (l *Links) OnAck(now clock.Time, h *wire.Header) {
	p := l.peers[h.View]
	if !l.Mine(h) || p == nil {
		return
	}
	i := slices.IndexFunc(p.lanes, func(x *lane) bool {
		return x.id.kind == Kind(h.Aux) && x.id.group == h.Group
	})
	if i < 0 {
		return
	}
	x, to := p.lanes[i], core.Seq(h.Seq)
	if to <= x.ackedTo || to > x.sentTo {
		return
	}
	n := int(to - x.ackedTo)
	for _, f := range x.unacked[:n] {
		l.out.Arena().Tx().Release(f)
	}
	x.unacked = slices.Delete(x.unacked, 0, n)
	x.ackedTo = to
	x.tries, x.waitsAt = 0, now
	x.retryAt = clock.Never
	if len(x.unacked) > 0 {
		x.retryAt = now.Add(l.cfg.Retry)
	}
	l.pump(now, x)
	l.feed(now)
}

// OnPacket takes a packet of a lane in, and the frame's reference with it. Whole messages go to the handler.
func (l *Links) OnPacket(now clock.Time, h *wire.Header, f frame.Frame, from dataplane.Endpoint) {
	if l.closed || !l.Mine(h) || (l.peers[h.View] == nil && len(l.peers) >= peersMax) {
		l.out.Arena().Tx().Release(f)
		return
	}
	id := laneID{h.View, Kind(h.Aux), h.Group}
	if l.tooMany(id) {
		l.Count.Malformed++
		l.out.Arena().Tx().Release(f)
		return
	}
	x := l.lane(id, from)
	q := core.Seq(h.Seq)
	if _, have := x.ahead[q]; q <= x.receivedTo || have || q > x.receivedTo+aheadMax {
		l.Count.Duplicates++
		l.out.Arena().Tx().Release(f)
		l.sendAck(x)
		return
	}
	if x.refused != nil {
		l.Count.Refused++
		l.out.Arena().Tx().Release(f)
		return
	}
	l.Count.Received++
	if x.ahead == nil {
		x.ahead = map[core.Seq]frame.Frame{}
	}
	x.ahead[q] = f
	l.advance(now, x)
	if l.dead[h.View] {
		return
	}
	if x.ackOwed >= ackEvery {
		l.sendAck(x)
	} else if x.ackAt == clock.Never {
		x.ackAt = now.Add(l.cfg.Ack)
		l.activate(x)
	}
}

func (l *Links) sendAck(x *lane) {
	x.ackOwed, x.ackAt = 0, clock.Never
	h := wire.Header{
		Kind: wire.KindLinkAck, Group: x.id.group, View: l.cfg.Incarnation, Seq: uint64(x.receivedTo),
		Rank: uint32(x.id.peer & incMask), Aux: uint32(x.id.kind),
	}
	if f, ok := l.out.Make(&h, nil); ok {
		l.out.Unicast(f, x.ep)
	}
}

// Deadline returns when Tick has something to do.
func (l *Links) Deadline() clock.Time {
	t := clock.Never
	for _, x := range l.active {
		t = min(t, x.retryAt, x.ackAt)
	}
	return t
}

// Tick acknowledges and retransmits what is due.
func (l *Links) Tick(now clock.Time) {
	keep := l.active[:0]
	for _, x := range l.active {
		if x.ackAt <= now {
			l.sendAck(x)
		}
		if x.retryAt <= now {
			l.retry(now, x)
		}
		if x.retryAt != clock.Never || x.ackAt != clock.Never {
			keep = append(keep, x)
		} else {
			x.active = false
		}
	}
	clear(l.active[len(keep):])
	l.active = keep
}

// retry sends the oldest unacknowledged packets again: a few, since what follows them may well have arrived.
func (l *Links) retry(now clock.Time, x *lane) {
	if x.id.kind == Control && l.cfg.GiveUp > 0 && len(x.unacked) > 0 && now.Sub(x.waitsAt) >= l.cfg.GiveUp {
		x.waitsAt = now
		l.to.OnSilent(now, x.id.peer)
		if len(x.unacked) == 0 {
			return // its lanes were closed
		}
	}
	for _, f := range x.unacked[:min(len(x.unacked), 1<<min(x.tries+2, 6))] {
		l.Count.Resent++
		l.out.Arena().Retain(f)
		l.out.Unicast(f, x.ep)
	}
	x.retryAt = now.Add(l.cfg.Retry << min(x.tries, backoffMax))
	if len(x.unacked) > 0 { // else the peer is not to blame: there was no frame to send with
		x.tries++
	}
	x.retryAt = max(x.retryAt, now+1)
	l.pump(now, x)
	if len(x.unacked) == 0 && x.queue.empty() {
		x.retryAt = clock.Never
	}
}
