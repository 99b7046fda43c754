package vsync

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// syncBuffer is a log that several goroutines write to.
type syncBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// freePorts returns a group port and a peer port that nobody uses.
func freePorts(t testing.TB) (group, peer uint16) {
	t.Helper()
	var ports [2]uint16
	for i := range ports {
		c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		ports[i] = uint16(c.LocalAddr().(*net.UDPAddr).Port)
	}
	return ports[0], ports[1]
}

// pair is two systems that talk over UDP on the loopback, the second one counting what it receives.
type pair struct {
	a, b   *System
	send   *Group
	got    atomic.Int64
	bad    atomic.Int64 // messages out of order
	counts chan struct{}
	want   int64
}

func startPair(t testing.TB, opts ...Option) *pair {
	t.Helper()
	group, peer := freePorts(t)
	p := &pair{counts: make(chan struct{}, 1)}
	all := append([]Option{WithConfig(DefaultConfig()), WithPorts(group, peer), WithOracleSize(1),
		WithSystemName(t.Name()), WithDiscovery(100 * time.Millisecond), WithMute()}, opts...)
	for i, s := range []**System{&p.a, &p.b} {
		more := all
		if i == 0 {
			more = append(all[:len(all):len(all)], WithFastStart())
		}
		started, err := Start(context.Background(), more...)
		if err != nil {
			t.Fatal(err)
		}
		*s = started
		t.Cleanup(func() { must(started.Close()) })
		g := started.NewGroup("g")
		must(g.Handle(1, func(m *Message) {
			if i == 0 {
				return
			}
			n := p.got.Add(1)
			if fmt.Sprintf("%08d", n) != string(m.Payload[:8]) {
				p.bad.Add(1)
			}
			if n == atomic.LoadInt64(&p.want) {
				p.counts <- struct{}{}
			}
		}))
		must(g.Join(within(t)))
		if i == 0 {
			p.send = g
		}
	}
	return p
}

// traffic sends messages of 1,200 bytes and returns how long it took until the other one had them all.
func (p *pair) traffic(t testing.TB, messages int) time.Duration {
	t.Helper()
	payload := make([]byte, 1200)
	from := p.got.Load()
	atomic.StoreInt64(&p.want, from+int64(messages))
	start := time.Now()
	for i := range int64(messages) {
		copy(payload, fmt.Sprintf("%08d", from+i+1))
		must(p.send.SendBytes(within(t), FIFO, 1, payload))
	}
	await(t, p.counts, "the messages")
	return time.Since(start)
}

// A system whose socket buffer is far too small loses packets; the autotuner finds it, says why, and asks for a larger
// one. Nothing is lost to the application, with or without.
//
// rows: FUT-12
func TestAutotuneCuresASmallBuffer(t *testing.T) {
	const small = 16 << 10
	var log syncBuffer
	p := startPair(t, WithBuffers(small, 0), WithLogger(slog.New(slog.NewTextHandler(&log, nil))))
	deadline := time.Now().Add(patience)
	for {
		p.traffic(t, 20000)
		if now, on := p.b.Tuning(); !on {
			t.Fatal("the autotuner is off")
		} else if now.ReceiveBuffer >= 8*small {
			break
		}
		if time.Now().After(deadline) {
			now, _ := p.b.Tuning()
			t.Fatalf("the buffer does not grow: %+v", now)
		}
	}
	now, _ := p.b.Tuning()
	if now.Made == 0 || len(now.Decisions) == 0 || now.Decisions[0].Setting == "" || now.Decisions[0].Why == "" {
		t.Errorf("decisions: %+v", now)
	}
	st := p.b.IOStats()
	if st.Tuning == nil || st.Tuning.Made < now.Made || !strings.Contains(st.String(), "TUNED after") {
		t.Errorf("the decisions are not in IOStats: %v", st)
	}
	if p.bad.Load() > 0 {
		t.Errorf("%d messages out of order", p.bad.Load())
	}
	for !strings.Contains(log.String(), "lost in front of a full socket") {
		if time.Now().After(deadline) {
			t.Fatalf("the log does not say it: %s", &log)
		}
		time.Sleep(time.Millisecond) // the log is written by a goroutine of its own
	}
}

func TestAutotunePinnedOff(t *testing.T) {
	t.Setenv("ISIS_AUTOTUNE", "false")
	c, err := ConfigFromEnv()
	if err != nil || c.Autotune {
		t.Fatalf("%v, %v", c.Autotune, err)
	}
	p := startPair(t, WithBuffers(16<<10, 0), WithAutotune(c.Autotune))
	p.traffic(t, 20000)
	if now, on := p.b.Tuning(); on || now.Made != 0 {
		t.Errorf("pinned off, and %+v", now)
	}
	var none *System
	if _, on := none.Tuning(); on {
		t.Error("a system that does not run is tuned")
	}
}

// BenchmarkSmallBuffer shows what the autotuner is worth with a buffer of 16 KiB, against one that is large enough.
func BenchmarkSmallBuffer(b *testing.B) {
	for _, v := range []struct {
		name string
		opts []Option
	}{
		{"small", []Option{WithBuffers(16<<10, 0), WithAutotune(false)}},
		{"small, tuned", []Option{WithBuffers(16<<10, 0)}},
		{"default", []Option{WithAutotune(false)}},
	} {
		b.Run(v.name, func(b *testing.B) {
			p := startPair(b, v.opts...)
			p.traffic(b, 100000) // time for the autotuner
			b.SetBytes(1200 * 1000)
			for b.Loop() {
				p.traffic(b, 1000)
			}
		})
	}
}
