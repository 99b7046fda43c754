package xdp

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/khamsin-io/khamsin/dataplane"
	"github.com/khamsin-io/khamsin/dataplane/wire"
	"github.com/khamsin-io/khamsin/internal/netns"
	"github.com/khamsin-io/khamsin/transports/udp"
)

const patience = 10 * time.Second

func openUntilEnd(tb testing.TB, h *netns.Host, cfg Config) *Transport {
	tb.Helper()
	tr := open(tb, h, cfg)
	tb.Cleanup(func() { check(tb, tr.Close()) })
	return tr
}

func check(tb testing.TB, errs ...error) {
	tb.Helper()
	if err := errors.Join(errs...); err != nil {
		tb.Fatal(err)
	}
}

// send sends one payload to an endpoint, or on a channel.
func send(tb testing.TB, tr dataplane.Transport, to dataplane.Endpoint, ch dataplane.Channel, payload []byte) {
	tb.Helper()
	f, ok := tr.Arena().Tx().Get()
	if !ok {
		tb.Fatal("no frame")
	}
	f.Len = uint32(len(payload))
	copy(tr.Arena().Bytes(f), payload)
	if n, err := tr.Send([]dataplane.Packet{{Frame: f, To: to, Channel: ch}}); n != 1 || err != nil {
		tb.Fatalf("Send: %d, %v", n, err)
	}
}

// receive returns the next payload, or "" when none comes within the limit.
func receive(tb testing.TB, tr dataplane.Transport, limit time.Duration) string {
	tb.Helper()
	var batch [1]dataplane.Packet
	n, err := tr.Receive(batch[:], dataplane.Wait{Timeout: limit})
	check(tb, err)
	if n == 0 {
		return ""
	}
	defer tr.Arena().Rx().Release(batch[0].Frame)
	return string(tr.Arena().Bytes(batch[0].Frame))
}

// expect receives one payload, which must be the one given.
func expect(tb testing.TB, tr dataplane.Transport, want string) {
	tb.Helper()
	if got := receive(tb, tr, patience); got != want {
		tb.Fatalf("received %q, want %q", got, want)
	}
}

// until sends pings until a condition holds.
func until(tb testing.TB, what string, ok func() bool) {
	tb.Helper()
	for deadline := time.Now().Add(patience); !ok(); {
		if time.Now().After(deadline) {
			tb.Fatalf("waited in vain for %s", what)
		}
	}
}

// bypassing sends to a peer until packets leave past the stack.
func bypassing(tb testing.TB, from, to *Transport, ch dataplane.Channel) {
	tb.Helper()
	until(tb, "packets past the stack", func() bool {
		before, _, _ := from.Bypass()
		dst := to.Local()
		if ch != 0 {
			dst = dataplane.Endpoint{}
		}
		send(tb, from, dst, ch, []byte("ping"))
		expect(tb, to, "ping")
		after, _, _ := from.Bypass()
		return after > before
	})
}

// overBoth runs a test over IPv4 and over IPv6.
func overBoth(t *testing.T, test func(t *testing.T, six bool)) {
	t.Helper()
	t.Run("ipv4", func(t *testing.T) { test(t, false) })
	t.Run("ipv6", func(t *testing.T) { test(t, true) })
}

// Packets do go past the stack, both ways, in frames that are not copied here, once the neighbour is known.
func TestBypass(t *testing.T) {
	requireXDP(t)
	overBoth(t, testBypass)
}

func testBypass(t *testing.T, six bool) {
	t.Helper()
	hosts := netns.Pair(t, prefix, netns.Options{IPv6: six})
	a := openUntilEnd(t, hosts[0], Config{IPv6: six, GroupPort: groupPort})
	b := openUntilEnd(t, hosts[1], Config{IPv6: six, GroupPort: groupPort})
	check(t, b.Subscribe(9))
	for _, ch := range []dataplane.Channel{0, 9} {
		bypassing(t, a, b, ch)
		sent, _, copied := a.Bypass()
		_, received, _ := b.Bypass()
		to := b.Local()
		if ch != 0 {
			to = dataplane.Endpoint{}
		}
		for i := range 100 {
			send(t, a, to, ch, fmt.Append(nil, i))
			expect(t, b, fmt.Sprint(i))
		}
		sentNow, _, copiedNow := a.Bypass()
		_, receivedNow, _ := b.Bypass()
		if sentNow-sent < 99 || receivedNow-received != 100 || copiedNow != copied { // one may ask for the neighbour
			t.Errorf("channel %d: of 100 packets %d left and %d came past the stack, %d were copied",
				ch, sentNow-sent, receivedNow-received, copiedNow-copied)
		}
	}
	counts, err := b.Counters()
	if err != nil || counts["socket"].Packets < 200 {
		t.Errorf("the program counts %+v, %v", counts, err)
	}
}

