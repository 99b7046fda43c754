package vsync

import (
	"testing"
	"time"

	"github.com/khamsin-io/khamsin/transports/mem"
)

// rows: ADR-01, ADR-02, ADR-03, ADR-06, ADR-09, ADR-10
func TestAddressOfASystem(t *testing.T) {
	hub := mem.NewHub()
	a, b := startOn(t, hub), startOn(t, hub)
	g := a.NewGroup("g")
	must(g.Join(within(t)))
	if a.Address() == b.Address() || a.Address() != g.View().Members[0] || a.Address().IsZero() {
		t.Errorf("addresses %v and %v", a.Address(), b.Address())
	}
	back, err := ParseAddress(a.Address().String())
	if err != nil || map[Address]int{back: 1}[a.Address()] != 1 {
		t.Errorf("%v is read as %v, %v", a.Address(), back, err)
	}
	var none *System
	if none.Address() != NoAddress || NoAddress == a.Address() {
		t.Error("the address of nobody")
	}
	_ = b.Close()
	again := startOn(t, hub)
	if again.Address() == b.Address() || again.Address().PID != b.Address().PID {
		t.Errorf("a process that starts again is %v, and was %v", again.Address(), b.Address())
	}
}

// rows: LIF-07, LIF-04
func TestSearchAtAColdStartIsBounded(t *testing.T) {
	for _, c := range []struct {
		opts        []Option
		least, most time.Duration
	}{
		{[]Option{WithDiscovery(400 * time.Millisecond)}, 400 * time.Millisecond, 5 * time.Second},
		{[]Option{WithDiscovery(time.Minute), WithFastStart()}, 0, 5 * time.Second},
	} {
		start := time.Now()
		s := startOn(t, mem.NewHub(), c.opts...)
		if d := time.Since(start); d < c.least || d > c.most || !s.Active() {
			t.Errorf("took %v, want %v to %v", d, c.least, c.most)
		}
	}
}

// rows: LIF-18, LIF-15
func TestAPoisonedProgramCleansUpAndStartsAgain(t *testing.T) {
	hub := mem.NewHub()
	a, b := startOn(t, hub), startOn(t, hub)
	ga, gb := a.NewGroup("g"), b.NewGroup("g")
	must(ga.Join(within(t)))
	must(gb.Join(within(t)))
	must(ga.ReportFailure(b.Address(), "test"))
	await(t, b.Done(), "the poison")
	for name, err := range map[string]error{
		"send": gb.Send(within(t), 1), "flush": gb.Flush(within(t)), "wait": b.Wait(),
	} {
		wantErr(t, name, err, ErrPoisoned)
	}
	if err := b.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	again := startOn(t, hub).NewGroup("g")
	must(again.Join(within(t)))
	if _, err := ga.WaitForView(within(t), func(v *View) bool { return v.Size() == 2 }); err != nil {
		t.Error(err)
	}
}
