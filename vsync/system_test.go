package vsync

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/khamsin-io/khamsin/transports/mem"
)

// rows: LIF-01, LIF-09, LIF-10, LIF-14, THR-19
func TestLifeOfASystem(t *testing.T) {
	s := startOn(t, mem.NewHub())
	if s.Address().IsZero() || s.Address().PID == 0 || !s.Active() {
		t.Fatalf("address %v, active %v", s.Address(), s.Active())
	}
	if err := s.NewGroup("g").Join(within(t)); err != nil {
		t.Fatal(err)
	}
	waited := make(chan error, 1)
	go func() { waited <- s.Wait() }()
	select {
	case <-s.Done():
		t.Fatal("Done is closed while the system runs")
	case err := <-waited:
		t.Fatalf("Wait returned %v while the system runs", err)
	default:
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	await(t, s.Done(), "Done")
	if err := <-waited; err != nil || s.Active() {
		t.Fatalf("after Close: Wait %v, active %v", err, s.Active())
	}
	if err := s.Close(); err != nil {
		t.Fatalf("second Close: %v", err)
	}
}

// rows: LIF-03, GRP-14
func TestCallsOutsideTheSystemsLife(t *testing.T) {
	var never *System
	over := startOn(t, mem.NewHub())
	old := over.NewGroup("old")
	if err := old.Join(within(t)); err != nil {
		t.Fatal(err)
	}
	if err := over.Close(); err != nil {
		t.Fatal(err)
	}
	for name, g := range map[string]*Group{"not started": never.NewGroup("g"), "closed": over.NewGroup("g"),
		"old": old} {
		for what, err := range map[string]error{
			"Join":      g.Join(within(t)),
			"Create":    g.Create(within(t)),
			"Leave":     g.Leave(within(t)),
			"Terminate": g.Terminate(within(t)),
			"Flush":     g.Flush(within(t)),
			"Send":      g.SendBytes(within(t), FIFO, 1, nil),
			"SendTo":    g.SendBytesTo(within(t), Address{}, 1, nil),
			"Report":    g.ReportFailure(Address{}, "test"),
		} {
			wantErr(t, name+": "+what, err, ErrNotRunning)
		}
	}
	if err := never.Close(); !errors.Is(err, ErrNotRunning) || never.Active() || !never.Address().IsZero() {
		t.Errorf("a system that was never started: close %v, active %v", err, never.Active())
	}
}

// rows: LIF-04, LIF-05, LIF-06
func TestSecondProcessAttachesUnlessBothFound(t *testing.T) {
	hub := mem.NewHub()
	began := time.Now()
	a := startOn(t, hub, WithFastStart())
	if took := time.Since(began); took > time.Second {
		t.Errorf("fast start took %v", took)
	}
	b := startOn(t, hub)
	ma, mb := joined(t, a, "g"), joined(t, b, "g")
	ma.untilSize(t, 2)
	mb.untilSize(t, 2)
}

// rows: LIF-15
func TestStartAgainInTheSameProcess(t *testing.T) {
	hub := mem.NewHub()
	first := startOn(t, hub)
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if second := startOn(t, hub); second.Address() == first.Address() {
		t.Fatalf("both runs have the address %v", first.Address())
	}
}

// rows: LIF-16
func TestContextEndsTheSystem(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	s, err := Start(ctx, quick(mem.NewHub())...)
	if err != nil {
		t.Fatal(err)
	}
	m := joined(t, s, "g")
	cancel()
	await(t, s.Done(), "the end of the system")
	if err := s.Wait(); err != nil {
		t.Fatal(err)
	}
	wantErr(t, "send afterwards", m.group.SendBytes(within(t), FIFO, codeNumber, nil), ErrShutdown)
}

func TestStartGivesUpWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := Start(ctx, quick(mem.NewHub(), WithDiscovery(time.Hour))...)
	wantErr(t, "start", err, context.Canceled)
}

