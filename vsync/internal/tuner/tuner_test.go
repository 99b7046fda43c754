package tuner

import (
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/khamsin-io/khamsin/dataplane/clock"
)

// plant is a path that loses packets: the share of them that is lost, by time and settings.
type plant func(now time.Duration, s Settings) float64

// world runs a tuner against a plant on a virtual clock.
type world struct {
	*Tuner
	now    clock.Time
	sample Sample
	rng    *rand.Rand

	window      int // after the last step
	rising      int // 1 when its last change made it larger, -1 when smaller
	moves, bent int // changes of the window, and how often it turned round
}

// note counts what the last step did to the window.
func (w *world) note() {
	now := w.Settings().Window
	if d := sign(now - w.window); d != 0 {
		w.moves++
		if w.rising != 0 && d != w.rising {
			w.bent++
		}
		w.rising = d
	}
	w.window = now
}

func config() Config {
	return Config{
		Start:     Settings{Window: 1024, Packet: 1472, Batch: 64, ReceiveBuffer: 256 << 10, SendBuffer: 256 << 10},
		WindowMin: 32, BatchMax: 1024, BufferMax: 64 << 20, Unbroken: 1472,
	}
}

func newWorld(cfg Config) *world {
	w := &world{Tuner: New(cfg), now: 1, rng: rand.New(rand.NewPCG(1, 2)), window: cfg.Start.Window}
	w.Step(w.now, w.sample)
	return w
}

// turns is how often a window of packets goes round in one interval.
const turns = 20

// run lets time pass, and returns the share lost in the last second of it.
func (w *world) run(d time.Duration, p plant) (last float64) {
	end := w.now.Add(d)
	var sent, lost uint64
	for w.now < end {
		w.now = w.now.Add(interval)
		s := w.Settings()
		n := uint64(s.Window * turns)
		share := p(w.now.Sub(1), s)
		// Packets are lost one by one, so that shares have noise: a binomial distribution, by its normal approximation.
		mean := float64(n) * share
		noise := w.rng.NormFloat64() * math.Sqrt(mean*(1-share))
		l := uint64(min(float64(n), max(0, mean+noise)))
		w.sample.Sent, w.sample.Resent = w.sample.Sent+n, w.sample.Resent+l
		w.Step(w.now, w.sample)
		w.note()
		if w.now > end.Add(-time.Second) {
			sent, lost = sent+n, lost+l
		}
	}
	return float64(lost) / float64(max(1, sent))
}

// changes returns the decisions that changed a setting, at or after a time.
func (w *world) changes(setting string, after clock.Time) []Decision {
	var all []Decision
	for _, d := range w.decisions {
		if d.Setting == setting && d.From != d.To && d.At >= after {
			all = append(all, d)
		}
	}
	return all
}

// overflow loses what does not fit a buffer of so many packets.
func overflow(room int) plant {
	return func(_ time.Duration, s Settings) float64 { return max(0, float64(s.Window-room)/float64(s.Window)) }
}

func clean(time.Duration, Settings) float64 { return 0 }

func random(share float64) plant { return func(time.Duration, Settings) float64 { return share } }

// rows: FUT-11, FUT-12
func TestStepResponse(t *testing.T) {
	for _, room := range []int{40, 100, 300, 700, 1000} {
		w := newWorld(config())
		if loss := w.run(5*time.Second, overflow(room)); loss > trigger {
			t.Errorf("room for %d: %.1f %% are lost after 5 s, window %d", room, 100*loss, w.Settings().Window)
		}
		w.run(2*time.Minute, overflow(room))
		before := w.moves
		w.run(10*time.Minute, overflow(room))
		if got := w.Settings().Window; got > room+room/8 || got < room/2 {
			t.Errorf("room for %d: the window settled at %d", room, got)
		}
		if n := w.moves - before; n > 9 {
			t.Errorf("room for %d: %d changes in the ten minutes after it settled", room, n)
		}
	}
}

// When the cause is gone the window comes back.
func TestRecovery(t *testing.T) {
	w := newWorld(config())
	w.run(5*time.Second, overflow(100))
	if got := w.Settings().Window; got > 128 {
		t.Fatalf("window %d", got)
	}
	w.run(3*time.Minute, clean)
	if got := w.Settings().Window; got != 1024 {
		t.Errorf("window %d after three minutes without loss", got)
	}
	before := w.made
	w.run(time.Hour, clean)
	if w.made != before {
		t.Errorf("%d decisions without loss, from the full window", w.made-before)
	}
}

