package link

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/khamsin-io/khamsin/dataplane"
	"github.com/khamsin-io/khamsin/dataplane/clock"
	"github.com/khamsin-io/khamsin/dataplane/frame"
	"github.com/khamsin-io/khamsin/dataplane/wire"
)

// Under loss, doubling and reordering, with receivers that have no room at times, each lane brings its messages in
// order, once, whole, whatever their length; lanes do not disturb each other.
func TestLanes(t *testing.T) {
	// rows: P2P-01, P2P-02, P2P-03, P2P-10
	rapid.Check(t, func(t *rapid.T) {
		w := newNet(t, rapid.IntRange(2, 3).Draw(t, "n"), 1024)
		sent := map[laneName][]string{}
		for range rapid.IntRange(0, 100).Draw(t, "steps") {
			w.step(t, sent)
			for name, got := range w.received() {
				if len(got) > len(sent[name]) || !slices.Equal(got, sent[name][:len(got)]) {
					t.Fatalf("lane %v brought %q of %q", name, got, sent[name])
				}
			}
		}
		for _, x := range w.ends {
			x.refuse, x.room = false, 0
			x.links.Kick(w.now)
			x.drain()
		}
		w.settle()
		got := w.received()
		for name, want := range sent {
			if !slices.Equal(got[name], want) {
				t.Fatalf("lane %v brought %d messages of %d", name, len(got[name]), len(want))
			}
			from, to := w.ends[name.from], w.ends[name.to]
			queued := from.links.Queued(to.self, name.kind, name.group)
			if !from.links.Acked(to.self, name.kind, name.group) || queued != 0 {
				t.Fatalf("lane %v at rest: %s", name, from.links.Dump())
			}
		}
		for i, x := range w.ends {
			if held := x.out.Arena().Outstanding(); held != 0 || !x.links.Idle() || x.links.Deadline() != clock.Never {
				t.Fatalf("process %d at rest holds %d frames, deadline %v", i, held, x.links.Deadline())
			}
		}
		w.close()
	})
}

// A sender has no more than a window under way, and a lane that is not answered is asked ever more seldom.
func TestWindowAndBackoff(t *testing.T) {
	w := newNet(t, 2, 1024)
	defer w.close()
	a, b := w.ends[0], w.ends[1]
	for i := range 3 * window {
		a.send(b, Control, 0, fmt.Sprint(i))
	}
	if len(w.under) != window || a.links.Queued(b.self, Control, 0) == 0 || a.links.Idle() {
		t.Fatalf("%d packets under way, %d bytes queued", len(w.under), a.links.Queued(b.self, Control, 0))
	}
	if a.links.Queued(b.self, Peer, 0) != 0 || a.links.Queued(process(9), Control, 0) != 0 ||
		!a.links.Acked(b.self, Peer, 0) || !a.links.Acked(process(9), Control, 0) || a.links.Acked(b.self, Control, 0) {
		t.Error("other lanes are not empty")
	}
	if d := a.links.Dump(); !strings.Contains(d, "128 queued, sent 64, acked 0") {
		t.Errorf("dump %q", d)
	}
	w.under = nil
	last, gap := w.now, time.Duration(0)
	for range 8 {
		w.tick(clock.Never)
		if now := w.now.Sub(last); now < gap || len(w.under) == 0 || len(w.under) > window {
			t.Fatalf("%d packets again after %v, before that %v", len(w.under), now, gap)
		}
		gap, last, w.under = w.now.Sub(last), w.now, nil
	}
	if gap != retryAfter<<backoffMax {
		t.Errorf("asks every %v, want %v", gap, retryAfter<<backoffMax)
	}
	w.settle()
	if len(b.got) != 3*window {
		t.Errorf("%d messages of %d in the end", len(b.got), 3*window)
	}
}

