package tree

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/khamsin-io/khamsin/dataplane"
	"github.com/khamsin-io/khamsin/dataplane/frame"
)

// wireNet is a network of unicast transports that lose nothing. All belong to one goroutine.
type wireNet struct {
	t     testing.TB
	nodes map[dataplane.Endpoint]*wire
}

// wire is one transport of a wireNet.
type wire struct {
	net   *wireNet
	arena *frame.Arena
	local dataplane.Endpoint
	queue []dataplane.Packet // arrived; frames of the receiver's Rx pool
	sent  int
	peers map[dataplane.Endpoint]bool // those that packets were sent to or came from
	full  int                         // packets that Send still takes before it says no; negative: no limit
	dead  bool
}

const wireMTU = 1000

func (n *wireNet) open(i int) *wire {
	arena, err := frame.New(frame.Config{TxChunks: 512, RxRuns: 512})
	if err != nil {
		n.t.Fatal(err)
	}
	w := &wire{net: n, arena: arena, full: -1, peers: map[dataplane.Endpoint]bool{}}
	w.local = dataplane.EndpointOf(netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 100))
	n.nodes[w.local] = w
	return w
}

func (w *wire) Caps() dataplane.Caps                { return dataplane.Caps{Name: "wire", MTU: wireMTU, Batch: 64} }
func (w *wire) Arena() *frame.Arena                 { return w.arena }
func (w *wire) Local() dataplane.Endpoint           { return w.local }
func (w *wire) Subscribe(dataplane.Channel) error   { return dataplane.ErrNoMulticast }
func (w *wire) Unsubscribe(dataplane.Channel) error { return dataplane.ErrNoMulticast }
func (w *wire) Wake()                               {}
func (w *wire) Stats() dataplane.Stats              { return dataplane.Stats{SentPackets: uint64(w.sent)} }

func (w *wire) Send(batch []dataplane.Packet) (int, error) {
	for i, p := range batch {
		b := w.arena.Bytes(p.Frame)
		if len(b) > wireMTU {
			return i, dataplane.ErrTooLarge
		}
		if w.full == 0 {
			return i, nil
		}
		w.full--
		w.sent++
		w.peers[p.To] = true
		if to := w.net.nodes[p.To]; to != nil && !to.dead {
			f, ok := to.arena.Rx().Get()
			if !ok {
				w.net.t.Fatalf("%v has no frame left", to.local)
			}
			f.Len = uint32(len(b))
			copy(to.arena.Bytes(f), b)
			to.peers[w.local] = true
			to.queue = append(to.queue, dataplane.Packet{Frame: f, From: w.local})
		}
		w.arena.Release(p.Frame)
	}
	return len(batch), nil
}

func (w *wire) Receive(batch []dataplane.Packet, _ dataplane.Wait) (int, error) {
	n := copy(batch, w.queue)
	w.queue = slices.Delete(w.queue, 0, n)
	return n, nil
}

func (w *wire) Close() error {
	for _, p := range w.queue {
		w.arena.Release(p.Frame)
	}
	return w.arena.Close()
}

// forest is a group of trees over one wireNet.
type forest struct {
	t     testing.TB
	net   *wireNet
	trees []*Transport
	wires []*wire
	from  map[int]dataplane.Endpoint // by member: whom the last packet came from
}

// index returns which member has an endpoint.
func (f *forest) index(e dataplane.Endpoint) int {
	return slices.IndexFunc(f.trees, func(tr *Transport) bool { return tr.Local() == e })
}

const testChannel = dataplane.Channel(77)

func plant(t testing.TB, members int, cfg Config) *forest {
	f := &forest{t: t, net: &wireNet{t: t, nodes: map[dataplane.Endpoint]*wire{}}, from: map[int]dataplane.Endpoint{}}
	var all []dataplane.Endpoint
	for i := range members {
		w := f.net.open(i + 1)
		tr, err := New(w, cfg)
		if err != nil {
			t.Fatal(err)
		}
		f.trees, f.wires, all = append(f.trees, tr), append(f.wires, w), append(all, w.local)
	}
	for _, tr := range f.trees {
		tr.SetRoster(testChannel, 1, all)
	}
	return f
}

// close checks that every frame came home.
func (f *forest) close() {
	for i, tr := range f.trees {
		if err := tr.Close(); err != nil {
			f.t.Errorf("member %d: %v", i, err)
		}
	}
}

