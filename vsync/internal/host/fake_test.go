package host

import (
	"context"
	"encoding/binary"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/khamsin-io/khamsin/dataplane"
	"github.com/khamsin-io/khamsin/dataplane/clock"
	"github.com/khamsin-io/khamsin/dataplane/frame"
	"github.com/khamsin-io/khamsin/vsync/core"
	"github.com/khamsin-io/khamsin/vsync/internal/engine"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeEngine is a group of one: it delivers what it is given. It fails the test when two goroutines call it at once.
type fakeEngine struct {
	t       testing.TB
	arena   *frame.Arena
	window  int
	busy    atomic.Bool
	out     engine.Output
	next    engine.Handle
	open    map[engine.Handle]int // unconsumed packets
	starved map[engine.Handle]bool
	joined  []byte
	peers   int // unconsumed point-to-point messages
	peerMax int // above which they are refused; 0: never
	refused engine.Handle
	due     clock.Time
	onTick  func(now clock.Time)
	receive func(now clock.Time, p dataplane.Packet)
	packets bool // send a packet for each message
	chunks  [][]byte
	aborted []uint64
	outputs int // calls of Output
	full    int // answers Full to so many state chunks
	stop    bool
	ended   bool
}

func (e *fakeEngine) enter() *fakeEngine {
	if e.busy.Swap(true) {
		e.t.Error("two goroutines in the engine")
	}
	return e
}

func (e *fakeEngine) leave() { e.busy.Store(false) }

func (e *fakeEngine) Start(clock.Time) {
	defer e.enter().leave()
	e.open, e.starved, e.due = map[engine.Handle]int{}, map[engine.Handle]bool{}, clock.Never
	e.event(engine.Event{Kind: engine.EventAttached})
}

func (e *fakeEngine) event(ev engine.Event) { e.out.Events = append(e.out.Events, ev) }

func (e *fakeEngine) deliver(d engine.Delivery) { e.out.Deliveries = append(e.out.Deliveries, d) }

func (e *fakeEngine) Receive(now clock.Time, batch []dataplane.Packet) {
	defer e.enter().leave()
	for _, p := range batch {
		if e.receive != nil {
			e.receive(now, p)
		}
		e.arena.Release(p.Frame)
	}
}

func (e *fakeEngine) Tick(now clock.Time) {
	defer e.enter().leave()
	if now >= e.due {
		e.due = clock.Never
		if e.onTick != nil {
			e.onTick(now)
		}
	}
}

func (e *fakeEngine) Deadline() clock.Time   { return e.due }
func (e *fakeEngine) Output() *engine.Output { e.outputs++; return &e.out }

func (e *fakeEngine) Join(_ clock.Time, req engine.JoinRequest) engine.Handle {
	defer e.enter().leave()
	e.next++
	h := e.next
	if req.Mode == engine.CreateOnly {
		e.event(engine.Event{Kind: engine.EventEnded, Group: h, Err: engine.ErrGroupExists})
		return h
	}
	e.open[h] = 0
	e.deliver(engine.Delivery{Kind: engine.DeliverInit, Group: h})
	e.deliver(engine.Delivery{Kind: engine.DeliverView, Group: h, View: &core.View{ID: 1}})
	e.event(engine.Event{Kind: engine.EventJoined, Group: h})
	return h
}

func (e *fakeEngine) Leave(_ clock.Time, h engine.Handle) {
	defer e.enter().leave()
	e.end(h, engine.ErrLeft)
}

func (e *fakeEngine) Terminate(_ clock.Time, h engine.Handle) {
	defer e.enter().leave()
	e.end(h, engine.ErrTerminated)
}

func (e *fakeEngine) end(h engine.Handle, err error) {
	if _, ok := e.open[h]; !ok {
		return
	}
	delete(e.open, h)
	e.deliver(engine.Delivery{Kind: engine.DeliverEnd, Group: h, Err: err})
	e.event(engine.Event{Kind: engine.EventEnded, Group: h, Err: err})
}

func (e *fakeEngine) Submit(_ clock.Time, h engine.Handle, f core.Flavour, head, msg []byte) engine.Result {
	defer e.enter().leave()
	n, ok := e.open[h]
	if !ok {
		return engine.NotMember
	}
	if n >= e.window {
		e.starved[h] = true
		return engine.Full
	}
	e.open[h]++
	e.joined = append(append(e.joined[:0], head...), msg...)
	fr := e.frameOf(e.joined)
	e.deliver(engine.Delivery{Kind: engine.DeliverMessages, Flavour: f, Group: h, Frame: fr})
	if e.packets {
		e.arena.Retain(fr)
		e.out.Packets = append(e.out.Packets, dataplane.Packet{Frame: fr, Channel: 1})
	}
	return engine.Accepted
}

func (e *fakeEngine) frameOf(msg []byte) frame.Frame {
	fr, ok := e.arena.Tx().Get()
	if !ok {
		e.t.Error("arena empty")
		return frame.Frame{}
	}
	fr.Len = uint32(len(msg) + binary.MaxVarintLen32)
	n := binary.PutUvarint(e.arena.Bytes(fr), uint64(len(msg)))
	copy(e.arena.Bytes(fr)[n:], msg)
	fr.Len = uint32(n + len(msg))
	return fr
}

func (e *fakeEngine) SubmitTo(_ clock.Time, h engine.Handle, to core.Address, msg []byte) engine.Result {
	defer e.enter().leave()
	if _, ok := e.open[h]; !ok {
		return engine.NotMember
	}
	if e.peerMax > 0 && e.peers >= e.peerMax {
		e.refused = h
		return engine.Full
	}
	e.peers++
	e.deliver(engine.Delivery{Kind: engine.DeliverPeer, Group: h, From: to, Data: append([]byte(nil), msg...)})
	return engine.Accepted
}

func (e *fakeEngine) SubmitRawTo(now clock.Time, h engine.Handle, to core.Address, msg []byte, _ bool) engine.Result {
	return e.SubmitTo(now, h, to, msg)
}

func (e *fakeEngine) Flush(_ clock.Time, h engine.Handle, _ int, token uint64) {
	defer e.enter().leave()
	e.event(engine.Event{Kind: engine.EventFlushed, Group: h, Token: token})
}

func (e *fakeEngine) StateChunk(_ clock.Time, transfer uint64, data []byte, last bool) engine.Result {
	defer e.enter().leave()
	switch {
	case transfer != 7:
		return engine.NotMember
	case e.full > 0:
		e.full--
		e.due, e.onTick = 1, func(clock.Time) {
			e.event(engine.Event{Kind: engine.EventStateRoom, Token: transfer})
		}
		return engine.Full
	}
	e.chunks = append(e.chunks, append([]byte(nil), data...))
	return engine.Accepted
}

func (e *fakeEngine) SubmitReply(_ clock.Time, h engine.Handle, to core.Address, msg []byte) engine.Result {
	defer e.enter().leave()
	e.deliver(engine.Delivery{Kind: engine.DeliverReply, Group: h, From: to, Data: append([]byte(nil), msg...)})
	return engine.Accepted
}

func (e *fakeEngine) StateAbort(_ clock.Time, transfer uint64) {
	defer e.enter().leave()
	e.aborted = append(e.aborted, transfer)
}

func (e *fakeEngine) ConsumedPeers(_ clock.Time, h engine.Handle, messages, bytes int) {
	defer e.enter().leave()
	if e.peers -= messages; e.peers < 0 {
		e.t.Errorf("consumed %d point-to-point messages too many", -e.peers)
	}
	if e.refused != 0 && e.peers <= e.peerMax/2 {
		e.event(engine.Event{Kind: engine.EventPeerRoom, Group: e.refused})
		e.refused = 0
	}
}

func (e *fakeEngine) Consumed(_ clock.Time, h engine.Handle, packets int) {
	defer e.enter().leave()
	n, ok := e.open[h]
	if !ok {
		return
	}
	if n -= packets; n < 0 {
		e.t.Errorf("consumed %d packets too many", -n)
	}
	e.open[h] = n
	if e.starved[h] && n <= e.window/2 {
		e.starved[h] = false
		e.event(engine.Event{Kind: engine.EventRoom, Group: h})
	}
}

func (e *fakeEngine) Report(clock.Time, engine.Handle, core.Address, string) error {
	defer e.enter().leave()
	return errors.New("no such member")
}

func (e *fakeEngine) Stop(clock.Time) {
	defer e.enter().leave()
	if e.stop {
		return // never answers
	}
	for h := range e.open {
		e.end(h, engine.ErrStopped)
	}
	e.over(engine.ErrStopped)
}

func (e *fakeEngine) over(err error) {
	if !e.ended {
		e.ended = true
		e.event(engine.Event{Kind: engine.EventOver, Err: err})
	}
}

func (e *fakeEngine) Release() {
	for _, p := range e.out.Packets {
		e.arena.Release(p.Frame)
	}
}

// fakeTransport keeps the sequence numbers of what it was given, takes as many packets as the test allows, and receives
// what the test puts in.
type fakeTransport struct {
	arena  *frame.Arena
	mu     sync.Mutex
	cond   *sync.Cond
	in     []dataplane.Packet
	woken  bool
	closed bool
	sent   []uint64
	refuse func(n int) (int, error) // how many of n to take
	wakes  atomic.Int64
	calls  atomic.Int64 // of Receive
	blocks atomic.Int64 // Receive calls that would block
}

func newFakeTransport(t testing.TB) *fakeTransport {
	a, err := frame.New(frame.Config{TxChunks: 4096, RxRuns: 256})
	if err != nil {
		t.Fatal(err)
	}
	f := &fakeTransport{arena: a}
	f.cond = sync.NewCond(&f.mu)
	return f
}

func (f *fakeTransport) Caps() dataplane.Caps {
	return dataplane.Caps{Name: "fake", MTU: 1400, Batch: 32}
}
func (f *fakeTransport) Arena() *frame.Arena                 { return f.arena }
func (f *fakeTransport) Local() dataplane.Endpoint           { return dataplane.Endpoint{Port: 1} }
func (f *fakeTransport) Subscribe(dataplane.Channel) error   { return nil }
func (f *fakeTransport) Unsubscribe(dataplane.Channel) error { return nil }
func (f *fakeTransport) Stats() dataplane.Stats              { return dataplane.Stats{} }

func (f *fakeTransport) Send(batch []dataplane.Packet) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n, err := len(batch), error(nil)
	if f.refuse != nil {
		n, err = f.refuse(len(batch))
	}
	for _, p := range batch[:n] {
		msg, _, _ := engine.NextMessage(f.arena.Bytes(p.Frame))
		if len(msg) >= 8 {
			f.sent = append(f.sent, binary.LittleEndian.Uint64(msg))
		}
		f.arena.Release(p.Frame)
	}
	return n, err
}

