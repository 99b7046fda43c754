package transporttest

import (
	"errors"
	"math/rand/v2"
	"time"

	"github.com/khamsin-io/khamsin/dataplane"
)

// Caps, Arena and Local make sense, and stay as they are.
func testDescribes(s *scene) {
	a, b := s.pair()
	*s.found = a.caps
	if a.caps.Name == "" || a.caps.MTU < 1 || a.caps.Batch < 1 {
		s.Errorf("Caps %+v lack a name, an MTU or a batch size", a.caps)
	}
	if a.Local().IsZero() || a.Local() == b.Local() {
		s.Errorf("endpoints %v and %v", a.Local(), b.Local())
	}
	if arena := a.Arena(); a.Caps() != a.caps || a.Arena() != arena {
		s.Errorf("Caps or Arena changed")
	}
	f := a.frame(nil)
	if room := a.Arena().Room(f); room < a.caps.MTU {
		s.Errorf("a fresh frame has room for %d bytes, MTU %d", room, a.caps.MTU)
	}
	a.Arena().Release(f)
	if st := a.Stats(); st != (dataplane.Stats{}) {
		s.Errorf("a fresh transport's stats are %+v", st)
	}
}

// Every size from nothing to the MTU goes through unchanged; nothing itself is dropped and counted by the receiver.
func testSizes(s *scene) {
	a, b := s.pair()
	mtu := a.caps.MTU
	for n, size := range []int{1, 2, 3, 63, 64, 65, 511, 512, 513, 1023, 1024, mtu - 2, mtu - 1, mtu} {
		if size > mtu {
			continue
		}
		payload := pattern(n, size)
		a.sendTo(b, payload)
		b.expect(a, 0, payload)
	}
	a.sendTo(b, nil)
	a.sendTo(b, pattern(1, 1)) // behind the empty one
	b.expect(a, 0, pattern(1, 1))
	b.eventually(func(int) bool { return b.Stats().ReceiveUndersize == 1 })
}

// A frame above the MTU is refused, and stays with the caller.
func testTooLarge(s *scene) {
	a, b := s.pair()
	size := 0
	if a.caps.Large > 0 { // there are larger frames
		size = a.caps.MTU + 1
	}
	f := a.frame(make([]byte, size))
	f.Off = 0 // there may be no other room for it
	most := max(a.caps.MTU, a.caps.Large)
	f.Len = uint32(most + 1)
	if a.Arena().Room(f) < most+1 {
		a.Arena().Release(f)
		s.Skip("no frame can hold more than the MTU")
	}
	n, err := a.Send([]dataplane.Packet{{Frame: f, To: b.Local()}})
	if n != 0 || !errors.Is(err, dataplane.ErrTooLarge) {
		s.Errorf("Send of MTU+1 bytes: %d, %v", n, err)
	}
	if refs := a.Arena().Refs(f); refs != 1 {
		s.Errorf("%d references after a refusal, want 1", refs)
	}
	a.Arena().Release(f)
	b.quiet()
	if st := a.Stats(); st.SentPackets != 0 {
		s.Errorf("stats after a refusal: %+v", st)
	}
}

// Batches of all lengths, sent at once and received by batches of other lengths.
func testBatches(s *scene) {
	a, b := s.pair()
	for _, sent := range []int{1, 2, 3, 63, 64, 65, 130, 200} {
		for _, size := range []int{16, min(1000, a.caps.MTU)} {
			var payloads [][]byte
			for i := range sent {
				payloads = append(payloads, pattern(i, size))
			}
			a.sendTo(b, payloads...)
			b.batch = b.batch[:1+(sent*7)%cap(b.batch)]
			b.expect(a, 0, payloads...)
		}
	}
}

