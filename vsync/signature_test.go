package vsync

import (
	"errors"
	"strings"
	"testing"

	"github.com/khamsin-io/khamsin/transports/mem"
	"github.com/khamsin-io/khamsin/vsync/internal/engine"
)

// rows: TYP-12, TYP-15, TYP-13
func TestJoinersWithOtherHandlersAreToldTheFirstDifference(t *testing.T) {
	hub := mem.NewHub()
	a, b := startOn(t, hub), startOn(t, hub)
	declare := func(g *Group) {
		must(g.Handle(1, func(s string, n int32) {}))
		must(g.Handle(1, func(n int32) {}))
		must(g.Handle(2, func(*Message) {}))
		must(Handle2(g, 3, func(_ *Message, o Order, f float64) {}))
		must(g.Handle(3, func(o Order, f float64) {})) // twice the same counts once
	}
	must(Register[Order](a, 5))
	member := a.NewGroup("g")
	declare(member)
	must(member.Join(within(t)))
	other := a.NewGroup("other")
	must(other.Join(within(t)))

	registerOther(b)
	for name, c := range map[string]struct {
		declare func(g *Group)
		code    Code
		text    string
	}{
		"a code less": {func(g *Group) {
			must(g.Handle(1, func(s string, n int32) {}))
			must(g.Handle(1, func(n int32) {}))
		}, 2, "this process has no handler for (...)"},
		"types less":  {func(g *Group) { must(g.Handle(1, func(n int32) {})) }, 1, "no handler for (string,int32)"},
		"a code more": {func(g *Group) { must(g.Handle(0, func() {})) }, 0, "the members have no handler for ()"},
		"another type": {func(g *Group) {
			must(g.Handle(1, func(s string, n int64) {}))
			must(g.Handle(1, func(n int32) {}))
		}, 1, "argument 1: int64 against int32"},
		"other fields": {func(g *Group) {
			must(g.Handle(1, func(s string, n int32) {}))
			must(g.Handle(1, func(n int32) {}))
			must(g.Handle(2, func(*Message) {}))
			handleOther(g, 3)
		}, 3, "argument 0: Order#5"},
	} {
		g := b.NewGroup("g")
		c.declare(g)
		err := g.Join(within(t))
		var e *SignatureError
		if !errors.As(err, &e) || e.Code != c.code || !strings.Contains(e.Error(), c.text) {
			t.Errorf("%s: %v", name, err)
		}
		wantErr(t, name, err, ErrSignature)
	}
	if member.View().Size() != 1 || member.View().ID != 1 && len(member.View().Left) != 0 {
		t.Errorf("the group was disturbed: %v", member.View())
	}
	elsewhere := b.NewGroup("other")
	must(elsewhere.Join(within(t)))
}

// A table that is too long to travel is compared by hashes.
func TestLongHandlerTables(t *testing.T) {
	hub := mem.NewHub()
	declare := func(s *System, last any) *Group {
		g := s.NewGroup("g")
		for c := range 600 {
			must(g.Handle(Code(c), func(a, b, c, d, e, f, g, h, i, j []string) {}))
		}
		must(g.Handle(1000, last))
		return g
	}
	a, b := startOn(t, hub), startOn(t, hub)
	first := declare(a, func(int32) {})
	must(first.Join(within(t)))
	if n := len(first.describe()); n > engine.HandlersMax {
		t.Errorf("the table has %d bytes", n)
	}
	must(declare(b, func(int32) {}).Join(within(t)))
	c := startOn(t, hub)
	err := declare(c, func(string) {}).Join(within(t))
	var e *SignatureError
	if !errors.As(err, &e) || e.Code != 1000 {
		t.Errorf("got %v", err)
	}
}

func TestParseTable(t *testing.T) {
	for text, want := range map[string]int{"": 0, "1 (int)\n": 1, "x (int)\n2\n99999999999 ()\n-5 (a)": 1} {
		if got := parseTable(text); len(got) != want {
			t.Errorf("%q: %v", text, got)
		}
	}
	if d := differ([]string{"(int)"}, []string{hashed("(int)")}); d != "" {
		t.Error(d)
	}
}
