package vsync

import (
	"context"
	"encoding/binary"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/khamsin-io/khamsin/transports/mem"
)

// rows: GRP-01, GRP-02, GRP-10, GRP-15, VIEW-01, VIEW-04, VIEW-05, VIEW-08, VIEW-09, VIEW-11
func TestJoin(t *testing.T) {
	hub := mem.NewHub()
	var systems []*System
	var members []*member
	for range 3 {
		s := startOn(t, hub)
		systems = append(systems, s)
		m := newMember(s, "g")
		select {
		case <-m.group.Ready():
			t.Fatal("ready before the join")
		default:
		}
		if m.group.View() != nil || m.group.Rank() != NoRank {
			t.Fatal("a view before the join")
		}
		must(m.group.Join(within(t)))
		await(t, m.group.Ready(), "Ready") // Join returned: the first view has been handled
		members = append(members, m)
	}
	for i, m := range members {
		m.untilSize(t, 3)
		v := m.group.View()
		for rank, s := range systems {
			if v.Members[rank] != s.Address() || v.Rank(s.Address()) != Rank(rank) {
				t.Errorf("member %d: rank %d is %v, want %v", i, rank, v.Members[rank], s.Address())
			}
		}
		if v.MyRank() != Rank(i) || m.group.Rank() != Rank(i) || v.ID != members[0].group.View().ID {
			t.Errorf("member %d: rank %d, view %d", i, v.MyRank(), v.ID)
		}
		if !slices.Equal(v.Joined, []Address{systems[2].Address()}) || !strings.Contains(v.String(), "joined") {
			t.Errorf("member %d: %v", i, v)
		}
		if v.Contains(Address{}) || !v.Contains(systems[0].Address()) {
			t.Errorf("member %d: Contains is wrong", i)
		}
	}
	other := joined(t, systems[0], "another group")
	if other.group.View().Size() != 1 || other.group.ID() == members[0].group.ID() {
		t.Errorf("another name is the same group: %v", other.group.View())
	}
}

// rows: GRP-09, GRP-11, GRP-05, GRP-07
func TestDeclarations(t *testing.T) {
	s := startOn(t, mem.NewHub())
	g := s.NewGroup("g")
	var calls []string
	done := make(chan struct{})
	must(g.Handle(1, func(*Message) { calls = append(calls, "first") }))
	must(g.Handle(1, func(*Message) { calls = append(calls, "second"); close(done) }))
	must(g.Handle(2, func(*Message) { calls = append(calls, "other code") }))
	wantErr(t, "negative code", g.Handle(-1, func(*Message) {}), ErrCode)
	must(g.Create(within(t)))
	wantErr(t, "handler after join", g.Handle(3, func(*Message) {}), ErrJoined)
	wantErr(t, "view handler after join", g.OnView(func(*View) {}), ErrJoined)
	wantErr(t, "second join", g.Join(within(t)), ErrJoined)
	wantErr(t, "negative code", g.SendBytes(within(t), FIFO, -1, nil), ErrCode)
	must(g.SendBytes(within(t), FIFO, 77, nil)) // nobody handles it: counted, no crash
	must(g.SendBytes(within(t), FIFO, 1, nil))
	await(t, done, "the message")
	if !slices.Equal(calls, []string{"first", "second"}) || g.unhandled.Load() != 1 {
		t.Errorf("calls %v, %d unhandled", calls, g.unhandled.Load())
	}
}

// rows: GRP-11, TYP-12
func TestCreateAndSignature(t *testing.T) {
	hub := mem.NewHub()
	a, b := startOn(t, hub), startOn(t, hub)
	joined(t, a, "g")
	wantErr(t, "create on a live group", newMember(b, "g").group.Create(within(t)), ErrGroupExists)
	differs := b.NewGroup("g")
	must(differs.Handle(99, func(*Message) {}))
	wantErr(t, "other handlers", differs.Join(within(t)), ErrSignature)
	if err := newMember(b, "g").group.Join(within(t)); err != nil {
		t.Errorf("equal handlers: %v", err)
	}
}

// rows: GRP-03, GRP-16
func TestManyGroupsAndLongNames(t *testing.T) {
	hub := mem.NewHub()
	a, b := startOn(t, hub), startOn(t, hub)
	names := []string{strings.Repeat("long/", 2000)}
	for i := range 20 {
		names = append(names, string(rune('a'+i)))
	}
	var members [][2]*member
	for _, name := range names {
		members = append(members, [2]*member{joined(t, a, name), joined(t, b, name)})
	}
	for i, pair := range members {
		pair[i%2].send(t, Ordered, uint64(i))
	}
	for i, pair := range members {
		for _, m := range pair {
			m.untilCount(t, 1)
			m.mu.Lock()
			if !slices.Equal(m.state, []uint64{uint64(i)}) {
				t.Errorf("group %d got %v", i, m.state)
			}
			m.mu.Unlock()
		}
	}
}

