package vsync

import (
	"context"
	"slices"
	"testing"
	"time"
)

// rows: RPL-08
func TestDroppedCallsDecline(t *testing.T) {
	groups := crowd(t, 2, oracle(nil))
	done := make(chan Replies[int], 1)
	go func() {
		r, err := Query[int](within(t), groups[0], All, askDropped)
		must(err)
		done <- r
	}()
	r := collectGarbageUntil(t, done)
	if r.Len() != 1 || !slices.Equal(r.Null, []Address{groups[1].sys.self}) {
		t.Errorf("%+v", r)
	}
}

// rows: RPL-09
func TestStandIn(t *testing.T) {
	calls := make(chan CallID, 2)
	groups := crowd(t, 3, func(i int, g *Group) {
		must(g.Handle(1, func(m *Message) {
			switch i {
			case 1: // the one who should answer, and will fail
				_, err := m.Detach()
				must(err)
				calls <- m.CallID()
			case 2: // its stand-in
				gave(m.Null())
			}
		}))
	})
	done := make(chan Replies[string], 1)
	go func() {
		r, err := Query[string](within(t), groups[0], 1, 1)
		must(err)
		done <- r
	}()
	id := take(t, calls)
	must(groups[2].StandIn(id).Reply("instead"))
	if r := take(t, done); r.Len() != 1 || r.List[0].Value != "instead" || r.List[0].From != groups[2].sys.self {
		t.Errorf("%+v", r)
	}
}

// rows: QRY-30, QRY-31, MC-22, MC-23, MC-24, MC-25, MC-26
func TestSubsets(t *testing.T) {
	type note struct {
		who  int
		list []Address
	}
	got := make(chan note, 20)
	groups := crowd(t, 4, func(i int, g *Group) {
		must(g.Handle(1, func(s string) { got <- note{i, nil} }))
		must(g.Handle(1, func(list []Address, s string) { got <- note{i, list} }))
		must(g.Handle(2, func(s string) int { return i }))
		must(g.Handle(2, func(list []Address, s string) int { return 100*len(list) + i }))
		must(g.Handle(3, func() { got <- note{who: 99 + i} }))
	})
	a, ctx := addresses(groups), within(t)
	stranger := Address{PID: 1, Incarnation: 77}
	for _, f := range []Flavour{FIFO, Ordered, Safe, Causal} {
		must(groups[0].As(f).To(a[1], a[3], stranger).Send(ctx, 1, "s"))
		must(groups[0].As(f).ToVisible(a[2], stranger).Send(ctx, 1, "s"))
		must(groups[0].As(f).Send(ctx, 3)) // behind both at every member
		seen := map[int]bool{}
		for range 7 {
			n := take(t, got)
			seen[n.who] = true
			if n.who == 2 && !slices.Equal(n.list, []Address{a[2], stranger}) {
				t.Errorf("%v: the list is %v", f, n.list)
			}
		}
		for _, who := range []int{1, 3, 2, 99, 100, 101, 102} {
			if !seen[who] {
				t.Errorf("%v: %v, nothing from %d", f, seen, who)
			}
		}
		none(t, got, "more than the list")
		r, err := Query[int](ctx, groups[0].As(f).To(a[1], a[2], stranger), All, 2, "s")
		if v := sorted(r, ints); err != nil || !slices.Equal(v, []int{1, 2}) {
			t.Errorf("%v: %v, %v", f, v, err)
		}
		r, err = Query[int](ctx, groups[0].As(f).ToVisible(a[3], a[0]), All, 2, "s")
		if v := sorted(r, ints); err != nil || !slices.Equal(v, []int{200, 203}) {
			t.Errorf("%v: %v, %v", f, v, err)
		}
	}
	r, err := Query[int](ctx, groups[0].To(stranger), All, 2, "s")
	if err != nil || r.Len() != 0 {
		t.Errorf("nobody: %v, %v", r, err)
	}
}

// rows: P2P-01, P2P-04, P2P-05, P2P-07, P2P-09, P2P-10, P2P-11, P2P-06
func TestAsk(t *testing.T) {
	var order []int
	last := make(chan struct{})
	groups := crowd(t, 2, func(i int, g *Group) {
		oracle(nil)(i, g)
		must(g.Handle(20, func(m *Message, n int) {
			if order = append(order, n); n == 999 {
				close(last)
			}
		}))
	})
	g, to, ctx := groups[0], groups[1].sys.self, within(t)
	if v, err := Ask[int](ctx, g, to, askRank, "x"); err != nil || v != 1 {
		t.Errorf("%v, %v", v, err)
	}
	if v, err := Ask[int](ctx, g, g.sys.self, askRank, "x"); err != nil || v != 0 {
		t.Errorf("of itself: %v, %v", v, err)
	}
	if v, err := AskBytes(ctx, g, to, askBytes, []byte{9}); err != nil || !slices.Equal(v, []byte{9, 1}) {
		t.Errorf("%v, %v", v, err)
	}
	if v, err := Ask[Encoded](ctx, g, to, askPair, "x"); err != nil || len(v) == 0 {
		t.Errorf("%v, %v", v, err)
	}
	_, err := Ask[int](ctx, g, to, askAbort, "x")
	wantErr(t, "abort", err, ErrAborted)
	_, err = Ask[int](ctx, g, to, askNull, "x")
	wantErr(t, "null", err, ErrNoReply)
	_, err = Ask[int](ctx, g, Address{Incarnation: 9}, askRank, "x")
	wantErr(t, "stranger", err, ErrNotMember)
	short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	_, err = Ask[int](short, g, to, askSilent, "x")
	wantErr(t, "silent", err, ErrNoReply)
	_, err = Ask[int](short, g.OnTimeout(TimeoutAbort), to, askSilent, "x")
	wantErr(t, "silent, abort", err, context.DeadlineExceeded)
	for n := range 1000 {
		must(g.SendTo(ctx, to, 20, n))
	}
	await(t, last, "the last message")
	if !slices.IsSorted(order) || len(order) != 1000 {
		t.Errorf("%d messages, sorted %v", len(order), slices.IsSorted(order))
	}
	must(Send1To(ctx, g, to, 21, 5)) // nobody handles it
}
