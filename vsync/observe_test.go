package vsync

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/pprof"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/khamsin-io/khamsin/transports/mem"
)

// memo is a log that tests read.
type memo struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (m *memo) Write(b []byte) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.b.Write(b)
}

func (m *memo) String() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.b.String()
}

// await waits until the log holds a text.
func (m *memo) await(t testing.TB, text string) {
	t.Helper()
	for end := time.Now().Add(patience); !strings.Contains(m.String(), text); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("the log lacks %q:\n%s", text, m)
		}
	}
}

// stuckHere is a handler that waits.
func stuckHere(gate chan struct{}) func(s string) { return func(string) { <-gate } }

// rows: THR-07
func TestWatchdogNamesTheHandler(t *testing.T) {
	log := new(memo)
	s := startOn(t, mem.NewHub(), WithLogger(slog.New(slog.NewTextHandler(log, nil))),
		WithHandlerDeadline(30*time.Millisecond))
	gate := make(chan struct{})
	g := s.NewGroup("g")
	must(g.Handle(77, stuckHere(gate)))
	must(g.Join(within(t)))
	must(g.Send(within(t), 77, "x"))
	log.await(t, "stuckHere")
	if text := log.String(); !strings.Contains(text, "code=77") || !strings.Contains(text, "group=g") {
		t.Errorf("the log says %s", text)
	}
	if n := strings.Count(log.String(), "has not returned"); n != 1 || g.State().Slow != 1 {
		t.Errorf("%d lines, %d counted", n, g.State().Slow)
	}
	close(gate)
}

// A handler that panicked is over, and not stuck.
func TestAPanicIsNotStuck(t *testing.T) {
	caught := make(chan any, 2)
	s := startOn(t, mem.NewHub(), WithHandlerLimit(40*time.Millisecond),
		WithPanicHandler(func(_ string, reason any) { caught <- reason }))
	g := s.NewGroup("g")
	must(g.Handle(1, func(*Message) { panic("as the test wants it") }))
	must(g.Join(within(t)))
	must(g.SendBytes(within(t), FIFO, 1, nil))
	must(g.SendBytesTo(within(t), s.Address(), 1, nil))
	await(t, caught, "the panic of a multicast's handler")
	await(t, caught, "the panic of a message's handler")
	select {
	case <-s.Done():
		t.Errorf("the system gave itself up: %v", s.Wait())
	case <-time.After(200 * time.Millisecond):
	}
}

// rows: THR-08, LIF-11
func TestHandlerLimitEndsTheSystem(t *testing.T) {
	hub := mem.NewHub()
	a := startOn(t, hub)
	gate := make(chan struct{})
	ga := a.NewGroup("g")
	must(ga.Handle(5, func(string) {}))
	must(ga.Join(within(t)))
	b, err := Start(context.Background(), quick(hub, WithHandlerLimit(50*time.Millisecond))...)
	must(err)
	gb := b.NewGroup("g")
	must(gb.Handle(5, stuckHere(gate)))
	must(gb.Join(within(t)))
	must(ga.Send(within(t), 5, "x"))
	await(t, b.Done(), "the end")
	if _, err := ga.WaitForView(within(t), func(v *View) bool { return len(v.Left) == 1 }); err != nil {
		t.Fatal(err)
	}
	must(ga.Send(within(t), 5, "the others go on"))
	close(gate)
	var stuck *StuckError
	if err := b.Wait(); !errors.As(err, &stuck) || stuck.Code != 5 || !errors.Is(err, ErrNotRunning) {
		t.Errorf("got %v", err)
	}
}

// rows: OBS-07, PAR-40, MSG-01
func TestTrace(t *testing.T) {
	log := new(memo)
	ran := make(chan int, 10)
	groups := crowd(t, 1, func(_ int, g *Group) {
		must(g.Handle(9, func(n int) { ran <- n }))
	}, WithLogger(slog.New(slog.NewTextHandler(log, nil))))
	g := groups[0]
	events := make(chan TraceEvent, 10)
	must(g.Send(within(t), 9, 1))
	take(t, ran)
	g.SetTracer(func(e TraceEvent) { events <- e })
	must(g.OrderedSend(within(t), 9, 1))
	e := take(t, events)
	if e.Code != 9 || e.From != g.sys.Address() || e.Flavour != Ordered || e.Handlers != 1 || e.View != g.View() ||
		e.Bytes != 2 || e.Query || e.Change {
		t.Errorf("got %+v", e)
	}
	must(g.SendTo(within(t), g.sys.Address(), 8))
	if e := take(t, events); !e.Peer || e.Handlers != 0 || !strings.Contains(e.String(), "point-to-point") {
		t.Errorf("got %v", e)
	}
	g.Trace(true)
	must(g.Send(within(t), 9, 1))
	log.await(t, "code 9 from")
	other := startOn(t, mem.NewHub()).NewGroup("x")
	other.SetTracer(func(e TraceEvent) { events <- e })
	must(other.Join(within(t)))
	if e := take(t, events); !e.Change || e.View.Size() != 1 || !strings.Contains(e.String(), "view") {
		t.Errorf("got %v", e)
	}
	g.Trace(false)
	none(t, events, "an event of another tracer")
}

