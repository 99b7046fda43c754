package vsync

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/khamsin-io/khamsin/vsync/codec"
)

// Codes of the queries of these tests.
const (
	askRank    Code = 1 // the member's rank
	askPair    Code = 2 // two values
	askNull    Code = 3 // members other than 0 decline
	askAbort   Code = 4 // member 1 aborts
	askSilent  Code = 5 // member 1 is silent
	askForget  Code = 6 // member 1's handler returns without a reply
	askLater   Code = 7 // replies from a goroutine
	askWrong   Code = 8 // member 1 replies with another type
	askBytes   Code = 9
	askNothing Code = 10
	askBlock   Code = 11 // member 1 replies when the gate opens
	askError   Code = 12
	askTwice   Code = 13
	askDropped Code = 14 // member 1 detaches and forgets
)

// oracle declares handlers for all of them. What comes through gate lets askBlock's replies go.
func oracle(gate chan struct{}) func(i int, g *Group) {
	return func(i int, g *Group) {
		repliers(i, g)
		detachers(i, g, gate)
	}
}

// unless replies with the member's number, but for member 1, which does something else.
func unless(i int, m *Message, other func() error) {
	if i == 1 {
		gave(other())
	} else {
		gave(m.Reply(i))
	}
}

// gave panics at a reply's error, unless the test is over and its systems are being closed.
func gave(err error) {
	if err != nil && !errors.Is(err, ErrNotRunning) && !errors.Is(err, ErrNotMember) {
		panic(err)
	}
}

func repliers(i int, g *Group) {
	must(g.Handle(askRank, func(who string) int { return int(g.Rank()) }))
	must(g.Handle(askPair, func(s string) (string, int, error) { return s + "!", i, nil }))
	must(g.Handle(askNull, func(m *Message, s string) {
		if i == 0 {
			gave(m.Reply(i))
		} else {
			gave(m.Null())
		}
	}))
	must(g.Handle(askAbort, func(m *Message, s string) {
		unless(i, m, func() error { return m.Abort("because " + s) })
	}))
	must(g.Handle(askSilent, func(m *Message, s string) { unless(i, m, m.Silent) }))
	must(g.Handle(askForget, func(m *Message, s string) { unless(i, m, func() error { return nil }) }))
	must(g.Handle(askWrong, func(m *Message, s string) {
		unless(i, m, func() error { return m.Reply("text") })
	}))
	must(g.Handle(askBytes, func(m *Message) { gave(m.ReplyBytes(append(m.Own(), byte(i)))) }))
	must(g.Handle(askNothing, func() error { return nil }))
	must(Answer1(g, askError, func(_ *Message, s string) (int, error) {
		if i == 1 {
			return 0, errors.New("no " + s)
		}
		return i, nil
	}))
	must(g.Handle(askTwice, func(m *Message) {
		gave(m.Reply(i))
		if err := m.Reply(i); !errors.Is(err, ErrReplied) {
			gave(err)
		}
	}))
}

func detachers(i int, g *Group, gate chan struct{}) {
	must(g.Handle(askLater, func(m *Message, s string) {
		c, err := m.Detach()
		must(err)
		go func() { gave(c.Reply(i)) }()
	}))
	must(g.Handle(askBlock, func(m *Message) {
		c, err := m.Detach()
		must(err)
		if i != 1 {
			gave(c.Reply(i))
			return
		}
		go func() { <-gate; _ = c.Reply(i) }()
	}))
	must(g.Handle(askDropped, func(m *Message) {
		c, err := m.Detach()
		must(err)
		if i != 1 {
			gave(c.Reply(i))
		}
	}))
}

func sorted[R any](r Replies[R], less func(a, b R) int) []R {
	v := r.Values()
	slices.SortFunc(v, less)
	return v
}

func ints(a, b int) int { return a - b }

