package vsync

import (
	"testing"

	"github.com/khamsin-io/khamsin/transports/mem"
)

// Point is a type without anything on the heap.
type Point struct {
	X, Y float64
	N    int32
}

// Sending and handling a message of values does not allocate, in the typed forms and in the form that uses reflection,
// but for what the caller boxes.
func TestTypedMessagesDoNotAllocate(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	hub := mem.NewHub()
	a, b := startOn(t, hub), startOn(t, hub)
	got := make(chan struct{}, 2)
	var groups []*Group
	for _, s := range []*System{a, b} {
		g := s.NewGroup("g")
		must(Register[Point](s, 1))
		must(Handle1(g, 1, func(_ *Message, v int64) { got <- struct{}{} }))
		must(Handle2(g, 2, func(_ *Message, v int32, p Point) { got <- struct{}{} }))
		must(g.Handle(3, func(v int64, p Point) { got <- struct{}{} }))
		must(g.Handle(4, func(v int64) { got <- struct{}{} }))
		must(g.Handle(4, func(p Point) { got <- struct{}{} }))
		must(g.Join(within(t)))
		groups = append(groups, g)
	}
	g, ctx := groups[0], within(t)
	var ordered Target = g.As(Ordered)
	args := []any{int64(5), Point{1, 2, 3}}
	for _, c := range []struct {
		name string
		send func() error
	}{
		{"Send1", func() error { return Send1(ctx, g, 1, int64(1)<<40) }},
		{"Send1 ordered", func() error { return Send1(ctx, ordered, 1, int64(1)<<40) }},
		{"Send2", func() error { return Send2(ctx, g, 2, int32(7), Point{1, 2, 3}) }},
		{"Send, reflection", func() error { return g.Send(ctx, 3, args...) }},
		{"Send, two handlers", func() error { return g.Send(ctx, 4, args[:1]...) }},
	} {
		n := testing.AllocsPerRun(2000, func() {
			if err := c.send(); err != nil {
				t.Fatal(err)
			}
			<-got
			<-got
		})
		if n >= 1 {
			t.Errorf("%s: %v allocations per message, want 0", c.name, n)
		}
	}
}