// A frame that is sent to several hosts at once gets other headers for each, so all but one are copied, and its payload
// stays what it is.
func TestFanOut(t *testing.T) {
	requireXDP(t)
	overBoth(t, testFanOut)
}

func testFanOut(t *testing.T, six bool) {
	t.Helper()
	hosts := netns.Bridged(t, prefix, 3, netns.Options{IPv6: six})
	var trs []*Transport
	for _, h := range hosts {
		trs = append(trs, openUntilEnd(t, h, Config{IPv6: six}))
	}
	bypassing(t, trs[0], trs[1], 0)
	bypassing(t, trs[0], trs[2], 0)
	a := trs[0].Arena()
	f, _ := a.Tx().Get()
	f.Len = 100
	for i := range a.Bytes(f) {
		a.Bytes(f)[i] = byte(i)
	}
	want := string(a.Bytes(f))
	var batch []dataplane.Packet
	for i := range 10 {
		batch = append(batch, dataplane.Packet{Frame: f, To: trs[1+i%2].Local()})
	}
	a.RetainN(f, len(batch))
	n, err := trs[0].Send(batch)
	if n != len(batch) || err != nil {
		t.Fatal(n, err)
	}
	for range 5 {
		expect(t, trs[1], want)
		expect(t, trs[2], want)
	}
	if _, _, copied := trs[0].Bypass(); copied == 0 {
		t.Error("nothing was copied")
	}
	if string(a.Bytes(f)) != want {
		t.Error("the payload changed")
	}
	a.Release(f)
}

// A bridge that forwards multicasts only to who joined has heard of the join.
func TestJoinIsAnnounced(t *testing.T) {
	requireXDP(t)
	overBoth(t, testJoinIsAnnounced)
}

func testJoinIsAnnounced(t *testing.T, six bool) {
	t.Helper()
	hosts := netns.Bridged(t, prefix, 2, netns.Options{Snooping: true, IPv6: six})
	a := openUntilEnd(t, hosts[0], Config{IPv6: six, GroupPort: groupPort, Exclusive: true})
	b := openUntilEnd(t, hosts[1], Config{IPv6: six, GroupPort: groupPort, Exclusive: true})
	check(t, b.Subscribe(9))
	until(t, "a multicast through the bridge", func() bool {
		send(t, a, dataplane.Endpoint{}, 9, []byte("m"))
		return receive(t, b, 20*time.Millisecond) == "m"
	})
	if sent, _, _ := a.Bypass(); sent == 0 {
		t.Error("nothing left past the stack")
	}
}

// One socket for each queue; transports on different queues of an interface share it with each other and with a
// transport over UDP: multicasts reach all of them, and unicast each.
func TestSharedInterface(t *testing.T) {
	requireXDP(t)
	hosts := netns.Pair(t, prefix, netns.Options{Queues: 4})
	far := openUntilEnd(t, hosts[1], Config{GroupPort: groupPort})
	if far.Queues() != 4 {
		t.Errorf("%d queues have sockets, want 4", far.Queues())
	}
	a := openUntilEnd(t, hosts[0], Config{GroupPort: groupPort, Queues: []int{0, 2}})
	b := openUntilEnd(t, hosts[0], Config{GroupPort: groupPort, Queues: []int{1}})
	var c *udp.Transport
	var err error
	hosts[0].Do(func() { c, err = udp.Open(udp.Config{Interface: netns.Interface, GroupPort: groupPort}) })
	check(t, err)
	t.Cleanup(func() { check(t, c.Close()) })
	all := []dataplane.Transport{a, b, c, far}
	for _, tr := range all {
		check(t, tr.Subscribe(9))
	}
	for round := range 3 {
		for i, from := range all {
			text := fmt.Sprintf("round %d, from %d", round, i)
			until(t, "the other listeners to be noticed", func() bool { // a moment after they have joined
				send(t, from, dataplane.Endpoint{}, 9, []byte(text))
				missed := 0
				for j, tr := range all {
					if got := receive(t, tr, 50*time.Millisecond); i != j && got != text {
						missed++
					}
				}
				return missed == 0
			})
			for j, tr := range all {
				send(t, from, tr.Local(), 0, []byte("to "+text))
				for got := ""; got != "to "+text; {
					if got = receive(t, tr, patience); got == "" {
						t.Fatalf("no unicast from %d to %d", i, j)
					}
				}
			}
		}
	}
}