// rows: QRY-22, QRY-23, QRY-24, QRY-25, RAW-03, RAW-10
// rows: QRY-01, QRY-02, QRY-03, QRY-04, QRY-06, QRY-07, QRY-16, RPL-01, RPL-02, RPL-06, RPL-07, RPL-11, MC-27
func TestQuery(t *testing.T) {
	groups := crowd(t, 5, oracle(nil))
	ctx := within(t)
	for _, f := range []Flavour{FIFO, Causal, Ordered, Safe, Unordered, Raw} {
		r, err := Query[int](ctx, groups[2].As(f), All, askRank, "John Smith")
		if got := sorted(r, ints); err != nil || !slices.Equal(got, []int{0, 1, 2, 3, 4}) {
			t.Errorf("%v: %v, %v", f, got, err)
		}
		if r.View == nil || r.View.Size() != 5 || len(r.Silent)+len(r.Gone)+len(r.Null) != 0 {
			t.Errorf("%v: %+v", f, r)
		}
		for a, v := range r.All() {
			if r.View.Members[v] != a {
				t.Errorf("%v: the reply %d is from %v", f, v, a)
			}
		}
	}
	for _, q := range []struct {
		n         int
		code      Code
		args      []any
		least, of int
	}{
		{1, askRank, []any{"x"}, 1, 1}, {3, askRank, []any{"x"}, 3, 3}, {Majority, askRank, []any{"x"}, 3, 3},
		{All, askNull, []any{"x"}, 1, 1}, {All, askForget, []any{"x"}, 4, 4}, {All, askLater, []any{"x"}, 5, 5},
		{All, askTwice, nil, 5, 5}, {99, askRank, []any{"x"}, 5, 5},
	} {
		r, err := OrderedQuery[int](ctx, groups[0], q.n, q.code, q.args...)
		if err != nil || r.Len() < q.least || r.Len() > 5 || q.of == 1 && r.Len() > 1 && q.n == All {
			t.Errorf("code %d, %d replies: %v, %v", q.code, q.n, r, err)
		}
	}
	two, err := Query[Two[string, int]](ctx, groups[1], All, askPair, "hi")
	if err != nil || two.Len() != 5 || two.List[0].Value.First != "hi!" {
		t.Errorf("two values: %v, %v", two, err)
	}
	nothing, err := Query[Nothing](ctx, groups[1], All, askNothing)
	if err != nil || nothing.Len() != 5 {
		t.Errorf("replies without a value: %v, %v", nothing, err)
	}
	r, err := Query[int](ctx, groups[1], All, 99, "nobody handles this") // rows: GRP-08, QRY-17
	if err != nil || r.Len() != 0 || len(r.Null) != 5 {
		t.Errorf("no handler: %v, %v", r, err)
	}
}

// rows: QRY-20, QRY-21, QRY-26, QRY-27, QRY-28, QRY-29, MSG-07, QRY-32
func TestQueryCollectionStyles(t *testing.T) {
	groups := crowd(t, 3, oracle(nil))
	g, ctx := groups[0], within(t)
	for _, f := range []Flavour{FIFO, Ordered, Safe} {
		r, err := Query[Encoded](ctx, g.As(f), All, askPair, "x")
		must(err)
		var bodies [][]byte
		for _, b := range r.Values() {
			bodies = append(bodies, b)
		}
		var texts []string
		var numbers []int
		must(g.sys.Types().Columns(bodies, &texts, &numbers))
		if len(texts) != 3 || len(numbers) != 3 || texts[2] != "x!" {
			t.Errorf("%v: %v %v", f, texts, numbers)
		}
		for i, a := range addresses(groups) {
			at := slices.IndexFunc(r.List, func(x Reply[Encoded]) bool { return x.From == a })
			if at < 0 || numbers[at] != i {
				t.Errorf("%v: member %d's reply is %v", f, i, numbers)
			}
		}
		any, err := Query[Values](ctx, g.As(f), 1, askPair, "x")
		if err != nil || len(any.List[0].Value) != 2 || any.List[0].Value[0] != "x!" {
			t.Errorf("%v: %v, %v", f, any, err)
		}
		var streamed []int // the asynchronous query
		for r, err := range QueryEach[Two[string, int]](ctx, g.As(f), All, askPair, "x") {
			must(err)
			streamed = append(streamed, r.Value.Second)
		}
		if slices.Sort(streamed); !slices.Equal(streamed, []int{0, 1, 2}) {
			t.Errorf("%v: streamed %v", f, streamed)
		}
	}
	b, err := QueryBytes(ctx, g, All, askBytes, []byte("raw"))
	if err != nil || b.Len() != 3 || !strings.HasPrefix(string(b.List[1].Value), "raw") {
		t.Errorf("bytes: %v, %v", b, err)
	}
	for r, err := range QueryEach[int](ctx, g, All, askRank, "first is enough") {
		must(err)
		_ = r
		break
	}
	if n := len(g.pending.open); n != 0 {
		t.Errorf("%d queries are left open", n)
	}
}

