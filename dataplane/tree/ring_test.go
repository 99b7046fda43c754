package tree

import (
	"fmt"
	"math/bits"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/khamsin-io/khamsin/dataplane"
	"github.com/khamsin-io/khamsin/dataplane/frame"
)

// sendTo sends a packet from one member to another.
func (f *forest) sendTo(from, to int, payload string) {
	f.t.Helper()
	tr := f.trees[from]
	fr, ok := tr.Arena().Tx().Get()
	if !ok {
		f.t.Fatal("no frame to send with")
	}
	fr.Len = uint32(len(payload))
	copy(tr.Arena().Bytes(fr), payload)
	if n, err := tr.Send([]dataplane.Packet{{Frame: fr, To: f.trees[to].Local()}}); n != 1 || err != nil {
		f.t.Fatal(n, err)
	}
}

// far returns a member that member 0 reaches by way of others, and the first of them.
func (f *forest) far() (far, relay int) {
	r := f.trees[0].rings.Load()
	for to := range f.trees {
		if at := f.index(r.hop(f.trees[to].Local(), f.trees[0].clock.Now())); at != to {
			return to, at
		}
	}
	f.t.Fatal("everybody is a neighbour")
	return 0, 0
}

// With a bound on neighbours, multicasts reach everybody once and packets to one process arrive as from their sender,
// whatever the sizes, and nobody ever talks to more others than the bound.
//
// rows: TRN-04
func TestNeighboursAreBounded(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		members := rapid.IntRange(2, 200).Draw(rt, "members")
		most := rapid.IntRange(4, 30).Draw(rt, "neighbours")
		fanOut := rapid.IntRange(2, 12).Draw(rt, "fanOut")
		f := plant(t, members, Config{FanOut: fanOut, Neighbours: most})
		defer f.close()
		for range 5 {
			from := rapid.IntRange(0, members-1).Draw(rt, "from")
			to := rapid.IntRange(0, members-1).Draw(rt, "to")
			f.send(from, "all")
			got, _ := f.settle()
			for i := range got {
				if i != from && fmt.Sprint(got[i]) != "[all]" || i == from && len(got[i]) > 0 {
					rt.Fatalf("member %d of %d got %q from %d", i, members, got[i], from)
				}
			}
			if from == to {
				continue
			}
			f.sendTo(from, to, "one")
			got, _ = f.settle()
			for i := range got {
				if i == to && fmt.Sprint(got[i]) != "[one]" || i != to && len(got[i]) > 0 {
					rt.Fatalf("member %d got %q, sent from %d to %d", i, got[i], from, to)
				}
			}
			if e := f.from[to]; e != f.trees[from].Local() {
				rt.Fatalf("what %v sent comes from %v", f.trees[from].Local(), e)
			}
		}
		for i, w := range f.wires {
			if len(w.peers) > most {
				rt.Fatalf("member %d of %d talks to %d others, want up to %d", i, members, len(w.peers), most)
			}
		}
	})
}

// With enough neighbours, a packet to one process takes no more steps than the number of members has bits, and a
// multicast costs its sender about as many packets as its fan-out.
//
// rows: TRN-02, TRN-08
func TestShortWays(t *testing.T) {
	sizes := []int{25, 100, 300}
	if !testing.Short() {
		sizes = append(sizes, 1000)
	}
	for _, members := range sizes {
		f := plant(t, members, Config{Neighbours: min(24, members/2)})
		for _, tr := range f.trees { // nobody falls silent meanwhile
			for _, p := range *tr.known.Load() {
				p.lives.Store(int64(tr.clock.Now().Add(time.Hour)))
			}
		}
		longest, sum := 0, 0
		r := f.trees[0].rings.Load()
		for to := 1; to < members; to++ {
			hops := 0
			for at := 0; at != to; hops++ {
				at = f.index(f.trees[at].rings.Load().hop(f.trees[to].Local(), f.trees[at].clock.Now()))
			}
			longest, sum = max(longest, hops), sum+hops
		}
		t.Logf("%d members, %d neighbours: %d steps at most, %.1f on average", members, len(r.neighbours), longest,
			float64(sum)/float64(members-1))
		if longest > bits.Len(uint(members)) {
			t.Errorf("%d steps", longest)
		}
		f.send(0, "x")
		if n := f.wires[0].sent; n > len(r.neighbours)+members/41 {
			t.Errorf("the sender sent %d packets to %d members, and has %d neighbours", n, members, len(r.neighbours))
		}
		got, _ := f.settle()
		for i := range got {
			if i > 0 && len(got[i]) != 1 {
				t.Fatalf("member %d got %q", i, got[i])
			}
		}
		f.close()
	}
}

// A neighbour that dies is passed over when its silence shows, by multicasts and by packets to one process. Those who
// live tell their neighbours so, without any other traffic.
//
// rows: TRN-07
func TestDeadNeighbour(t *testing.T) {
	const members = 40
	f := plant(t, members, Config{Neighbours: 10})
	defer f.close()
	far, victim := f.far()
	f.wires[victim].dead = true
	lost := func() (n int) {
		f.send(0, "all")
		f.sendTo(0, far, "one")
		got, _ := f.settle()
		for i := range got {
			if i != 0 && i != victim && len(got[i]) == 0 {
				n++
			}
		}
		return n
	}
	if lost() == 0 {
		t.Fatal("the victim passes nothing on")
	}
	for end := time.Now().Add(10 * time.Second); lost() > 0; time.Sleep(replanAfter) {
		if time.Now().After(end) {
			t.Fatal("members behind the dead neighbour still get nothing")
		}
	}
	for end := time.Now().Add(2 * silentAfter); time.Now().Before(end); time.Sleep(replanAfter) {
		f.settle() // nothing but signs of life
	}
	if n := lost(); n > 0 {
		t.Errorf("%d members got nothing after a silence", n)
	}
}