// rows: LIF-12, GRP-12, VIEW-06, VIEW-07
func TestOthersLearnOfACloseAtOnce(t *testing.T) {
	hub := mem.NewHub()
	a, b := startOn(t, hub, WithSuspectAfter(time.Hour)), startOn(t, hub, WithSuspectAfter(time.Hour))
	ma, mb := joined(t, a, "g"), joined(t, b, "g")
	ma.untilSize(t, 2)
	mb.untilSize(t, 2)
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	ma.untilSize(t, 1) // by failure detection it would take an hour
	v := ma.group.View()
	if len(v.Left) != 1 || v.Left[0] != b.Address() || len(v.Joined) != 0 {
		t.Fatalf("view after the close: %v", v)
	}
}

// rows: FD-02, VIEW-24
func TestOthersLearnOfACrash(t *testing.T) {
	hub := mem.NewHub()
	a, b := startOn(t, hub), startOn(t, hub)
	var first, second [2]*member
	for i, s := range []*System{a, b} {
		first[i], second[i] = joined(t, s, "first"), joined(t, s, "second")
	}
	first[0].untilSize(t, 2)
	second[0].untilSize(t, 2)
	b.Kill()
	for _, m := range []*member{first[0], second[0]} {
		m.untilSize(t, 1)
		if v := m.group.View(); len(v.Left) != 1 || v.Left[0] != b.Address() {
			t.Errorf("view after the crash: %v", v)
		}
	}
	wantErr(t, "send after Kill", first[1].group.SendBytes(within(t), FIFO, codeNumber, nil), ErrNotRunning)
}

// rows: LIF-17
func TestCloseReleasesBlockedCalls(t *testing.T) {
	s := startOn(t, mem.NewHub(), WithMaxUnstable(16), WithMaxMessage(1<<20))
	g := s.NewGroup("g")
	entered := make(chan struct{}, 1)
	must(g.Handle(codeNumber, func(m *Message) {
		select {
		case entered <- struct{}{}:
		default:
		}
		<-m.Context().Done()
	}))
	must(g.Join(within(t)))
	blocked := make(chan error, 2)
	go func() {
		for {
			if err := g.SendBytes(context.Background(), Ordered, codeNumber, make([]byte, 1<<16)); err != nil {
				blocked <- err
				return
			}
		}
	}()
	<-entered
	began := time.Now()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	wantErr(t, "blocked send", <-blocked, ErrShutdown)
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("the blocked call came back after %v", took)
	}
}

// rows: LIF-08
func TestLoggerAndMute(t *testing.T) {
	var spoken, muted lineCounter
	startOn(t, mem.NewHub(), WithLogger(spoken.logger()))
	startOn(t, mem.NewHub(), WithLogger(muted.logger()), WithMute())
	spoken.mu.Lock()
	defer spoken.mu.Unlock()
	if spoken.n == 0 || muted.n != 0 {
		t.Errorf("%d lines with a logger, %d when muted", spoken.n, muted.n)
	}
}

// rows: LIF-21, NET-06
func TestSystemsOfDifferentNamesIgnoreEachOther(t *testing.T) {
	hub := mem.NewHub()
	red, blue := startOn(t, hub, WithSystemName("red")), startOn(t, hub, WithSystemName("blue"))
	for _, m := range []*member{joined(t, red, "g"), joined(t, blue, "g")} {
		if v := m.group.View(); v.Size() != 1 {
			t.Errorf("systems met: %v", v)
		}
	}
}

func TestBadOptionsAreRefused(t *testing.T) {
	_, err := Start(t.Context(), WithOracleSize(2), WithHeartbeat(0), WithTTL(999))
	for _, want := range []string{"OracleSize", "Heartbeat", "TTL"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v does not name %s", err, want)
		}
	}
}

func TestTheLastProcessClosesAtOnce(t *testing.T) {
	hub := mem.NewHub()
	a, b := startOn(t, hub), startOn(t, hub)
	ma, mb := joined(t, a, "g"), joined(t, b, "g")
	ma.untilSize(t, 2)
	mb.untilSize(t, 2)
	for _, s := range []*System{b, a} { // a made the state for b, which is gone when a leaves
		began := time.Now()
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took > 3*time.Second {
			t.Errorf("Close took %v", took)
		}
	}
}
