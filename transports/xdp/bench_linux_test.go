package xdp

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/khamsin-io/khamsin/bpf"
	"github.com/khamsin-io/khamsin/dataplane"
	"github.com/khamsin-io/khamsin/dataplane/wire"
	"github.com/khamsin-io/khamsin/internal/netns"
	"github.com/khamsin-io/khamsin/transports/udp"
)

// These benchmarks run for a fixed time each, whatever b.N: use -benchtime 1x and -count.
const (
	benchTime = 400 * time.Millisecond
	benchCh   = dataplane.Channel(9)
)

// opener opens a transport on a host.
type opener func(tb testing.TB, h *netns.Host) dataplane.Transport

// overUDP opens the UDP transport.
func overUDP(cfg udp.Config, filtered bool) opener {
	return func(tb testing.TB, h *netns.Host) (tr dataplane.Transport) {
		cfg := cfg
		cfg.Interface, cfg.GroupPort = netns.Interface, groupPort
		if filtered {
			f, err := bpf.OpenFilter()
			check(tb, err)
			cfg.Filter = f
		}
		var err error
		h.Do(func() { tr, err = udp.Open(cfg) })
		check(tb, err)
		tb.Cleanup(func() { check(tb, tr.Close()) })
		return tr
	}
}

// overXDP opens the AF_XDP transport.
func overXDP(cfg Config) opener {
	return func(tb testing.TB, h *netns.Host) dataplane.Transport {
		cfg := cfg
		cfg.GroupPort = groupPort
		return openUntilEnd(tb, h, cfg)
	}
}

// immutable: the ways that are compared
var plainUDP = udp.Config{DisableGSO: true, DisableGRO: true}

func ways() []struct {
	name string
	open opener
} {
	return []struct {
		name string
		open opener
	}{
		{"udp", overUDP(plainUDP, false)},
		{"xdp", overXDP(Config{})},
		{"xdp-generic", overXDP(Config{Mode: bpf.ModeGeneric})},
		{"udp-gso", overUDP(udp.Config{}, false)},
	}
}