// A group inside another one, and one that overlaps, are reached by the rings of both.
func TestSeveralRosters(t *testing.T) {
	const members, second = 60, dataplane.Channel(78)
	f := plant(t, members, Config{Neighbours: 16})
	defer f.close()
	var upper []dataplane.Endpoint
	for _, tr := range f.trees[30:] {
		upper = append(upper, tr.Local())
	}
	f.trees, f.wires = f.trees[:members:members], f.wires[:members:members]
	for range 30 { // not in the first group
		w := f.net.open(len(f.wires) + 1)
		tr, err := New(w, Config{Neighbours: 16})
		if err != nil {
			t.Fatal(err)
		}
		f.trees, f.wires, upper = append(f.trees, tr), append(f.wires, w), append(upper, w.local)
	}
	for _, tr := range f.trees[30:] {
		tr.SetRoster(second, 2, upper)
	}
	for _, from := range []int{0, 30, 59} {
		f.send(from, "lower")
		got, _ := f.settle()
		for i := range got[:members] {
			if want := 1; i != from && len(got[i]) != want {
				t.Errorf("member %d got %q from %d", i, got[i], from)
			}
		}
	}
	for _, to := range []int{35, 60, 89} {
		f.sendTo(40, to, "one")
		if got, _ := f.settle(); len(got[to]) != 1 {
			t.Errorf("member %d got %q", to, got[to])
		}
	}
	for i, w := range f.wires {
		if len(w.peers) > 2*16 {
			t.Errorf("member %d talks to %d others", i, len(w.peers))
		}
	}
}

// Sending by way of neighbours, relaying and telling that one lives allocate nothing.
func TestNoAllocationByNeighbours(t *testing.T) {
	f := plant(t, 30, Config{Neighbours: 10})
	defer f.close()
	far, relay := f.far()
	a, b := f.trees[0], f.trees[relay]
	for _, w := range f.wires[1:] {
		w.dead = w.local != b.Local()
	}
	out, in := make([]dataplane.Packet, 2), make([]dataplane.Packet, 16)
	turn := func() {
		for i, p := range []dataplane.Packet{{Channel: testChannel}, {To: f.trees[far].Local()}} {
			p.Frame, _ = a.Arena().Tx().Get()
			p.Frame.Len = 100
			out[i] = p
		}
		if _, err := a.Send(out); err != nil {
			t.Fatal(err)
		}
		b.lifeAt = 0
		n, err := b.Receive(in, dataplane.Wait{})
		if err != nil || n != 1 {
			t.Fatal(n, err)
		}
		b.Arena().Rx().Release(in[0].Frame)
		a.Arena().Tx().Free()
		b.Arena().Rx().Free()
	}
	turn()
	if n := testing.AllocsPerRun(200, turn); n > 0.1 {
		t.Errorf("%v allocations", n)
	}
	if st := b.TreeStats(); st.Relayed == 0 {
		t.Errorf("%+v", st)
	}
}

// Lists that no sender makes are refused, and nobody's packets are passed on for strangers.
func TestRoutedByStrangers(t *testing.T) {
	f := plant(t, 30, Config{Neighbours: 10})
	defer f.close()
	outsider := f.net.open(99)
	defer outsider.Close()
	route := func(number byte, flags byte, to dataplane.Endpoint, text string) {
		b := []byte{magic0, magic1, number, 0, family4, flags}
		for _, e := range []dataplane.Endpoint{to, outsider.local} {
			b = append(b, e.IP[12:]...)
			b = append(b, byte(e.Port>>8), byte(e.Port))
		}
		b = append(b, text...)
		fr, _ := outsider.arena.Tx().Get()
		fr = frame.Frame{Chunk: fr.Chunk, Off: fr.Off, Len: uint32(len(b))}
		copy(outsider.arena.Bytes(fr), b)
		if _, err := outsider.Send([]dataplane.Packet{{Frame: fr, To: f.trees[0].Local()}}); err != nil {
			t.Fatal(err)
		}
	}
	route(2, flagRoute, f.trees[20].Local(), "x")
	got, _ := f.settle()
	if st := f.trees[0].TreeStats(); len(got[20]) != 0 || st.Unknown != 1 {
		t.Errorf("got %q, %+v", got[20], st)
	}
	for _, bad := range []struct{ number, flags byte }{{1, flagRoute}, {2, 3}, {2, 8}, {2, flagLife}, {0, flagLife}} {
		before := f.trees[0].TreeStats().Malformed
		route(bad.number, bad.flags, f.trees[0].Local(), "x")
		if got, _ := f.settle(); len(got[0]) != 0 || f.trees[0].TreeStats().Malformed != before+1 {
			t.Errorf("%+v: got %q", bad, got[0])
		}
	}
}
