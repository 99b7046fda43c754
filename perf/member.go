package perf

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"

	"github.com/khamsin-io/khamsin/vsync"
)

// part says which part of a run a member has, and where.
type part struct {
	Options
	Index     int    `json:"index"` // 0 founds the system
	System    string `json:"system"`
	Interface string `json:"interface"`
	GroupPort uint16 `json:"group_port"`
	PeerPort  uint16 `json:"peer_port"`
	Profile   string `json:"profile"` // file for a processor profile; empty: none
	// DropShare is the share of packets that the member drops on receiving, where no namespace does it.
	DropShare float64  `json:"drop_share"`
	Hosts     []string `json:"hosts"` // where members look for each other without multicast; empty: on this host

	// Apart makes a member in rounds join when it is told to, and not when it has started.
	Apart bool `json:"apart"`

	// OracleLost is Config.OracleLost in rounds; 0: the default.
	OracleLost time.Duration `json:"oracle_lost"`
}

// member is one process of a run.
type member struct {
	part
	how   primitive
	clock hostClock
	sys   *vsync.System
	group *vsync.Group

	casts *tally // multicasts
	peers *tally // point-to-point messages

	once     sync.Once
	full     chan struct{} // closed by the first complete view
	went     chan struct{} // closed when go was delivered
	bye      chan struct{} // closed when everybody may leave
	files    chan []byte   // reports of the others, at rank 0 of a run without a parent
	view     *vsync.View   // the complete one; valid when full is closed
	churn    churnRecord
	seen     attendance // in rounds
	sent     uint64
	sendErr  error
	recorder recorder
}

// Limits of a run, beside its own length.
const (
	gatherWithin = 60 * time.Second
	drainWithin  = 60 * time.Second
	seekWithin   = 60 * time.Second // how long a member looks for the system that the first one founds
	suspectAfter = 10 * time.Second // silence that counts as death where nobody is to die
	groupName    = "perf"
)

func newMember(p part) (*member, error) {
	how, ok := primitiveNamed(p.Primitive)
	if !ok {
		return nil, fmt.Errorf("primitive %q is unknown", p.Primitive)
	}
	m := &member{
		part: p, how: how, clock: newHostClock(), full: make(chan struct{}), went: make(chan struct{}),
		bye: make(chan struct{}), files: make(chan []byte, MembersMax),
	}
	self := func() vsync.Address { return m.sys.Address() }
	m.casts, m.peers = newTally(m.clock, self), newTally(m.clock, self)
	return m, nil
}

// config returns the configuration of the member's system.
func (m *member) config() vsync.Config {
	c := vsync.DefaultConfig()
	c.SystemName, c.Interfaces, c.GroupPort, c.PeerPort = m.System, []string{m.Interface}, m.GroupPort, m.PeerPort
	c.Waiting, c.Mute, c.Discovery = waitings()[m.Waiting], true, seekWithin
	c.FastStart = m.Index == 0
	switch {
	case m.Detect != "":
		c.Heartbeat, c.SuspectAfter = detections()[m.Detect].Pace()
	case m.Primitive != "kill":
		c.SuspectAfter = suspectAfter
	}
	if m.Window > 0 {
		c.MaxUnstable, c.MaxQueue = m.Window, max(c.MaxQueue, m.Window)
	}
	c.MaxPacket = m.Packet
	m.setTransport(&c)
	if m.DropShare > 0 {
		c.Transport = lossy(c.Transport, m.DropShare)
	}
	return c
}

// run takes part in a whole run and returns what this member measured. The member is still in the group then.
func (m *member) run(ctx context.Context) (*report, error) {
	var err error
	if m.sys, err = vsync.Start(context.WithoutCancel(ctx), vsync.WithConfig(m.config())); err != nil {
		return nil, err
	}
	if m.group, err = m.join(ctx); err != nil {
		return nil, err
	}
	if err := wait(ctx, m.full, gatherWithin, "for all members"); err != nil {
		return nil, err
	}
	m.expect()
	if m.group.Rank() == 0 {
		if err := m.group.SendBytes(ctx, vsync.Ordered, codeGo, nil); err != nil {
			return nil, err
		}
	}
	if err := wait(ctx, m.went, gatherWithin, "to begin"); err != nil {
		return nil, err
	}
	return m.measure(ctx)
}

