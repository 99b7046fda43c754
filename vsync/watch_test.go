package vsync

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/khamsin-io/khamsin/transports/mem"
)

// rows: VIEW-02, VIEW-20, VIEW-21, VIEW-22, VIEW-23
func TestWatch(t *testing.T) {
	hub := mem.NewHub()
	a, b, c := startOn(t, hub), startOn(t, hub), startOn(t, hub)
	got := make(chan string, 10)
	names := map[Address]string{b.Address(): "b", c.Address(): "c"}
	watcher := func(who Address, ch Change) { got <- fmt.Sprint(names[who], " ", ch) }
	g := a.NewGroup("g")
	views := 0
	must(g.OnView(func(*View) { views++ }))
	must(g.OnView(func(*View) {
		if views == 0 {
			got <- "the second handler ran first"
		}
	}))
	g.Watch(b.Address(), watcher)
	stop := g.Watch(c.Address(), watcher)
	var once func()
	once = g.Watch(b.Address(), func(Address, Change) { got <- "once"; once() })
	must(g.Join(within(t)))
	expect := func(want ...string) {
		t.Helper()
		for _, w := range want {
			if s := take(t, got); s != w {
				t.Errorf("got %q, want %q", s, w)
			}
		}
	}
	gb, gc := b.NewGroup("g"), c.NewGroup("g")
	must(gb.Join(within(t)))
	expect("b joined", "once")
	must(gc.Join(within(t)))
	expect("c joined")
	stop()
	must(gc.Leave(within(t)))
	if _, err := g.WaitForView(within(t), func(v *View) bool { return v.Size() == 2 }); err != nil {
		t.Fatal(err)
	}
	b.Kill()
	expect("b left")
	none(t, got, "one too many")
	if n := len(g.watches.by); n != 1 {
		t.Errorf("%d watched processes, want 1", n)
	}
}

// rows: VIEW-10
func TestWaitForView(t *testing.T) {
	hub := mem.NewHub()
	a, b := startOn(t, hub), startOn(t, hub)
	g := a.NewGroup("g")
	got := make(chan *View, 1)
	go func() {
		v, err := g.WaitForSize(within(t), 2)
		must(err)
		got <- v
	}()
	must(g.Join(within(t)))
	none(t, got, "a view too early")
	must(b.NewGroup("g").Join(within(t)))
	if v := take(t, got); v.Size() != 2 {
		t.Errorf("got %v", v)
	}
	ctx, cancel := context.WithCancel(within(t))
	cancel()
	_, err := g.WaitForSize(ctx, 3)
	wantErr(t, "cancelled", err, context.Canceled)
	failed := make(chan error, 1)
	go func() {
		_, err := g.WaitForSize(within(t), 3)
		failed <- err
	}()
	must(g.Leave(within(t)))
	wantErr(t, "left", take(t, failed), ErrNotMember)
	if n := len(g.waits.list); n != 0 {
		t.Errorf("%d waits are left", n)
	}
}

// rows: XFR-02, XFR-04, XFR-08, XFR-15, EXA-22, INI-01, INI-02, VIEW-16
func TestTypedState(t *testing.T) {
	hub := mem.NewHub()
	type loaded struct {
		events []string
	}
	declare := func(s *System, l *loaded) *Group {
		g := s.NewGroup("g")
		note := func(v ...any) { l.events = append(l.events, fmt.Sprint(v...)) }
		must(g.OnMakeState(func(_ context.Context, v *View, w *StateWriter) error {
			must(w.Put(12345))
			must(w.Put(987.654))
			must(w.Put("pair", []int32{1, 2}))
			must(w.PutBytes([]byte("bytes")))
			_, err := fmt.Fprint(w, "written ", v.Size())
			return err
		}))
		must(g.OnLoadState(func(n int) { note("int ", n) }))
		must(g.OnLoadState(func(ctx context.Context, f float64) error { note("float ", f, ctx != nil); return nil }))
		must(g.OnLoadState(func(s string, l []int32) { note(s, " ", l) }))
		must(g.OnLoadState(func(b []byte) error { note(string(b)); return nil }))
		must(g.OnInit(func(context.Context) error { note("init"); return nil }))
		must(g.OnView(func(v *View) { note("view ", v.Size()) }))
		return g
	}
	var first, second loaded
	a, b, c := startOn(t, hub), startOn(t, hub), startOn(t, hub)
	ga := declare(a, &first)
	must(ga.Join(within(t)))
	gb := declare(b, &second)
	must(gb.Join(within(t)))
	want := []string{"int 12345", "float 987.654 true", "pair [1 2]", "bytes", "written 2", "view 2"}
	if !slices.Equal(second.events, want) {
		t.Errorf("joiner: %q, want %q", second.events, want)
	}
	must(gb.Leave(within(t)))
	must(ga.Leave(within(t)))
	if !slices.Equal(first.events[:2], []string{"init", "view 1"}) {
		t.Errorf("founder: %q", first.events)
	}
	// A joiner without a loader for a piece does not get in.
	must(declare(a, &first).Join(within(t)))
	g := c.NewGroup("g")
	must(g.OnLoadState(func(int) {}))
	err := g.Join(within(t))
	if !errors.Is(err, ErrHandler) || !strings.Contains(err.Error(), "float64") {
		t.Errorf("no loader: %v", err)
	}
	g = c.NewGroup("g")
	broken := errors.New("broken")
	must(g.OnLoadState(func(int) error { return broken }))
	wantErr(t, "loader's error", g.Join(within(t)), broken)
	g = c.NewGroup("g")
	must(g.OnLoadState(func(int) {}))
	must(g.OnLoadState(func(int) {}))
	wantErr(t, "two loaders", g.Join(within(t)), ErrHandler)
}

// rows: ADR-04, ADR-05, ADR-07, ADR-08, ADR-11, MSG-15
func TestLibraryTypesAsArguments(t *testing.T) {
	type got struct {
		a  Address
		id GroupID
		v  *View
		as []Address
	}
	ch := make(chan got, 1)
	groups := crowd(t, 2, func(i int, g *Group) {
		must(g.Handle(1, func(a Address, id GroupID, v *View, as []Address) {
			if i == 1 {
				ch <- got{a, id, v, as}
			}
		}))
	})
	g := groups[0]
	v := g.View()
	must(g.Send(within(t), 1, g.sys.Address(), g.ID(), v, v.Members))
	x := take(t, ch)
	if x.a != g.sys.Address() || !slices.Equal(x.as, v.Members) || groups[1].sys.Group(x.id) != groups[1] {
		t.Errorf("got %+v", x)
	}
	if x.v.ID != v.ID || !slices.Equal(x.v.Members, v.Members) || !slices.Equal(x.v.Joined, v.Joined) ||
		x.v.Group != v.Group || x.v.MyRank() != v.MyRank() || x.v.String() != v.String() {
		t.Errorf("view %v, want %v", x.v, v)
	}
	if groups[1].sys.Group(GroupID{}) != nil {
		t.Error("a group that nobody joined")
	}
	var bad View
	if bad.UnmarshalBinary(nil) == nil || bad.UnmarshalBinary(make([]byte, 20)) == nil {
		t.Error("garbage is a view")
	}
	var id GroupID
	if id.UnmarshalBinary([]byte{1}) == nil {
		t.Error("garbage is a group's identifier")
	}
}
