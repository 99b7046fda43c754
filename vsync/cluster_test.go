package vsync

import (
	"context"
	"encoding/binary"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/khamsin-io/khamsin/transports/mem"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds every wait of a test.
const patience = 20 * time.Second

// codeNumber is the code of messages that carry a number.
const codeNumber Code = 1

// hubs are those that had a system.
var hubs sync.Map

// quick are options for systems that live for one test. The first one on a hub need not look for others. Those that
// come later find it at once; they look so long that a busy machine does not make them found a second system.
func quick(hub *mem.Hub, opts ...Option) []Option {
	suspect := 400 * time.Millisecond
	if raceEnabled {
		suspect = 2 * time.Second // the race detector makes everything slow
	}
	discovery := time.Millisecond
	if _, had := hubs.LoadOrStore(hub, true); had {
		discovery = time.Second
	}
	return append([]Option{
		WithTransport(Mem(hub)), WithDiscovery(discovery), WithHeartbeat(50 * time.Millisecond),
		WithSuspectAfter(suspect), WithMute(),
	}, opts...)
}

// startOn starts a system on hub and closes it when the test ends.
func startOn(t testing.TB, hub *mem.Hub, opts ...Option) *System {
	t.Helper()
	ctx := within(t)
	s, err := Start(context.Background(), quick(hub, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	if ctx.Err() != nil {
		t.Fatal("start took too long")
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// within returns a context that ends when the test's patience does.
func within(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// await fails the test when ch is not closed, and gets nothing, in time.
func await[T any](t testing.TB, ch <-chan T, what string) {
	t.Helper()
	select {
	case <-ch:
	case <-time.After(patience):
		t.Fatalf("waited in vain for %s", what)
	}
}

// entry is one thing that happened to a member, in order.
type entry struct {
	View   ViewID // of the view in which it happened, or of the new view
	Number uint64
	From   Address
	Change bool // a view
}

// member is a process in a group that notes what happens.
type member struct {
	sys   *System
	group *Group

	mu      sync.Mutex
	changed sync.Cond
	log     []entry
	views   []*View
	state   []uint64 // the numbers delivered, transferred state included
}

// newMember makes a group that is not joined yet.
func newMember(s *System, name string, opts ...GroupOption) *member {
	m := &member{sys: s, group: s.NewGroup(name, opts...)}
	m.changed.L = &m.mu
	must(m.group.Handle(codeNumber, m.note))
	must(m.group.OnView(m.noteView))
	must(m.group.OnMakeState(m.make))
	must(m.group.OnLoadState(m.load))
	return m
}

// joined returns a member of a group.
func joined(t testing.TB, s *System, name string, opts ...GroupOption) *member {
	t.Helper()
	m := newMember(s, name, opts...)
	if err := m.group.Join(within(t)); err != nil {
		t.Fatal(err)
	}
	return m
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func (m *member) note(msg *Message) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := binary.LittleEndian.Uint64(msg.Payload)
	m.log = append(m.log, entry{View: msg.View.ID, Number: n, From: msg.From})
	m.state = append(m.state, n)
	m.changed.Broadcast()
}

func (m *member) noteView(v *View) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.log = append(m.log, entry{View: v.ID, Change: true})
	m.views = append(m.views, v)
	m.changed.Broadcast()
}

func (m *member) make(_ context.Context, _ *View, w *StateWriter) error {
	m.mu.Lock()
	state := slices.Clone(m.state)
	m.mu.Unlock()
	for piece := range slices.Chunk(state, 100) {
		var b []byte
		for _, n := range piece {
			b = binary.LittleEndian.AppendUint64(b, n)
		}
		if err := w.Put(b); err != nil {
			return err
		}
	}
	return nil
}

func (m *member) load(piece []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for len(piece) >= 8 {
		m.state = append(m.state, binary.LittleEndian.Uint64(piece))
		piece = piece[8:]
	}
	return nil
}

// send multicasts a number.
func (m *member) send(t testing.TB, f Flavour, n uint64) {
	t.Helper()
	if err := m.group.SendBytes(within(t), f, codeNumber, binary.LittleEndian.AppendUint64(nil, n)); err != nil {
		t.Fatal(err)
	}
}

// until waits for a condition on what m noted.
func (m *member) until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	late := false
	timer := time.AfterFunc(patience, func() {
		m.mu.Lock()
		late = true
		m.mu.Unlock()
		m.changed.Broadcast()
	})
	defer timer.Stop()
	m.mu.Lock()
	defer m.mu.Unlock()
	for !ok() {
		if late {
			t.Fatalf("waited in vain for %s; views %v, %d entries", what, m.views, len(m.log))
		}
		m.changed.Wait()
	}
}

// untilSize waits until the latest view has n members.
func (m *member) untilSize(t testing.TB, n int) {
	t.Helper()
	m.until(t, "a view of the size", func() bool { return len(m.views) > 0 && m.views[len(m.views)-1].Size() == n })
}

// untilCount waits until n numbers are in the state.
func (m *member) untilCount(t testing.TB, n int) {
	t.Helper()
	m.until(t, "the messages", func() bool { return len(m.state) >= n })
}

// entries returns what m noted so far.
func (m *member) entries() []entry {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.log)
}

func wantErr(t testing.TB, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: %v, want %v", what, err, want)
	}
}

// logTo returns a logger that counts its lines.
type lineCounter struct {
	mu sync.Mutex
	n  int
}

func (c *lineCounter) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n++
	return len(b), nil
}

func (c *lineCounter) logger() *slog.Logger { return slog.New(slog.NewTextHandler(c, nil)) }