// join joins the group with fresh handlers.
func (m *member) join(ctx context.Context) (*vsync.Group, error) {
	var options []vsync.GroupOption
	if m.Inline {
		options = append(options, vsync.WithInlineDelivery())
	}
	if m.Primitive == "safe" {
		options = append(options, vsync.WithSafeCopies(vsync.Majority))
	}
	g := m.sys.NewGroup(groupName, options...)
	err := errors.Join(
		g.Handle(codeData, func(msg *vsync.Message) { m.tallyOf(msg).data(msg) }),
		vsync.Answer1(g, codeAsk, m.onAsk),
		g.Handle(codeDone, func(msg *vsync.Message) { m.tallyOf(msg).done(msg) }),
		g.Handle(codeGo, func(*vsync.Message) { closeOnce(m.went) }),
		g.Handle(codeBye, func(*vsync.Message) { closeOnce(m.bye) }),
		g.Handle(codeDie, m.onDie),
		g.Handle(codeFile, func(msg *vsync.Message) { m.files <- append([]byte(nil), msg.Payload...) }),
		g.OnView(m.onView),
	)
	if err != nil {
		return nil, err
	}
	return g, g.Join(ctx)
}

func (m *member) tallyOf(msg *vsync.Message) *tally {
	if msg.Peer {
		return m.peers
	}
	return m.casts
}

func (m *member) onView(v *vsync.View) {
	if v.Size() == m.Members {
		m.once.Do(func() {
			m.view = v
			close(m.full)
		})
	}
	m.churn.onView(v, m.clock.now())
}

// closeOnce closes a channel that only this goroutine closes, unless it is closed.
func closeOnce(ch chan struct{}) {
	select {
	case <-ch:
	default:
		close(ch)
	}
}

// senderRank returns the only sender's rank, when there is one only.
func (m *member) senderRank() vsync.Rank {
	if m.how.last {
		return vsync.Rank(m.Members - 1)
	}
	return vsync.Rank(min(1, m.Members-1))
}

// sends tells whether the member of a rank is a sender.
func (m *member) sends(r vsync.Rank) bool {
	return m.Senders == SendersAll && !m.how.last || r == m.senderRank()
}

// next returns who gets the point-to-point messages of a rank.
func (m *member) next(r vsync.Rank) vsync.Rank { return (r + 1) % vsync.Rank(m.Members) }

// expect tells the tallies from how many senders something comes.
func (m *member) expect() {
	casts, peers := 0, 0
	for r := range vsync.Rank(m.Members) {
		switch {
		case m.how.churn || !m.sends(r):
		case !m.how.peer:
			casts++
		case m.next(r) == m.view.MyRank():
			peers++
		}
	}
	m.casts.expect(casts)
	m.peers.expect(peers)
}

// measure does this member's work, and measures meanwhile.
func (m *member) measure(ctx context.Context) (*report, error) {
	begin := m.clock.now() + int64(m.WarmUp)
	end := begin + int64(m.Duration)
	for _, t := range []*tally{m.casts, m.peers} {
		t.to.Store(end)
		t.from.Store(begin)
	}
	var worker sync.WaitGroup
	if m.sends(m.view.MyRank()) {
		worker.Go(func() {
			if m.sendErr = m.how.work(m, ctx); m.sendErr == nil && !m.how.churn {
				m.sendErr = m.sayDone(ctx)
			}
		})
	}
	m.recorder.start(m, begin)
	m.recorder.stop(m, end)
	worker.Wait()
	if m.sendErr != nil {
		return nil, fmt.Errorf("send: %w", m.sendErr)
	}
	for _, t := range []*tally{m.casts, m.peers} {
		if err := wait(ctx, t.complete, drainWithin, "for the last messages"); err != nil {
			expected, lost, _ := t.sums()
			return nil, fmt.Errorf("%w: %d delivered, %d lost of %d from senders that are done", err,
				t.delivered.Load(), lost, expected)
		}
	}
	return m.report()
}

// sayDone tells everybody how much this member sent, behind all of it.
func (m *member) sayDone(ctx context.Context) error {
	payload := make([]byte, headBytes)
	putHead(payload, 0, m.sent)
	if m.how.peer {
		return m.group.SendBytesTo(ctx, m.view.Members[m.next(m.view.MyRank())], codeDone, payload)
	}
	return m.group.SendBytes(ctx, m.how.flavour, codeDone, payload)
}

// close ends the system without a word: everybody leaves at this time, so nobody is left to care.
func (m *member) close() {
	if m.sys != nil {
		m.sys.Kill()
	}
}

// wait waits for a channel to be closed.
func wait(ctx context.Context, ch <-chan struct{}, limit time.Duration, what string) error {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-ch:
		return nil
	case <-timer.C:
		return fmt.Errorf("waited %s for %v", what, limit)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// sleepUntil sleeps until a time of the host's clock.
func (c hostClock) sleepUntil(at int64) {
	if d := time.Duration(at - c.now()); d > 0 {
		time.Sleep(d)
	}
}

// allocations returns how often and how much the process has allocated, and its collections.
func allocations() (mallocs uint64, collections uint32) {
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return s.Mallocs, s.NumGC
}
