//go:build cgo && rdma

package rdma

import (
	"testing"
	"time"

	"github.com/khamsin-io/khamsin/dataplane"
	"github.com/khamsin-io/khamsin/dataplane/frame"
	"github.com/khamsin-io/khamsin/transports/udp"
)

// burstPatience is how long a frame of a burst may take. One that takes longer is lost.
const burstPatience = 20 * time.Second

// roomForBursts makes room for a whole burst, and for the buffers that are on their way back to the device.
func roomForBursts(c *Config) { c.ReceiveDepth = 6 * batchMax }

// burst sends and receives n frames of a size, in batches, and returns false when one is lost. It allocates nothing.
type burst struct {
	from, to dataplane.Transport
	size     int
	batch    []dataplane.Packet
	got      []dataplane.Packet
	between  func() // when all are sent; or nil
}

func newBurst(from, to dataplane.Transport, n, size int) *burst {
	return &burst{from: from, to: to, size: size, batch: make([]dataplane.Packet, n), got: make([]dataplane.Packet, n)}
}

func (b *burst) run() bool {
	for i := range b.batch {
		pool := b.from.Arena().Tx()
		if b.size > b.from.Caps().MTU {
			pool = b.from.Arena().LargeTx()
		}
		f, ok := pool.Get()
		for deadline := time.Now().Add(burstPatience); !ok; f, ok = pool.Get() { // those on their way come home
			if _, err := b.from.Send(nil); err != nil || time.Now().After(deadline) {
				return false
			}
		}
		f.Len = uint32(b.size)
		b.batch[i] = dataplane.Packet{Frame: f, To: b.to.Local()}
	}
	for sent := 0; sent < len(b.batch); {
		n, err := b.from.Send(b.batch[sent:])
		if err != nil {
			return false
		}
		sent += n
	}
	if b.between != nil {
		b.between()
	}
	for received := 0; received < len(b.batch); {
		n, err := b.to.Receive(b.got, dataplane.Wait{Timeout: burstPatience})
		if n == 0 || err != nil {
			return false
		}
		for _, p := range b.got[:n] {
			b.to.Arena().Rx().Release(p.Frame)
		}
		received += n
	}
	return true
}

// Under load a message costs a small part of a call into C, its work request hardly ever asks for a completion, and
// nothing is allocated.
func TestWorkPerMessage(t *testing.T) {
	for _, size := range []int{64, 1000} {
		a, b := openUntilEnd(t, nil), openUntilEnd(t, roomForBursts)
		load := newBurst(a, b, 4*batchMax, size)
		var waiting uint64 // calls to wait for the device, which is no load until all of a burst is there
		load.between = func() {
			before := a.Verbs().Calls
			for a.sender.head != a.sender.tail { // Send is ours
				if _, err := a.Send(nil); err != nil {
					return // the burst fails
				}
			}
			waiting += a.Verbs().Calls - before
		}
		if !load.run() {
			t.Fatal("a frame is lost")
		}
		const rounds = 50
		before := a.Verbs()
		before.Calls += b.Verbs().Calls - waiting
		lost := false
		allocs := testing.AllocsPerRun(rounds-1, func() { lost = lost || !load.run() })
		after := a.Verbs()
		after.Calls += b.Verbs().Calls - waiting
		if lost {
			t.Fatal("a frame is lost")
		}
		messages := float64(rounds * len(load.batch))
		calls := float64(after.Calls-before.Calls) / messages
		requests := float64(after.WorkRequests-before.WorkRequests) / messages
		signals := float64(after.Signalled-before.Signalled) / messages
		t.Logf("MEASURED: %d messages of %d bytes: %.4f calls into C, %.4f work requests, %.4f of them signalled, and "+
			"%.0f%% inlined, per message, both sides together; %v allocations in a round of %d", int(messages), size,
			calls, requests, signals, 100*float64(after.Inlined-before.Inlined)/messages, allocs, len(load.batch))
		if inlined := after.Inlined - before.Inlined; float64(inlined) != messages && size <= a.sender.inlineMax ||
			inlined != 0 && size > a.sender.inlineMax {
			t.Errorf("%d of %d messages of %d bytes are inlined, up to %d bytes can be", inlined, int(messages), size,
				a.sender.inlineMax)
		}
		if calls >= 0.1 || requests != 1 || signals > 0.05 || allocs != 0 {
			t.Errorf("%.4f calls, %.4f requests, %.4f signals, %v allocations", calls, requests, signals, allocs)
		}
	}
}

// One-sided writes and large frames against our UDP, in the same machine: a ratio. Where the processor is emulated it
// is no speed.
func TestWriteAgainstUDP(t *testing.T) {
	const total = 16 << 20
	a, b := openUntilEnd(t, withLarge), openUntilEnd(t, func(c *Config) { withLarge(c); roomForBursts(c) })
	source, target := openRegion(t, a, total), openRegion(t, b, total)
	w := connect(t, a, target.Key())
	cfg := udp.Config{Interface: a.cfg.Interface, Arena: frame.Config{TxChunks: 512, RxRuns: 64}}
	x, y := openUDP(t, cfg), openUDP(t, cfg)
	const size = 1400
	datagrams := newBurst(x, y, 128, size)
	frames := newBurst(a, b, 128, size)
	large := newBurst(a, b, 8, testLarge)
	for i := range 3 {
		began := time.Now()
		if err := w.Write(within(t), source, dataplane.Copy{Len: total}, uint32(i)); err != nil {
			t.Fatal(err)
		}
		if _, err := target.Await(within(t)); err != nil {
			t.Fatal(err)
		}
		write := rate(total, began)
		rates := []float64{0, 0, 0}
		for j, load := range []*burst{datagrams, frames, large} {
			began = time.Now()
			bytes := 0
			for bytes < total/4 {
				if !load.run() {
					t.Fatal("a frame is lost")
				}
				bytes += len(load.batch) * load.size
			}
			rates[j] = rate(bytes, began)
		}
		t.Logf("MEASURED: one-sided writes %.1f MiB/s; UDP of 1400 bytes %.1f, RDMA datagrams %.1f, large frames of "+
			"%d KiB %.1f; write/UDP %.2f, large/UDP %.2f (emulated: the ratios count)", write, rates[0], rates[1],
			testLarge>>10, rates[2], write/rates[0], rates[2]/rates[0])
	}
}

func rate(bytes int, since time.Time) float64 {
	return float64(bytes) / (1 << 20) / time.Since(since).Seconds()
}

func openUDP(t *testing.T, cfg udp.Config) *udp.Transport {
	t.Helper()
	tr, err := udp.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := tr.Close(); err != nil {
			t.Error(err)
		}
	})
	return tr
}