// rows: GRP-12, GRP-13, GRP-14
func TestLeaveAndTerminate(t *testing.T) {
	hub := mem.NewHub()
	a, b := startOn(t, hub), startOn(t, hub)
	ma, mb := joined(t, a, "g"), joined(t, b, "g")
	ma.untilSize(t, 2)
	must(ma.group.Leave(within(t)))
	mb.untilSize(t, 1)
	if v := mb.group.View(); v.MyRank() != 0 || !slices.Equal(v.Left, []Address{a.Address()}) {
		t.Errorf("view after the leave: %v", v)
	}
	wantErr(t, "send after leave", ma.group.SendBytes(within(t), FIFO, codeNumber, nil), ErrNotMember)
	wantErr(t, "leave after leave", ma.group.Leave(within(t)), ErrNotMember)

	again := joined(t, a, "g")
	mb.untilSize(t, 2)
	must(mb.group.Terminate(within(t)))
	await(t, again.group.Over(), "the end of the group at the other member")
	wantErr(t, "why it ended", again.group.Err(), ErrTerminated)
	if v := joined(t, a, "g").group.View(); v.Size() != 1 {
		t.Errorf("the group is not new after Terminate: %v", v)
	}
}

// rows: GRP-18, P2P-01, P2P-10, P2P-11, THR-03
func TestPointToPoint(t *testing.T) {
	const count = 10000
	hub := mem.NewHub()
	a, b, outsider := startOn(t, hub), startOn(t, hub), startOn(t, hub)
	sender := joined(t, a, "g")
	receiver := newMember(b, "g")
	g := b.NewGroup("g")
	receiver.group = g
	var running atomic.Int32
	next, done := uint64(0), make(chan struct{})
	must(g.Handle(codeNumber, func(m *Message) {
		if running.Add(1) != 1 {
			t.Error("two handlers at once")
		}
		if n := binary.LittleEndian.Uint64(m.Payload); n != next || m.From != a.Address() || !m.Peer || m.Sender != 0 {
			t.Errorf("message %d from %v rank %d, want %d", n, m.From, m.Sender, next)
		}
		if next++; next == count {
			close(done)
		}
		running.Add(-1)
	}))
	must(g.Join(within(t)))
	sender.untilSize(t, 2)
	for n := range uint64(count) {
		must(sender.group.SendBytesTo(within2(t), b.Address(), codeNumber, binary.LittleEndian.AppendUint64(nil, n)))
	}
	await(t, done, "the messages")
	err := sender.group.SendBytesTo(within(t), outsider.Address(), codeNumber, nil)
	wantErr(t, "send to an outsider", err, ErrNotMember)
	wantErr(t, "send by an outsider", outsider.NewGroup("g").SendBytes(within(t), FIFO, codeNumber, nil), ErrNotMember)
}

// within2 returns a context without an end of its own, for calls in a loop.
func within2(t testing.TB) context.Context { return t.Context() }

// rows: THR-01, THR-04, THR-09, THR-15, MC-03, MC-11, MC-12, VIEW-03, VIEW-13, VIEW-14, VIEW-15
func TestOneOrderOfMessagesAndViews(t *testing.T) {
	const each = 300
	hub := mem.NewHub()
	var members []*member
	for range 3 {
		members = append(members, joined(t, startOn(t, hub), "g"))
	}
	var wg sync.WaitGroup
	for i, m := range members {
		wg.Go(func() {
			for n := range uint64(each) {
				m.send(t, Ordered, uint64(i)<<32|n)
			}
		})
	}
	late := joined(t, startOn(t, hub), "g") // a view in the middle of the traffic
	wg.Wait()
	for _, m := range append(members, late) {
		m.untilCount(t, 3*each)
		m.untilSize(t, 4) // the newcomer's view may come behind the last message
	}
	want := members[0]
	for i, m := range append(members[1:], late) {
		if !slices.Equal(m.state, want.state) {
			t.Errorf("member %d: state differs from member 0's", i+1)
		}
		compareLogs(t, want.entries(), m.entries())
	}
	var last [3]uint64
	for _, n := range want.state {
		if n&0xffffffff != last[n>>32] {
			t.Fatalf("message %d of sender %d, want %d", n&0xffffffff, n>>32, last[n>>32])
		}
		last[n>>32]++
	}
}