func (f *forest) send(from int, payload string) {
	f.t.Helper()
	tr := f.trees[from]
	fr, ok := tr.Arena().Tx().Get()
	if !ok {
		f.t.Fatal("no frame to send with")
	}
	fr.Len = uint32(len(payload))
	copy(tr.Arena().Bytes(fr), payload)
	if n, err := tr.Send([]dataplane.Packet{{Frame: fr, Channel: testChannel}}); n != 1 || err != nil {
		f.t.Fatal(n, err)
	}
}

// settle lets all live members receive until nothing moves, and returns what each of them got and after how many
// rounds.
func (f *forest) settle() (got [][]string, rounds int) {
	got = make([][]string, len(f.trees))
	batch := make([]dataplane.Packet, 64)
	for moved := true; moved; rounds++ {
		moved = slices.ContainsFunc(f.wires, func(w *wire) bool { return !w.dead && len(w.queue) > 0 })
		for i, tr := range f.trees {
			if f.wires[i].dead {
				continue
			}
			n, err := tr.Receive(batch, dataplane.Wait{})
			if err != nil {
				f.t.Fatal(err)
			}
			for _, p := range batch[:n] {
				f.from[i] = p.From
				got[i] = append(got[i], string(tr.Arena().Bytes(p.Frame)))
				tr.Arena().Rx().Release(p.Frame)
			}
			moved = moved || n > 0 || len(f.wires[i].queue) > 0
		}
	}
	return got, rounds - 1
}

// A multicast to a hundred members costs its sender ten packets and reaches everyone once, in two steps.
//
// rows: TRN-02
func TestHundredMembers(t *testing.T) {
	const members = 100
	f := plant(t, members, Config{})
	defer f.close()
	for from := range 3 {
		f.wires[from].sent = 0
		f.send(from, fmt.Sprint("from ", from))
		if n := f.wires[from].sent; n != DefaultFanOut {
			t.Errorf("the sender sent %d packets, want %d", n, DefaultFanOut)
		}
		got, rounds := f.settle()
		for i := range got {
			want := 1
			if i == from {
				want = 0
			}
			if len(got[i]) != want || want == 1 && got[i][0] != fmt.Sprint("from ", from) {
				t.Errorf("member %d got %q", i, got[i])
			}
		}
		if rounds > 2 {
			t.Errorf("it took %d rounds", rounds)
		}
	}
	busiest := 0
	for _, w := range f.wires {
		busiest = max(busiest, w.sent)
	}
	if busiest > 3*DefaultFanOut {
		t.Errorf("a member sent %d packets for three multicasts", busiest)
	}
}

// Whatever the sizes: everyone gets each packet once, nobody sends much more than the fan-out.
func TestEverySize(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		members := rapid.IntRange(1, 130).Draw(rt, "members")
		fanOut := rapid.IntRange(2, 12).Draw(rt, "fanOut")
		from := rapid.IntRange(0, members-1).Draw(rt, "from")
		size := rapid.IntRange(1, wireMTU-reserve).Draw(rt, "size")
		f := plant(t, members, Config{FanOut: fanOut})
		defer f.close()
		payload := string(bytes.Repeat([]byte{'x'}, size))
		f.send(from, payload)
		got, _ := f.settle()
		for i := range got {
			if i != from && (len(got[i]) != 1 || got[i][0] != payload) || i == from && len(got[i]) != 0 {
				rt.Fatalf("member %d of %d, fan-out %d: %d packets", i, members, fanOut, len(got[i]))
			}
		}
		most := max(fanOut, (members+40)/41) // lists have room for 41
		if n := f.wires[from].sent; n > most {
			rt.Fatalf("the sender of %d members sent %d packets, fan-out %d", members, n, fanOut)
		}
	})
}

// When a relay dies the sender passes it over as soon as its silence shows, and those below it are reached again.
//
// rows: TRN-07
func TestDeadRelay(t *testing.T) {
	const members = 30
	f := plant(t, members, Config{FanOut: 3})
	defer f.close()
	f.send(0, "first")
	f.settle()
	victim := slices.IndexFunc(f.trees, func(tr *Transport) bool { return tr.relayed.Load() > 0 })
	if victim < 0 {
		t.Fatal("nobody relays")
	}
	f.wires[victim].dead = true
	f.wires[victim].queue = nil
	missing := func() (missed int) {
		f.send(0, "again")
		got, _ := f.settle()
		for i := range got {
			if i != 0 && i != victim && len(got[i]) == 0 {
				missed++
			}
		}
		for i := range f.trees { // who lives answers, as receivers of a stream do
			if i != 0 && i != victim {
				f.answer(i, 0)
			}
		}
		f.settle()
		return missed
	}
	if missing() == 0 {
		t.Fatal("the victim's part of the tree got everything: it was no relay")
	}
	for end := time.Now().Add(10 * time.Second); missing() > 0; time.Sleep(replanAfter) {
		if time.Now().After(end) {
			t.Fatal("members below the dead relay still get nothing")
		}
	}
}

