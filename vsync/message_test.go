package vsync

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/khamsin-io/khamsin/dataplane"
	"github.com/khamsin-io/khamsin/dataplane/frame"
	"github.com/khamsin-io/khamsin/transports/mem"
)

// lossy is a network in memory that loses packets.
func lossy(hub *mem.Hub, loss float64) Option {
	return WithTransport(func(c *Config) (dataplane.Transport, error) {
		return hub.Open(mem.Config{
			Queue: queuedMax, Weather: mem.Weather{Loss: loss},
			Arena: frame.Config{ChunkSize: chunkBytes, TxChunks: txFrames, RxRuns: rxFrames + queuedMax},
		})
	})
}

// rows: MSG-18, MSG-19, P2P-01, P2P-02, P2P-03
func TestLongMessagesUnderLoss(t *testing.T) {
	hub := mem.NewHub()
	long := make([]byte, 1<<20)
	_, _ = rand.Read(long)
	got := make(chan []byte, 2)
	var groups []*Group
	for i := range 2 {
		s := startOn(t, hub, lossy(hub, 0.05), WithMaxMessage(1<<20+100), WithSuspectAfter(10*time.Second))
		g := s.NewGroup("g")
		must(g.Handle(1, func(b []byte) {
			if i == 1 {
				got <- b
			}
		}))
		must(g.Join(within(t)))
		groups = append(groups, g)
	}
	if _, err := groups[0].WaitForSize(within(t), 2); err != nil {
		t.Fatal(err)
	}
	must(groups[0].Send(within(t), 1, long))
	if b := take(t, got); !bytes.Equal(b, long) {
		t.Error("the multicast changed")
	}
	wantErr(t, "a byte too many", groups[0].SendBytes(within(t), FIFO, 1, make([]byte, 1<<20+100)), ErrTooLarge)
	must(groups[0].SendBytes(within(t), FIFO, 2, make([]byte, 1<<20+99)))
	twice := append(bytes.Clone(long), long...) // above the limit of multicasts
	must(groups[0].SendTo(within(t), groups[1].sys.Address(), 1, twice))
	if b := take(t, got); !bytes.Equal(b, twice) {
		t.Error("the point-to-point message changed")
	}
}

// rows: RAW-01, RAW-07
func TestRawMessages(t *testing.T) {
	got := make(chan int, 200)
	groups := crowd(t, 2, func(i int, g *Group) {
		must(g.Handle(1, func(n int) {
			if i == 1 {
				got <- n
			}
		}))
	})
	before := groups[1].sys.IOStats()
	for n := range 100 {
		must(groups[0].RawSend(within(t), 1, n))
		if v := take(t, got); v != n {
			t.Errorf("got %d, want %d", v, n)
		}
	}
	moved := groups[1].sys.IOStats().Sub(before)
	if moved.Sent.Acks > 20 || moved.Sent.Naks > 0 { // what else goes on acknowledges, too
		t.Errorf("raw messages are acknowledged: %+v", moved.Sent)
	}
}

// A raw request to one member, and its raw reply, arrive when nothing is lost. When the request or the reply is lost,
// the query ends with its time.
//
// rows: RAW-02, RAW-04, RAW-05, RAW-06, RAW-10
func TestRawToOneMember(t *testing.T) {
	got := make(chan string, 10)
	var silent atomic.Bool
	groups := crowd(t, 2, func(i int, g *Group) {
		must(g.Handle(1, func(text string) { got <- text }))
		must(g.Handle(2, func(m *Message, n int) {
			if silent.Load() { // as if the reply were lost
				must(m.Silent())
				return
			}
			must(m.RawReply(n + i))
		}))
		must(g.Handle(3, func(n int) (int, error) { return n * 2, nil }))
	})
	other := groups[1].sys.Address()
	long := strings.Repeat("long ", 20_000)
	for _, text := range []string{"short", long} {
		must(groups[0].RawSendTo(within(t), other, 1, text))
		if v := take(t, got); v != text {
			t.Errorf("got %d bytes, want %d", len(v), len(text))
		}
	}
	if v, err := RawAsk[int](within(t), groups[0], other, 2, 40); v != 41 || err != nil {
		t.Errorf("%v, %v", v, err)
	}
	if v, err := RawAsk[int](within(t), groups[0], other, 3, 40); v != 80 || err != nil {
		t.Errorf("a reliable reply to a raw request: %v, %v", v, err)
	}
	silent.Store(true)
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := RawAsk[int](short, groups[0], other, 2, 40)
	wantErr(t, "no reply", err, ErrNoReply)
}