// rows: QRY-18, QRY-19, QRY-34, RPL-03
func TestQueryErrors(t *testing.T) {
	groups := crowd(t, 3, oracle(nil))
	ctx := within(t)
	_, err := Query[int](ctx, groups[0], All, askAbort, "I say so")
	var abort *AbortError
	if !errors.As(err, &abort) || abort.Reason != "because I say so" || abort.From != groups[1].sys.self {
		t.Errorf("abort: %v", err)
	}
	wantErr(t, "abort", err, ErrAborted)
	_, err = Query[int](ctx, groups[0], All, askError, "luck")
	if !errors.As(err, &abort) || abort.Reason != "no luck" {
		t.Errorf("handler's error: %v", err)
	}
	r, err := Query[int](ctx, groups[0], All, askWrong, "x")
	var bad *ReplyError
	var types *codec.TypeError
	if !errors.As(err, &bad) || bad.From != groups[1].sys.self || !errors.As(err, &types) || r.Len() != 2 {
		t.Errorf("wrong type: %v, %v", r, err)
	}
	// None of these leaks into a later query.
	for range 20 {
		r, err := Query[int](ctx, groups[0], All, askRank, "x")
		if got := sorted(r, ints); err != nil || !slices.Equal(got, []int{0, 1, 2}) {
			t.Fatalf("%v, %v", got, err)
		}
	}
	_, err = Query[int](ctx, groups[0], -7, askRank, "x")
	wantErr(t, "a number of replies that is none", err, ErrArgument)
}

// rows: QRY-08, QRY-10, QRY-11, QRY-12, RPL-04, RPL-05
func TestQueryTimeouts(t *testing.T) {
	groups := crowd(t, 3, oracle(nil), WithQueryTimeout(100*time.Millisecond))
	g, silent := groups[0], groups[1].sys.self
	short := func() context.Context {
		ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
		t.Cleanup(cancel)
		return ctx
	}
	for name, ctx := range map[string]func() context.Context{"deadline": short, "default": context.Background} {
		start := time.Now()
		r, err := Query[int](ctx(), g, All, askSilent, "x")
		if err != nil || r.Len() != 2 || !slices.Equal(r.Silent, []Address{silent}) {
			t.Errorf("%s: %v, %v", name, r, err)
		}
		if d := time.Since(start); d < 90*time.Millisecond {
			t.Errorf("%s: over after %v", name, d)
		}
	}
	r, err := Query[int](short(), g.OnTimeout(TimeoutAbort), All, askSilent, "x")
	var late *TimeoutError
	if !errors.As(err, &late) || !slices.Equal(late.Silent, []Address{silent}) || r.Len() != 2 {
		t.Errorf("abort: %v, %v", r, err)
	}
	wantErr(t, "abort", err, context.DeadlineExceeded)
	gone, end := context.WithTimeout(context.Background(), 0)
	defer end()
	_, err = Query[int](gone, g, All, askRank, "x")
	wantErr(t, "no time at all", err, context.DeadlineExceeded)
	ctx, cancel := context.WithCancel(context.Background())
	time.AfterFunc(20*time.Millisecond, cancel)
	_, err = Query[int](ctx, g, All, askSilent, "x")
	wantErr(t, "cancelled", err, context.Canceled)
	if v := g.View(); v.Size() != 3 {
		t.Errorf("the silent member is gone: %v", v)
	}
}

// rows: QRY-09, VIEW-18, FD-04, FD-09
func TestQueryTimeoutThatReportsTheSilent(t *testing.T) {
	groups := crowd(t, 3, oracle(nil))
	g := groups[0]
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	old := g.View()
	r, err := Query[int](ctx, g.OnTimeout(TimeoutFail), All, askSilent, "x")
	if err != nil || r.Len() != 2 {
		t.Errorf("%v, %v", r, err)
	}
	if !old.HasFailed(groups[1].sys.self) || old.HasFailed(groups[2].sys.self) {
		t.Error("HasFailed is wrong")
	}
	if _, err := g.WaitForView(within(t), func(v *View) bool { return v.Size() == 2 }); err != nil {
		t.Fatal(err)
	}
	await(t, groups[1].sys.Done(), "the poison")
	wantErr(t, "the silent member", groups[1].sys.Wait(), ErrPoisoned)
}

