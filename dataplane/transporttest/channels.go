package transporttest

import (
	"errors"

	"github.com/khamsin-io/khamsin/dataplane"
)

// A transport without multicast says so, and sends and joins nothing.
func testNoMulticast(s *scene) {
	a := s.open(Options{})
	if a.caps.Multicast {
		s.Skip("Caps claim native multicast")
	}
	if err := a.Subscribe(1); !errors.Is(err, dataplane.ErrNoMulticast) {
		s.Errorf("Subscribe: %v", err)
	}
	if err := a.Unsubscribe(1); !errors.Is(err, dataplane.ErrNoMulticast) {
		s.Errorf("Unsubscribe: %v", err)
	}
	p := a.packet(dataplane.Endpoint{}, 1, pattern(1, 1))
	if n, err := a.Send([]dataplane.Packet{p}); n != 0 || !errors.Is(err, dataplane.ErrNoMulticast) {
		s.Errorf("Send: %d, %v", n, err)
	}
	a.Arena().Release(p.Frame)
}

// Subscribing twice needs one Unsubscribe; unsubscribing from what was never subscribed is no error.
func testSubscribe(s *scene) {
	a, b := s.pair()
	s.needMulticast(a)
	const ch, other = dataplane.Channel(12), dataplane.Channel(13)
	step := func(what string, err error) {
		s.Helper()
		if err != nil {
			s.Fatalf("%s: %v", what, err)
		}
	}
	step("Unsubscribe of none", b.Unsubscribe(ch))
	step("Subscribe to the other", b.Subscribe(other))
	a.sendOn(ch, pattern(1, 10))
	a.sendOn(other, pattern(2, 10))
	b.expect(a, other, pattern(2, 10))
	step("Subscribe", b.Subscribe(ch))
	step("Subscribe again", b.Subscribe(ch))
	a.sendOn(ch, pattern(3, 10))
	b.expect(a, ch, pattern(3, 10))
	step("Unsubscribe", b.Unsubscribe(ch))
	a.sendOn(ch, pattern(4, 10))
	a.sendOn(other, pattern(5, 10))
	b.expect(a, other, pattern(5, 10))
	step("Subscribe anew", b.Subscribe(ch))
	a.sendOn(ch, pattern(6, 10))
	b.expect(a, ch, pattern(6, 10))
}

// Numbers that are no channel are refused everywhere.
func testBadChannel(s *scene) {
	a := s.open(Options{})
	s.needMulticast(a)
	for _, ch := range []dataplane.Channel{0, dataplane.ChannelMax + 1, 1 << 31} {
		if err := a.Subscribe(ch); !errors.Is(err, dataplane.ErrBadChannel) {
			s.Errorf("Subscribe(%d): %v", ch, err)
		}
		if err := a.Unsubscribe(ch); !errors.Is(err, dataplane.ErrBadChannel) {
			s.Errorf("Unsubscribe(%d): %v", ch, err)
		}
	}
	for _, ch := range []dataplane.Channel{dataplane.ChannelMin, dataplane.ChannelMax} {
		if err := a.Subscribe(ch); err != nil {
			s.Errorf("Subscribe(%d): %v", ch, err)
		}
	}
}

// Each subscriber gets each packet once, the sender as well if the Caps say so and never otherwise.
func testMulticastToMany(s *scene) {
	a := s.open(Options{})
	s.needMulticast(a)
	const ch = dataplane.Channel(99)
	receivers := []*station{s.open(Options{}), s.open(Options{}), s.open(Options{})}
	for _, st := range append(receivers, a) {
		if err := st.Subscribe(ch); err != nil {
			s.Fatal(err)
		}
	}
	var payloads [][]byte
	for i := range 100 {
		payloads = append(payloads, pattern(i, 1+i*5))
	}
	a.sendOn(ch, payloads...)
	for _, st := range receivers {
		st.expect(a, ch, payloads...)
	}
	if a.caps.LoopsBack {
		a.expect(a, ch, payloads...)
	} else {
		a.quiet()
	}
}

// Two transports of one host, each on its own channel, never see the other's packets, though the channels share a
// port.
//
// rows: IPM-15
func testOnlySubscribed(s *scene) {
	a, b := s.pair()
	s.needMulticast(a)
	sender := s.open(Options{})
	const chA, chB, none = dataplane.Channel(1001), dataplane.Channel(1002), dataplane.Channel(1003)
	if err := errors.Join(a.Subscribe(chA), b.Subscribe(chB)); err != nil {
		s.Fatal(err)
	}
	var toA, toB [][]byte
	for i := range 20 {
		toA = append(toA, pattern(i, 50))
		toB = append(toB, pattern(100+i, 50))
		sender.send(
			sender.packet(dataplane.Endpoint{}, none, pattern(200+i, 50)),
			sender.packet(dataplane.Endpoint{}, chB, toB[i]),
			sender.packet(dataplane.Endpoint{}, chA, toA[i]),
		)
	}
	a.expect(sender, chA, toA...)
	b.expect(sender, chB, toB...)
	for _, st := range []*station{a, b} {
		if got := st.Stats(); got.ReceivedPackets != 20 {
			s.Errorf("received %d packets, want 20: %+v", got.ReceivedPackets, got)
		}
	}
}

// Twice the 25 channels that may be in use at once.
//
// rows: IPM-04, IPM-05
func testManyChannels(s *scene) {
	a, b := s.pair()
	s.needMulticast(a)
	const channels = 50
	for ch := dataplane.Channel(1); ch <= channels; ch++ {
		if err := b.Subscribe(5000 + ch); err != nil {
			s.Fatalf("channel %d of %d: %v", ch, channels, err)
		}
	}
	for ch := dataplane.Channel(1); ch <= channels; ch++ {
		payload := pattern(int(ch), 30)
		a.sendOn(5000+ch, payload)
		b.expect(a, 5000+ch, payload)
	}
	for ch := dataplane.Channel(1); ch < channels; ch++ {
		if err := b.Unsubscribe(5000 + ch); err != nil {
			s.Fatal(err)
		}
		a.sendOn(5000+ch, pattern(int(ch), 30))
	}
	a.sendOn(5000+channels, pattern(1, 30))
	b.expect(a, 5000+channels, pattern(1, 30))
}