// answer sends a packet from one member to another.
func (f *forest) answer(from, to int) {
	fr, _ := f.trees[from].Arena().Tx().Get()
	fr.Len = 1
	if _, err := f.trees[from].Send([]dataplane.Packet{{Frame: fr, To: f.trees[to].Local()}}); err != nil {
		f.t.Fatal(err)
	}
}

// Without relays the sender reaches everybody itself, and packets may be as long as the inner transport takes them.
//
// rows: TRN-05
func TestDirect(t *testing.T) {
	f := plant(t, 40, Config{Direct: true})
	defer f.close()
	if mtu := f.trees[0].Caps().MTU; mtu != wireMTU {
		t.Errorf("MTU %d, want %d", mtu, wireMTU)
	}
	f.send(5, "x")
	if n := f.wires[5].sent; n != 39 {
		t.Errorf("%d packets, want 39", n)
	}
	f.settle()
}

// A packet to one process takes the shortest path: one hop, however large the tree is.
//
// rows: TRN-08
func TestUnicastIsDirect(t *testing.T) {
	f := plant(t, 100, Config{})
	defer f.close()
	fr, _ := f.wires[7].arena.Tx().Get()
	fr.Len = uint32(copy(f.wires[7].arena.Bytes(frame.Frame{Chunk: fr.Chunk, Off: fr.Off, Len: 2}), "to"))
	before := 0
	for _, w := range f.wires {
		before += w.sent
	}
	if n, err := f.trees[7].Send([]dataplane.Packet{{Frame: fr, To: f.trees[93].Local()}}); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	got, _ := f.settle()
	sent := -before
	for _, w := range f.wires {
		sent += w.sent
	}
	if sent != 1 || len(got[93]) != 1 || got[93][0] != "to" {
		t.Errorf("%d packets were sent; member 93 got %q", sent, got[93])
	}
}

// A packet to a channel that nobody is known on goes to the seeds.
func TestSeeds(t *testing.T) {
	f := plant(t, 3, Config{})
	defer f.close()
	seeded, err := New(f.net.open(50), Config{Seeds: []dataplane.Endpoint{f.trees[0].Local(), f.trees[2].Local()}})
	if err != nil {
		t.Fatal(err)
	}
	f.trees, f.wires = append(f.trees, seeded), append(f.wires, seeded.inner.(*wire))
	f.send(3, "who is there?")
	got, _ := f.settle()
	if len(got[0]) != 1 || len(got[1]) != 0 || len(got[2]) != 1 {
		t.Errorf("got %q", got)
	}
}

// A relay passes nothing on to those whom it does not know, and counts bad lists.
func TestRelayTrustsNobody(t *testing.T) {
	f := plant(t, 3, Config{})
	defer f.close()
	outsider := f.net.open(99)
	defer outsider.Close()
	raw := func(b []byte) {
		fr, _ := outsider.arena.Tx().Get()
		fr.Len = uint32(len(b))
		copy(outsider.arena.Bytes(fr), b)
		if _, err := outsider.Send([]dataplane.Packet{{Frame: fr, To: f.trees[0].Local()}}); err != nil {
			t.Fatal(err)
		}
	}
	list := []byte{magic0, magic1, 2, 0, family4, 0}
	for _, e := range []dataplane.Endpoint{outsider.local, f.trees[1].Local()} {
		list = append(list, e.IP[12:]...)
		list = binary.BigEndian.AppendUint16(list, uint16(e.Port))
	}
	raw(append(list, 'h', 'i'))
	got, _ := f.settle()
	if len(got[0]) != 1 || got[0][0] != "hi" || len(got[1]) != 1 || len(outsider.queue) != 0 {
		t.Errorf("got %q, the outsider %d packets", got, len(outsider.queue))
	}
	if st := f.trees[0].TreeStats(); st.Unknown != 1 || st.Relayed != 1 {
		t.Errorf("%+v", st)
	}
	for _, bad := range [][]byte{
		list, // nothing behind it
		{magic0, magic1}, {magic0, magic1, 0, 0, family4, 0, 'x'}, {magic0, magic1, 0xff, 0xff, family6, 0, 'x'},
		append([]byte{magic0, magic1, 1, 0, 9, 0}, make([]byte, 40)...),
	} {
		before := f.trees[0].TreeStats().Malformed
		raw(bad)
		if got, _ := f.settle(); len(got[0]) != 0 || f.trees[0].TreeStats().Malformed != before+1 {
			t.Errorf("%x: got %q", bad, got[0])
		}
	}
}