// Packets that a peer's stack puts together (UDP_SEGMENT) come one by one.
func TestPeerSendsSuperPackets(t *testing.T) {
	requireXDP(t)
	hosts := netns.Pair(t, prefix, netns.Options{})
	b := openUntilEnd(t, hosts[1], Config{})
	var a *udp.Transport
	var err error
	hosts[0].Do(func() { a, err = udp.Open(udp.Config{Interface: netns.Interface}) })
	check(t, err)
	t.Cleanup(func() { check(t, a.Close()) })
	for _, size := range []int{64, 1472} {
		var batch []dataplane.Packet
		for i := range 40 {
			f, _ := a.Arena().Tx().Get()
			f.Len = uint32(size)
			copy(a.Arena().Bytes(f), fmt.Sprintf("%04d", i))
			batch = append(batch, dataplane.Packet{Frame: f, To: b.Local()})
		}
		if n, err := a.Send(batch); n != len(batch) || err != nil {
			t.Fatal(n, err)
		}
		for i := range 40 {
			if got := receive(t, b, patience); len(got) != size || got[:4] != fmt.Sprintf("%04d", i) {
				t.Fatalf("packet %d of size %d is %d bytes: %.20q", i, size, len(got), got)
			}
		}
	}
	if calls := a.Stats().SendCalls; calls != 2 {
		t.Errorf("%d calls sent 80 packets: not as super-packets", calls)
	}
}

// groupPacket returns a packet of a group.
func groupPacket(group uint32) []byte {
	b := make([]byte, 64)
	h := wire.Header{Kind: wire.KindRaw, Group: group}
	h.Encode(b)
	wire.Seal(b)
	return b
}

// With the filter on, packets of groups come that were admitted, whichever way they come.
//
// rows: IPM-18
func TestGroupFilter(t *testing.T) {
	requireXDP(t)
	overBoth(t, testGroupFilter)
}

func testGroupFilter(t *testing.T, six bool) {
	t.Helper()
	for _, exclusive := range []bool{false, true} {
		hosts := netns.Pair(t, prefix, netns.Options{IPv6: six})
		a := openUntilEnd(t, hosts[0], Config{IPv6: six, GroupPort: groupPort, Exclusive: exclusive})
		b := openUntilEnd(t, hosts[1], Config{IPv6: six, GroupPort: groupPort, GroupFilter: true, Exclusive: exclusive})
		check(t, b.Subscribe(9), b.Admit(9, 5), b.Admit(9, 7))
		round := func(want ...uint32) {
			t.Helper()
			for g := range uint32(10) {
				send(t, a, dataplane.Endpoint{}, 9, groupPacket(g))
			}
			send(t, a, dataplane.Endpoint{}, 9, []byte("end"))
			var got []uint32
			for {
				p := receive(t, b, patience)
				if p == "end" || p == "" {
					break
				}
				var h wire.Header
				check(t, h.Decode([]byte(p)))
				got = append(got, h.Group)
			}
			if fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("exclusive %v: groups %v came, want %v", exclusive, got, want)
			}
		}
		round(0, 5, 7)
		check(t, b.Revoke(9, 5), b.Revoke(9, 5))
		round(0, 7)
		counts, err := b.Counters()
		check(t, err)
		st := b.Stats()
		dropped := counts["unjoined"].Packets + st.ReceiveFiltered
		if dropped != 15 || exclusive && st.ReceiveFiltered != 0 || st.ReceiveDropped != 0 {
			t.Errorf("exclusive %v: %d dropped by the program, %+v", exclusive, counts["unjoined"].Packets, st)
		}
	}
}

// childMark makes the test binary a process that uses a transport until it is killed.
const childMark = "KHAMSIN_XDP_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(childMark) == "" {
		os.Exit(m.Run())
	}
	tr, err := Open(Config{Interface: netns.Interface, GroupPort: groupPort, Port: 7500})
	if err == nil {
		err = tr.Subscribe(9)
	}
	if err == nil {
		fmt.Println(netns.Ready)
	}
	var batch [64]dataplane.Packet
	for err == nil {
		var n int
		n, err = tr.Receive(batch[:], dataplane.Wait{Timeout: -1})
		for i := range batch[:n] {
			batch[i].To, batch[i].Channel = batch[i].From, 0
		}
		_, _ = tr.Send(batch[:n])
	}
	fmt.Println(err)
	os.Exit(1)
}

