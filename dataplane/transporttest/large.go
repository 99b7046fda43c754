package transporttest

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/khamsin-io/khamsin/dataplane"
)

// needLarge skips a test of what the transport does not claim.
func (s *scene) needLarge(st *station) {
	s.Helper()
	if st.caps.Large == 0 {
		s.Skip("Caps claim no frames above the MTU")
	}
	if st.caps.Large <= st.caps.MTU {
		s.Fatalf("Caps claim frames of %d bytes above an MTU of %d", st.caps.Large, st.caps.MTU)
	}
}

// Frames above the MTU go through unchanged, up to the longest, in the order in which they were sent.
func testLarge(s *scene) {
	a, b := s.pair()
	s.needLarge(a)
	mtu, large := a.caps.MTU, a.caps.Large
	if room := a.Arena().LargeTx().Cap(); room < 16 {
		s.Fatalf("%d large frames to send with", room)
	}
	for n, size := range []int{mtu + 1, mtu + 2, min(2*mtu, large), large - 1, large} {
		a.sendTo(b, pattern(n, size))
		b.expect(a, 0, pattern(n, size))
	}
	for round := range 10 {
		var payloads [][]byte
		for i := range 12 {
			payloads = append(payloads, pattern(round*12+i, mtu+1+(i*977+round*31)%(large-mtu)))
		}
		a.sendTo(b, payloads...)
		for i, got := range b.take(len(payloads)) {
			if got.from != a.Local() || got.channel != 0 || !bytes.Equal(got.payload, payloads[i]) {
				s.Fatalf("round %d: packet %d from %v is not next: %s", round, i, got.from, brief(got.payload))
			}
		}
		b.quiet()
	}
	st, got := a.Stats(), b.Stats()
	if st.SentPackets != 125 || st.SendDropped != 0 || got.ReceivedPackets != 125 || got.ReceivedBytes != st.SentBytes {
		s.Errorf("sender %+v, receiver %+v", st, got)
	}
}

// Large frames between small ones, to several processes and by a channel.
func testLargeMixed(s *scene) {
	a, b := s.pair()
	c := s.open(Options{})
	s.needLarge(a)
	const ch = dataplane.Channel(78)
	if a.caps.Multicast {
		for _, st := range []*station{b, c} {
			if err := st.Subscribe(ch); err != nil {
				s.Fatal(err)
			}
		}
	}
	rnd := rand.New(rand.NewPCG(5, 6))
	for round := range 10 {
		var batch []dataplane.Packet
		var toB, toC, toBoth [][]byte
		for i := range 60 {
			size := 4 + rnd.IntN(a.caps.MTU-4)
			if rnd.IntN(4) == 0 && a.Arena().LargeTx().Free() > 0 {
				size = a.caps.MTU + 1 + rnd.IntN(a.caps.Large-a.caps.MTU)
			}
			payload := pattern(round*60+i, size)
			switch kind := rnd.IntN(3); {
			case kind == 0:
				batch, toB = append(batch, a.packet(b.Local(), 0, payload)), append(toB, payload)
			case kind == 1 || !a.caps.Multicast || size > a.caps.MTU:
				batch, toC = append(batch, a.packet(c.Local(), 0, payload)), append(toC, payload)
			default:
				batch, toBoth = append(batch, a.packet(b.Local(), ch, payload)), append(toBoth, payload)
			}
		}
		a.send(batch...)
		b.expectBoth(a, ch, toB, toBoth)
		c.expectBoth(a, ch, toC, toBoth)
	}
}