// processorTime returns what the calling thread, or the process, has used.
func processorTime(tb testing.TB, who int) time.Duration {
	var u unix.Rusage
	check(tb, unix.Getrusage(who, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// tally is what a receiver did in its time.
type tally struct {
	packets uint64
	took    time.Duration
	cpu     time.Duration // of its thread
}

// drain receives until told to stop, and counts what comes from the moment that it is told to.
func drain(tb testing.TB, tr dataplane.Transport, wait dataplane.Wait, counting, stop *atomic.Bool) <-chan tally {
	result := make(chan tally, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		var t tally
		var start time.Time
		var cpu time.Duration
		batch := make([]dataplane.Packet, 256)
		for !stop.Load() {
			n, err := tr.Receive(batch, wait)
			if err != nil {
				tb.Error(err)
				break
			}
			for _, p := range batch[:n] {
				tr.Arena().Rx().Release(p.Frame)
			}
			if counting.Load() {
				if start.IsZero() {
					start, cpu = time.Now(), processorTime(tb, unix.RUSAGE_THREAD)
				} else {
					t.packets += uint64(n)
				}
			}
		}
		t.took, t.cpu = time.Since(start), processorTime(tb, unix.RUSAGE_THREAD)-cpu
		result <- t
	}()
	return result
}

// BenchmarkReceive sends as fast as it goes from one host to another, by the same way on both sides, and counts what
// the receiver, which spins, gets.
func BenchmarkReceive(b *testing.B) {
	requireXDP(b)
	for _, size := range []int{64, 1400} {
		for _, ch := range []dataplane.Channel{0, benchCh} {
			for _, w := range ways() {
				kind := "unicast"
				if ch != 0 {
					kind = "multicast"
				}
				b.Run(fmt.Sprintf("%s/%d/%s", kind, size, w.name), func(b *testing.B) {
					benchmarkReceive(b, w.open, size, ch)
				})
			}
		}
	}
}

func benchmarkReceive(b *testing.B, open opener, size int, ch dataplane.Channel) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	hosts := netns.Pair(b, prefix, netns.Options{})
	from, to := open(b, hosts[0]), open(b, hosts[1])
	check(b, to.Subscribe(benchCh))
	var counting, stop atomic.Bool
	wait := dataplane.Wait{Spin: 10 * time.Millisecond, Timeout: 10 * time.Millisecond}
	result := drain(b, to, wait, &counting, &stop)
	batch := make([]dataplane.Packet, 64)
	fill := func() {
		for i := range batch {
			f, ok := from.Arena().Tx().Get()
			if !ok {
				b.Fatal("no frame")
			}
			f.Len = uint32(size)
			batch[i] = dataplane.Packet{Frame: f, To: to.Local(), Channel: ch}
			if ch != 0 {
				batch[i].To = dataplane.Endpoint{}
			}
		}
	}
	var sent uint64
	run := func(d time.Duration) {
		for end := time.Now().Add(d); time.Now().Before(end); sent += uint64(len(batch)) {
			fill()
			for rest := batch; len(rest) > 0; {
				n, err := from.Send(rest)
				check(b, err)
				rest = rest[n:]
			}
		}
	}
	run(benchTime / 4) // learns the way
	sent = 0
	cpu, own := processorTime(b, unix.RUSAGE_SELF), processorTime(b, unix.RUSAGE_THREAD)
	counting.Store(true)
	run(benchTime)
	stop.Store(true)
	own = processorTime(b, unix.RUSAGE_THREAD) - own
	got := <-result
	cpu = processorTime(b, unix.RUSAGE_SELF) - cpu
	packets := float64(max(1, got.packets))
	b.ReportMetric(packets/got.took.Seconds()/1e3, "kpps")
	b.ReportMetric(float64(cpu)/packets, "cpu-ns/packet")
	// On a busy machine this tells more than the rate: on virtual Ethernet the sender's thread does all that the
	// receiving host's kernel does for a packet, and is what the rate is limited by.
	b.ReportMetric(float64(own)/packets, "sender-cpu-ns/packet")
	b.ReportMetric(100-100*packets/float64(sent), "%lost")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkRoundTrip sends a packet there and back, by each way of waiting.
func BenchmarkRoundTrip(b *testing.B) {
	requireXDP(b)
	for _, wait := range []struct {
		name string
		wait dataplane.Wait
	}{
		{"spin", dataplane.Wait{Spin: time.Second, Timeout: time.Second}},
		{"block", dataplane.Wait{Timeout: time.Second}},
	} {
		for _, w := range ways()[:3] {
			b.Run(wait.name+"/"+w.name, func(b *testing.B) { benchmarkRoundTrip(b, w.open, wait.wait) })
		}
	}
}

func benchmarkRoundTrip(b *testing.B, open opener, wait dataplane.Wait) {
	hosts := netns.Pair(b, prefix, netns.Options{})
	x, y := open(b, hosts[0]), open(b, hosts[1])
	var stop atomic.Bool
	echoed := make(chan error, 1)
	go func() {
		batch := make([]dataplane.Packet, 16)
		for !stop.Load() {
			n, err := y.Receive(batch, wait)
			for i := range batch[:n] {
				batch[i].To = batch[i].From
			}
			if _, sendErr := y.Send(batch[:n]); err != nil || sendErr != nil {
				echoed <- errors.Join(err, sendErr)
				return
			}
		}
		echoed <- nil
	}()
	var took []time.Duration
	batch := make([]dataplane.Packet, 16)
	for end := time.Now().Add(benchTime); time.Now().Before(end); {
		f, _ := x.Arena().Tx().Get()
		f.Len = 64
		start := time.Now()
		if n, err := x.Send([]dataplane.Packet{{Frame: f, To: y.Local()}}); n != 1 || err != nil {
			b.Fatal(n, err)
		}
		n, err := x.Receive(batch, wait)
		took = append(took, time.Since(start))
		if n != 1 || err != nil {
			b.Fatal(n, err)
		}
		x.Arena().Rx().Release(batch[0].Frame)
	}
	stop.Store(true)
	y.Wake()
	check(b, <-echoed)
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Nanoseconds())/1e3, "p50-us")
	b.ReportMetric(float64(took[len(took)*99/100].Nanoseconds())/1e3, "p99-us")
	b.ReportMetric(0, "ns/op")
}

// groupsActive are the groups that share a channel in BenchmarkGroupFilter; the receiver has joined the first one.
const groupsActive = 20

// BenchmarkGroupFilter sends packets of 20 groups on one channel, at a steady rate, to a receiver that has joined one
// of them and sleeps between packets: what its thread uses of the processor.
func BenchmarkGroupFilter(b *testing.B) {
	requireXDP(b)
	for _, w := range []struct {
		name string
		open opener
	}{
		{"udp", overUDP(plainUDP, false)},
		{"udp-filter", overUDP(plainUDP, true)},
		{"xdp", overXDP(Config{Exclusive: true})},
		{"xdp-filter", overXDP(Config{Exclusive: true, GroupFilter: true})},
	} {
		b.Run(w.name, func(b *testing.B) { benchmarkGroupFilter(b, w.open) })
	}
}

func benchmarkGroupFilter(b *testing.B, open opener) {
	hosts := netns.Pair(b, prefix, netns.Options{})
	from, to := overUDP(plainUDP, false)(b, hosts[0]), open(b, hosts[1])
	check(b, to.Subscribe(benchCh))
	if f, ok := to.(dataplane.GroupFilter); ok {
		check(b, f.Admit(benchCh, 1))
	}
	var counting, stop atomic.Bool
	counting.Store(true)
	result := drain(b, to, dataplane.Wait{Timeout: -1}, &counting, &stop)
	const every = 50 * time.Microsecond // one packet: the groups take turns
	next := time.Now()
	sent := 0
	for end := next.Add(2 * benchTime); next.Before(end); next = next.Add(every) {
		for time.Now().Before(next) {
			continue
		}
		f, ok := from.Arena().Tx().Get()
		if !ok {
			b.Fatal("no frame")
		}
		f.Len = 64
		h := wire.Header{Kind: wire.KindRaw, Group: uint32(1 + sent%groupsActive)}
		h.Encode(from.Arena().Bytes(f))
		if n, err := from.Send([]dataplane.Packet{{Frame: f, Channel: benchCh}}); n != 1 || err != nil {
			b.Fatal(n, err)
		}
		sent++
	}
	stop.Store(true)
	to.Wake()
	got := <-result
	b.ReportMetric(float64(got.cpu.Microseconds())/1e3, "receiver-cpu-ms")
	b.ReportMetric(float64(sent), "packets")
	b.ReportMetric(float64(got.packets), "received")
	b.ReportMetric(0, "ns/op")
}
