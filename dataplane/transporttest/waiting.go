package transporttest

import (
	"runtime"
	"time"

	"github.com/khamsin-io/khamsin/dataplane"
)

// waits are the ways to wait for long.
//
// immutable: a table of the tests
var waits = map[string]dataplane.Wait{
	"block":            {Timeout: patience},
	"spin":             {Timeout: patience, Spin: patience},
	"spin, then block": {Timeout: patience, Spin: 50 * time.Microsecond},
	"for ever":         {Timeout: -1},
	"spin, for ever":   {Timeout: -1, Spin: 50 * time.Microsecond},
}

// A zero wait returns at once, with or without packets.
func testPolling(s *scene) {
	a, b := s.pair()
	b.quiet()
	start := time.Now()
	for range 10 {
		if n, err := b.Receive(b.batch, dataplane.Wait{Spin: time.Hour}); n != 0 || err != nil {
			s.Fatalf("poll of nothing: %d, %v", n, err)
		}
	}
	if took := time.Since(start); took > patience/2 {
		s.Errorf("10 polls took %v", took)
	}
	a.sendTo(b, pattern(1, 10))
	b.expect(a, 0, pattern(1, 10))
}

// A time-out is not over before its time, however it is waited for, and is over then.
func testTimeout(s *scene) {
	a := s.open(Options{})
	for _, timeout := range []time.Duration{1, 20 * time.Microsecond, 3 * time.Millisecond} {
		for _, spin := range []time.Duration{0, timeout / 2, timeout, time.Hour} {
			start := time.Now()
			n, err := a.Receive(a.batch, dataplane.Wait{Spin: spin, Timeout: timeout})
			took := time.Since(start)
			if n != 0 || err != nil || took < timeout || took > patience/2 {
				s.Errorf("spin %v, time-out %v: %d, %v after %v", spin, timeout, n, err, took)
			}
		}
	}
}

// receiveOnce starts a Receive on another goroutine and returns where its answer comes.
func (st *station) receiveOnce(wait dataplane.Wait) <-chan error {
	answer := make(chan error, 1)
	started := make(chan struct{})
	go func() {
		close(started)
		n, err := st.Receive(st.batch, wait)
		for _, p := range st.batch[:n] {
			st.Arena().Rx().Release(p.Frame)
		}
		if n > 0 && err == nil {
			err = errPackets
		}
		answer <- err
	}()
	<-started
	return answer
}

// errPackets is receiveOnce's answer when packets came.
var errPackets = packetsCame{}

type packetsCame struct{}

func (packetsCame) Error() string { return "packets came" }

// await returns the answer of receiveOnce.
func (s *scene) await(answer <-chan error) error {
	s.Helper()
	select {
	case err := <-answer:
		return err
	case <-time.After(patience / 2):
		buf := make([]byte, 1<<16)
		s.Fatalf("Receive did not return\n%s", buf[:runtime.Stack(buf, true)])
		return nil
	}
}

// linger gives another goroutine the chance to run into its wait, in every second round. The test is right either way.
func linger(round int) {
	for range round % 2 * 500 {
		runtime.Gosched()
	}
}

// A Wake before Receive makes the next one that would block return, once, however often it was called.
func testWakeBefore(s *scene) {
	a := s.open(Options{})
	for name, wait := range waits {
		a.Wake()
		a.Wake()
		if err := s.await(a.receiveOnce(wait)); err != nil {
			s.Errorf("%s: %v", name, err)
		}
	}
	start := time.Now()
	n, err := a.Receive(a.batch, dataplane.Wait{Timeout: time.Millisecond})
	if n != 0 || err != nil || time.Since(start) < time.Millisecond {
		s.Errorf("woken again by the same calls: %d, %v after %v", n, err, time.Since(start))
	}
}

// A Wake during Receive makes it return.
func testWakeDuring(s *scene) {
	a := s.open(Options{})
	for round := range 20 {
		for name, wait := range waits {
			answer := a.receiveOnce(wait)
			linger(round)
			a.Wake()
			if err := s.await(answer); err != nil {
				s.Fatalf("%s: %v", name, err)
			}
		}
	}
}

// A Receive that does not wait leaves the Wake for the next one that would.
func testWakeKeptForBlocking(s *scene) {
	a, b := s.pair()
	a.sendTo(b, pattern(1, 10))
	b.Wake()
	b.quietAfter(1)
	if err := s.await(b.receiveOnce(dataplane.Wait{Timeout: -1})); err != nil {
		s.Fatal(err)
	}
}

// quietAfter polls until n packets came, never blocking.
func (st *station) quietAfter(n int) {
	st.tb.Helper()
	for deadline := time.Now().Add(patience); n > 0; n -= st.drain() {
		if time.Now().After(deadline) {
			st.tb.Fatalf("%d packets did not come", n)
		}
	}
}

// A packet ends every way of waiting.
func testPacketWakes(s *scene) {
	a, b := s.pair()
	const ch = dataplane.Channel(5)
	if b.caps.Multicast {
		if err := b.Subscribe(ch); err != nil {
			s.Fatal(err)
		}
	}
	for round := range 10 {
		for name, wait := range waits {
			answer := b.receiveOnce(wait)
			linger(round)
			if round%4 < 2 || !b.caps.Multicast {
				a.sendTo(b, pattern(round, 20))
			} else {
				a.sendOn(ch, pattern(round, 20))
			}
			if err := s.await(answer); err != errPackets {
				s.Fatalf("%s: %v", name, err)
			}
		}
	}
}
