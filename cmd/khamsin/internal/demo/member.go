package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/khamsin-io/khamsin/vsync"
)

// Codes of the group's messages.
const (
	codeMovement vsync.Code = 1
	codeFinish   vsync.Code = 2
)

// joinWithin bounds the wait for a member to get in.
const joinWithin = 60 * time.Second

// member is one process of the group.
type member struct {
	conf      conf
	input     []Movement
	tell      func(report)
	transport vsync.TransportFactory // nil: UDP
	began     time.Time
	end       context.CancelFunc // of the system's context
	sys       *vsync.System
	group     *vsync.Group

	mu        sync.Mutex // the handlers are one goroutine; the sender looks at stock and sent
	stock     *inventory
	pieces    bytes.Buffer // of the transferred state
	inherited uint64       // messages in the transferred state
	sent      int64        // rows multicast when the sender has ended, else -1
	done      bool         // told
	broken    bool         // told

	count   atomic.Uint64
	cancel  context.CancelFunc // ends the sender
	workers sync.WaitGroup
}

// errAbandoned is why a member's context ends when nobody waits for it any more: it need not leave in order.
var errAbandoned = errors.New("abandoned") // immutable: an error

// run is the life of a member: it attaches, joins, and obeys commands until doQuit or until they end.
func (m *member) run(ctx context.Context, commands <-chan command) error {
	m.stock, m.sent, m.began = newInventory(), -1, time.Now()
	if err := m.attach(ctx); err != nil {
		return err
	}
	defer m.close(ctx)
	for {
		select {
		case c, ok := <-commands:
			if !ok || c.Do == doQuit {
				return nil
			}
			if err := m.obey(ctx, c.Do); err != nil {
				return err
			}
		case <-ctx.Done():
			return nil
		case <-m.sys.Done():
			return m.sys.Wait()
		}
	}
}

// attach starts the system and joins the group.
func (m *member) attach(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, joinWithin)
	defer cancel()
	options := append(m.options(), vsync.WithLogger(slog.New(&reporter{tell: m.say})))
	// The system lives longer than the wait for its start, so it gets a context of its own.
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, end)
	var err error
	if m.sys, err = vsync.Start(life, options...); err != nil {
		end()
		return fmt.Errorf("not attached: %w", err)
	}
	m.end = end
	if !stop() {
		return errors.Join(context.Cause(ctx), m.leave(ctx))
	}
	m.say(report{Kind: kindAttached, Took: time.Since(m.began), Addr: m.sys.Address().String()})
	m.group = m.sys.NewGroup("inventory")
	if err := errors.Join(m.declare(), m.group.Join(ctx)); err != nil {
		return errors.Join(err, m.leave(ctx))
	}
	m.say(report{Kind: kindJoined, Took: time.Since(m.began), Rows: m.inherited})
	m.workers.Go(m.progress)
	return nil
}

// options returns what the parent set about the system.
func (m *member) options() []vsync.Option {
	c := &m.conf
	o := []vsync.Option{vsync.WithSystemName(c.System)}
	if c.Suspect > 0 {
		o = append(o, vsync.WithSuspectAfter(c.Suspect))
	}
	if m.transport != nil {
		return append(o, vsync.WithTransport(m.transport))
	}
	if c.Transport == "rdma" {
		o = append(o, vsync.WithTransport(vsync.RDMA()))
	}
	return append(o, vsync.WithPorts(c.GroupPort, c.PeerPort))
}

// declare says what the member does with what the group delivers.
func (m *member) declare() error {
	return errors.Join(
		m.group.Handle(codeMovement, m.onMovement),
		m.group.Handle(codeFinish, m.onFinish),
		m.group.OnView(m.onView),
		m.group.OnMakeState(func(_ context.Context, _ *vsync.View, w *vsync.StateWriter) error {
			m.mu.Lock()
			defer m.mu.Unlock()
			return m.stock.save(w.PutBytes)
		}),
		m.group.OnLoadState(func(piece []byte) error {
			m.pieces.Write(piece)
			return nil
		}),
	)
}

// say sends a report.
func (m *member) say(r report) {
	r.Index, r.At = m.conf.Index, time.Now().UnixNano()
	m.tell(r)
}

