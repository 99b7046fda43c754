package vsync

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/khamsin-io/khamsin/transports/mem"
)

// rows: THR-06
func TestWhatArrivesWhileAHandlerBlocksIsKept(t *testing.T) {
	gate := make(chan struct{})
	var got []int
	done := make(chan struct{})
	groups := crowd(t, 2, func(i int, g *Group) {
		must(g.Handle(1, func(n int) {
			if i != 1 {
				return
			}
			if n == 0 {
				<-gate
			}
			if got = append(got, n); n == 1000 {
				close(done)
			}
		}))
	})
	for n := range 1001 {
		must(groups[0].Send(within(t), 1, n))
	}
	must(groups[0].Flush(within(t)))
	close(gate)
	await(t, done, "the last message")
	if len(got) != 1001 || !slices.IsSorted(got) {
		t.Errorf("%d messages, in order %v", len(got), slices.IsSorted(got))
	}
}

// rows: QRY-14
func TestAReplyThatGotOutBeforeACrashCounts(t *testing.T) {
	for range 5 {
		replied := make(chan struct{})
		groups := crowd(t, 3, func(i int, g *Group) {
			must(g.Handle(1, func(m *Message) {
				c, err := m.Detach()
				must(err)
				gave(c.Reply(i))
				if i == 1 {
					close(replied)
				}
			}))
		})
		go func() {
			<-replied
			groups[1].sys.Kill()
		}()
		r, err := Query[int](within(t), groups[0], All, 1)
		if err != nil || r.Len() != 3 || len(r.Gone) != 0 {
			t.Errorf("%+v, %v", r, err)
		}
	}
}

// Ordered queries among updates, joins and a crash: all repliers of one query answer in one state and in one view.
//
// rows: QRY-36
func TestOrderedQueriesAreOfOneState(t *testing.T) {
	hub := mem.NewHub()
	join := func() *Group {
		s := startOn(t, hub, WithSuspectAfter(3*time.Second), WithOracleSize(1)) // a busy machine is no crash
		g := s.NewGroup("g", WithRateLimit(Rate{Messages: 20, Per: RateMin}))
		sum := 0
		must(g.Handle(1, func(n int) { sum = sum*31 + n }))
		must(g.Handle(2, func() (int, uint64, error) { return sum, uint64(g.View().ID), nil }))
		must(g.OnMakeState(func(_ context.Context, _ *View, w *StateWriter) error { return w.Put(sum) }))
		must(g.OnLoadState(func(n int) { sum = n }))
		must(g.Join(within(t)))
		return g
	}
	groups := []*Group{join(), join(), join()}
	stop, churn := make(chan struct{}), make(chan struct{})
	var senders sync.WaitGroup
	var updates atomic.Int64
	for _, g := range groups[:2] {
		senders.Go(func() {
			for n := 0; !over(stop); n++ {
				must(g.OrderedSend(within(t), 1, n))
				updates.Add(1)
			}
		})
	}
	go func() {
		defer close(churn)
		groups[2].sys.Kill()
		for range 3 {
			join()
		}
	}()
	for asked := 0; asked < 50 || !over(churn); asked++ {
		r, err := OrderedQuery[Two[int, uint64]](within(t), groups[0], All, 2)
		if err != nil || r.Len()+len(r.Gone) != r.View.Size() {
			t.Fatalf("%+v, %v", r, err)
		}
		for _, v := range r.Values() {
			if v != r.List[0].Value || v.Second != uint64(r.View.ID) {
				t.Fatalf("replies in different states: %v", r.Values())
			}
		}
	}
	close(stop)
	senders.Wait()
	if updates.Load() == 0 {
		t.Error("no updates")
	}
}

// over tells whether a channel is closed.
func over(ch <-chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}

// rows: GRP-17
func TestSuperimposedGroups(t *testing.T) {
	hub := mem.NewHub()
	const n = 4
	var systems []*System
	for range n {
		systems = append(systems, startOn(t, hub))
	}
	got := make(chan string, n*n)
	var leaders []*Group
	for i := range n {
		for k := range n { // the i-th group's leader is the i-th process
			g := systems[(i+k)%n].NewGroup(fmt.Sprint("group ", i))
			must(g.Handle(1, func(s string) { got <- s }))
			must(g.Join(within(t)))
			if k == 0 {
				leaders = append(leaders, g)
			}
		}
	}
	for i, g := range leaders {
		v, err := g.WaitForSize(within(t), n)
		must(err)
		if v.Members[0] != systems[i].Address() || v.MyRank() != 0 {
			t.Errorf("group %d is led by %v", i, v.Members[0])
		}
		must(g.OrderedSend(within(t), 1, g.Name()))
	}
	count := map[string]int{}
	for range n * n {
		count[take(t, got)]++
	}
	for name, times := range count {
		if times != n {
			t.Errorf("%s: %d deliveries", name, times)
		}
	}
}

// rows: XFR-03, XFR-11
func TestJoinWithoutStateAndWithAFaultyMaker(t *testing.T) {
	hub := mem.NewHub()
	a, b := startOn(t, hub), startOn(t, hub)
	plain := a.NewGroup("plain")
	must(plain.Join(within(t)))
	must(b.NewGroup("plain").Join(within(t)))
	faulty := a.NewGroup("faulty")
	must(faulty.OnMakeState(func(context.Context, *View, *StateWriter) error { return errors.New("cannot") }))
	must(faulty.Join(within(t)))
	wantErr(t, "join", b.NewGroup("faulty").Join(within(t)), ErrTransferAborted)
}

// A replica is read where it is: reading sends nothing.
//
// rows: CAP-02
func TestReadsAreLocal(t *testing.T) {
	var mu sync.Mutex
	state := map[int]map[string]int{}
	groups := crowd(t, 3, func(i int, g *Group) {
		state[i] = map[string]int{}
		must(g.Handle(1, func(key string, value int) {
			mu.Lock()
			defer mu.Unlock()
			state[i][key] = value
		}))
	})
	must(groups[0].OrderedSend(within(t), 1, "bolt", 7))
	must(groups[0].Flush(within(t)))
	read := func(i int) int {
		mu.Lock()
		defer mu.Unlock()
		return state[i]["bolt"]
	}
	for i := range groups {
		for end := time.Now().Add(10 * time.Second); read(i) != 7; {
			if time.Now().After(end) {
				t.Fatalf("member %d never read the update", i)
			}
			time.Sleep(time.Millisecond)
		}
	}
	before := groups[2].sys.IOStats().Sent
	for range 100_000 {
		if read(2) != 7 || groups[2].View().Size() != 3 {
			t.Fatal("another state")
		}
	}
	sent := groups[2].sys.IOStats().Sent.sub(before)
	if n := sent.Unicast.Packets + sent.Multicast.Packets; n > 100 { // signs of life go on
		t.Errorf("%d packets were sent for 100,000 reads", n)
	}
}

// BenchmarkFlush is the cost of one Send and its Flush, among three members.
//
// rows: FLU-06
func BenchmarkFlush(b *testing.B) {
	groups := crowd(b, 3, func(_ int, g *Group) { must(g.Handle(1, func(int) {})) })
	ctx := b.Context()
	for b.Loop() {
		must(groups[1].Send(ctx, 1, 1))
		must(groups[1].Flush(ctx))
	}
}