// What is not genuine is not passed on: nobody can use a member to send to all others.
func TestRelayPassesOnWhatIsGenuine(t *testing.T) {
	f := plant(t, 3, Config{Genuine: func(packet []byte) bool { return string(packet) == "hi" }})
	defer f.close()
	outsider := f.net.open(99)
	defer outsider.Close()
	list := []byte{magic0, magic1, 1, 0, family4, 0}
	to := f.trees[1].Local()
	list = binary.BigEndian.AppendUint16(append(list, to.IP[12:]...), uint16(to.Port))
	for _, text := range []string{"hi", "ho"} {
		fr, _ := outsider.arena.Tx().Get()
		packet := append(list, text...)
		fr.Len = uint32(len(packet))
		copy(outsider.arena.Bytes(fr), packet)
		if _, err := outsider.Send([]dataplane.Packet{{Frame: fr, To: f.trees[0].Local()}}); err != nil {
			t.Fatal(err)
		}
	}
	got, _ := f.settle()
	if len(got[0]) != 2 || len(got[1]) != 1 || got[1][0] != "hi" || f.trees[0].TreeStats().Forged != 1 {
		t.Errorf("got %q, %+v", got, f.trees[0].TreeStats())
	}
}

// What the inner transport does not take waits, in order, and nothing more is accepted meanwhile.
func TestBackPressure(t *testing.T) {
	f := plant(t, 5, Config{})
	defer f.close()
	f.wires[0].full = 2
	f.send(0, "one")
	tr := f.trees[0]
	fr, _ := tr.Arena().Tx().Get()
	fr.Len = 3
	copy(tr.Arena().Bytes(fr), "two")
	p := []dataplane.Packet{{Frame: fr, Channel: testChannel}}
	if n, err := tr.Send(p); n != 0 || err != nil {
		t.Fatal(n, err)
	}
	f.wires[0].full = -1
	if n, err := tr.Send(p); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	got, _ := f.settle()
	for i := 1; i < 5; i++ {
		if fmt.Sprint(got[i]) != "[one two]" {
			t.Errorf("member %d got %v", i, got[i])
		}
	}
}

// Bad sends are refused as a transport refuses them.
func TestRefusals(t *testing.T) {
	f := plant(t, 2, Config{})
	defer f.close()
	tr := f.trees[0]
	if err := tr.Subscribe(dataplane.ChannelMax + 1); !errors.Is(err, dataplane.ErrBadChannel) {
		t.Errorf("Subscribe: %v", err)
	}
	fr, _ := tr.Arena().Tx().Get()
	defer tr.Arena().Tx().Release(fr)
	fr.Len = wireMTU
	if n, err := tr.Send([]dataplane.Packet{{Frame: fr, Channel: testChannel}}); n != 0 ||
		!errors.Is(err, dataplane.ErrTooLarge) {
		t.Errorf("Send above the MTU: %d, %v", n, err)
	}
	if _, err := New(f.wires[0], Config{FanOut: FanOutMax + 1}); err == nil {
		t.Error("a fan-out above the limit is accepted")
	}
}

// Sending to a tree of ten and relaying allocate nothing.
func TestNoAllocation(t *testing.T) {
	f := plant(t, 11, Config{})
	defer f.close()
	tr := f.trees[0]
	for _, w := range f.wires[1:] {
		w.dead = true
	}
	batch := make([]dataplane.Packet, 1)
	if n := testing.AllocsPerRun(200, func() {
		fr, _ := tr.Arena().Tx().Get()
		fr.Len = 100
		batch[0] = dataplane.Packet{Frame: fr, Channel: testChannel}
		if _, err := tr.Send(batch); err != nil {
			t.Fatal(err)
		}
		tr.Arena().Tx().Free()
	}); n > 0.1 {
		t.Errorf("%v allocations for a packet", n)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte{magic0, magic1, 1, 0, family4, 0, 1, 2, 3, 4, 5, 6, 'x'})
	f.Add([]byte{magic0, magic1, 1, 0, family6, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		l, found, ok := parse(b)
		if !found || !ok {
			return
		}
		if l.head >= len(b) || l.head > reserve {
			t.Fatalf("a head of %d bytes in %d", l.head, len(b))
		}
		for i := range len(l.entries) / l.size {
			l.at(i)
		}
	})
}
