package top

import (
	"bytes"
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/khamsin-io/khamsin/transports/mem"
	"github.com/khamsin-io/khamsin/vsync"
)

// start starts a system with a status socket and a group.
func start(t *testing.T, hub *mem.Hub, dir string) *vsync.Group {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	s, err := vsync.Start(context.Background(), vsync.WithTransport(vsync.Mem(hub)), vsync.WithMute(),
		vsync.WithDiscovery(60*time.Millisecond), vsync.WithStatus(dir), vsync.WithSystemName("watched"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	g := s.NewGroup("seen")
	if err := g.Handle(1, func(*vsync.Message) {}); err != nil {
		t.Fatal(err)
	}
	if err := g.Join(ctx); err != nil {
		t.Fatal(err)
	}
	return g
}

// leaveSocket leaves the socket of a process that was killed.
func leaveSocket(t *testing.T, path string) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

// talkNonsense serves what is no state.
func talkNonsense(t *testing.T, path string) {
	t.Helper()
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = c.Write([]byte("no JSON"))
			_ = c.Close()
		}
	}()
}

// Two looks show the processes, their groups, and what they do a second. Sockets of processes that are gone vanish, and
// one that does not answer is named.
func TestLook(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "status")
	hub := mem.NewHub()
	a, b := start(t, hub, dir), start(t, hub, dir)
	ctx := t.Context()
	if _, err := a.WaitForSize(ctx, 2); err != nil {
		t.Fatal(err)
	}
	dead, garbage := filepath.Join(dir, "1-1.khamsin"), filepath.Join(dir, "2-2.khamsin")
	leaveSocket(t, dead)
	talkNonsense(t, garbage)
	before, err := Look(dir, nil)
	if err != nil || len(before.Processes) != 2 || len(before.Silent) != 1 {
		t.Fatalf("%+v, %v", before, err)
	}
	for range 100 {
		if err := b.SendBytes(ctx, vsync.FIFO, 1, []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	s, err := Look(dir, before)
	if err != nil {
		t.Fatal(err)
	}
	leaders, sent := 0, 0.0
	for _, p := range s.Processes {
		if p.Leader {
			leaders++
		}
		sent += p.Rates.SentPackets
		if p.System != "watched" || p.Transport != "mem" || len(p.Groups) != 1 || len(p.Groups[0].Members) != 2 {
			t.Errorf("%+v", p)
		}
	}
	if leaders != 1 || sent <= 0 {
		t.Errorf("%d leaders, %.0f packets a second", leaders, sent)
	}
	var out bytes.Buffer
	if err := Print(&out, dir, s); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"system watched", "leads", "seen", "steady", "no answer: " + garbage} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
	if _, err := os.Stat(dead); err == nil {
		t.Error("the socket of a process that is gone is still there")
	}
}

// Processes that are stopped, and take connections and say nothing, hold up a look once, however many they are.
func TestStoppedProcesses(t *testing.T) {
	dir := t.TempDir()
	const count = 4
	for i := range count {
		l, err := net.Listen("unix", filepath.Join(dir, string(rune('a'+i))+".khamsin"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
	}
	began := time.Now()
	s, err := Look(dir, nil)
	if err != nil || len(s.Silent) != count || len(s.Processes) != 0 {
		t.Errorf("%+v, %v", s, err)
	}
	if took := time.Since(began); took > 2*readWithin {
		t.Errorf("it took %v", took)
	}
}

// Without processes the table says how to make them visible.
func TestNobody(t *testing.T) {
	s, err := Look(filepath.Join(t.TempDir(), "none"), nil)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := Print(&out, "/dir", s); err != nil || !strings.Contains(out.String(), "KHAMSIN_STATUS=1") {
		t.Errorf("%q, %v", out.String(), err)
	}
}

// The live screen takes samples and keys.
func TestScreen(t *testing.T) {
	m := screen{dir: filepath.Join(t.TempDir(), "none"), height: 10}
	msg := m.Init()()
	updated, cmd := m.Update(msg)
	if cmd == nil {
		t.Error("no next sample")
	}
	text := updated.View().Content
	if !strings.Contains(text, "khamsin top") || !strings.Contains(text, "no processes") {
		t.Errorf("shows %q", text)
	}
}

// Rates are changes a second; a process that starts again, or that was not there before, has none below zero.
func TestRates(t *testing.T) {
	now := time.Now()
	look := func(address string, at time.Time, n uint64) Process {
		p := Process{Address: address, at: at, Stats: stats{Refused: map[string]uint64{"Forged": 2 * n, "Stale": n}}}
		p.Stats.Sent = direction{
			Unicast: flow{n, 10 * n}, Multicast: flow{n, 20 * n}, Duplicates: 4 * n, Dropped: 5 * n,
		}
		p.Stats.Received = direction{Unicast: flow{6 * n, 7 * n}, Dropped: n}
		return p
	}
	before := &Sample{Processes: []Process{look("a", now, 100), look("b", now, 100)}}
	want := Rates{
		SentPackets: 4, SentBytes: 60, ReceivedPackets: 12, ReceivedBytes: 14, Resent: 8, Dropped: 12, Refused: 6,
	}
	for _, c := range []struct {
		p    Process
		want Rates
	}{
		{look("a", now.Add(4*time.Second), 108), want}, {look("b", now.Add(time.Second), 50), Rates{}},
		{look("new", now.Add(time.Second), 8), Rates{}},
	} {
		if c.p.since(before); c.p.Rates != c.want {
			t.Errorf("%s: %+v, want %+v", c.p.Address, c.p.Rates, c.want)
		}
	}
}
