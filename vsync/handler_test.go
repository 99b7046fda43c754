package vsync

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/khamsin-io/khamsin/transports/mem"
	"github.com/khamsin-io/khamsin/vsync/codec"
)

// Order is a type of an application.
type Order struct {
	ID    int64
	Item  string
	inner int
}

type method struct{ got chan string }

func (m *method) take(s string) { m.got <- "method " + s }

// rows: GRP-05, GRP-06, GRP-07, GRP-08, THR-15, THR-16, MSG-02, MSG-08, TYP-01, TYP-06, TYP-07, EXA-23
func TestHandlersAreFoundByTypes(t *testing.T) {
	got := make(chan string, 10)
	x := &method{got}
	g := crowd(t, 1, func(_ int, g *Group) {
		must(Register[Order](g.sys, 7))
		must(g.Handle(0, func(name string, val int) { got <- fmt.Sprint("string ", name, val) }))
		must(g.Handle(0, func(id, val int) { got <- fmt.Sprint("int ", id, val) }))
		must(g.Handle(0, func(m *Message) { got <- fmt.Sprint("any ", m.Typed, len(m.Payload) > 0) }))
		must(g.Handle(1, x.take))
		must(g.Handle(1, func(ctx context.Context, s string) { got <- fmt.Sprint("closure ", s, ctx != nil) }))
		must(g.Handle(2, func(m *Message, o Order, l []Order) { got <- fmt.Sprint(m.Code, o, l) }))
		must(g.Handle(3, func() { got <- "nothing" }))
	})[0]
	expect := func(want ...string) {
		t.Helper()
		for _, w := range want {
			if s := take(t, got); s != w {
				t.Errorf("got %q, want %q", s, w)
			}
		}
		none(t, got, "another handler ran")
	}
	ctx := within(t)
	must(g.Send(ctx, 0, "User", 100))
	expect("string User100", "any true true")
	must(g.Send(ctx, 0, 4, 2))
	expect("int 4 2", "any true true")
	must(g.Send(ctx, 0, 1.5))
	expect("any true true")
	must(g.SendBytes(ctx, FIFO, 0, []byte("raw")))
	expect("any false true")
	must(g.Send(ctx, 1, "s"))
	expect("method s", "closure strue")
	must(g.Send(ctx, 2, Order{1, "bolt", 5}, []Order{{ID: 2}}))
	expect("2 {1 bolt 0} [{2  0}]")
	must(g.Send(ctx, 3))
	expect("nothing")
	must(g.Send(ctx, 1, 1)) // no handler for an int
	must(g.Send(ctx, 1, "last"))
	expect("method last", "closure lasttrue")
	if n := g.unhandled.Load(); n != 1 {
		t.Errorf("%d messages without a handler, want 1", n)
	}
}

// rows: TYP-05
func TestUnregisteredTypesAreRefusedAtTheSender(t *testing.T) {
	g := crowd(t, 1, func(int, *Group) {})[0]
	err := g.Send(within(t), 0, 1, Order{})
	var e *codec.EncodeError
	if !errors.As(err, &e) || e.Index != 1 || !strings.Contains(err.Error(), "Order") {
		t.Errorf("got %v", err)
	}
}

// rows: TYP-02, TYP-03, TYP-04
func TestRegister(t *testing.T) {
	s := startOn(t, mem.NewHub())
	wantErr(t, "id 128", Register[Order](s, 128), codec.ErrID)
	must(Register[Order](s, 0))
	wantErr(t, "same type", Register[Order](s, 1), codec.ErrDuplicate)
	wantErr(t, "same id", Register[Named](s, 0), codec.ErrDuplicate)
	must(s.NewGroup("g").Join(within(t)))
	wantErr(t, "after a join", Register[Named](s, 127), codec.ErrFrozen)
	wantErr(t, "no system", Register[Named](nil, 127), ErrNotRunning)
}

// Named is a type of an application.
type Named int

func TestBadHandlersAreRefused(t *testing.T) {
	s := startOn(t, mem.NewHub())
	g := s.NewGroup("g")
	for _, f := range []any{
		nil, 5, func(...int) {}, func(int, *Message) {}, (func(int))(nil), func(int, context.Context) {},
	} {
		wantErr(t, fmt.Sprintf("%T", f), g.Handle(1, f), ErrHandler)
	}
	wantErr(t, "nil typed", Handle1[int](g, 1, nil), ErrHandler)
	wantErr(t, "nil view handler", g.OnView(nil), ErrHandler)
	wantErr(t, "loader with a result", g.OnLoadState(func(int) int { return 0 }), ErrHandler)
	must(g.Handle(1, func(a string) int { return 1 }))
	must(g.Handle(1, func(a int) int { return 1 }))
	err := g.Handle(1, func(b string) (float64, error) { return 1, nil }) // rows: RPL-10
	wantErr(t, "two that answer", err, ErrTwoAnswers)
	must(g.Handle(2, func(ch chan int) {}))
	err = g.Join(within(t))
	if err == nil || !strings.Contains(err.Error(), "code 2") || !strings.Contains(err.Error(), "chan int") {
		t.Errorf("join with a handler of channels: %v", err)
	}
}