// rows: THR-17
func TestGoroutinesCarryLabels(t *testing.T) {
	gate, in := make(chan struct{}), make(chan struct{})
	g := crowd(t, 1, func(_ int, g *Group) {
		must(g.Handle(4711, func() { close(in); <-gate }))
	})[0]
	must(g.Send(within(t), 4711))
	await(t, in, "the handler")
	var b bytes.Buffer
	must(pprof.Lookup("goroutine").WriteTo(&b, 1))
	close(gate)
	if !strings.Contains(b.String(), `"code":"4711"`) || !strings.Contains(b.String(), `"group":"crowd"`) {
		t.Error("no goroutine carries the labels of group and code")
	}
}

// rows: OBS-01, OBS-05, OBS-06, OBS-13, PAR-22, PAR-24, FLC-04
func TestStatesAndStats(t *testing.T) {
	groups := crowd(t, 2, func(_ int, g *Group) { must(g.Handle(1, func(b []byte) {})) })
	g, s := groups[1], groups[1].sys
	before := s.IOStats()
	for range 50 {
		must(g.Send(within(t), 1, make([]byte, 1000)))
	}
	must(g.Flush(within(t)))
	after := s.IOStats().Sub(before)
	if p := after.Sent.Multicast.Packets; p < 20 || after.Sent.Multicast.Bytes < 50_000 ||
		after.Received.Acks == 0 || after.Sent.Unicast.Packets > p {
		t.Errorf("got %+v", after)
	}
	text := s.IOStats().String()
	for _, want := range []string{"SENT: ", " UDP (", " tokens, ", " IPMC (", "RECV: ", " Acks, ", " Nacks"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q lacks %q", text, want)
		}
	}
	var st SystemState
	if err := json.Unmarshal([]byte(s.State().String()), &st); err != nil {
		t.Fatal(err)
	}
	if !st.Active || !st.Attached || len(st.Groups) != 1 || st.Address != s.Address() || len(st.Oracle) == 0 ||
		st.Groups[0].Name != "crowd" || len(st.Groups[0].Members) != 2 || st.Groups[0].View != g.View().ID ||
		st.Settings.IgnorePartitions {
		t.Errorf("got %+v", st)
	}
	b := g.Backlog()
	for end := time.Now().Add(patience); b != (Backlog{}) && time.Now().Before(end); b = g.Backlog() {
		time.Sleep(time.Millisecond) // all have the messages, but not all handlers have had them
	}
	if b != (Backlog{}) {
		t.Errorf("backlog %+v", b)
	}
	if p := blockedBacklog(t, g); p.Queued == 0 {
		t.Errorf("backlog of a blocked handler %+v", p)
	}
	_ = s.Close()
	st = s.State()
	if st.Active || !strings.Contains(st.Error, "shut down") || len(st.Groups) != 0 {
		t.Errorf("after the end: %+v", st)
	}
	if gs := g.State(); gs.Error == "" || gs.Backlog != (Backlog{}) {
		t.Errorf("after the end: %+v", gs)
	}
	var none *System
	if gs := none.NewGroup("g").State(); gs.Error == "" {
		t.Errorf("of no system: %+v", gs)
	}
}

// blockedBacklog returns the backlog of a group whose handler waits.
func blockedBacklog(t *testing.T, g *Group) (b Backlog) {
	gate := make(chan struct{})
	x := g.sys.NewGroup("blocked")
	must(x.Handle(1, func() { <-gate }))
	must(x.Join(within(t)))
	for range 5 {
		must(x.Send(within(t), 1))
	}
	for end := time.Now().Add(patience); b.Queued == 0 && time.Now().Before(end); time.Sleep(time.Millisecond) {
		b = x.Backlog()
	}
	close(gate)
	must(x.Leave(within(t)))
	return b
}

