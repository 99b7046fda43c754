package probe

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/khamsin-io/khamsin/tune"
	"github.com/khamsin-io/khamsin/vsync"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// quick is a configuration whose figures mean nothing and that is soon over.
func quick() Config { return Config{Each: eachMin, Rounds: 1} }

// A probe on the loopback measures every setting, finds a knee on each curve, and writes a configuration with which a
// system starts.
//
// rows: TUN-15, FUT-12
func TestProbeOnLoopback(t *testing.T) {
	c := quick()
	last, all := 0, 0
	c.Progress = func(done, total int) { last, all = done, total }
	r, err := Run(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	points, whole := 0, 0
	for _, s := range r.Series {
		names = append(names, s.Setting)
		points += len(s.Points)
		for _, p := range s.Points {
			if p.P99 < p.P50 || p.Granted == 0 || p.Lost > p.Sent {
				t.Errorf("%s: %+v", s.Setting, p)
			}
			if p.Goodput > 0 && p.Pings > 0 && p.P50 > 0 {
				whole++
			}
		}
	}
	if !slices.Equal(names, []string{"packet", "batch", "window", "buffer", "waiting"}) || last != points ||
		all != points {
		t.Errorf("%v: %d of %d reported, %d measured", names, last, all, points)
	}
	if whole < points*3/4 { // on a machine that others use, a measurement of 5 ms may see nothing
		t.Errorf("%d of %d measurements are whole", whole, points)
	}
	path := filepath.Join(t.TempDir(), "khamsin.toml")
	if err := os.WriteFile(path, []byte(r.TOML()), 0o600); err != nil {
		t.Fatal(err)
	}
	config, err := vsync.ConfigFromFile(path)
	if err != nil {
		t.Fatalf("%v:\n%s", err, r.TOML())
	}
	if config.MaxPacket != r.Best.Packet || config.RecvBuffer != r.Best.Buffer || config.Batch != r.Best.Batch ||
		config.MaxUnstable != r.Best.Window {
		t.Errorf("%+v does not say %+v", config, r.Best)
	}
	config.FastStart, config.Mute, config.SystemName = true, true, t.Name()
	s, err := vsync.Start(t.Context(), vsync.WithConfig(config))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// A small buffer loses what a large one holds: the curve shows it, and the knee avoids it.
//
// rows: TUN-01
func TestBufferCurve(t *testing.T) {
	s, stop := sweepHere(t)
	defer stop()
	now := Settings{Packet: 8192, Batch: 64, Window: 256, Buffer: 4 << 20, Waiting: "block"}
	sizes := []int{bufferMin, 4 << 20}
	if err := s.along(t.Context(), &now, axisOf("buffer", sizes, func(x *Settings,
		v int) {
		x.Buffer = v
	})); err != nil {
		t.Fatal(err)
	}
	small, large := s.series[0].Points[0], s.series[0].Points[1]
	if small.Loss() < 0.05 || large.Loss() >= small.Loss() || s.series[0].Knee != 1 || now.Buffer != 4<<20 {
		t.Errorf("small %+v, large %+v, knee %d", small, large, s.series[0].Knee)
	}
}

// sweepHere returns a sweep whose answering side is in this process.
func sweepHere(t *testing.T) (*sweep, func()) {
	t.Helper()
	c, err := Config{Each: 20 * time.Millisecond, Rounds: 3}.complete()
	if err != nil {
		t.Fatal(err)
	}
	p, stop, err := newProber(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	return &sweep{Config: c, prober: p, unbroken: p.t.Unbroken()}, func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
	}
}

func TestNobodyAnswers(t *testing.T) {
	c := quick()
	c.To = netip.MustParseAddrPort("127.0.0.1:9")
	if _, err := Run(t.Context(), c); !errors.Is(err, ErrNoAnswer) {
		t.Errorf("%v", err)
	}
}

func TestCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	c := quick()
	c.Progress = func(done, _ int) {
		if done == 3 {
			cancel()
		}
	}
	if _, err := Run(ctx, c); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

// Another process answers: here, one that Answer serves.
func TestAnswer(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	addr, ended := make(chan string, 1), make(chan error, 1)
	go func() { ended <- Answer(ctx, "lo", 0, func(a string) { addr <- a }) }()
	c := quick()
	c.To = netip.MustParseAddrPort(<-addr)
	c.Profile = tune.Latency
	r, err := Run(t.Context(), c)
	if err != nil || r.To != c.To.String() || len(r.Series) != 5 {
		t.Errorf("%+v, %v", r, err)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("answering: %v", err)
	}
}

func TestBadConfig(t *testing.T) {
	for _, c := range []Config{
		{Each: time.Hour}, {Each: -1}, {Rounds: -1}, {Buffer: 1}, {Buffer: 1 << 40}, {Profile: "fast"},
		{To: netip.MustParseAddrPort("[::1]:5")}, {To: netip.MustParseAddrPort("127.0.0.1:0")}, {Interface: "none"},
	} {
		if _, err := Run(t.Context(), c); err == nil {
			t.Errorf("%+v accepted", c)
		}
	}
}

func points(setting string, values ...Point) Series { return Series{Setting: setting, Points: values} }

// The knee is the cheapest point that is about as good as the best, of those that lose nothing, if there are any.
func TestKnee(t *testing.T) {
	good := func(packet int, mb float64, p50 time.Duration) Point {
		return Point{Settings: Settings{Packet: packet}, Goodput: mb * 1e6, P50: p50, Sent: 1000}
	}
	lossy := func(p Point) Point { p.Lost = 100; return p }
	for _, c := range []struct {
		name    string
		profile tune.Profile
		s       Series
		want    int
	}{
		{"first near the best", tune.Throughput, points("batch", good(0, 50, 1), good(0, 95, 1), good(0, 100, 1)), 1},
		{"loss does not count", tune.Throughput, points("batch", good(0, 50, 1), lossy(good(0, 100, 1))), 0},
		{"all lose", tune.Throughput, points("batch", lossy(good(0, 50, 1)), lossy(good(0, 100, 1))), 1},
		{"too short for the library", tune.Throughput, points("packet", good(64, 100, 1), good(1472, 50, 1)), 1},
		{"in fragments", tune.Throughput, points("packet", good(1472, 50, 1), good(8192, 100, 1)), 0},
		{"nothing fits", tune.Throughput, points("packet", good(4096, 50, 1), good(8192, 100, 1)), 1},
		{"latency", tune.Latency, points("waiting", good(0, 100, 50), good(0, 10, 11), good(0, 1, 10)), 1},
		{"latency unknown", tune.Latency, points("waiting", good(0, 100, 0), good(0, 10, 11)), 1},
	} {
		s := &sweep{Config: Config{Profile: c.profile}, unbroken: 1472}
		if got := s.knee(c.s); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
}

func sample() Result {
	a := Point{Settings: Settings{Packet: 1472, Batch: 64, Window: 64, Buffer: 4 << 20, Waiting: "block"},
		Granted: 1 << 20,
		Goodput: 2e8, Sent: 1000, Lost: 3, P50: 20 * time.Microsecond, P99: 90 * time.Microsecond}
	b := a
	b.Packet, b.Goodput, b.Lost = 512, 1e8, 0
	return Result{Interface: "lo", To: "127.0.0.1:5", Profile: tune.Throughput, Unbroken: 1472,
		Series: []Series{{Setting: "packet", Points: []Point{b, a}, Knee: 1}, {Setting: "<script>",
			Points: []Point{a}}}, Best: a}
}

// The page is well-formed, loads nothing from anywhere, and shows every point.
func TestPage(t *testing.T) {
	var page bytes.Buffer
	if err := sample().WritePage(&page); err != nil {
		t.Fatal(err)
	}
	text := page.String()
	for _, bad := range []string{"http:", "https:", "src=", "url(", "@import", "<script", "<link"} {
		if strings.Contains(text, bad) {
			t.Errorf("the page holds %q", bad)
		}
	}
	circles := 0
	d := xml.NewDecoder(strings.NewReader(strings.TrimPrefix(text, "<!DOCTYPE html>")))
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("%v in %s", err, text)
		}
		if e, ok := token.(xml.StartElement); ok && e.Name.Local == "circle" {
			circles++
		}
	}
	if want := 3*2 + 2; circles != want {
		t.Errorf("%d circles, want %d", circles, want)
	}
	if !strings.Contains(text, "max_packet") || !strings.Contains(text, "granted 1048576 bytes") {
		t.Error("the page does not hold the configuration")
	}
}

func TestText(t *testing.T) {
	var text strings.Builder
	if err := sample().WriteText(&text); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"PACKET", "1472 ", "◄", "0.300", "best: packets of 1472"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("no %q in\n%s", want, &text)
		}
	}
}

func FuzzMessage(f *testing.F) {
	var b [headerLen]byte
	m := message{kind: kindAck, run: 7, seq: 9, count: 8, stamp: -1, batch: 3, detail: 4, wait: 2}
	m.encode(b[:])
	f.Add(b[:])
	f.Fuzz(func(t *testing.T, in []byte) {
		var m message
		if !m.decode(in) {
			return
		}
		var out [headerLen]byte
		m.encode(out[:])
		var again message
		if !again.decode(out[:]) || again != m {
			t.Errorf("%+v became %+v", m, again)
		}
	})
}