// rows: QRY-13, QRY-15, P2P-08
func TestQueryOfAMemberThatFails(t *testing.T) {
	gate := make(chan struct{})
	defer close(gate)
	groups := crowd(t, 3, oracle(gate))
	victim := groups[1].sys
	type result struct {
		r   Replies[int]
		err error
	}
	many, one := make(chan result, 1), make(chan error, 1)
	go func() {
		r, err := Query[int](within(t), groups[0], All, askBlock)
		many <- result{r, err}
	}()
	go func() {
		_, err := Ask[int](within(t), groups[0], victim.self, askBlock)
		one <- err
	}()
	deadline := time.Now().Add(patience)
	for waiting := 0; waiting != 2; { // both have all replies but the victim's
		groups[0].pending.mu.Lock()
		waiting = 0
		for _, c := range groups[0].pending.open {
			if c.members != nil && len(c.waiting) == 1 {
				waiting++
			}
		}
		groups[0].pending.mu.Unlock()
		if time.Now().After(deadline) {
			t.Fatal("waited in vain")
		}
		time.Sleep(time.Millisecond)
	}
	victim.Kill()
	got := take(t, many)
	if got.err != nil || got.r.Len() != 2 || !slices.Equal(got.r.Gone, []Address{victim.self}) {
		t.Errorf("%+v, %v", got.r, got.err)
	}
	wantErr(t, "Ask", take(t, one), ErrNoReply)
}

// rows: LIF-17
func TestQueryEndsWithTheSystem(t *testing.T) {
	for name, end := range map[string]func(g *Group){
		"close": func(g *Group) { go g.sys.Close() }, "leave": func(g *Group) { go g.Leave(within(t)) },
		"kill": func(g *Group) { go g.sys.Kill() },
	} {
		groups := crowd(t, 2, func(i int, g *Group) { oracle(nil)(1, g) })
		g := groups[1]
		done := make(chan error, 1)
		go func() {
			_, err := Query[int](within(t), g, All, askSilent, "x")
			done <- err
		}()
		deadline := time.Now().Add(patience)
		for sent := false; !sent; time.Sleep(time.Millisecond) {
			g.pending.mu.Lock()
			for _, c := range g.pending.open {
				sent = sent || len(c.waiting) == 2
			}
			g.pending.mu.Unlock()
			if time.Now().After(deadline) {
				t.Fatal("waited in vain")
			}
		}
		end(g)
		want := ErrNotRunning
		if name == "leave" {
			want = ErrNotMember
		}
		wantErr(t, name, take(t, done), want)
		_, err := Query[int](within(t), g, All, askRank, "x")
		wantErr(t, name+", afterwards", err, want)
	}
}

// rows: THR-11, THR-13, THR-14
func TestQueryInsideAHandler(t *testing.T) {
	errs := make(chan error, 4)
	var kept atomic.Pointer[Message]
	g := crowd(t, 1, func(_ int, g *Group) {
		must(g.Handle(1, func() int { return 42 }))
		must(g.Handle(2, func(m *Message) {
			_, err := Query[int](m.Context(), g, All, 1)
			errs <- err
			_, err = g.WaitForSize(m.Context(), 9)
			errs <- err
			go func() { // holds nothing: may do what it wants, with the handler's context too
				r, err := Query[int](m.Context(), g, All, 1)
				if err == nil && (r.Len() != 1 || r.List[0].Value != 42) {
					err = fmt.Errorf("got %v", r)
				}
				errs <- err
			}()
		}))
		must(g.Handle(3, func(m *Message) {
			kept.Store(m)
			done := make(chan error)
			go func() { done <- m.Reply(1) }()
			errs <- <-done
			gave(m.Reply(2))
		}))
		must(g.Handle(4, func(m *Message) { errs <- m.Reply(1) }))
	})[0]
	must(g.SendBytes(within(t), FIFO, 2, nil))
	wantErr(t, "query in a handler", take(t, errs), ErrWouldBlock)
	wantErr(t, "wait in a handler", take(t, errs), ErrWouldBlock)
	if err := take(t, errs); err != nil {
		t.Errorf("query in a goroutine of a handler: %v", err)
	}
	r, err := Query[int](within(t), g, All, 3)
	if err != nil || r.Len() != 1 || r.List[0].Value != 2 {
		t.Errorf("%v, %v", r, err)
	}
	wantErr(t, "reply of another goroutine", take(t, errs), ErrNotInHandler)
	wantErr(t, "reply behind the handler", kept.Load().Reply(1), ErrNotInHandler)
	must(g.Send(within(t), 4))
	wantErr(t, "reply to no query", take(t, errs), ErrNoQuery)
}

// rows: QRY-35
func TestManyQueriesAtOnce(t *testing.T) {
	groups := crowd(t, 3, func(i int, g *Group) {
		must(Answer1(g, 1, func(_ *Message, n int) (int, error) { return n * 10, nil }))
	})
	var all sync.WaitGroup
	for n := range 100 {
		all.Go(func() {
			r, err := Query[int](within(t), groups[n%3], All, 1, n)
			if err != nil || !slices.Equal(r.Values(), []int{n * 10, n * 10, n * 10}) {
				t.Errorf("query %d: %v, %v", n, r, err)
			}
		})
	}
	all.Wait()
}