// Batches whose packets differ in size and destination at random: whatever a transport puts together must come apart.
func testMixedBatches(s *scene) {
	a, b := s.pair()
	c := s.open(Options{})
	const ch = dataplane.Channel(77)
	if a.caps.Multicast {
		for _, st := range []*station{b, c} {
			if err := st.Subscribe(ch); err != nil {
				s.Fatal(err)
			}
		}
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	sizes := []int{1, 4, 64, 64, 64, 100, 700, a.caps.MTU}
	next := 0
	for range 40 {
		var batch []dataplane.Packet
		var toB, toC, toBoth [][]byte
		kind, size := 0, 64
		for range 1 + rnd.IntN(150) {
			if rnd.IntN(4) == 0 {
				kind = rnd.IntN(3)
			}
			if rnd.IntN(4) == 0 {
				size = min(sizes[rnd.IntN(len(sizes))], a.caps.MTU)
			}
			payload := pattern(next, size)
			next++
			switch {
			case kind == 0:
				batch = append(batch, a.packet(b.Local(), 0, payload))
				toB = append(toB, payload)
			case kind == 1 || !a.caps.Multicast:
				batch = append(batch, a.packet(c.Local(), 0, payload))
				toC = append(toC, payload)
			default:
				batch = append(batch, a.packet(b.Local(), ch, payload))
				toBoth = append(toBoth, payload)
			}
		}
		a.send(batch...)
		b.expectBoth(a, ch, toB, toBoth)
		c.expectBoth(a, ch, toC, toBoth)
	}
}

// expectBoth receives the payloads sent to this transport and those sent on a channel, interleaved in any way.
func (st *station) expectBoth(from *station, ch dataplane.Channel, unicast, multicast [][]byte) {
	st.tb.Helper()
	left := map[string]int{}
	for _, p := range unicast {
		left["u"+string(p)]++
	}
	for _, p := range multicast {
		left["m"+string(p)]++
	}
	for _, got := range st.take(len(unicast) + len(multicast)) {
		key := "u" + string(got.payload)
		if got.channel == ch || st.blind && left[key] == 0 {
			key = "m" + string(got.payload)
		}
		if left[key]--; left[key] < 0 || got.from != from.Local() {
			st.tb.Fatalf("channel %d, from %v: not what was sent: %s", got.channel, got.from, brief(got.payload))
		}
	}
	st.quiet()
}

// Nothing sent is nothing done, and nothing can be received into nothing.
func testEmptyBatch(s *scene) {
	a, b := s.pair()
	if n, err := a.Send(nil); n != 0 || err != nil {
		s.Errorf("Send of nothing: %d, %v", n, err)
	}
	a.sendTo(b, pattern(1, 10))
	if n, err := b.Receive(nil, dataplane.Wait{Timeout: patience}); n != 0 || err != nil {
		s.Errorf("Receive into nothing: %d, %v", n, err)
	}
	b.expect(a, 0, pattern(1, 10))
}

// What stands before a bad packet is sent, and what stands from there on is left alone.
func testErrorStopsBatch(s *scene) {
	a, b := s.pair()
	bad := a.packet(b.Local(), dataplane.ChannelMax+1, pattern(2, 20))
	batch := []dataplane.Packet{
		a.packet(b.Local(), 0, pattern(0, 20)), a.packet(b.Local(), 0, pattern(1, 20)), bad,
		a.packet(b.Local(), 0, pattern(3, 20)),
	}
	want := dataplane.ErrBadChannel
	if !a.caps.Multicast {
		want = dataplane.ErrNoMulticast
	}
	n, err := a.Send(batch)
	for deadline := time.Now().Add(patience); err == nil && n <= 2 && time.Now().Before(deadline); { // back-pressure
		var more int
		more, err = a.Send(batch[n:])
		n += more
	}
	if n != 2 || !errors.Is(err, want) {
		s.Fatalf("Send: %d, %v, want 2 and %v", n, err, want)
	}
	b.expect(a, 0, pattern(0, 20), pattern(1, 20))
	for _, p := range batch[n:] {
		if refs := a.Arena().Refs(p.Frame); refs != 1 {
			s.Errorf("%d references of a packet that was not taken", refs)
		}
		a.Arena().Release(p.Frame)
	}
}

// A destination that is not there costs the packet, not the caller.
func testNobodyThere(s *scene) {
	a, b := s.pair()
	gone := s.open(Options{})
	nowhere := gone.Local()
	if err := gone.Close(); err != nil {
		s.Fatal(err)
	}
	const rounds = 5
	for i := range rounds {
		a.send(
			a.packet(nowhere, 0, pattern(i, 30)),
			a.packet(b.Local(), 0, pattern(i, 30)),
			a.packet(dataplane.Endpoint{}, 0, pattern(i, 30)),
		)
		b.expect(a, 0, pattern(i, 30))
	}
	st := a.Stats()
	if st.SentPackets != 3*rounds || st.SendDropped < rounds {
		s.Errorf("sent %d, dropped %d, want %d and at least the %d to nowhere",
			st.SentPackets, st.SendDropped, 3*rounds, rounds)
	}
	tx := a.Arena().Tx()
	for deadline := time.Now().Add(patience); tx.Free() < tx.Cap(); { // a transport may give them back late
		if n, err := a.Send(nil); n != 0 || err != nil || time.Now().After(deadline) {
			s.Fatalf("%d of %d frames free after dropping; Send: %d, %v", tx.Free(), tx.Cap(), n, err)
		}
	}
}