// What is larger than the largest is refused, and so is a large frame to a channel.
func testLargeRefused(s *scene) {
	a, b := s.pair()
	s.needLarge(a)
	f := a.frame(pattern(1, a.caps.MTU+1))
	packets := []dataplane.Packet{{Frame: f, Channel: 5}}
	f.Off, f.Len = 0, uint32(a.caps.Large+1)
	if a.Arena().Room(f) >= a.caps.Large+1 {
		packets = append(packets, dataplane.Packet{Frame: f, To: b.Local()})
	}
	for _, p := range packets {
		want := dataplane.ErrTooLarge
		if p.Channel != 0 && !a.caps.Multicast {
			want = dataplane.ErrNoMulticast
		}
		if n, err := a.Send([]dataplane.Packet{p}); n != 0 || !errors.Is(err, want) {
			s.Errorf("Send of %d bytes to channel %d: %d, %v", p.Frame.Len, p.Channel, n, err)
		}
	}
	a.Arena().Release(f)
	b.quiet()
}

// A large frame that came is sent on without a copy.
func testLargeForward(s *scene) {
	a, b := s.pair()
	s.needLarge(a)
	payloads := [][]byte{pattern(1, a.caps.Large), pattern(2, a.caps.MTU+1), pattern(3, a.caps.Large/2+a.caps.MTU/2)}
	a.sendTo(b, payloads...)
	held := b.hold(len(payloads))
	for i := range held {
		held[i] = dataplane.Packet{Frame: held[i].Frame, To: held[i].From}
	}
	b.send(held...)
	a.expect(b, 0, payloads...)
}

// A receiver that takes no large frames loses none that were accepted and not counted, and does not keep the sender
// from sending to others.
func testLargeSlowReceiver(s *scene) {
	a, b := s.pair()
	c := s.open(Options{})
	s.needLarge(a)
	sent := 0
	for refusals := 0; sent < 400 && refusals < 50; {
		f, ok := a.Arena().LargeTx().Get()
		if !ok {
			if n, err := a.Send(nil); n != 0 || err != nil {
				s.Fatalf("Send of nothing: %d, %v", n, err)
			}
			refusals++
			continue
		}
		f.Len = uint32(a.caps.MTU + 1)
		copy(a.Arena().Bytes(f), pattern(sent, a.caps.MTU+1))
		n, err := a.Send([]dataplane.Packet{{Frame: f, To: b.Local()}})
		if err != nil {
			s.Fatal(err)
		}
		if n == 0 { // back-pressure
			a.Arena().LargeTx().Release(f)
			refusals++
		}
		sent += n
	}
	a.sendTo(c, pattern(1, 30))
	c.expect(a, 0, pattern(1, 30))
	received := 0
	b.eventually(func(more int) bool {
		received += more
		if n, err := a.Send(nil); n != 0 || err != nil {
			s.Fatalf("Send of nothing: %d, %v", n, err)
		}
		return received+int(a.Stats().SendDropped) >= sent
	})
	if dropped := int(a.Stats().SendDropped); received+dropped != sent || received == 0 {
		s.Errorf("%d sent, %d received, %d dropped", sent, received, dropped)
	}
	a.sendTo(b, pattern(9, a.caps.MTU+7))
	b.expect(a, 0, pattern(9, a.caps.MTU+7))
}

// Large frames to nobody are dropped and counted, and their memory comes back.
func testLargeNobodyThere(s *scene) {
	a, b := s.pair()
	s.needLarge(a)
	gone := s.open(Options{})
	nowhere := gone.Local()
	if err := gone.Close(); err != nil {
		s.Fatal(err)
	}
	for i := range 3 {
		a.send(a.packet(nowhere, 0, pattern(i, a.caps.Large)))
		a.send(a.packet(dataplane.Endpoint{}, 0, pattern(i, a.caps.Large)))
		a.sendTo(b, pattern(i, a.caps.Large))
		b.expect(a, 0, pattern(i, a.caps.Large))
	}
	tx := a.Arena().LargeTx()
	for deadline := time.Now().Add(2 * patience); a.Stats().SendDropped < 6 || tx.Free() < tx.Cap(); {
		a.quiet()
		if n, err := a.Send(nil); n != 0 || err != nil || time.Now().After(deadline) {
			s.Fatalf("Send: %d, %v; %d of %d frames free; %+v", n, err, tx.Free(), tx.Cap(), a.Stats())
		}
	}
}
