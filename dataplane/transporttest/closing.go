package transporttest

import (
	"bytes"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/khamsin-io/khamsin/dataplane"
)

// Close ends a Receive with ErrClosed, whichever way it waits.
func testCloseDuringReceive(s *scene) {
	for round := range 4 {
		for name, wait := range waits {
			a := s.open(Options{})
			answer := a.receiveOnce(wait)
			linger(round)
			if err := a.Close(); err != nil {
				s.Fatalf("%s: Close: %v", name, err)
			}
			if err := s.await(answer); !errors.Is(err, dataplane.ErrClosed) {
				s.Fatalf("%s: Receive: %v", name, err)
			}
		}
	}
}

// After Close everything that can fail fails with ErrClosed, nothing panics, and the numbers can still be read.
func testUseAfterClose(s *scene) {
	a, b := s.pair()
	a.sendTo(b, pattern(1, 10))
	b.expect(a, 0, pattern(1, 10))
	local, before := a.Local(), a.Stats()
	for i := range 2 {
		if err := a.Close(); err != nil {
			s.Fatalf("Close %d: %v", i+1, err)
		}
	}
	if n, err := a.Send(make([]dataplane.Packet, 1)); n != 0 || !errors.Is(err, dataplane.ErrClosed) {
		s.Errorf("Send: %d, %v", n, err)
	}
	for _, wait := range []dataplane.Wait{{}, {Timeout: time.Second}, {Timeout: -1}} {
		if n, err := a.Receive(a.batch, wait); n != 0 || !errors.Is(err, dataplane.ErrClosed) {
			s.Errorf("Receive: %d, %v", n, err)
		}
	}
	if a.caps.Multicast {
		if err := a.Subscribe(1); !errors.Is(err, dataplane.ErrClosed) {
			s.Errorf("Subscribe: %v", err)
		}
		if err := a.Unsubscribe(1); !errors.Is(err, dataplane.ErrClosed) {
			s.Errorf("Unsubscribe: %v", err)
		}
	}
	a.Wake()
	if a.Local() != local || a.Stats() != before || a.Caps() != a.caps {
		s.Errorf("closing changed the endpoint, the stats or the caps")
	}
}

// Packets that nobody received are no leak. The clean-up of the scene checks the arenas.
func testCloseWithPacketsWaiting(s *scene) {
	a, b := s.pair()
	for i := range 50 {
		a.sendTo(b, pattern(i, 10), pattern(i, 10), pattern(i, 10))
	}
	p := b.hold(1)[0] // so that something has come off the wire and is waiting behind it
	b.Arena().Rx().Release(p.Frame)
}

// pingPong passes one packet to and fro between two stations, each of which works on a goroutine of its own.
func pingPong(s *scene, a, b *station, rounds int) {
	payload := pattern(0, 100)
	a.sendTo(b, payload)
	var wg sync.WaitGroup
	wg.Add(2)
	go func() { defer wg.Done(); s.check(b.bounce(a, payload, rounds, true)) }()
	go func() { defer wg.Done(); s.check(a.bounce(b, payload, rounds, false)) }()
	wg.Wait()
}

// bounce receives the payload from the peer and sends it back, rounds times; the last time only if answerLast.
func (st *station) bounce(peer *station, payload []byte, rounds int, answerLast bool) error {
	deadline := time.Now().Add(patience)
	for got := 0; got < rounds; {
		n, err := st.Receive(st.batch, dataplane.Wait{Timeout: time.Second})
		if err != nil || n > 1 || time.Now().After(deadline) {
			return fmt.Errorf("%v: Receive in round %d of %d: %d, %w", st.Local(), got, rounds, n, err)
		}
		if n == 0 {
			continue // woken
		}
		p := st.batch[0]
		if b := st.Arena().Bytes(p.Frame); !bytes.Equal(b, payload) || p.From != peer.Local() {
			return fmt.Errorf("%v: round %d: from %v %s", st.Local(), got, p.From, brief(b))
		}
		if got++; got == rounds && !answerLast {
			st.Arena().Rx().Release(p.Frame)
			break
		}
		back := [1]dataplane.Packet{{Frame: p.Frame, To: p.From}}
		for n = 0; n == 0; {
			if n, err = st.Send(back[:]); err != nil {
				return fmt.Errorf("%v: Send in round %d: %w", st.Local(), got, err)
			}
		}
	}
	return nil
}

// Whatever any goroutine may call can be called while packets fly.
func testAllAtOnce(s *scene) {
	a, b := s.pair()
	var stop atomic.Bool
	var wg sync.WaitGroup
	for _, st := range []*station{a, b} {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for ch := dataplane.Channel(1); !stop.Load(); ch++ {
				st.Wake()
				_, _ = st.Stats(), st.Local()
				if st.caps.Multicast {
					if err := errors.Join(st.Subscribe(ch%30+1), st.Unsubscribe((ch+5)%30+1)); err != nil {
						s.Error(err)
					}
				}
			}
		}()
	}
	pingPong(s, a, b, 300)
	stop.Store(true)
	wg.Wait()
}

// Sending and receiving allocate nothing.
func testNoAllocation(s *scene) {
	a, b := s.pair()
	const ch, n = dataplane.Channel(3), 20
	if b.caps.Multicast {
		if err := b.Subscribe(ch); err != nil {
			s.Fatal(err)
		}
	}
	batch := make([]dataplane.Packet, n)
	round := func() {
		for i := range batch {
			f, _ := a.Arena().Tx().Get()
			f.Len = 200
			batch[i] = dataplane.Packet{Frame: f, To: b.Local()}
			if b.caps.Multicast && i%2 == 0 {
				batch[i].To, batch[i].Channel = dataplane.Endpoint{}, ch
			}
		}
		for sent := 0; sent < n; {
			k, _ := a.Send(batch[sent:])
			sent += k
		}
		for got := 0; got < n; {
			k, err := b.Receive(b.batch, dataplane.Wait{Spin: time.Microsecond, Timeout: patience})
			if k == 0 || err != nil {
				panic("transporttest: packets of an allocation test are lost")
			}
			for _, p := range b.batch[:k] {
				b.Arena().Rx().Release(p.Frame)
			}
			got += k
		}
		_, _ = b.Receive(b.batch, dataplane.Wait{Timeout: time.Microsecond}) // a wait in vain
	}
	for range 50 { // what a transport learns about its surroundings it learns now
		round()
	}
	if allocs := testing.AllocsPerRun(100, round); allocs != 0 {
		s.Errorf("%v allocations for %d packets sent and received, want 0", allocs, n)
	}
}
