package vsync

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/khamsin-io/khamsin/transports/mem"
)

// until waits for something that no event tells of.
func until(t testing.TB, what string, there func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !there(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

// oracleOf returns systems of which all but the last ones are the ORACLE, once all know.
func oracleOf(t *testing.T, hub *mem.Hub, systems, size int, opts ...Option) []*System {
	t.Helper()
	var list []*System
	for range systems {
		list = append(list, startOn(t, hub, append([]Option{WithOracleSize(size)}, opts...)...))
	}
	until(t, "the ORACLE is complete", func() bool {
		return !slices.ContainsFunc(list, func(s *System) bool { return len(s.State().Oracle) != size })
	})
	return list
}

// The state that a system shows names the leader of the membership service, and all live processes where that is known:
// at its members. When the leader fails, another one leads.
//
// rows: ORC-12, ORC-16
func TestStateShowsTheOracle(t *testing.T) {
	hub := mem.NewHub()
	list := oracleOf(t, hub, 4, 3)
	until(t, "the members of the ORACLE know all processes", func() bool { // those that follow learn it last
		return !slices.ContainsFunc(list[:3], func(s *System) bool { return len(s.State().Processes) != 4 })
	})
	for i, s := range list {
		st := s.State()
		if st.Leader != (i == 0) || st.Oracle[0] != list[0].Address() {
			t.Errorf("system %d shows leader %v, oracle %v", i, st.Leader, st.Oracle)
		}
		if known := len(st.Processes); i < 3 && known != 4 || i == 3 && known != 0 {
			t.Errorf("system %d shows %d processes", i, known)
		}
	}
	list[0].Kill()
	until(t, "another one leads, of three processes", func() bool {
		for _, s := range list[1:] {
			if st := s.State(); st.Leader && st.Oracle[0] == s.Address() && len(st.Processes) == 3 {
				return true
			}
		}
		return false
	})
	until(t, "everybody knows", func() bool {
		return !slices.ContainsFunc(list[1:], func(s *System) bool {
			return slices.Contains(s.State().Oracle, list[0].Address())
		})
	})
}

// When the whole ORACLE fails at once, every other process ends with an error that says so, within one and a half times
// OracleLost.
//
// rows: ORC-13
func TestLossOfTheWholeOracle(t *testing.T) {
	const lost = 3 * time.Second
	hub := mem.NewHub()
	list := oracleOf(t, hub, 5, 3, WithOracleLost(lost))
	joined(t, list[3], "g")
	oracle := list[0].State().Oracle
	var killed sync.WaitGroup
	for _, s := range list {
		if slices.Contains(oracle, s.Address()) {
			killed.Go(s.Kill)
		}
	}
	killed.Wait()
	for _, s := range list {
		if slices.Contains(oracle, s.Address()) {
			continue
		}
		await(t, s.Done(), "the end of a system without an ORACLE")
		if err := s.Wait(); !errors.Is(err, ErrOracleLost) {
			t.Errorf("ended with %v, want ErrOracleLost", err)
		}
	}
}

// Two processes accuse each other at the same moment. The ORACLE hears one of the accusations first, and that is its
// verdict for everybody: one of the two goes on, the other is told by whom and why.
//
// rows: ORC-14, FD-07, FD-10
func TestTwoAccuseEachOther(t *testing.T) {
	hub := mem.NewHub()
	list := oracleOf(t, hub, 5, 3)
	var members []*member
	for _, s := range list {
		members = append(members, joined(t, s, "g"))
	}
	for _, m := range members {
		m.untilSize(t, 5)
	}
	a, b := members[3], members[4]
	var both sync.WaitGroup
	both.Go(func() { _ = a.group.ReportFailure(b.sys.Address(), "says a") }) // an error when it was over before
	both.Go(func() { _ = b.group.ReportFailure(a.sys.Address(), "says b") })
	both.Wait()
	for _, m := range members[:3] {
		m.untilSize(t, 4)
	}
	dead, alive, reason := a, b, "says b"
	if members[0].group.View().Contains(a.sys.Address()) {
		dead, alive, reason = b, a, "says a"
	}
	alive.untilSize(t, 4)
	await(t, dead.sys.Done(), "the poison")
	var poison *PoisonError
	if err := dead.sys.Wait(); !errors.As(err, &poison) || poison.Accuser != alive.sys.Address() ||
		poison.Reason != reason {
		t.Errorf("ended with %v, want accused by %v: %s", err, alive.sys.Address(), reason)
	}
	for _, m := range members[:3] {
		if !m.group.View().Contains(alive.sys.Address()) {
			t.Errorf("view %v lacks the one that was heard first", m.group.View())
		}
	}
}

// A handler that is stuck in a process of the ORACLE, even its leader, stops nobody from joining and leaving.
//
// rows: ORC-21
func TestBlockedHandlerInTheOracle(t *testing.T) {
	hub := mem.NewHub()
	list := oracleOf(t, hub, 3, 3)
	stuck := list[0].NewGroup("stuck")
	release, inside := make(chan struct{}), make(chan struct{})
	must(stuck.Handle(codeNumber, func(*Message) {
		close(inside)
		<-release
	}))
	if err := stuck.Join(within(t)); err != nil {
		t.Fatal(err)
	}
	defer close(release)
	if err := stuck.SendBytes(within(t), FIFO, codeNumber, make([]byte, 8)); err != nil {
		t.Fatal(err)
	}
	await(t, inside, "the handler")
	for range 3 {
		m := joined(t, startOn(t, hub), "g")
		m.untilSize(t, 1)
		if err := m.sys.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// BenchmarkJoinLeave counts joins and leaves of groups, each by one of 16 processes, at an ORACLE of three, over
// memory.
//
// rows: ORC-18
func BenchmarkJoinLeave(b *testing.B) {
	hub := mem.NewHub()
	var list []*System
	for range 16 {
		list = append(list, startOn(b, hub, WithSuspectAfter(10*time.Second)))
	}
	var all sync.WaitGroup
	share := (b.N + len(list) - 1) / len(list)
	b.ResetTimer()
	for i, s := range list {
		all.Go(func() {
			for range share {
				g := s.NewGroup(fmt.Sprintf("group %d", i))
				if err := errors.Join(g.Join(context.Background()), g.Leave(context.Background())); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	b.ReportMetric(2*float64(share*len(list))/b.Elapsed().Seconds(), "events/s")
}

// One ORACLE serves ten thousand groups, and the last one is joined as the first one is.
//
// rows: ORC-19
func TestTenThousandGroups(t *testing.T) {
	if testing.Short() {
		t.Skip("makes ten thousand groups")
	}
	const groups, workers = 10_000, 5
	hub := mem.NewHub()
	list := oracleOf(t, hub, workers, 3, WithSuspectAfter(10*time.Second))
	var all sync.WaitGroup
	for i, s := range list {
		all.Go(func() {
			for n := range groups / workers {
				if err := s.NewGroup(fmt.Sprintf("group %d of %d", n, i)).Join(t.Context()); err != nil {
					t.Errorf("group %d of process %d: %v", n, i, err)
					return
				}
			}
		})
	}
	all.Wait()
	last := list[1].NewGroup(fmt.Sprintf("group %d of %d", groups/workers-1, 0))
	if err := last.Join(within(t)); err != nil {
		t.Fatal(err)
	}
	if v := last.View(); v.Size() != 2 {
		t.Errorf("view %v of a group of two", v)
	}
}

// Without any setting, and without a server, the first processes that start are the membership service: three of them,
// or as many as the size says. The others are not, and know who is.
//
// rows: ORC-01, ORC-02, ORC-03, ORC-10
func TestFirstProcessesAreTheOracle(t *testing.T) {
	for _, size := range []int{0, 1, 5} {
		hub := mem.NewHub()
		var opts []Option
		want := 3
		if size != 0 {
			opts, want = append(opts, WithOracleSize(size)), size
		}
		var systems []*System
		for range 6 {
			systems = append(systems, startOn(t, hub, opts...))
		}
		hosts := func(s *System) (n int, first bool) {
			oracle := s.State().Oracle
			first = true
			for _, x := range systems[:want] {
				first = first && slices.Contains(oracle, x.Address())
			}
			return len(oracle), first
		}
		for i, s := range systems {
			n, first := hosts(s)
			for deadline := time.Now().Add(patience); (n != want || !first) && time.Now().Before(deadline); {
				<-time.After(10 * time.Millisecond)
				n, first = hosts(s)
			}
			if n != want || !first {
				t.Errorf("size %d: process %d says that the ORACLE is %v", size, i, s.State().Oracle)
			}
		}
	}
}
