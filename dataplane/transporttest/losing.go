package transporttest

import (
	"math/rand/v2"
	"net/netip"

	"github.com/khamsin-io/khamsin/dataplane"
)

// A receiver whose arena is used up loses at most what it counts, says that it stalls, and recovers by itself when
// frames come back.
func testEmptyArena(s *scene) {
	a := s.open(Options{})
	b := s.open(Options{Rx: 8})
	// One packet at a time, so that none shares a frame with the next.
	var held []dataplane.Packet
	sent := 0
	for len(held) < 8 {
		a.sendTo(b, pattern(sent, 60))
		held = append(held, b.hold(1)...)
		sent++
	}
	for range 5 {
		a.sendTo(b, pattern(sent, 60))
		sent++
		if n, err := b.Receive(b.batch, dataplane.Wait{}); n != 0 || err != nil {
			s.Fatalf("Receive without a frame: %d, %v", n, err)
		}
	}
	if st := b.Stats(); st.ReceiveStalled+st.ReceiveDropped == 0 {
		s.Errorf("neither a stall nor a drop is counted: %+v", st)
	}
	for i, p := range held {
		if got, want := string(b.Arena().Bytes(p.Frame)), string(pattern(i, 60)); got != want {
			s.Fatalf("held packet %d reads %s", i, brief([]byte(got)))
		}
		b.Arena().Release(p.Frame)
	}
	received := len(held)
	b.eventually(func(more int) bool {
		received += more
		return received+int(b.Stats().ReceiveDropped) >= sent
	})
	if st := b.Stats(); received+int(st.ReceiveDropped) != sent {
		s.Errorf("received %d and dropped %d of %d", received, st.ReceiveDropped, sent)
	}
	a.sendTo(b, pattern(1, 60))
	b.expect(a, 0, pattern(1, 60))
}

// A receiver that does not look loses what has no room and counts it, or holds the sender up, but never blocks it.
func testOverflow(s *scene) {
	const size, total = 1000, 2000
	a := s.open(Options{})
	b := s.open(Options{Buffer: 64 << 10})
	payload := pattern(1, min(size, a.caps.MTU))
	sent := 0
	for refusals := 0; sent < total && refusals < 100; {
		if a.Arena().Tx().Free() == 0 { // all are on their way
			if n, err := a.Send(nil); n != 0 || err != nil {
				s.Fatalf("Send of nothing: %d, %v", n, err)
			}
			refusals++
			continue
		}
		p := a.packet(b.Local(), 0, payload)
		n, err := a.Send([]dataplane.Packet{p})
		if err != nil {
			s.Fatal(err)
		}
		if n == 0 { // back-pressure
			a.Arena().Tx().Release(p.Frame)
			refusals++
		}
		sent += n
	}
	received := 0
	if a.caps.Reliable {
		received += len(b.take(sent))
	}
	received += b.drain()
	last := pattern(2, 9) // losses may become known only with a packet behind them
	a.sendTo(b, last)
	for string(b.take(1)[0].payload) != string(last) {
		received++
	}
	b.quiet()
	if received == total {
		s.Skip("nothing overflows here")
	}
	st, lost := b.Stats(), a.Stats().SendDropped
	counted := received + int(st.ReceiveDropped+lost)
	if counted < sent || counted > sent && st.ReceiveDoubled == 0 { // second copies are dropped as well
		s.Errorf("sent %d, received %d, dropped %d and %d", sent, received, st.ReceiveDropped, lost)
	}
}

// injectAll injects what no transport would send: nothing at all, too much, and noise; then a sentinel.
func (s *scene) injectAll(st *station, ch dataplane.Channel) (noise, sentinel []byte) {
	s.Helper()
	if s.Inject == nil {
		s.Skip("nothing from outside can reach this transport")
	}
	rnd := rand.New(rand.NewPCG(3, 4))
	noise = make([]byte, min(300, st.caps.MTU))
	for i := range noise {
		noise[i] = byte(rnd.Uint32())
	}
	sentinel = pattern(7, 20)
	for _, payload := range [][]byte{
		{}, make([]byte, st.caps.MTU+1), make([]byte, 60000), noise, {}, make([]byte, 2*st.caps.MTU), sentinel,
	} {
		s.Inject(s, st.Local(), ch, payload)
	}
	return noise, sentinel
}