// state tells what is on a host's interface: the program, and the groups that are joined.
func state(h *netns.Host) string {
	link := h.Run("ip", "link", "show", "dev", netns.Interface)
	groups := h.Run("ip", "maddr", "show", "dev", netns.Interface)
	return fmt.Sprintf("program %v, groups %s", strings.Contains(link, "prog/xdp"), groups)
}

// A process that is killed leaves its host's interface as it was: no program, no membership, other traffic as before,
// and its queue and port free for the next one.
func TestKilledProcess(t *testing.T) {
	requireXDP(t)
	hosts := netns.Pair(t, prefix, netns.Options{})
	before := state(hosts[1])
	a := openUntilEnd(t, hosts[0], Config{GroupPort: groupPort})
	for range 2 {
		child := hosts[1].StartSelf(childMark)
		if state(hosts[1]) == before {
			t.Fatal("the child changed nothing")
		}
		peer := dataplane.Endpoint{IP: [16]byte{10: 0xff, 11: 0xff, 12: 10, 13: 99, 14: 0, 15: 2}, Port: 7500}
		for range 100 { // in the middle of traffic
			send(t, a, peer, 0, []byte("x"))
			expect(t, a, "x")
			send(t, a, dataplane.Endpoint{}, 9, []byte("y"))
			expect(t, a, "y")
		}
		netns.Kill9(t, child)
		send(t, a, peer, 0, []byte("z"))
		until(t, "the interface to be as before", func() bool { return state(hosts[1]) == before })
		talk(t, hosts[0], hosts[1])
	}
}

// What is not ours goes through the stack as before, while the transport is open.
func TestOtherTraffic(t *testing.T) {
	requireXDP(t)
	hosts := netns.Pair(t, prefix, netns.Options{})
	openUntilEnd(t, hosts[0], Config{GroupPort: groupPort, Exclusive: true, GroupFilter: true})
	openUntilEnd(t, hosts[1], Config{GroupPort: groupPort, Exclusive: true, GroupFilter: true})
	talk(t, hosts[0], hosts[1])
	talk(t, hosts[1], hosts[0])
}

// talk sends from one host to another by TCP, and by UDP in IP fragments.
func talk(t *testing.T, from, to *netns.Host) {
	t.Helper()
	var l net.Listener
	var u net.PacketConn
	var errs [4]error
	to.Do(func() {
		l, errs[0] = net.Listen("tcp4", to.IP.String()+":0")
		u, errs[1] = net.ListenPacket("udp4", to.IP.String()+":0")
	})
	check(t, errs[:]...)
	defer l.Close()
	defer u.Close()
	var tcp, datagrams net.Conn
	from.Do(func() {
		tcp, errs[2] = net.DialTimeout("tcp4", l.Addr().String(), patience)
		datagrams, errs[3] = net.Dial("udp4", u.LocalAddr().String())
	})
	check(t, errs[:]...)
	defer tcp.Close()
	defer datagrams.Close()
	_, err := datagrams.Write(make([]byte, 4000))
	check(t, err, u.SetReadDeadline(time.Now().Add(patience)))
	n, _, err := u.ReadFrom(make([]byte, 5000))
	if n != 4000 || err != nil {
		t.Fatalf("received %d of 4000 bytes: %v", n, err)
	}
}

// A neighbour whose Ethernet address changes is followed.
func TestNeighbourChanges(t *testing.T) {
	requireXDP(t)
	overBoth(t, testNeighbourChanges)
}

func testNeighbourChanges(t *testing.T, six bool) {
	t.Helper()
	hosts := netns.Pair(t, prefix, netns.Options{IPv6: six})
	a, b := openUntilEnd(t, hosts[0], Config{IPv6: six}), open(t, hosts[1], Config{IPv6: six, Port: 7600})
	bypassing(t, a, b, 0)
	check(t, b.Close())
	hosts[1].Run("ip", "link", "set", "dev", netns.Interface, "down")
	hosts[1].Run("ip", "link", "set", "dev", netns.Interface, "address", "02:00:00:00:00:77")
	hosts[1].Run("ip", "link", "set", "dev", netns.Interface, "up")
	if six { // an IPv6 address does not outlive its link
		hosts[1].Run("ip", "addr", "add", hosts[1].IPv6.String()+"/64", "dev", netns.Interface, "nodad")
	}
	hosts[0].Run("ip", "neigh", "flush", "dev", netns.Interface) // as the kernel would in time, or by an announcement
	b = openUntilEnd(t, hosts[1], Config{IPv6: six, Port: 7600})
	until(t, "a packet to the new address", func() bool {
		send(t, a, b.Local(), 0, []byte("new"))
		return receive(t, b, 20*time.Millisecond) == "new"
	})
	bypassing(t, a, b, 0)
}