// rows: OBS-08, OBS-09, OBS-10, LIF-08, PAR-23
func TestLogFile(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "logs")
	console := new(memo)
	logger := slog.New(slog.NewTextHandler(console, nil))
	s, err := Start(context.Background(), append(quick(mem.NewHub()), WithLogger(logger), WithLogDir(dir))...)
	must(err)
	s.Logger().Info("a line")
	must(s.Close())
	files, err := filepath.Glob(filepath.Join(dir, "khamsin-*.log"))
	if err != nil || len(files) != 1 {
		t.Fatalf("%v %v", files, err)
	}
	text, err := os.ReadFile(files[0])
	if err != nil || !strings.Contains(string(text), "a line") || !strings.Contains(console.String(), "a line") {
		t.Errorf("%s, %v", text, err)
	}
	_, err = Start(context.Background(), append(quick(mem.NewHub()), WithLogger(logger), WithLogDir(files[0]))...)
	if err == nil || !strings.Contains(err.Error(), "log directory") {
		t.Errorf("a file for a directory: %v", err)
	}
	failed := filepath.Join(dir, "failed")
	_, err = Start(context.Background(), append(quick(mem.NewHub()), WithLogger(logger), WithLogDir(failed),
		WithEligible(false), WithOracleLost(100*time.Millisecond))...)
	if !errors.Is(err, ErrNoOracle) || openBelow(t, failed) != 0 {
		t.Errorf("%v, and %d log files open", err, openBelow(t, failed))
	}
	muted := filepath.Join(dir, "muted")
	m := startOn(t, mem.NewHub(), WithLogDir(muted)) // quick mutes
	m.Logger().Error("not to be seen")
	if _, err := os.Stat(muted); !os.IsNotExist(err) {
		t.Errorf("a muted system has a log directory: %v", err)
	}
}

// openBelow returns how many files below a directory this process has open, where the system tells.
func openBelow(t *testing.T, dir string) (n int) {
	t.Helper()
	const fds = "/proc/self/fd"
	entries, err := os.ReadDir(fds)
	if err != nil {
		t.Logf("not known: %v", err)
	}
	for _, e := range entries {
		if to, err := os.Readlink(filepath.Join(fds, e.Name())); err == nil && strings.HasPrefix(to, dir) {
			n++
		}
	}
	return n
}

// rows: MSG-14, FLC-03
func TestKeep(t *testing.T) {
	kept := make(chan *Kept, 3)
	groups := crowd(t, 2, func(i int, g *Group) {
		must(g.Handle(1, func(m *Message) {
			if i == 1 {
				kept <- m.Keep()
			}
		}))
	})
	must(groups[0].SendBytes(within(t), FIFO, 1, []byte("short")))
	long := bytes.Repeat([]byte("x"), 100_000)
	must(groups[0].SendBytes(within(t), FIFO, 1, long))
	short, whole := take(t, kept), take(t, kept)
	for range 100 { // what would overwrite them
		must(groups[0].SendBytes(within(t), FIFO, 2, make([]byte, 1000)))
	}
	must(groups[0].Flush(within(t)))
	if string(short.Bytes()) != "short" || !bytes.Equal(whole.Bytes(), long) {
		t.Error("what was kept changed")
	}
	if n := groups[1].sys.State().Kept; n != 1 {
		t.Errorf("%d packets kept", n)
	}
	short.Release()
	short.Release()
	whole.Release()
	if n := groups[1].sys.State().Kept; n != 0 || short.Bytes() != nil {
		t.Errorf("%d packets kept", n)
	}
	groups[1].sys.kept.Store(keptMax) // beyond that, copies
	must(groups[0].SendBytes(within(t), FIFO, 1, []byte("copy")))
	if k := take(t, kept); string(k.Bytes()) != "copy" || k.sys != nil {
		t.Error("no copy")
	}
	groups[1].sys.kept.Store(0)
}

func TestKeepBeyondTheEnd(t *testing.T) {
	s, err := Start(context.Background(), quick(mem.NewHub())...)
	must(err)
	kept := make(chan *Kept, 1)
	g := s.NewGroup("g")
	must(g.Handle(1, func(m *Message) { kept <- m.Keep() }))
	must(g.Join(within(t)))
	must(g.SendBytes(within(t), FIFO, 1, []byte("late")))
	late := take(t, kept)
	if err := s.Close(); err == nil {
		t.Error("Close does not report what is kept")
	}
	late.Release() // too late, and harmless
}
