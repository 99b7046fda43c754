package transporttest

import (
	"encoding/binary"
	"sync"
	"time"

	"github.com/khamsin-io/khamsin/dataplane"
)

// Send takes one reference of each frame and no more: a sender that keeps one may send again.
func testReferences(s *scene) {
	a, b := s.pair()
	f := a.frame(pattern(5, 40))
	a.Arena().RetainN(f, 2)
	for range 2 {
		a.send(dataplane.Packet{Frame: f, To: b.Local()})
		b.expect(a, 0, pattern(5, 40))
	}
	for deadline := time.Now().Add(patience); a.Arena().Refs(f) > 1; { // a transport may give them back late
		if n, err := a.Send(nil); n != 0 || err != nil || time.Now().After(deadline) {
			s.Fatalf("%d references left; Send: %d, %v", a.Arena().Refs(f), n, err)
		}
	}
	if refs := a.Arena().Refs(f); refs != 1 {
		s.Fatalf("%d references after 2 of 3 were sent, want 1", refs)
	}
	a.Arena().Release(f)
}

// Each received packet has a reference of its own, and can be released in any order and by any goroutine while its
// neighbours stay readable.
func testSubFrames(s *scene) {
	const n = 100
	a, b := s.pair()
	var payloads [][]byte
	for i := range n {
		payloads = append(payloads, pattern(i, 80))
	}
	a.sendTo(b, payloads...)
	held := b.hold(n)
	var wg sync.WaitGroup
	for half := range 2 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := n - 1 - half; i >= 0; i -= 2 {
				got := b.Arena().Bytes(held[i].Frame)
				k := int(binary.BigEndian.Uint32(got))
				if k >= n || string(got) != string(payloads[k]) {
					s.Errorf("packet %d reads %s", i, brief(got))
				}
				b.Arena().Release(held[i].Frame)
			}
		}()
	}
	wg.Wait()
	b.quiet()
}

// A received frame can be sent on without a copy.
func testForward(s *scene) {
	a, b := s.pair()
	var payloads [][]byte
	for i := range 10 {
		payloads = append(payloads, pattern(i, 200))
	}
	a.sendTo(b, payloads...)
	held := b.hold(len(payloads))
	for i := range held {
		held[i] = dataplane.Packet{Frame: held[i].Frame, To: a.Local()}
	}
	b.send(held...)
	a.expect(b, 0, payloads...)
}

// A transport reaches itself.
func testOwnPacket(s *scene) {
	a := s.open(Options{})
	a.sendTo(a, pattern(1, 50))
	a.expect(a, 0, pattern(1, 50))
}

// From is where the sender is reached, whichever way the packet came.
func testAnswer(s *scene) {
	a, b := s.pair()
	const ch = dataplane.Channel(4711)
	if b.caps.Multicast {
		if err := b.Subscribe(ch); err != nil {
			s.Fatal(err)
		}
		a.sendOn(ch, pattern(0, 8))
	}
	a.sendTo(b, pattern(1, 8))
	questions := 1
	if b.caps.Multicast {
		questions = 2
	}
	for i, q := range b.take(questions) {
		b.send(b.packet(q.from, 0, pattern(i, 9)))
	}
	for _, answer := range a.take(questions) {
		if answer.from != b.Local() || len(answer.payload) != 9 {
			s.Fatalf("answer from %v: %s", answer.from, brief(answer.payload))
		}
	}
}

// A reliable transport loses, repeats and reorders nothing, though the receiver is slow; others need not apply.
func testReliable(s *scene) {
	a, b := s.pair()
	if !a.caps.Reliable {
		s.Skip("Caps claim no reliability")
	}
	const total = 5000
	sent, received := 0, 0
	for deadline := time.Now().Add(patience); received < total; {
		for sent < total && a.Arena().Tx().Free() > 0 {
			p := a.packet(b.Local(), 0, pattern(sent, min(500, a.caps.MTU)))
			n, err := a.Send([]dataplane.Packet{p})
			if err != nil {
				s.Fatal(err)
			}
			if n == 0 {
				a.Arena().Tx().Release(p.Frame)
				break // back-pressure
			}
			sent++
		}
		n, err := b.Receive(b.batch[:7], dataplane.Wait{Timeout: time.Millisecond})
		if err != nil || time.Now().After(deadline) {
			s.Fatalf("sent %d, received %d: %v", sent, received, err)
		}
		for _, p := range b.batch[:n] {
			if got := int(binary.BigEndian.Uint32(b.Arena().Bytes(p.Frame))); got != received {
				s.Fatalf("received packet %d, want %d", got, received)
			}
			received++
			b.Arena().Rx().Release(p.Frame)
		}
	}
	b.quiet()
}