func (f *fakeTransport) Receive(batch []dataplane.Packet, wait dataplane.Wait) (int, error) {
	f.calls.Add(1)
	f.mu.Lock()
	defer f.mu.Unlock()
	end := time.Now().Add(wait.Timeout)
	if wait.Timeout > 0 {
		timer := time.AfterFunc(wait.Timeout, f.timeout)
		defer timer.Stop()
	}
	for {
		switch {
		case f.closed:
			return 0, dataplane.ErrClosed
		case len(f.in) > 0:
			n := copy(batch, f.in)
			f.in = f.in[n:]
			return n, nil
		case f.woken || wait.Timeout == 0 || wait.Timeout > 0 && !time.Now().Before(end):
			f.woken = false
			return 0, nil
		}
		f.blocks.Add(1)
		f.cond.Wait()
	}
}

func (f *fakeTransport) timeout() {
	f.mu.Lock() // whoever is about to wait has looked at the clock before
	defer f.mu.Unlock()
	f.cond.Broadcast()
}

func (f *fakeTransport) put(p ...dataplane.Packet) {
	f.mu.Lock()
	f.in = append(f.in, p...)
	f.mu.Unlock()
	f.cond.Broadcast()
}

func (f *fakeTransport) Wake() {
	f.wakes.Add(1)
	f.mu.Lock()
	f.woken = true
	f.mu.Unlock()
	f.cond.Broadcast()
}