// A message that the handler refuses stays; nothing overtakes it; what comes meanwhile is not acknowledged.
func TestRefused(t *testing.T) {
	w := newNet(t, 2, 1024)
	defer w.close()
	a, b := w.ends[0], w.ends[1]
	b.refuse = true
	for i := range 5 {
		a.send(b, State, 3, fmt.Sprint(i))
	}
	w.arriveAll()
	for range 3 {
		w.tick(w.now.Add(retryAfter))
		w.arriveAll()
	}
	if len(b.got) != 0 || b.links.Count.Refused == 0 || a.links.Acked(b.self, State, 3) {
		t.Fatalf("took %v, counted %+v", b.got, b.links.Count)
	}
	b.links.Kick(w.now) // still no room
	b.drain()
	b.refuse = false
	a.send(b, State, 4, "another lane")
	w.arriveAll()
	if len(b.got) != 1 || b.got[0].Group != 4 {
		t.Fatalf("took %v", b.got)
	}
	b.links.Kick(w.now)
	b.drain()
	w.settle()
	if len(b.got) != 6 {
		t.Errorf("took %d messages of 6", len(b.got))
	}
}

// After Close nothing of that incarnation is taken or sent, and nothing of it is kept.
func TestClose(t *testing.T) {
	// rows: FD-23
	w := newNet(t, 2, 1024)
	defer w.close()
	a, b := w.ends[0], w.ends[1]
	b.refuse = true
	a.send(b, Control, 0, "refused")
	b.send(a, Control, 0, strings.Repeat("x", 100_000))
	w.arriveAll()
	late := w.under
	a.send(b, Control, 0, "late")
	late = append(late, w.under...)
	w.under = nil
	b.links.Close(a.self.Incarnation)
	b.refuse = false
	if !b.links.Dead(a.self.Incarnation) || b.links.Dead(b.self.Incarnation) {
		t.Fatal("the wrong process is dead")
	}
	if held := b.out.Arena().Outstanding(); held != 0 {
		t.Errorf("keeps %d frames", held)
	}
	foreign := b.links.Count.Foreign
	for _, p := range late {
		w.arrive(p)
	}
	b.links.Kick(w.now)
	b.send(a, Control, 0, "never")
	if len(b.got) != 0 || len(w.under) != 0 || b.links.Count.Foreign != foreign+uint64(len(late)) {
		t.Errorf("took %v, sent %d packets, counted %+v", b.got, len(w.under), b.links.Count)
	}
	b.links.Close(77) // nobody
	if !b.links.Acked(a.self, Control, 0) || !b.links.Idle() {
		t.Error("something is still owed to the dead")
	}
}

// Packets that are meant for another incarnation, or for no lane, are counted and dropped.
func TestForeignPackets(t *testing.T) {
	self, peer := process(1), process(2)
	for _, c := range []struct {
		name string
		h    wire.Header
		ok   bool
	}{
		{"mine", wire.Header{View: peer.Incarnation, Rank: uint32(self.Incarnation), Seq: 1}, true},
		{"of another incarnation of this process", wire.Header{View: peer.Incarnation, Rank: 5, Seq: 1}, false},
		{"from nobody", wire.Header{View: 0, Rank: uint32(self.Incarnation), Seq: 1}, false},
		{"of no kind", wire.Header{View: peer.Incarnation, Rank: uint32(self.Incarnation), Seq: 1, Aux: uint32(kinds)},
			false},
		{"without a number", wire.Header{View: peer.Incarnation, Rank: uint32(self.Incarnation)}, false},
		{"far ahead", wire.Header{View: peer.Incarnation, Rank: uint32(self.Incarnation), Seq: aheadMax + 1}, false},
	} {
		w := newNet(t, 1, 64)
		x := w.ends[0]
		for _, kind := range []wire.Kind{wire.KindLink, wire.KindLinkAck} {
			c.h.Kind = kind
			data := append(make([]byte, wire.HeaderLen), "hello"...)
			c.h.Encode(data)
			wire.Seal(data)
			w.arrive(flight{self.Endpoint(), peer.Endpoint(), data})
		}
		if (len(x.got) == 1) != c.ok {
			t.Errorf("%s: took %v, counted %+v", c.name, x.got, x.links.Count)
		}
		if n := x.links.Count; !c.ok && n.Foreign+n.Duplicates == 0 {
			t.Errorf("%s: not counted: %+v", c.name, n)
		}
		w.close()
	}
}

