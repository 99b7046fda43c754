package perf

import (
	"context"
	"os"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"time"
)

// crowdFlag says how many processes TestCrowd starts; it is skipped without it.
const crowdFlag = "KHAMSIN_CROWD"

// Many processes that are started at once all become part of the system, and then join a group at the same moment. What
// it takes depends on the machine, so it is printed and not judged; the number of views is judged.
func TestCrowd(t *testing.T) {
	n, _ := strconv.Atoi(os.Getenv(crowdFlag))
	if n < 2 {
		t.Skipf("%s does not say how many processes to start: make crowd does", crowdFlag)
	}
	t.Setenv(memberFlag, "1")
	l := &local{command: []string{os.Args[0]}, began: time.Now(), options: Options{
		Members: n, Primitive: "join", Size: 64, Senders: SendersOne, Transport: "auto", Waiting: "block", Count: 1,
	}}
	t.Cleanup(func() {
		l.kill()
		l.end()
	})
	if err := l.start(); err != nil {
		t.Fatal(err)
	}
	clock := newHostClock()
	began := time.Now()
	kids, answers := make([]*kid, n), make([]answer, n)
	each := func(f func(i int) error) time.Duration {
		t.Helper()
		begin := time.Now()
		faults := make([]error, n)
		var all sync.WaitGroup
		for i := range n {
			all.Go(func() { faults[i] = f(i) })
		}
		all.Wait()
		for _, err := range faults {
			if err != nil {
				t.Fatal(err)
			}
		}
		return time.Since(begin)
	}
	each(func(i int) (err error) {
		l.here(func() { kids[i], err = l.startMember(i) })
		if err == nil {
			p := l.part(i)
			p.Apart = true
			answers[i], err = kids[i].do(order{Attend: p})
		}
		return err
	})
	attached := time.Since(began)
	go1 := clock.now() + int64(100*time.Millisecond)
	each(func(i int) (err error) {
		answers[i], err = kids[i].do(order{Join: go1})
		return err
	})
	joined := time.Duration(clock.now() - go1)
	each(func(i int) (err error) {
		answers[i], err = kids[i].do(order{Await: &awaitOrder{Size: n}})
		return err
	})
	views := 0
	for i := range answers {
		views = max(views, answers[i].Views)
	}
	t.Logf("%d processes on %d cores: all attached %v after the first was started, all joined %v later, in %d views",
		n, runtime.NumCPU(), attached.Round(time.Millisecond), joined.Round(time.Millisecond), views)
	if views > 3 {
		t.Errorf("%d views, want up to 3", views)
	}
}

// soakFlag says for how long TestSoak runs, such as 10m; it is skipped without it.
const soakFlag = "KHAMSIN_SOAK"

// Members that send as fast as they can, so that every core is taken, accuse nobody with the default failure detection.
func TestSoak(t *testing.T) {
	span, err := time.ParseDuration(os.Getenv(soakFlag))
	if err != nil {
		t.Skipf("%s does not say for how long to run: make soak does", soakFlag)
	}
	t.Setenv(memberFlag, "1")
	ctx, cancel := context.WithTimeout(context.Background(), span+5*time.Minute)
	defer cancel()
	r, err := Local(ctx, Options{
		Members: 5, Primitive: "ordered", Size: 64, Senders: SendersAll, Transport: "auto", Waiting: "adaptive",
		Inline: true, Duration: span, WarmUp: time.Second, Detect: "steady", Netns: os.Geteuid() == 0,
	}, []string{os.Args[0]})
	if err != nil {
		t.Fatal(err) // a member that was declared failed cannot report
	}
	t.Logf("%d members for %v: %.0f messages a second delivered at each, %.2f of %d cores taken, "+
		"%d packets dropped, %d sent again, %d views, %d accusations", r.Members, span, r.DeliveredMin, r.Cores1,
		r.Cores, r.Packets.ReceiveDropped, r.Retransmitted, r.Views, r.Suspicions)
	if r.Suspicions != 0 || r.Lost != 0 {
		t.Errorf("%d accusations, %d messages lost", r.Suspicions, r.Lost)
	}
}
