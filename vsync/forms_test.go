package vsync

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/khamsin-io/khamsin/transports/mem"
	"github.com/khamsin-io/khamsin/vsync/codec"
)

// Every method that sends does so in its flavour, in the typed forms too.
//
// rows: MC-01, MC-03
func TestFormsOfSends(t *testing.T) {
	got := make(chan string, 10)
	g := crowd(t, 1, func(_ int, g *Group) {
		must(g.Handle(1, func(m *Message, s string) { got <- fmt.Sprint(m.Flavour, " ", s) }))
		must(Handle3(g, 2, func(m *Message, a int32, b string, c bool) { got <- fmt.Sprint(m.Flavour, a, b, c) }))
		must(g.Handle(3, func(m *Message) {
			var n int
			var s string
			if err := m.Decode(&n, &s); err != nil {
				got <- string(m.Payload)
				return
			}
			all, err := m.Values()
			got <- fmt.Sprint(n, s, all, err, m.Group() == g)
		}))
	})[0]
	ctx := within(t)
	for want, send := range map[string]func() error{
		"Send a":          func() error { return g.Send(ctx, 1, "a") },
		"OrderedSend b":   func() error { return g.OrderedSend(ctx, 1, "b") },
		"CausalSend c":    func() error { return g.CausalSend(ctx, 1, "c") },
		"SafeSend d":      func() error { return g.SafeSend(ctx, 1, "d") },
		"UnorderedSend e": func() error { return g.UnorderedSend(ctx, 1, "e") },
		"RawSend f":       func() error { return g.RawSend(ctx, 1, "f") },
		"SafeSend g":      func() error { return g.Cast(ctx, Safe, 1, "g") },
		"CausalSend h":    func() error { return Send1(ctx, g.As(Causal).To(g.sys.Address()), 1, "h") },
		"OrderedSend 7ktrue": func() error {
			return g.As(Ordered).Send(ctx, 2, int32(7), "k", true)
		},
		"5x[5 x] <nil> true": func() error { return Send2(ctx, g, 3, 5, "x") },
		"raw":                func() error { return g.To(g.sys.Address()).SendBytes(ctx, 3, []byte("raw")) },
	} {
		must(send())
		if s := take(t, got); s != want {
			t.Errorf("got %q, want %q", s, want)
		}
	}
	wantErr(t, "no flavour", g.Cast(ctx, Flavour(99), 1), ErrArgument)
	wantErr(t, "reserved code", g.Send(ctx, -4), ErrCode)
	if g.String() != "crowd" || g.System().Group(g.ID()) != g {
		t.Error("a group does not know itself")
	}
}

// rows: GRP-14, LIF-03
func TestFormsOnAGroupThatIsNotJoined(t *testing.T) {
	var none *System
	for name, g := range map[error]*Group{
		ErrNotRunning: none.NewGroup("g"), ErrNotMember: startOn(t, mem.NewHub()).NewGroup("g"),
	} {
		_, queried := Query[int](within(t), g, All, 1)
		_, asked := Ask[int](within(t), g, NoAddress, 1)
		for form, err := range map[string]error{
			"Send": g.Send(within(t), 1), "Send1": Send1(within(t), g, 1, 1),
			"Send1To": Send1To(within(t), g, NoAddress, 1, 1),
			"SendTo":  g.SendTo(within(t), NoAddress, 1), "SendBytes": g.SendBytes(within(t), FIFO, 1, nil),
			"Route": g.To().SendBytes(within(t), 1, nil), "Query": queried, "Ask": asked,
			"SendBytesTo": g.SendBytesTo(within(t), NoAddress, 1, nil),
		} {
			wantErr(t, form, err, name)
		}
		if b := g.Backlog(); b != (Backlog{}) {
			t.Errorf("backlog %+v", b)
		}
	}
	if none.IOStats() != (IOStats{}) || none.State().Error == "" || none.Groups() != nil || none.Types() != nil {
		t.Error("a system that does not run has a state")
	}
	wantErr(t, "stand-in", none.NewGroup("g").StandIn(CallID{}).Null(), ErrNotRunning)
}

// Queries in all forms, in groups whose handlers run on the receiver's goroutine, and in both threading models.
//
// rows: QRY-05, RPL-01
func TestFormsOfQueries(t *testing.T) {
	for _, model := range []Threading{Combining, EngineLoop} {
		hub := mem.NewHub()
		types := codec.NewRegistry()
		must(codec.Register[Point](types, 9))
		var groups []*Group
		for range 2 {
			s := startOn(t, hub, WithThreading(model), WithTypes(types), WithWaiting(Block),
				WithStuckAfter(time.Minute))
			g := s.NewGroup("g", WithInlineDelivery(), WithSafeCopies(Majority))
			must(Answer2(g, 1, func(_ *Message, a, b float64) (Point, error) { return Point{X: a, Y: b}, nil }))
			must(g.Handle(2, func(m *Message) {
				c, err := m.Detach()
				must(err)
				switch {
				case c.ID() != m.CallID() || c.Context() == nil:
					gave(c.Abort("no identity"))
				case m.View.MyRank() == 0:
					gave(c.Null())
				default:
					gave(c.ReplyBytes([]byte("bytes")))
				}
				wantErr(t, "second reply", c.Abort("late"), ErrReplied)
			}))
			must(g.Handle(3, func() (int, string, bool, error) { return 1, "two", true, nil }))
			must(g.Join(within(t)))
			groups = append(groups, g)
		}
		g, ctx := groups[0], within(t)
		if _, err := g.WaitForSize(ctx, 2); err != nil {
			t.Fatal(err)
		}
		for name, q := range map[string]func(context.Context, Target, int, Code, ...any) (Replies[Point], error){
			"Query": Query[Point], "Ordered": OrderedQuery[Point], "Causal": CausalQuery[Point],
			"Safe": SafeQuery[Point], "Unordered": UnorderedQuery[Point], "Raw": RawQuery[Point],
		} {
			r, err := q(ctx, g, All, 1, 1.5, 2.5)
			if err != nil || !slices.Equal(r.Values(), []Point{{X: 1.5, Y: 2.5}, {X: 1.5, Y: 2.5}}) {
				t.Errorf("%v, %s: %v, %v", model, name, r, err)
			}
		}
		b, err := QueryBytes(ctx, g, All, 2, nil)
		if err != nil || b.Len() != 1 || string(b.List[0].Value) != "bytes" || len(b.Null) != 1 {
			t.Errorf("%v: %v, %v", model, b, err)
		}
		three, err := Query[Three[int, string, bool]](ctx, g.To(groups[1].sys.Address()).As(Raw), All, 3)
		if err != nil || three.Len() != 1 || three.List[0].Value != (Three[int, string, bool]{1, "two", true}) {
			t.Errorf("%v: %v, %v", model, three, err)
		}
		wrong, err := QueryBytes(ctx, g, All, 3, nil) // handlers of values do not take bytes
		if err != nil || wrong.Len() != 0 {
			t.Errorf("%v: %v, %v", model, wrong, err)
		}
		_, err = Query[int](ctx, g, All, 2)
		if err == nil {
			t.Errorf("%v: bytes are read as a number", model)
		}
	}
}
