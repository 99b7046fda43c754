package mem

import (
	"encoding/binary"
	"errors"
	"math"
	"net/netip"
	"strings"
	"testing"

	"github.com/khamsin-io/khamsin/dataplane"
	"github.com/khamsin-io/khamsin/dataplane/frame"
	"github.com/khamsin-io/khamsin/dataplane/invariant"
	"github.com/khamsin-io/khamsin/dataplane/transporttest"
)

func TestConformance(t *testing.T) {
	transporttest.Run(t, func(tb testing.TB, without string) transporttest.World {
		hub := NewHub()
		return transporttest.World{
			Open: func(tb testing.TB, o transporttest.Options) dataplane.Transport {
				tb.Helper()
				return open(tb, hub, Config{
					UnicastOnly: without == "multicast",
					Queue:       o.Buffer / DefaultMTU,
					Arena:       frame.Config{TxChunks: o.Tx, RxRuns: o.Rx},
				})
			},
			Inject: func(_ testing.TB, to dataplane.Endpoint, ch dataplane.Channel, payload []byte) {
				hub.Inject(stranger, to, ch, payload)
			},
		}
	}, "multicast")
}

var stranger = dataplane.EndpointOf(netip.MustParseAddrPort("127.0.0.2:9"))

func open(tb testing.TB, hub *Hub, cfg Config) *Transport {
	tb.Helper()
	tr, err := hub.Open(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	return tr
}

func closeAll(t *testing.T, trs ...*Transport) {
	t.Helper()
	for _, tr := range trs {
		if err := tr.Close(); err != nil {
			t.Error(err)
		}
	}
}

// numbers sends 0 to n-1 from a to b and returns which arrived, in their order.
func numbers(t *testing.T, a, b *Transport, n int) []int {
	t.Helper()
	var got []int
	batch := make([]dataplane.Packet, 16)
	for i := range n {
		f, ok := a.Arena().Tx().Get()
		if !ok {
			t.Fatal("no frame")
		}
		f.Len = 4
		binary.BigEndian.PutUint32(a.Arena().Bytes(f), uint32(i))
		if k, err := a.Send([]dataplane.Packet{{Frame: f, To: b.Local()}}); k != 1 || err != nil {
			t.Fatal(k, err)
		}
		if i%10 < 9 && i < n-1 {
			continue // let some wait, so that there is something to overtake
		}
		for k := -1; k != 0; {
			var err error
			if k, err = b.Receive(batch, dataplane.Wait{}); err != nil {
				t.Fatal(err)
			}
			for _, p := range batch[:k] {
				got = append(got, int(binary.BigEndian.Uint32(b.Arena().Bytes(p.Frame))))
				b.Arena().Release(p.Frame)
			}
		}
	}
	return got
}

// Each kind of weather does what its name says, about as often as asked, and the same for the same seed.
func TestWeather(t *testing.T) {
	const n = 2000
	count := func(w Weather) (lost, twice, early int) {
		hub := NewHub()
		a, b := open(t, hub, Config{}), open(t, hub, Config{Weather: w})
		defer closeAll(t, a, b)
		seen := make([]int, n)
		last := -1
		for _, v := range numbers(t, a, b, n) {
			seen[v]++
			if v < last {
				early++
			}
			last = v
		}
		for _, k := range seen {
			if k == 0 {
				lost++
			}
			if k == 2 {
				twice++
			}
		}
		return lost, twice, early
	}
	for _, tc := range []struct {
		w                  Weather
		lost, twice, early bool
	}{
		{w: Weather{}},
		{w: Weather{Seed: 1, Loss: 0.25}, lost: true},
		{w: Weather{Seed: 2, Duplicate: 0.25}, twice: true},
		{w: Weather{Seed: 3, Reorder: 0.25}, early: true},
	} {
		lost, twice, early := count(tc.w)
		t.Logf("%+v: lost %d, twice %d, out of order %d of %d", tc.w, lost, twice, early, n)
		for _, c := range []struct {
			what string
			got  int
			want bool
		}{{"lost", lost, tc.lost}, {"twice", twice, tc.twice}, {"out of order", early, tc.early}} {
			if c.want && (c.got < n/8 || c.got > n/2) || !c.want && c.got != 0 {
				t.Errorf("%+v: %d %s", tc.w, c.got, c.what)
			}
		}
		lost2, twice2, early2 := count(tc.w)
		if lost2 != lost || twice2 != twice || early2 != early {
			t.Errorf("%+v: not the same the second time", tc.w)
		}
	}
}

func TestConfigFaults(t *testing.T) {
	for _, tc := range []struct {
		cfg  Config
		want string
	}{
		{Config{MTU: 1665}, "MTU 1665 is not from 1 to the 1664 bytes"},
		{Config{MTU: -1}, "MTU -1"},
		{Config{Queue: -1}, "Queue -1"},
		{Config{Weather: Weather{Loss: 1.5}}, "Weather.Loss 1.5"},
		{Config{Weather: Weather{Reorder: math.NaN()}}, "Weather.Reorder NaN"},
		{Config{Arena: frame.Config{TxChunks: -1}}, "TxChunks -1"},
	} {
		_, err := NewHub().Open(tc.cfg)
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%+v: error %v, want %q", tc.cfg, err, tc.want)
		}
	}
}

func TestEndpointsRunOut(t *testing.T) {
	hub := NewHub()
	hub.nextPort = portMax
	last := open(t, hub, Config{Queue: 1})
	defer closeAll(t, last)
	if _, err := hub.Open(Config{}); err == nil {
		t.Fatal("an endpoint was given out twice")
	}
}

// Two goroutines in Receive are the caller's mistake, and are told.
func TestTwoReceiversTripAssertion(t *testing.T) {
	tr := open(t, NewHub(), Config{})
	tr.receiving.Lock() // stands for the first
	defer func() {
		var v *invariant.Violation
		if err, _ := recover().(error); !errors.As(err, &v) {
			t.Errorf("a second Receive was let in: %v", err)
		}
		tr.receiving.Unlock()
		closeAll(t, tr)
	}()
	_, _ = tr.Receive(make([]dataplane.Packet, 1), dataplane.Wait{})
}

func BenchmarkSendReceive(b *testing.B) {
	hub := NewHub()
	x, y := open(b, hub, Config{}), open(b, hub, Config{})
	const n = 32
	batch := make([]dataplane.Packet, n)
	b.ReportAllocs()
	for b.Loop() {
		for i := range batch {
			f, _ := x.Arena().Tx().Get()
			f.Len = 64
			batch[i] = dataplane.Packet{Frame: f, To: y.Local()}
		}
		_, _ = x.Send(batch)
		k, _ := y.Receive(batch, dataplane.Wait{})
		for _, p := range batch[:k] {
			y.Arena().Rx().Release(p.Frame)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/packet")
}