func (f *fakeTransport) Close() error {
	f.mu.Lock()
	f.closed = true
	f.mu.Unlock()
	f.cond.Broadcast()
	return f.arena.Close()
}

// fakeApp calls the functions that are set.
type fakeApp struct {
	cast func(ctx context.Context, msg []byte)
	peer func(ctx context.Context, msg []byte)
	view func(ctx context.Context)
	make func(w *StateWriter) error
	load func(piece []byte) error
	init func() error
	ends atomic.Int64
}

func (a *fakeApp) Early(*engine.Delivery) {}

func (a *fakeApp) Cast(ctx context.Context, _ *engine.Delivery, msg []byte) {
	if a.cast != nil {
		a.cast(ctx, msg)
	}
}

func (a *fakeApp) Peer(ctx context.Context, d *engine.Delivery) {
	if a.peer != nil {
		a.peer(ctx, d.Data)
	}
}

func (a *fakeApp) View(ctx context.Context, _ *core.View) {
	if a.view != nil {
		a.view(ctx)
	}
}

func (a *fakeApp) MakeState(_ context.Context, _ *core.View, w *StateWriter) error { return a.make(w) }
func (a *fakeApp) LoadState(_ context.Context, piece []byte) error                 { return a.load(piece) }
func (a *fakeApp) StateLoaded(context.Context) error                               { return nil }
func (a *fakeApp) Recovered(*engine.Delivery)                                      {}