// rows: TYP-16, RPL-06
func TestForgedMessagesAreCounted(t *testing.T) {
	got := make(chan string, 1)
	g := crowd(t, 1, func(_ int, g *Group) {
		must(g.Handle(1, func(s string) { got <- s }))
		must(Handle1(g, 2, func(_ *Message, s string) { got <- s }))
	})[0]
	text, err := g.sys.types.Marshal("x")
	must(err)
	bad := [][]byte{
		{}, {0xFF}, {0x80}, // no code
		{1<<4 | flagTyped, text[0], 200, 'x'}, // a string that claims more bytes than there are
		{2<<4 | flagTyped, 0xFF, 1},           // no type
		{1<<4 | flagTyped | flagMore},         // a flag that is missing
		{1<<4 | flagTyped | flagMore, 0x80},
		{1<<4 | flagTyped | flagMore, moreListed, 100},
		{1<<4 | flagTyped | flagMore, moreCompressed, 0xFF, 0xFF, 0xFF, 0xFF, 0x0F},
		{1<<4 | flagQuery},
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for _, b := range bad {
			g.lanes[laneCast].message = Message{ctx: within(t), group: g, From: g.sys.self, View: g.View()}
			g.dispatch(laneCast, b)
		}
	}()
	await(t, done, "the forged messages")
	if n := g.malformed.Load(); n != uint64(len(bad)) {
		t.Errorf("%d malformed messages, want %d", n, len(bad))
	}
	must(g.Send(within(t), 1, "alive"))
	if s := take(t, got); s != "alive" {
		t.Errorf("got %q", s)
	}
}

func TestEnvelope(t *testing.T) {
	to := []Address{{Incarnation: 5}, {Incarnation: 1 << 60}}
	for _, code := range []Code{0, 1, 7, 8, 1000, 1<<31 - 1, -1, -5, -1 << 31} {
		for flags := range uint8(4) {
			for more := range uint8(2) {
				h := headOf(code, flags, more)
				b := h.Append(nil)
				if more != 0 {
					b = appendList(b, to)
				}
				if flags&flagQuery != 0 {
					b = append(b, 99)
				}
				b = append(b, "body"...)
				var e envelope
				if !e.open(b, 1000, origin{}) || e.code != code || e.flags&^flagMore != flags ||
					string(e.body) != "body" {
					t.Fatalf("code %d, flags %d, more %d: %+v", code, flags, more, e)
				}
				if listed := e.names(1<<60) && !e.names(6); listed != (more != 0) {
					t.Errorf("code %d: listed %v", code, listed)
				}
				if flags&flagQuery != 0 && e.call != 99 {
					t.Errorf("call %d", e.call)
				}
			}
		}
	}
	if h := headOf(7, flagTyped|flagQuery, 0); h.Len() != 1 {
		t.Errorf("a small code takes %d bytes", h.Len())
	}
}

func FuzzEnvelope(f *testing.F) {
	for _, b := range []string{"", "\x09", "\x0c\x01\x01abcdefgh", "\x04\x02\x05", "\x08\x01\x00"} {
		f.Add([]byte(b))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var e envelope
		if !e.open(b, 1<<16, origin{}) {
			return
		}
		if len(e.body) > max(len(b), 1<<16) || len(e.list)%incarnationLen != 0 {
			t.Fatalf("%+v", e)
		}
	})
}

// Messages that cannot be compressed are tried ever more seldom, up to one in 32, until one can be.
func TestTrialsOfCompression(t *testing.T) {
	var x trials
	tried := func(messages int, smaller bool) (n int) {
		for range messages {
			if x.worth() {
				n++
				x.note(smaller)
			}
		}
		return n
	}
	if n := tried(100, true); n != 100 {
		t.Errorf("%d of 100 messages were tried that can be compressed", n)
	}
	if n := tried(63, false); n != 6 { // with 1, 3, 7, 15 and 31 messages between them
		t.Errorf("%d of 63 messages were tried that cannot be compressed", n)
	}
	if n := tried(320, false); n != 10 {
		t.Errorf("%d of the next 320 were tried", n)
	}
	if n := tried(32+100, true); n != 101 {
		t.Errorf("%d of 132 were tried when they can be compressed again", n)
	}
}

// rows: MSG-21, PAR-30
func TestLongMessagesAreCompressed(t *testing.T) {
	for _, compress := range []bool{true, false} {
		got := make(chan []byte, 1)
		opts := []Option{}
		if !compress {
			opts = append(opts, WithoutCompression())
		}
		groups := crowd(t, 2, func(i int, g *Group) {
			must(g.Handle(1, func(b []byte) {
				if i == 1 {
					got <- b
				}
			}))
		}, opts...)
		long := []byte(strings.Repeat("compressible ", 80_000))
		before := groups[0].sys.host.TransportStats().SentBytes
		must(groups[0].Send(within(t), 1, long))
		if b := take(t, got); !slices.Equal(b, long) {
			t.Error("the message changed")
		}
		sent := groups[0].sys.host.TransportStats().SentBytes - before
		if compress != (sent < uint64(len(long)/4)) {
			t.Errorf("compression %v: %d bytes sent for %d", compress, sent, len(long))
		}
	}
}
