package vsync

import (
	"testing"

	"github.com/khamsin-io/khamsin/transports/mem"
)

func TestSendAndDeliverDoNotAllocate(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	hub := mem.NewHub()
	a, b := startOn(t, hub), startOn(t, hub)
	got := make(chan struct{}, 2)
	var groups []*Group
	for _, s := range []*System{a, b} {
		g := s.NewGroup("g")
		must(g.Handle(codeNumber, func(*Message) { got <- struct{}{} }))
		must(g.Join(within(t)))
		groups = append(groups, g)
	}
	for _, f := range []Flavour{FIFO, Causal, Ordered} {
		payload, ctx := make([]byte, 64), within(t)
		n := testing.AllocsPerRun(3000, func() {
			if err := groups[0].SendBytes(ctx, f, codeNumber, payload); err != nil {
				t.Fatal(err)
			}
			<-got
			<-got
		})
		if n >= 1 {
			t.Errorf("%v: %v allocations per message, want 0", f, n)
		}
	}
}

func TestSendToAndDeliverDoNotAllocate(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	hub := mem.NewHub()
	a, b := startOn(t, hub), startOn(t, hub)
	got := make(chan int, 1)
	x := a.NewGroup("g")
	y := b.NewGroup("g")
	for _, g := range []*Group{x, y} {
		must(g.Handle(codeNumber, func(m *Message) { got <- len(m.Payload) }))
		must(g.Join(within(t)))
	}
	for _, size := range []int{0, 64, 1000} {
		payload, ctx := make([]byte, size), within(t)
		n := testing.AllocsPerRun(3000, func() {
			if err := x.SendBytesTo(ctx, b.Address(), codeNumber, payload); err != nil {
				t.Fatal(err)
			}
			if n := <-got; n != size {
				t.Fatalf("%d bytes arrived of %d", n, size)
			}
		})
		if n >= 1 {
			t.Errorf("%d bytes: %v allocations per message, want 0", size, n)
		}
	}
}