// checkStrangers checks what came of injectAll.
func (s *scene) checkStrangers(st *station, ch dataplane.Channel, noise, sentinel []byte) {
	s.Helper()
	want := map[string]bool{string(noise): true, string(sentinel): true}
	for _, got := range st.take(2) {
		if !want[string(got.payload)] || got.channel != ch {
			s.Errorf("channel %d: got %s, not what was sent", got.channel, brief(got.payload))
		}
		delete(want, string(got.payload))
		if got.from == st.Local() || got.from.AddrPort() == (netip.AddrPort{}) {
			s.Errorf("a stranger's packet is from %v", got.from)
		}
	}
	good := dataplane.Stats{
		ReceivedPackets:  2,
		ReceivedBytes:    uint64(len(noise) + len(sentinel)),
		ReceiveOversize:  3,
		ReceiveUndersize: 2,
	}
	st.eventually(func(more int) bool {
		if more > 0 {
			s.Fatalf("%d packets too many", more)
		}
		got := st.Stats()
		good.ReceiveCalls = got.ReceiveCalls
		return got == good
	})
}

// Datagrams from outside that no transport would send are dropped and counted; noise of a good size is handed over.
func testStrangers(s *scene) {
	st := s.open(Options{})
	noise, sentinel := s.injectAll(st, 0)
	s.checkStrangers(st, 0, noise, sentinel)
}

// The same by a channel.
func testStrangersOnChannel(s *scene) {
	st := s.open(Options{})
	s.needMulticast(st)
	const ch = dataplane.Channel(31)
	if err := st.Subscribe(ch); err != nil {
		s.Fatal(err)
	}
	noise, sentinel := s.injectAll(st, ch)
	s.checkStrangers(st, ch, noise, sentinel)
}

// The counters move for what happened, by as much as happened, and not otherwise.
func testStats(s *scene) {
	a, b := s.pair()
	const ch = dataplane.Channel(8)
	multicasts := 0
	if a.caps.Multicast {
		multicasts = 5
		if err := b.Subscribe(ch); err != nil {
			s.Fatal(err)
		}
	}
	size := min(100, a.caps.MTU)
	for i := range 7 {
		a.sendTo(b, pattern(i, size), pattern(i, size-1))
	}
	for i := range multicasts {
		a.sendOn(ch, pattern(i, size))
	}
	b.take(14 + multicasts)
	for range 50 { // polls in vain are no news
		b.quiet()
	}
	packets, bytes := uint64(14+multicasts), uint64(7*(2*size-1)+multicasts*size)
	sent, received := a.Stats(), b.Stats()
	// A transport with two interfaces sends multicasts by both, and without multicast what goes to the silent.
	doubled, doubles := received.ReceiveDoubled, uint64(multicasts)
	if !a.caps.Multicast {
		doubles = packets
	}
	if doubled > doubles {
		s.Errorf("%d second copies of %d packets", doubled, doubles)
	}
	for what, calls := range map[string]uint64{"send": sent.SendCalls, "receive": received.ReceiveCalls} {
		if calls == 0 || calls > packets+doubled {
			s.Errorf("%d calls to %s %d packets", calls, what, packets)
		}
	}
	for _, st := range []*dataplane.Stats{&sent, &received} { // what is open before and between packets
		st.Connections, st.ConnectionsMost = 0, 0
	}
	want := dataplane.Stats{
		SentPackets: packets, SentBytes: bytes, SentMulticasts: uint64(multicasts), SendCalls: sent.SendCalls,
	}
	if s.Unnamed {
		want.SentMulticasts = 0
	}
	if sent != want {
		s.Errorf("sender: %+v, want %+v", sent, want)
	}
	want = dataplane.Stats{
		ReceivedPackets: packets, ReceivedBytes: bytes, ReceiveCalls: received.ReceiveCalls, ReceiveDoubled: doubled,
	}
	if received != want {
		s.Errorf("receiver: %+v, want %+v", received, want)
	}
}