// rows: MSG-22, MSG-16
func TestManyValuesInOneMessageCostLess(t *testing.T) {
	s := startOn(t, mem.NewHub())
	names, salaries := make([]string, 10), make([]float64, 10)
	one := 0
	for i := range names {
		names[i] = fmt.Sprint("name ", i)
		n, err := s.Types().Size(names[i], salaries[i])
		must(err)
		one += n
	}
	all, err := s.Types().Size(names, salaries)
	must(err)
	if all >= one {
		t.Errorf("%d bytes in one message, %d in ten", all, one)
	}
	if n, err := s.Types().Size(make([]int32, 1e6)); err != nil || n > 4e6+8 {
		t.Errorf("a million numbers take %d bytes, %v", n, err)
	}
}

// The loss of a network is what all members sent, each multicast counted once for every process, its sender too,
// against what they received.
//
// rows: OBS-03, OBS-04, FLC-05
func TestLossIsSeenInTheCounters(t *testing.T) {
	const n, loss = 3, 0.1
	hub := mem.NewHub()
	var groups []*Group
	for range n {
		s := startOn(t, hub, lossy(hub, loss), WithSuspectAfter(10*time.Second))
		g := s.NewGroup("g")
		must(g.Handle(1, func([]byte) {}))
		must(g.Join(within(t)))
		groups = append(groups, g)
	}
	if _, err := groups[0].WaitForSize(within(t), n); err != nil {
		t.Fatal(err)
	}
	var before [n]IOStats
	for i, g := range groups {
		before[i] = g.sys.IOStats()
	}
	for range 3000 {
		must(groups[0].Send(within(t), 1, make([]byte, 1000)))
	}
	must(groups[0].Flush(within(t)))
	var sent, received, naks, duplicates uint64
	for end := time.Now().Add(10 * time.Second); ; { // packets that are on their way are sent and not received
		sent, received, naks, duplicates = 0, 0, 0, 0
		for i, g := range groups {
			moved := g.sys.IOStats().Sub(before[i])
			sent += moved.Sent.Unicast.Packets + n*moved.Sent.Multicast.Packets
			received += moved.Received.Unicast.Packets + moved.Received.Multicast.Packets
			naks += moved.Received.Naks
			duplicates += moved.Sent.Duplicates
		}
		seen := 1 - float64(received)/float64(sent)
		if seen >= loss-0.02 && seen <= loss+0.02 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("a loss of %.3f is seen as %.3f: %d packets sent, %d received", loss, seen, sent, received)
		}
		time.Sleep(time.Millisecond)
	}
	if naks == 0 || duplicates == 0 {
		t.Errorf("%d negative acknowledgements, %d packets sent again", naks, duplicates)
	}
}

// BenchmarkSmallValues sends a thousand numbers, one by one and as one slice.
//
// rows: TUN-17
func BenchmarkSmallValues(b *testing.B) {
	const n = 1000
	groups := crowd(b, 2, func(_ int, g *Group) {
		must(g.Handle(1, func(int32) {}))
		must(g.Handle(2, func([]int32) {}))
	})
	ctx, all := b.Context(), make([]int32, n)
	for name, send := range map[string]func(){
		"one by one": func() {
			for i := range all {
				must(Send1(ctx, groups[1], 1, all[i]))
			}
		},
		"a slice": func() { must(Send1(ctx, groups[1], 2, all)) },
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				send()
				must(groups[1].Flush(ctx))
			}
		})
	}
}