// Loss that has nothing to do with the window leaves it as it was, but for short experiments that become rare.
func TestNoisyLoss(t *testing.T) {
	for _, share := range []float64{0.005, 0.02, 0.05, 0.2} {
		w := newWorld(config())
		whole := 0
		const seconds = 600
		for range seconds {
			w.run(time.Second, random(share))
			if w.Settings().Window == 1024 {
				whole++
			}
		}
		if whole < seconds*95/100 {
			t.Errorf("%.1f %% loss: the window was whole in %d of %d seconds", 100*share, whole, seconds)
		}
		w.run(50*time.Minute, random(share))
		if w.moves > 4 {
			t.Errorf("%.1f %% loss: %d changes of the window in an hour", 100*share, w.moves)
		}
		if w.Settings().Packet != 1472 {
			t.Errorf("%.1f %% loss: packets of %d, though shorter ones were lost as often", 100*share,
				w.Settings().Packet)
		}
	}
}

// Loss that comes and goes, at any rhythm and of either kind, ends in rest: in the fifty minutes after the first ten
// the window turns round a few times at most.
func TestAlternatingLoss(t *testing.T) {
	for name, loses := range map[string]plant{"random": random(0.1), "overflow": overflow(100)} {
		for _, period := range []time.Duration{400 * time.Millisecond, time.Second, 1600 * time.Millisecond,
			5 * time.Second, 11 * time.Second, 30 * time.Second, time.Minute} {
			w := newWorld(config())
			beat := func(now time.Duration, s Settings) float64 {
				if now/period%2 == 0 {
					return loses(now, s)
				}
				return 0
			}
			w.run(10*time.Minute, beat)
			first := w.moves
			w.run(50*time.Minute, beat)
			if first > 30 || w.moves-first > 10 {
				t.Errorf("%s, period %v: %d changes in ten minutes, %d in fifty more", name, period, first,
					w.moves-first)
			}
		}
	}
}

// Packets in fragments are lost whenever one of them is: the tuner shortens them at once and for good.
//
// rows: TUN-11, TUN-12
func TestFragments(t *testing.T) {
	cfg := config()
	cfg.Start.Packet = 8192
	w := newWorld(cfg)
	fragile := func(_ time.Duration, s Settings) float64 {
		return 0.004 * float64((s.Packet+cfg.Unbroken-1)/cfg.Unbroken)
	}
	w.run(5*time.Second, fragile)
	if w.Settings().Packet != cfg.Unbroken {
		t.Errorf("packets of %d", w.Settings().Packet)
	}
	w.run(10*time.Minute, fragile)
	if got := w.changes("packet", 0); len(got) != 1 || w.Settings().Window != 1024 {
		t.Errorf("%v, window %d", got, w.Settings().Window)
	}
}

// A tunnel on the way that breaks packets of the interface's length: no window helps, a shorter packet does.
func TestTunnel(t *testing.T) {
	w := newWorld(config())
	tunnel := func(_ time.Duration, s Settings) float64 {
		if s.Packet > packetTunnel {
			return 0.05
		}
		return 0.002
	}
	w.run(10*time.Second, tunnel)
	if s := w.Settings(); s.Packet != packetTunnel || s.Window != 1024 {
		t.Errorf("%+v after %v", s, w.decisions)
	}
}