// With no frames left nothing is sent, nothing is lost, and it goes on when there are some.
func TestOutOfFrames(t *testing.T) {
	w := newNet(t, 2, 4)
	a, b := w.ends[0], w.ends[1]
	var kept []frame.Frame
	for f, ok := a.out.Alloc(); ok; f, ok = a.out.Alloc() {
		kept = append(kept, f)
	}
	a.send(b, Control, 0, strings.Repeat("y", 1000))
	if len(w.under) != 0 || a.links.Deadline() == clock.Never || a.out.Starved == 0 {
		t.Fatalf("%d packets without a frame, deadline %v", len(w.under), a.links.Deadline())
	}
	for _, f := range kept {
		a.out.Arena().Tx().Release(f)
	}
	w.settle()
	if len(b.got) != 1 || len(b.got[0].Data) != 1000 {
		t.Errorf("took %d messages", len(b.got))
	}
	w.close()
}

// A process remembers a bounded number of peers, however many names a network makes up.
func TestPeersMax(t *testing.T) {
	w := newNet(t, 1, 8)
	x := w.ends[0]
	for i := range peersMax + 10 {
		h := wire.Header{Kind: wire.KindLink, View: uint64(i) + 1, Rank: uint32(x.self.Incarnation), Seq: 2}
		f, ok := x.out.Make(&h, nil)
		if !ok {
			t.Fatalf("frames run out at peer %d", i)
		}
		x.links.OnPacket(w.now, &h, f, dataplane.Endpoint{})
		x.links.Close(uint64(i) + 1) // gives the frame back
		x.links.peers[uint64(i)+1] = &peer{}
	}
	if n := len(x.links.peers); n < peersMax {
		t.Fatalf("%d peers", n)
	}
	before := len(x.links.peers)
	h := wire.Header{Kind: wire.KindLink, View: 1 << 40, Rank: uint32(x.self.Incarnation), Seq: 1}
	f, _ := x.out.Make(&h, nil)
	x.links.OnPacket(w.now, &h, f, dataplane.Endpoint{})
	if len(x.got) != 0 || len(x.links.peers) != before {
		t.Errorf("%d peers, took %v", len(x.links.peers), x.got)
	}
	clear(x.links.peers)
	w.close()
}

// FuzzLink lets any packets of a lane arrive, and checks that what is handed up was sent in order.
func FuzzLink(f *testing.F) {
	f.Add([]byte{0, 1, 0, 3, 1, 2, 3, 0, 2, 1, 1, 9, 1, 1})
	f.Add([]byte{0, 2, 1, 0, 4, 1, 0, 1, 0, 5, 3, 2, 0, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		w := newNet(t, 2, 256)
		x, peer := w.ends[0], w.ends[1]
		next := func() byte {
			if len(b) == 0 {
				return 0
			}
			v := b[0]
			b = b[1:]
			return v
		}
		for len(b) > 0 {
			switch k := next() % 8; k {
			case 0:
				w.tick(w.now.Add(retryAfter))
			case 1:
				x.refuse = !x.refuse
				x.links.Kick(w.now)
			case 2:
				x.send(peer, Kind(next()%byte(kinds)), uint32(next()%2), "something")
			case 3:
				if next() == 0 {
					x.links.Close(peer.self.Incarnation)
				}
			default:
				h := wire.Header{Kind: wire.KindLink + wire.Kind(k%2), Flags: next(), Group: uint32(next() % 2),
					View: peer.self.Incarnation, Seq: uint64(next()), Rank: uint32(x.self.Incarnation),
					Aux: uint32(next() % 4)}
				data := append(make([]byte, wire.HeaderLen), b[:min(len(b), 3)]...)
				h.Encode(data)
				wire.Seal(data)
				x.take(&h, flight{x.self.Endpoint(), peer.self.Endpoint(), data})
			}
			x.drain()
			w.under = nil
			if n := x.out.Arena().Outstanding(); n > int(kinds)*2*(aheadMax+window) {
				t.Fatalf("%d frames kept", n)
			}
		}
		w.close()
	})
}