// compareLogs compares what two members saw from the first view of the younger one on.
func compareLogs(t *testing.T, old, young []entry) {
	t.Helper()
	from := slices.Index(old, young[0])
	if from < 0 || !young[0].Change {
		t.Errorf("the first entry of the younger member, %v, is not a view that the older one saw", young[0])
		return
	}
	if !slices.Equal(old[from:], young) {
		t.Errorf("logs differ: %d and %d entries", len(old)-from, len(young))
	}
	for i := 1; i < len(young); i++ {
		if young[i].View < young[i-1].View || young[i].Change && young[i].View == young[i-1].View {
			t.Errorf("entry %d: view %d behind view %d", i, young[i].View, young[i-1].View)
		}
	}
}

// rows: XFR-01, XFR-02, XFR-06, XFR-07, XFR-09, VIEW-16, INI-01, INI-02
func TestStateTransfer(t *testing.T) {
	hub := mem.NewHub()
	var makers, inits atomic.Int32
	var members []*member
	for i := range 3 {
		m := newMember(startOn(t, hub), "g")
		must(m.group.OnMakeState(func(ctx context.Context, v *View, w *StateWriter) error {
			makers.Add(1)
			if m != members[0] || len(v.Joined) != 1 || v.Joined[0] == m.sys.Address() {
				t.Errorf("member %d makes the state for %v", i, v)
			}
			return m.make(ctx, v, w)
		}))
		must(m.group.OnInit(func(context.Context) error { inits.Add(1); return nil }))
		must(m.group.Join(within(t)))
		members = append(members, m)
		for n := range 1000 {
			m.send(t, Ordered, uint64(i*1000+n))
		}
	}
	for i, m := range members {
		m.untilCount(t, 3000)
		if !slices.Equal(m.state, members[0].state) {
			t.Errorf("member %d: state differs", i)
		}
		if e := m.entries()[0]; !e.Change {
			t.Errorf("member %d: a message before the first view", i)
		}
	}
	if makers.Load() != 2 || inits.Load() != 1 {
		t.Errorf("%d states made, %d initialisations; want 2 and 1", makers.Load(), inits.Load())
	}
}

// rows: THR-10, THR-13
func TestSendInsideHandlers(t *testing.T) {
	s := startOn(t, mem.NewHub())
	g := s.NewGroup("g")
	done := make(chan error, 3)
	must(g.OnView(func(v *View) { done <- g.SendBytes(context.Background(), Ordered, 1, nil) }))
	must(g.Handle(1, func(m *Message) { done <- g.SendBytes(m.Context(), Ordered, 2, nil) }))
	must(g.Handle(2, func(m *Message) { go func() { done <- m.Group().Flush(context.Background()) }() }))
	must(g.Join(within(t)))
	for range 3 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// rows: THR-12
func TestSendInsideAHandlerNeverBlocks(t *testing.T) {
	s := startOn(t, mem.NewHub(), WithMaxUnstable(16), WithoutCompression())
	g := s.NewGroup("g")
	got := make(chan error, 1)
	must(g.Handle(1, func(m *Message) {
		for {
			if err := g.SendBytes(context.Background(), Ordered, 2, make([]byte, 1<<16)); err != nil {
				got <- err
				return
			}
		}
	}))
	must(g.Handle(2, func(*Message) {}))
	must(g.Join(within(t)))
	must(g.SendBytes(within(t), Ordered, 1, nil))
	wantErr(t, "burst inside a handler", <-got, ErrWouldBlock)
}

// rows: FLU-01, FLU-02, FLU-05
func TestFlush(t *testing.T) {
	hub := mem.NewHub()
	a, b := joined(t, startOn(t, hub), "g"), joined(t, startOn(t, hub), "g")
	a.untilSize(t, 2)
	for n := range uint64(500) {
		a.send(t, FIFO, n)
	}
	must(a.group.Flush(within(t)))
	must(a.group.FlushK(within(t), 1))
	b.untilCount(t, 500)
}

func TestLeaveInsideAHandler(t *testing.T) {
	s := startOn(t, mem.NewHub())
	g := s.NewGroup("g")
	got := make(chan error, 1)
	must(g.Handle(1, func(m *Message) { got <- g.Leave(m.Context()) }))
	must(g.Join(within(t)))
	must(g.SendBytes(within(t), FIFO, 1, nil))
	if err := <-got; err != nil {
		t.Errorf("Leave inside a handler: %v", err)
	}
	await(t, g.Over(), "the end of the group")
}