// Whatever is lost and when: settings stay within their bounds, the window turns round ever more rarely, buffers and
// batches only grow.
func TestNeverOscillates(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cfg := config()
		cfg.Start.Packet = rapid.SampledFrom([]int{1472, 8192, 65507}).Draw(t, "packet")
		w := newWorld(cfg)
		losses := rapid.SliceOfN(rapid.SampledFrom([]float64{0, 0, 0, 0.005, 0.02, 0.1, 0.5}), 1, 40).Draw(t, "losses")
		each := rapid.IntRange(1, 40).Draw(t, "each")
		last := w.Settings()
		turned, direction := 0, 0
		packets := map[int]int{}
		const steps = int(20 * time.Minute / interval)
		for i := range steps {
			w.now = w.now.Add(interval)
			n := uint64(last.Window * turns)
			w.sample.Sent += n
			w.sample.Resent += uint64(float64(n) * losses[i/each%len(losses)])
			w.sample.Received, w.sample.Calls = w.sample.Received+n, w.sample.Calls+n/60
			w.sample.Dropped += uint64(float64(n) * losses[(i/each+1)%len(losses)])
			w.sample.ReceiveBuffer = min(last.ReceiveBuffer, 4<<20)
			s := w.Step(w.now, w.sample)
			if s.Window < cfg.WindowMin || s.Window > cfg.Start.Window || s.Packet > cfg.Start.Packet ||
				s.ReceiveBuffer < last.ReceiveBuffer || s.Batch < last.Batch || s.Batch > cfg.BatchMax ||
				s.ReceiveBuffer > cfg.BufferMax {
				t.Fatalf("%+v after %+v", s, last)
			}
			if d := sign(s.Window - last.Window); d != 0 {
				if direction != 0 && d != direction {
					turned++
				}
				direction = d
			}
			if s.Packet != last.Packet {
				packets[s.Packet]++
			}
			last = s
		}
		if turned > 50 {
			t.Errorf("the window turned round %d times in 20 minutes: %v", turned, w.decisions)
		}
		for size, times := range packets {
			if size < cfg.Start.Packet && times > 2 {
				t.Errorf("packets of %d were tried %d times", size, times)
			}
		}
		if again := len(w.decisions); again > keepMax {
			t.Errorf("%d decisions are kept", again)
		}
	})
}

func sign(n int) int {
	switch {
	case n < 0:
		return -1
	case n > 0:
		return 1
	}
	return 0
}

// A socket that loses packets gets a larger buffer until it does not, or until the kernel grants no more, which is said
// once.
func TestBuffers(t *testing.T) {
	lossy := func(w *world, limit, enough int) {
		for range 100 {
			w.now = w.now.Add(interval)
			w.sample.Received += 1000
			w.sample.ReceiveBuffer = min(w.Settings().ReceiveBuffer, limit)
			if w.sample.ReceiveBuffer < enough {
				w.sample.Dropped += 100
			}
			w.sample.SendBuffer = min(w.Settings().SendBuffer, limit)
			if w.sample.SendBuffer < enough {
				w.sample.SendDropped++
			}
			w.Step(w.now, w.sample)
		}
	}
	w := newWorld(config())
	lossy(w, 1<<30, 2<<20)
	if s := w.Settings(); s.ReceiveBuffer != 2<<20 || s.SendBuffer != 2<<20 || w.made != 6 {
		t.Errorf("%+v after %v", s, w.decisions)
	}
	w = newWorld(config())
	lossy(w, 1<<20, 2<<20)
	cut := slices.ContainsFunc(w.decisions, func(d Decision) bool {
		return d.To == 1<<20 && strings.Contains(d.Why, "grants no more than 1048576")
	})
	if !cut || w.made != 8 {
		t.Errorf("a cut grant: %v", w.decisions)
	}
	w = newWorld(config())
	lossy(w, 1<<40, 1<<40)
	if s := w.Settings(); s.ReceiveBuffer != 64<<20 {
		t.Errorf("%+v", s)
	}
}

func TestBatch(t *testing.T) {
	w := newWorld(config())
	for range 100 {
		w.now = w.now.Add(interval)
		calls := uint64(50)
		w.sample.Calls += calls
		w.sample.Received += calls * uint64(min(w.Settings().Batch, 200))
		w.Step(w.now, w.sample)
	}
	if got := w.Settings().Batch; got != 256 {
		t.Errorf("batch %d where 200 packets are ready", got)
	}
}

// Little traffic, counters that begin anew, and calls before the time is up decide nothing.
func TestNoEvidence(t *testing.T) {
	w := newWorld(config())
	for i := range 1000 {
		w.now = w.now.Add(interval)
		w.sample.Sent, w.sample.Resent = uint64(i%7), uint64(i%7)
		if i%100 == 99 {
			w.sample = Sample{}
		}
		w.Step(w.now, w.sample)
		w.Step(w.now.Add(1), Sample{Sent: 1 << 40, Resent: 1 << 40})
	}
	if w.Settings() != config().Start {
		t.Errorf("%v", w.decisions)
	}
}

func TestStepAllocatesNothing(t *testing.T) {
	w := newWorld(config())
	if n := testing.AllocsPerRun(1000, func() {
		w.now = w.now.Add(interval)
		w.sample.Sent += 10000
		w.Step(w.now, w.sample)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