// A message above the limit is dropped whole; the ones around it come.
func TestMessageAboveTheLimit(t *testing.T) {
	w := newNet(t, 2, 1024)
	defer w.close()
	a, b := w.ends[0], w.ends[1]
	b.links.cfg.Message = 500
	for _, n := range []int{500, 501, 5000, 3} {
		a.send(b, Peer, 1, strings.Repeat("z", n))
	}
	w.settle()
	if len(b.got) != 2 || len(b.got[0].Data) != 500 || len(b.got[1].Data) != 3 {
		for _, m := range b.got {
			t.Errorf("took a message of %d bytes", len(m.Data))
		}
	}
	if b.links.Count.Malformed != 2 {
		t.Errorf("counted %+v", b.links.Count)
	}
}

// Messages that had to wait for the window share packets; those that are refused in the middle of one, and those behind
// them, are not lost; buffers are lent again.
func TestMessagesShareAPacket(t *testing.T) {
	w := newNet(t, 2, 1024)
	defer w.close()
	a, b := w.ends[0], w.ends[1]
	const count = 1000
	var want []string
	for i := range count {
		want = append(want, fmt.Sprint("message ", i))
		a.sendLent(b, Peer, 1, want[i])
	}
	a.sendLent(b, Peer, 1, strings.Repeat("long", 300)) // in packets of its own
	a.sendLent(b, Peer, 1, "the last")
	want = append(want, strings.Repeat("long", 300), "the last")
	b.room = 70 // in the middle of the first shared packet
	w.arriveAll()
	for range 3 {
		w.tick(w.now.Add(retryAfter))
		w.arriveAll()
	}
	if len(b.got) != 70 {
		t.Fatalf("%d messages were taken, there was room for 70", len(b.got))
	}
	for b.refuse {
		b.refuse, b.room = false, 7
		b.links.Kick(w.now)
		b.drain()
		w.settle()
	}
	var got []string
	for _, m := range b.got {
		got = append(got, string(m.Data))
	}
	if !slices.Equal(got, want) {
		t.Errorf("%d messages of %d came, or in another order", len(got), len(want))
	}
	if n := a.links.Count.Sent; n > window+count/10 {
		t.Errorf("%d packets for %d messages of a dozen bytes", n, count)
	}
	if n := a.links.spare; n < count*bufferMin/2 || n > sparesMax {
		t.Errorf("%d bytes of buffers are kept", n)
	}
}

// A packet of several messages that does not hold what it says is counted, and ends nothing else.
func TestMalformedSharedPackets(t *testing.T) {
	w := newNet(t, 2, 64)
	defer w.close()
	a, b := w.ends[0], w.ends[1]
	tooLong := []byte{1, 7, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1}
	for i, body := range [][]byte{{5, 1, 2}, {0x80}, tooLong, {}} {
		h := wire.Header{Kind: wire.KindLink, Flags: flagMany, View: a.self.Incarnation, Seq: uint64(i + 1),
			Rank: uint32(b.self.Incarnation & incMask), Aux: uint32(Peer)}
		data := append(make([]byte, wire.HeaderLen), body...)
		h.Encode(data)
		wire.Seal(data)
		b.take(&h, flight{b.self.Endpoint(), a.self.Endpoint(), data})
		b.drain()
	}
	if len(b.got) != 1 || !slices.Equal(b.got[0].Data, []byte{7}) || b.links.Count.Malformed != 3 {
		t.Errorf("took %v, counted %d malformed", b.got, b.links.Count.Malformed)
	}
}
