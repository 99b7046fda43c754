package perf

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// memberFlag makes the test's program a member process.
const memberFlag = "KHAMSIN_TEST_PERF_MEMBER"

func TestMain(m *testing.M) {
	if os.Getenv(memberFlag) != "" {
		if err := Member(context.Background(), os.Stdin, os.Stdout); err != nil {
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// runLocal measures with member processes that are this program.
func runLocal(t *testing.T, change func(o *Options)) *Result {
	t.Helper()
	t.Setenv(memberFlag, "1")
	o := Options{
		Members: 3, Primitive: "ordered", Size: 64, Senders: SendersAll, Transport: "auto", Waiting: "block",
		Inline:   true,
		Duration: 500 * time.Millisecond, WarmUp: 100 * time.Millisecond, Rate: 500,
	}
	change(&o)
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	r, err := Local(ctx, o, []string{os.Args[0]})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// Every primitive that delivers messages delivers all of them, once, at all members, and its numbers make sense.
func TestPrimitives(t *testing.T) {
	for _, name := range []string{"send", "causal", "ordered", "safe", "query", "p2p", "flush"} {
		t.Run(name, func(t *testing.T) {
			r := runLocal(t, func(o *Options) { o.Primitive = name })
			if r.Lost != 0 || r.Duplicated != 0 {
				t.Errorf("lost %d, duplicated %d", r.Lost, r.Duplicated)
			}
			least := 500.0 // p2p: each member gets its neighbour's
			if name != "p2p" && name != "flush" && name != "query" {
				least = 1500
			}
			if name == "flush" || name == "query" {
				least = 1 // closed by its own latency
			}
			if r.DeliveredMin < least/4 || r.DeliveredMin > 4*1500 {
				t.Errorf("%.0f messages a second at the slowest member, want about %.0f", r.DeliveredMin, least)
			}
			if l := r.Latency; l.Count == 0 || l.P50 <= 0 || l.P50 > l.P99 || l.P99 > l.Max {
				t.Errorf("latency %+v", l)
			}
			if mb := r.DeliveredMin * 64 / 1e6; math.Abs(r.MegabytesMin-mb) > mb/2+1e-6 {
				t.Errorf("%v MB/s for %v messages", r.MegabytesMin, r.DeliveredMin)
			}
		})
	}
}

// A member that is killed is out of the others' view long before its silence could tell, which counts after a second at
// least; and another one takes its place.
func TestKill(t *testing.T) {
	r := runLocal(t, func(o *Options) { o.Primitive, o.Count = "kill", 2 })
	if l := r.Latency; l.Count != 2 || l.P50 <= 0 || r.Removal != l.Max/1e3 || r.First <= 0 {
		t.Errorf("removal took %+v, at most %v ms; the first member was ready after %v ms", l, r.Removal, r.First)
	}
	if r.Latency.P50 > 900e3 {
		t.Errorf("removal took %v us: the broken connection told nobody", r.Latency.P50)
	}
}

// New processes are timed from their start.
func TestNewMembers(t *testing.T) {
	r := runLocal(t, func(o *Options) { o.Primitive, o.Count = "join", 3 })
	if l := r.Latency; l.Count != 3 || l.P50 <= 0 {
		t.Errorf("joins took %+v", l)
	}
}

// Joins are timed.
func TestJoin(t *testing.T) {
	r := runLocal(t, func(o *Options) { o.Primitive, o.Rate = "join", 0 })
	if r.Own.Count == 0 || r.Views < 3 {
		t.Errorf("joins %+v, views %d", r.Own, r.Views)
	}
}

// Lost packets are sent again, and nothing that was sent is lost.
//
// rows: TRN-13
func TestLoss(t *testing.T) {
	r := runLocal(t, func(o *Options) { o.Loss, o.Rate, o.Duration = 0.05, 2000, time.Second })
	if r.Lost != 0 || r.Duplicated != 0 || r.Retransmitted == 0 {
		t.Errorf("lost %d, duplicated %d, sent again %d", r.Lost, r.Duplicated, r.Retransmitted)
	}
}

// The same measurement goes over every transport.
//
// rows: TRN-09
func TestTransports(t *testing.T) {
	for _, name := range []string{"auto", "tcp", "tcp-direct", "udp", "unicast"} {
		t.Run(name, func(t *testing.T) {
			r := runLocal(t, func(o *Options) { o.Transport = name })
			if r.Lost != 0 || r.Duplicated != 0 || r.DeliveredMin < 300 {
				t.Errorf("lost %d, duplicated %d, %.0f messages a second", r.Lost, r.Duplicated, r.DeliveredMin)
			}
		})
	}
}

// The JSON object has the names that scripts read.
func TestNamesInJSON(t *testing.T) {
	b, err := json.Marshal(&Result{Floor: &Floor{}})
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{
		"delivered_msgs_per_s_min", "mb_per_s_min", "latency_us", "lost", "retransmitted", "cpu_s_per_million_msgs",
		"floor", "primitive", "size", "senders", "members", "transport",
	} {
		if _, ok := got[name]; !ok {
			t.Errorf("%s is missing", name)
		}
	}
	latency := got["latency_us"].(map[string]any)
	for _, name := range []string{"p50", "p90", "p99", "p999", "max"} {
		if _, ok := latency[name]; !ok {
			t.Errorf("latency_us.%s is missing", name)
		}
	}
}

// All faults of the options are reported at once.
func TestBadOptions(t *testing.T) {
	o := Options{
		Members: 1000, Primitive: "x", Senders: "x", Transport: "x", Waiting: "x", Rate: -1, Window: -1, Loss: 2,
	}
	err := o.Validate()
	for _, want := range []string{
		"members", "primitive", "size", "senders", "transport", "waiting", "duration", "rate", "window", "loss",
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not name %s", err, want)
		}
	}
}

// A sender that was held up charges the stall to every message that was due meanwhile.
func TestPacerChargesStalls(t *testing.T) {
	c := newHostClock()
	p := &pacer{clock: c, sleeper: newSleeper(), first: c.now(), interval: 1e6} // every millisecond
	defer p.close()
	p.end = p.first + int64(time.Minute)
	_, stamp, _ := p.next()
	if late := c.now() - stamp; late > int64(50*time.Millisecond) {
		t.Errorf("a message on time is stamped %v back", time.Duration(late))
	}
	const stall = 100 * time.Millisecond
	held := c.now()
	for c.now() < held+int64(stall) {
		time.Sleep(stall / 4)
	}
	for i := range 50 {
		_, stamp, ok := p.next()
		if due := p.first + int64(float64(i+2)*p.interval); !ok || stamp != due {
			t.Fatalf("message %d behind a stall is stamped %v after it was due", i, time.Duration(stamp-due))
		}
	}
	if _, _, ok := (&pacer{clock: c, first: 1, end: 2, interval: 1}).next(); ok {
		t.Error("a message beyond the end")
	}
}

// What comes due while the sender's own timer lets it sleep too long counts from when it woke up.
func TestPacerForgivesItsTimer(t *testing.T) {
	c := newHostClock()
	p := &pacer{clock: c, sleeper: newSleeper(), first: c.now() - int64(time.Second), interval: 1e6}
	defer p.close()
	p.end = p.first + int64(time.Minute)
	p.woke = p.first + int64(500*time.Millisecond)
	p.count = 399
	for range 101 {
		if n, stamp, _ := p.next(); stamp != p.woke {
			t.Fatalf("message %d is stamped %v from when the sender woke up", n, time.Duration(stamp-p.woke))
		}
	}
	if n, stamp, _ := p.next(); stamp <= p.woke {
		t.Errorf("message %d came due after that, and is stamped %v from it", n, time.Duration(stamp-p.woke))
	}
}

func needNamespaces(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		if slices.Contains(strings.Split(os.Getenv("KHAMSIN_REQUIRE"), ","), "netns") {
			t.Fatal("network namespaces are required: not root")
		}
		t.Skip("network namespaces need root")
	}
}

// In namespaces on a bridge, with the machine measured beside.
//
// rows: TRN-13
func TestNetns(t *testing.T) {
	needNamespaces(t)
	for _, loss := range []float64{0, 0.02} {
		r := runLocal(t, func(o *Options) { o.Netns, o.Floor, o.Loss, o.Rate = true, loss == 0, loss, 3000 })
		if r.Lost != 0 || r.Duplicated != 0 || loss > 0 && r.Retransmitted == 0 {
			t.Errorf("lost %d, duplicated %d, sent again %d at a loss of %v", r.Lost, r.Duplicated, r.Retransmitted,
				loss)
		}
		if f := r.Floor; loss == 0 && (f.RTTBlock.Count == 0 || f.RTTSpin.Count == 0 || f.Multicast64.Messages == 0 ||
			f.Multicast64.Receivers != 2 || f.Memcpy == 0 || f.Ring == 0) {
			t.Errorf("floor %+v", f)
		}
	}
}

// A run that is cancelled ends, and its members with it.
func TestCancel(t *testing.T) {
	t.Setenv(memberFlag, "1")
	ctx, cancel := context.WithCancel(context.Background())
	time.AfterFunc(time.Second, cancel)
	o := Options{
		Members: 2, Primitive: "send", Size: 64, Senders: SendersOne, Transport: "udp", Waiting: "block",
		Duration: time.Hour,
	}
	if _, err := Local(ctx, o, []string{os.Args[0]}); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

// Members that something else starts find their rank, meet, and rank 0 makes the result.
func TestRun(t *testing.T) {
	group, peer := ports()
	o := Options{
		Primitive: "ordered", Size: 64, Senders: SendersAll, Transport: "udp", Waiting: "block", Inline: true,
		Duration: 300 * time.Millisecond, Rate: 300,
	}
	results := make([]*Result, 3)
	faults := make([]error, 3)
	var all sync.WaitGroup
	for rank := range results {
		all.Go(func() {
			results[rank], faults[rank] = Run(t.Context(), o, Place{
				Rank: rank, Size: 3, System: t.Name(), Interface: "lo", GroupPort: group + 1, PeerPort: peer,
			})
		})
	}
	all.Wait()
	if err := errors.Join(faults...); err != nil {
		t.Fatal(err)
	}
	if r := results[0]; r == nil || len(r.Each) != 3 || r.Lost != 0 || r.DeliveredMin < 200 || r.Clocks {
		t.Errorf("rank 0: %+v", r)
	}
	if results[1] != nil || results[2] != nil {
		t.Error("another rank made a result")
	}
}

// The environment of mpirun and srun says which member a process is.
func TestPlaceFromEnv(t *testing.T) {
	for _, name := range []string{
		"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "PMI_RANK", "PMI_SIZE", "SLURM_PROCID", "SLURM_NTASKS",
	} {
		t.Setenv(name, "")
	}
	if _, _, ok := PlaceFromEnv(); ok {
		t.Error("a place from nothing")
	}
	t.Setenv("SLURM_PROCID", "3")
	t.Setenv("SLURM_NTASKS", "8")
	if rank, size, ok := PlaceFromEnv(); rank != 3 || size != 8 || !ok {
		t.Errorf("srun: %d of %d, %v", rank, size, ok)
	}
	t.Setenv("OMPI_COMM_WORLD_RANK", "1")
	t.Setenv("OMPI_COMM_WORLD_SIZE", "4")
	if rank, size, ok := PlaceFromEnv(); rank != 1 || size != 4 || !ok {
		t.Errorf("mpirun: %d of %d, %v", rank, size, ok)
	}
	if _, err := Run(t.Context(), Options{}, Place{Rank: 5, Size: 3}); err == nil {
		t.Error("rank 5 of 3 is accepted")
	}
}
