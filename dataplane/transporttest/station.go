package transporttest

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/khamsin-io/khamsin/dataplane"
	"github.com/khamsin-io/khamsin/dataplane/frame"
)

// station is a transport under test, with one goroutine that sends and receives.
type station struct {
	dataplane.Transport
	tb    testing.TB
	caps  dataplane.Caps
	batch []dataplane.Packet
	blind bool // World.Unnamed
}

// arrival is what a test remembers of a packet when its frame is released.
type arrival struct {
	payload []byte
	from    dataplane.Endpoint
	channel dataplane.Channel
}

// open opens a transport that is closed, with its arena whole, when the test ends.
func (s *scene) open(o Options) *station {
	s.Helper()
	o.Tx = max(o.Tx, 512)
	tr := s.Open(s, o)
	s.Cleanup(func() {
		if err := tr.Close(); err != nil {
			s.Errorf("%v: Close: %v", tr.Local(), err)
		}
	})
	return &station{
		Transport: tr, tb: s, caps: tr.Caps(), batch: make([]dataplane.Packet, max(64, tr.Caps().Batch)),
		blind: s.Unnamed,
	}
}

// pair opens two transports with default options.
func (s *scene) pair() (a, b *station) {
	s.Helper()
	return s.open(Options{}), s.open(Options{})
}

// needMulticast skips a test of what the transport does not claim.
func (s *scene) needMulticast(st *station) {
	s.Helper()
	if !st.caps.Multicast {
		s.Skip("Caps claim no native multicast")
	}
}

// pattern returns size bytes that depend on n.
func pattern(n, size int) []byte {
	b := make([]byte, size)
	for i := range b {
		b[i] = byte(n*31 + i*7 + i>>8)
	}
	if size >= 4 {
		binary.BigEndian.PutUint32(b, uint32(n))
	}
	return b
}

// frame returns a frame that holds payload. When all are on their way, it waits for one to come home.
func (st *station) frame(payload []byte) frame.Frame {
	st.tb.Helper()
	pool := st.Arena().Tx()
	if len(payload) > st.caps.MTU {
		pool = st.Arena().LargeTx()
	}
	f, ok := pool.Get()
	for deadline := time.Now().Add(patience); !ok; f, ok = pool.Get() {
		if n, err := st.Send(nil); n != 0 || err != nil || time.Now().After(deadline) {
			st.tb.Fatalf("no frame to send with; %d outstanding; Send: %d, %v", st.Arena().Outstanding(), n, err)
		}
	}
	f.Len = uint32(len(payload))
	copy(st.Arena().Bytes(f), payload)
	return f
}

// packet returns a packet to an endpoint, or to ch if it is not zero.
func (st *station) packet(to dataplane.Endpoint, ch dataplane.Channel, payload []byte) dataplane.Packet {
	st.tb.Helper()
	if ch != 0 {
		to = dataplane.Endpoint{}
	}
	return dataplane.Packet{Frame: st.frame(payload), To: to, Channel: ch}
}

// send sends the whole batch, taking no for an answer only until patience ends.
func (st *station) send(batch ...dataplane.Packet) {
	st.tb.Helper()
	for deadline := time.Now().Add(patience); len(batch) > 0; {
		n, err := st.Send(batch)
		if err != nil || n < 0 || n > len(batch) {
			st.tb.Fatalf("Send of %d packets: %d, %v", len(batch), n, err)
		}
		batch = batch[n:]
		if n == 0 && time.Now().After(deadline) {
			st.tb.Fatalf("Send accepts nothing for %v", patience)
		}
	}
}

// sendTo sends payloads to one transport.
func (st *station) sendTo(to *station, payloads ...[]byte) {
	st.tb.Helper()
	var batch []dataplane.Packet
	for _, p := range payloads {
		batch = append(batch, st.packet(to.Local(), 0, p))
	}
	st.send(batch...)
}

// sendOn sends payloads on a channel.
func (st *station) sendOn(ch dataplane.Channel, payloads ...[]byte) {
	st.tb.Helper()
	var batch []dataplane.Packet
	for _, p := range payloads {
		batch = append(batch, st.packet(dataplane.Endpoint{}, ch, p))
	}
	st.send(batch...)
}

// hold receives n packets and keeps their frames.
func (st *station) hold(n int) []dataplane.Packet {
	st.tb.Helper()
	var held []dataplane.Packet
	for deadline := time.Now().Add(patience); len(held) < n; {
		got, err := st.Receive(st.batch[:min(len(st.batch), n-len(held))], dataplane.Wait{Timeout: patience})
		if err != nil {
			st.tb.Fatalf("Receive: %v", err)
		}
		held = append(held, st.batch[:got]...)
		if time.Now().After(deadline) {
			st.tb.Fatalf("%d of %d packets came in %v; stats %+v", len(held), n, patience, st.Stats())
		}
	}
	return held
}

// take receives n packets and releases their frames.
func (st *station) take(n int) []arrival {
	st.tb.Helper()
	var got []arrival
	for _, p := range st.hold(n) {
		got = append(got, arrival{bytes.Clone(st.Arena().Bytes(p.Frame)), p.From, p.Channel})
		st.Arena().Rx().Release(p.Frame)
	}
	return got
}

// drain receives what is there, without waiting, and returns how many packets that were.
func (st *station) drain() int {
	st.tb.Helper()
	for total := 0; ; {
		n, err := st.Receive(st.batch, dataplane.Wait{})
		if err != nil {
			st.tb.Fatalf("Receive: %v", err)
		}
		if n == 0 {
			return total
		}
		for _, p := range st.batch[:n] {
			st.Arena().Rx().Release(p.Frame)
		}
		total += n
	}
}

// eventually polls until ok, which learns how many packets came since it was last asked, is content.
func (st *station) eventually(ok func(more int) bool) {
	st.tb.Helper()
	for deadline := time.Now().Add(patience); !ok(st.drain()); {
		if time.Now().After(deadline) {
			st.tb.Fatalf("not so after %v; stats %+v", patience, st.Stats())
		}
	}
}

// expect receives exactly the payloads given, in any order unless the transport is reliable, all from one sender and
// by one channel, and then nothing more.
func (st *station) expect(from *station, ch dataplane.Channel, payloads ...[]byte) {
	st.tb.Helper()
	got := st.take(len(payloads))
	want := slices.Clone(payloads)
	if st.blind {
		ch = 0
	}
	for i, a := range got {
		if a.from != from.Local() || a.channel != ch {
			st.tb.Fatalf("packet %d is from %v by channel %d, want %v and %d", i, a.from, a.channel, from.Local(), ch)
		}
		at := slices.IndexFunc(want, func(w []byte) bool { return bytes.Equal(w, a.payload) })
		if at < 0 || st.caps.Reliable && at > 0 {
			st.tb.Fatalf("packet %d is not what was sent, or not next: %s", i, brief(a.payload))
		}
		want = slices.Delete(want, at, at+1)
	}
	st.quiet()
}

// quiet checks that nothing is waiting.
func (st *station) quiet() {
	st.tb.Helper()
	if n := st.drain(); n > 0 {
		st.tb.Fatalf("%d packets too many", n)
	}
}

// brief describes a payload.
func brief(b []byte) string { return fmt.Sprintf("%d bytes %x…", len(b), b[:min(16, len(b))]) }