func (a *fakeApp) End(error) { a.ends.Add(1) }

func (a *fakeApp) Init(context.Context) error {
	if a.init != nil {
		return a.init()
	}
	return nil
}

// rig is a host over the fakes.
type rig struct {
	t         testing.TB
	host      *Host
	engine    *fakeEngine
	transport *fakeTransport
	inline    bool // of groups that are joined
}

// newRig returns a started host. edit may change the configuration and the engine before the start.
func newRig(t testing.TB, edit func(c *Config, e *fakeEngine, f *fakeTransport)) *rig {
	t.Helper()
	f := newFakeTransport(t)
	e := &fakeEngine{t: t, arena: f.arena, window: 256}
	c := Config{
		Engine: e, Transport: f, Clock: clock.Monotonic(), Logger: slog.New(slog.DiscardHandler),
		Queue: 256, Message: 1 << 10,
	}
	if edit != nil {
		edit(&c, e, f)
	}
	h, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	h.Start()
	<-h.Attached()
	return &rig{t: t, host: h, engine: e, transport: f}
}

// join joins a group.
func (r *rig) join(name string, app App) *Group {
	r.t.Helper()
	g := r.host.NewGroup(name, app, r.inline)
	if err := g.Join(r.t.Context(), engine.JoinRequest{}); err != nil {
		r.t.Fatal(err)
	}
	return g
}

// close closes the host, which must leave nothing behind.
func (r *rig) close() {
	r.t.Helper()
	if err := r.host.Close(); err != nil {
		r.t.Fatal(err)
	}
}

// number encodes n as a message.
func number(n uint64) []byte { return binary.LittleEndian.AppendUint64(nil, n) }

// bothModels runs a test under each model.
func bothModels(t *testing.T, test func(t *testing.T, m Model)) {
	for _, m := range []Model{Combining, Loop} {
		t.Run(m.String(), func(t *testing.T) { test(t, m) })
	}
}

func (e *fakeEngine) LineClosed(clock.Time, uint64) {}
func (e *fakeEngine) LineOpen(clock.Time, uint64)   {}