func (m *member) onMovement(msg *vsync.Message) {
	m.mu.Lock()
	defer m.mu.Unlock()
	row, err := m.stock.apply(msg.Payload)
	if err != nil && !m.broken {
		m.broken = true
		m.say(report{Kind: kindFailed, Text: "promise broken: " + err.Error()})
	}
	m.count.Store(m.stock.Count)
	if row.share == m.conf.Share.Number {
		m.maybeDone()
	}
}

// maybeDone tells when the whole share has been delivered here: then it has its place in the order.
func (m *member) maybeDone() {
	if !m.done && m.sent >= 0 && m.stock.Applied[m.conf.Share.Number] == uint64(m.sent) {
		m.done = true
		m.say(report{Kind: kindDone, Rows: uint64(m.sent)})
	}
}

func (m *member) onView(v *vsync.View) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.pieces.Len() > 0 { // the first view: the state is complete
		if err := m.stock.load(&m.pieces); err != nil {
			m.say(report{Kind: kindFailed, Text: err.Error()})
		}
		m.inherited = m.stock.Count
		m.count.Store(m.stock.Count)
	}
	m.say(report{Kind: kindView, View: &viewSeen{
		ID: uint64(v.ID), Rank: int(v.MyRank()), Members: names(v.Members), Joined: names(v.Joined),
		Left:  names(v.Left),
		Count: m.stock.Count, Order: m.stock.Order,
	}})
}

func names(list []vsync.Address) []string {
	out := make([]string, len(list))
	for i, a := range list {
		out[i] = a.String()
	}
	return out
}

func (m *member) onFinish(*vsync.Message) {
	m.mu.Lock()
	defer m.mu.Unlock()
	v := m.group.View()
	m.say(report{Kind: kindFinal, Final: &final{
		Rank: int(v.MyRank()), View: uint64(v.ID), Count: m.stock.Count, Order: m.stock.Order, Stock: m.stock.stock(),
		Applied: m.stock.Applied, Own: m.stock.Count - m.inherited,
	}})
}

// obey carries out one command.
func (m *member) obey(ctx context.Context, do verb) error {
	switch do {
	case doGo:
		sending, cancel := context.WithCancel(ctx)
		m.cancel = cancel
		m.workers.Go(func() { m.multicast(sending) })
	case doStop:
		if m.cancel != nil {
			m.cancel()
		}
	case doFinish:
		return m.group.SendBytes(ctx, vsync.Ordered, codeFinish, nil)
	}
	return nil
}

// pace is how often the sender looks how far it should be.
const pace = 2 * time.Millisecond

// multicast sends the share at its rate, until its end or the end of ctx.
func (m *member) multicast(ctx context.Context) {
	sent := uint64(0)
	defer func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.sent = int64(sent)
		m.maybeDone()
	}()
	began, ticker := time.Now(), time.NewTicker(pace)
	defer ticker.Stop()
	s, buf := m.conf.Share, []byte(nil)
	for s.Rows < 0 || sent < uint64(s.Rows) {
		for due := uint64(time.Since(began).Seconds() * m.conf.Rate); sent < due && (s.Rows < 0 ||
			sent < uint64(s.Rows)); sent++ {
			row := movement{share: s.Number, row: sent, Movement: s.row(m.input, sent)}
			buf = row.append(buf[:0])
			if err := m.group.SendBytes(ctx, vsync.Ordered, codeMovement, buf); err != nil {
				if ctx.Err() == nil && m.sys.Active() {
					m.say(report{Kind: kindFailed, Text: err.Error()})
				}
				return
			}
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// progress tells how far the member is, ten times a second.
func (m *member) progress() {
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	told := uint64(0)
	for {
		select {
		case <-ticker.C:
			if n := m.count.Load(); n != told {
				told = n
				m.say(report{Kind: kindProgress, Count: n})
			}
		case <-m.sys.Done():
			return
		}
	}
}

// close ends the sender and leaves the system.
func (m *member) close(ctx context.Context) {
	if m.cancel != nil {
		m.cancel()
	}
	_ = m.leave(ctx) // a member that was killed or poisoned has reported it
	m.workers.Wait()
}

// leave leaves the system, in order if that is still wanted and possible.
func (m *member) leave(ctx context.Context) error {
	defer m.end()
	if errors.Is(context.Cause(ctx), errAbandoned) {
		m.sys.Kill()
		return nil
	}
	return m.sys.Close()
}
