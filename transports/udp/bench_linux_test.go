package udp

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/khamsin-io/khamsin/dataplane"
)

const benchChannel = dataplane.Channel(7)

// variants are the ways to send and receive that are compared.
var variants = []struct {
	name string
	cfg  Config
}{
	{"gso+gro", Config{}},
	{"mmsg", Config{DisableGSO: true, DisableGRO: true}},
	{"single", Config{DisableGSO: true, DisableGRO: true, DisableBatch: true}},
}

// BenchmarkLoopback sends and receives batches in one goroutine, so that nothing is ever lost: the cost of a packet,
// both ways together.
func BenchmarkLoopback(b *testing.B) {
	for _, v := range variants {
		for _, size := range []int{64, 1400} {
			for _, ch := range []dataplane.Channel{0, benchChannel} {
				kind := "unicast"
				if ch != 0 {
					kind = "multicast"
				}
				b.Run(fmt.Sprintf("%s/%s/%d", v.name, kind, size), func(b *testing.B) {
					cfg := v.cfg
					cfg.GroupPort = freePort(b)
					benchmarkLoopback(b, cfg, size, ch)
				})
			}
		}
	}
}

func benchmarkLoopback(b *testing.B, cfg Config, size int, ch dataplane.Channel) {
	x, y := openUntilEnd(b, cfg), openUntilEnd(b, cfg)
	const n = 128
	to := y.Local()
	if ch != 0 {
		to = dataplane.Endpoint{}
		if err := y.Subscribe(ch); err != nil {
			b.Fatal(err)
		}
	}
	batch := make([]dataplane.Packet, n)
	got := make([]dataplane.Packet, n)
	b.ReportAllocs()
	b.SetBytes(int64(n * size))
	start := processorTime(b)
	for b.Loop() {
		for i := range batch {
			f, _ := x.Arena().Tx().Get()
			f.Len = uint32(size)
			batch[i] = dataplane.Packet{Frame: f, To: to, Channel: ch}
		}
		if k, err := x.Send(batch); k != n || err != nil {
			b.Fatal(k, err)
		}
		for received := 0; received < n; {
			k, err := y.Receive(got, dataplane.Wait{Timeout: time.Second})
			if k == 0 || err != nil {
				b.Fatal(received, k, err)
			}
			for _, p := range got[:k] {
				y.Arena().Rx().Release(p.Frame)
			}
			received += k
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/packet")
	b.ReportMetric(float64(processorTime(b)-start)/float64(b.N*n), "cpu-ns/packet")
}

// processorTime returns what the process has used of the processors: a measure that other load disturbs less.
func processorTime(b *testing.B) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkStream sends from one goroutine as fast as it goes and receives in another: packets per second that arrive.
func BenchmarkStream(b *testing.B) {
	for _, v := range variants {
		for _, size := range []int{64, 1400} {
			b.Run(fmt.Sprintf("%s/%d", v.name, size), func(b *testing.B) { benchmarkStream(b, v.cfg, size) })
		}
	}
}

func benchmarkStream(b *testing.B, cfg Config, size int) {
	x, y := openUntilEnd(b, cfg), openUntilEnd(b, cfg)
	received := 0
	var last time.Time
	var wg sync.WaitGroup
	wg.Add(1)
	go func() {
		defer wg.Done()
		batch := make([]dataplane.Packet, 256)
		for {
			n, err := y.Receive(batch, dataplane.Wait{Spin: 50 * time.Microsecond, Timeout: 100 * time.Millisecond})
			if err != nil || n == 0 {
				return
			}
			for _, p := range batch[:n] {
				y.Arena().Rx().Release(p.Frame)
			}
			received += n
			last = time.Now()
		}
	}()
	const n = 256
	batch := make([]dataplane.Packet, n)
	start := time.Now()
	for b.Loop() {
		for i := range batch {
			f, _ := x.Arena().Tx().Get()
			f.Len = uint32(size)
			batch[i] = dataplane.Packet{Frame: f, To: y.Local()}
		}
		if _, err := x.Send(batch); err != nil {
			b.Fatal(err)
		}
	}
	wg.Wait()
	b.ReportMetric(float64(received)/last.Sub(start).Seconds()/1e3, "kpps")
	b.ReportMetric(100-100*float64(received)/float64(b.N*n), "%lost")
}

// BenchmarkRoundTrip sends one packet there and back, by each way of waiting.
func BenchmarkRoundTrip(b *testing.B) {
	for _, w := range []struct {
		name string
		wait dataplane.Wait
	}{
		{"spin", dataplane.Wait{Spin: time.Second, Timeout: time.Second}},
		{"spin20us", dataplane.Wait{Spin: 20 * time.Microsecond, Timeout: time.Second}},
		{"block", dataplane.Wait{Timeout: time.Second}},
	} {
		b.Run(w.name, func(b *testing.B) { benchmarkRoundTrip(b, w.wait) })
	}
}

func benchmarkRoundTrip(b *testing.B, wait dataplane.Wait) {
	x, y := openUntilEnd(b, Config{}), openUntilEnd(b, Config{})
	stopped := make(chan error)
	go func() {
		batch := make([]dataplane.Packet, 16)
		for {
			n, err := y.Receive(batch, wait)
			for i, p := range batch[:n] {
				batch[i].To = p.From
			}
			if _, sendErr := y.Send(batch[:n]); err != nil || sendErr != nil {
				stopped <- errors.Join(err, sendErr)
				return
			}
		}
	}()
	batch := make([]dataplane.Packet, 16)
	for b.Loop() {
		f, _ := x.Arena().Tx().Get()
		f.Len = 64
		if _, err := x.Send([]dataplane.Packet{{Frame: f, To: y.Local()}}); err != nil {
			b.Fatal(err)
		}
		n, err := x.Receive(batch, wait)
		if n != 1 || err != nil {
			b.Fatal(n, err)
		}
		x.Arena().Rx().Release(batch[0].Frame)
	}
	b.StopTimer()
	if err := y.Close(); err != nil {
		b.Error(err)
	}
	if err := <-stopped; !errors.Is(err, dataplane.ErrClosed) {
		b.Error(err)
	}
}
