package udp

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/khamsin-io/khamsin/dataplane"
	"github.com/khamsin-io/khamsin/dataplane/clock"
	"github.com/khamsin-io/khamsin/dataplane/transporttest"
	"github.com/khamsin-io/khamsin/internal/netns"
)

// second is the name of the hosts' second interface.
const second = "veth1"

// twoNetworks returns hosts that share two networks.
func twoNetworks(t *testing.T, n int, v6 bool) []*netns.Host {
	t.Helper()
	hosts := netns.Bridged(t, "khamsin-links", n, netns.Options{IPv6: v6})
	netns.AddNetwork(t, hosts, second, 98)
	return hosts
}

// onBoth opens a transport on both networks of a host, subscribed to channel 7.
func onBoth(t *testing.T, h *netns.Host) (tr *Transport) {
	t.Helper()
	h.Do(func() {
		tr = openUntilEnd(t, Config{
			Interface: netns.Interface, Also: []string{second}, IPv6: h.IPv6.IsValid(), Port: 7000, GroupPort: 7777,
		})
	})
	if err := tr.Subscribe(7); err != nil {
		t.Fatal(err)
	}
	return tr
}

// The suite between hosts with two interfaces each, over IPv6.
func TestConformanceOnSeveralInterfacesOverIPv6(t *testing.T) {
	var places []where
	for _, h := range twoNetworks(t, 2, true) {
		places = append(places, where{ifName: netns.Interface, also: []string{second}, ip: h.IPv6, do: h.Do})
	}
	transporttest.Run(t, factory(places...), offloads...)
}

// The suite between hosts with two interfaces each.
func TestConformanceOnSeveralInterfaces(t *testing.T) {
	var places []where
	for _, h := range twoNetworks(t, 2, false) {
		places = append(places, where{ifName: netns.Interface, also: []string{second}, ip: h.IP, do: h.Do})
	}
	transporttest.Run(t, factory(places...), offloads...)
}

// A multicast leaves by both interfaces and is received once by a host that is on both networks, and by one that is on
// the second network alone.
func TestMulticastOnSeveralInterfaces(t *testing.T) {
	const count, size = 40, 1000
	hosts := twoNetworks(t, 3, false)
	a, b := onBoth(t, hosts[0]), onBoth(t, hosts[1])
	var c *Transport
	hosts[2].Do(func() { c = openUntilEnd(t, Config{Interface: second, GroupPort: 7777}) })
	if err := c.Subscribe(7); err != nil {
		t.Fatal(err)
	}
	batch := burst(t, a, dataplane.Endpoint{}, count, size)
	for i := range batch {
		batch[i].Channel = 7
	}
	sendAll(t, a, batch)
	receiveNumbers(t, b, count)
	receiveNumbers(t, c, count)
	until(t, "second copies", func() bool {
		var none [1]dataplane.Packet
		if n, err := b.Receive(none[:], dataplane.Wait{Timeout: time.Millisecond}); n != 0 || err != nil {
			t.Fatalf("a packet came twice: %d, %v", n, err)
		}
		return b.Stats().ReceiveDoubled == count
	})
	st := a.Stats()
	passes(t, "from the second network alone", c, a, 0)
	passes(t, "to the second network alone", a, c, 0)
	if st.SentPackets != count || st.SentMulticasts != count || st.ReceiveDropped != 0 {
		t.Errorf("the sender counts %+v", st)
	}
}

// until waits for a condition.
func until(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(testTimeout); !done(); {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %v", what, testTimeout)
		}
	}
}

// passes sends packets of one kind again and again until one arrives, while there is traffic of all other kinds.
func passes(t *testing.T, what string, from, to *Transport, ch dataplane.Channel) {
	t.Helper()
	ways := map[dataplane.Channel]*Transport{0: from, 7: from}
	until(t, what, func() bool {
		exchange(t, to, from, 7)
		exchange(t, to, from, 0)
		for other, sender := range ways {
			if other != ch {
				exchange(t, sender, to, other)
			}
		}
		return exchange(t, from, to, ch)
	})
}

// exchange sends one packet, takes in all that comes within ten milliseconds, and tells whether one of its kind did.
func exchange(t *testing.T, from, to *Transport, ch dataplane.Channel) (found bool) {
	t.Helper()
	batch := burst(t, from, to.Local(), 1, 100)
	batch[0].Channel = ch
	sendAll(t, from, batch)
	for wait := 10 * time.Millisecond; ; {
		got, err := to.Receive(batch, dataplane.Wait{Timeout: wait})
		if err != nil {
			t.Fatal(err)
		}
		if got == 0 {
			return found
		}
		if batch[0].Channel == ch {
			found, wait = true, 0
		}
		to.Arena().Release(batch[0].Frame)
	}
}

// Two hosts that share two networks go on, in both directions and by multicast and unicast, when one of the networks
// carries nothing any more, or nothing in one direction. The interfaces stay up: nobody is told.
func TestOneOfTwoNetworksFails(t *testing.T) { oneOfTwoNetworksFails(t, false) }

// Likewise over IPv6.
func TestOneOfTwoNetworksFailsOverIPv6(t *testing.T) { oneOfTwoNetworksFails(t, true) }

func oneOfTwoNetworksFails(t *testing.T, v6 bool) {
	t.Helper()
	hosts := twoNetworks(t, 2, v6)
	a, b := onBoth(t, hosts[0]), onBoth(t, hosts[1])
	both := func(what string) {
		t.Helper()
		passes(t, what+": multicast there", a, b, 7)
		passes(t, what+": multicast back", b, a, 7)
		passes(t, what+": unicast back", b, a, 0)
		passes(t, what+": unicast there", a, b, 0)
	}
	both("whole")
	cutEach(hosts, both)
}

// cutEach calls what again and again while one of two networks, or one direction of it, is cut, and healed.
func cutEach(hosts []*netns.Host, what func(name string)) {
	bridge := hosts[0].Bridge
	for i, ports := range [][2]string{
		{hosts[0].Port, hosts[1].Port}, {netns.PortOf(second, 0), netns.PortOf(second, 1)},
	} {
		for k, cuts := range [][]string{ports[:], ports[:1], ports[1:]} {
			name := fmt.Sprintf("network %d, cut %d", i+1, k+1)
			var heals []func()
			for _, port := range cuts {
				heals = append(heals, bridge.Block(port, false))
			}
			what(name)
			for _, heal := range heals {
				heal()
			}
			what(name + ", healed")
		}
	}
}

// withoutMulticast opens transports without multicast on both networks of hosts.
func withoutMulticast(t *testing.T, hosts []*netns.Host, port uint16) (a, b *Transport) {
	t.Helper()
	var trs []*Transport
	for _, h := range hosts {
		h.Do(func() {
			trs = append(trs, openUntilEnd(t, Config{Interface: netns.Interface, Also: []string{second}, Port: port}))
		})
	}
	return trs[0], trs[1]
}

// Without multicast hosts that share two networks go on as well, also when one of the networks is dead before they have
// heard of each other.
func TestOneOfTwoNetworksFailsWithoutMulticast(t *testing.T) {
	hosts := twoNetworks(t, 2, false)
	heal := hosts[0].Bridge.Block(hosts[0].Port, false)
	a, b := withoutMulticast(t, hosts, 7000)
	both := func(what string) {
		t.Helper()
		until(t, what+": there", func() bool { return exchange(t, a, b, 0) })
		until(t, what+": back", func() bool { return exchange(t, b, a, 0) })
	}
	both("the first network is dead")
	heal()
	both("whole")
	cutEach(hosts, both)
}

// Without multicast what is sent to a process that was silent leaves by both networks, and is received once; what is
// sent to one that was heard just now leaves by one.
func TestSilentPeersGetCopies(t *testing.T) {
	const count = 20
	a, b := withoutMulticast(t, twoNetworks(t, 2, false), 7000)
	copies := uint64(0)
	for range 3 {
		until(t, "silence", func() bool { _, all := a.links.to(b.Local()); return all })
		sendAll(t, a, burst(t, a, b.Local(), count, 1000))
		receiveNumbers(t, b, count)
		copies += count
		until(t, "second copies", func() bool {
			var none [1]dataplane.Packet
			if got, err := b.Receive(none[:], dataplane.Wait{Timeout: time.Millisecond}); got != 0 || err != nil {
				t.Fatalf("a packet came twice: %d, %v", got, err)
			}
			return b.Stats().ReceiveDoubled == copies
		})
		until(t, "one interface for who was heard", func() bool {
			if !exchange(t, b, a, 0) {
				return false
			}
			_, all := a.links.to(b.Local())
			return !all
		})
	}
}

// Without multicast a process that goes on hearing another one by all networks, while nothing of its own arrives by the
// one that it sends by, takes another one: second copies tell.
func TestDeafPeer(t *testing.T) {
	for _, dead := range []int32{1, 2} { // carries nothing to the peer
		var now clock.Manual
		now.Set(clock.Time(time.Second))
		l := &links{local: [16]byte{1}, indexes: []int32{1, 2}, clock: &now, lone: true}
		l.peers = map[dataplane.Endpoint]*peer{}
		from := dataplane.Endpoint{Port: 9}
		l.take(from, 1, false)
		l.peers[from].sendBy(dead, now.Now())
		heardAt := now.Now() // when the peer heard us last
		longest, whole := time.Duration(0), false
		heard := func(by int32) { // unless that network is dead altogether, as the other one is later on
			if !whole || by != dead {
				l.take(from, by, false)
			}
		}
		for i := range 1000 {
			if i == 500 {
				dead, whole = 3-dead, true
			}
			now.Set(now.Now() + clock.Time(5*time.Millisecond)) // both send far more often than silence is borne
			by := int32(1)
			if whole {
				by = 3 - dead
			}
			if heard(by); now.Now().Sub(heardAt) > linkSilence {
				heard(3 - by)
			}
			longest = max(longest, now.Now().Sub(heardAt))
			if index, all := l.to(from); all || max(index, 1) != dead {
				heardAt = now.Now()
			}
		}
		if longest > 2*turnedFor {
			t.Errorf("network %d is dead: the peer has heard nothing for %v", dead, longest)
		}
	}
}

// A unicast that is looked at late says that its sender was reachable by a network that has failed since. What comes by
// the others corrects that.
func TestLateUnicast(t *testing.T) {
	var now clock.Manual
	l := &links{indexes: []int32{1, 2}, clock: &now, peers: map[dataplane.Endpoint]*peer{}}
	from := dataplane.Endpoint{Port: 9}
	step := func(index int32, multicast bool, want int32) {
		t.Helper()
		now.Set(now.Now() + clock.Time(20*time.Millisecond))
		l.take(from, index, multicast)
		if got := l.peers[from].send.Load(); got != want {
			t.Fatalf("at %v: sends by %d, want %d", now.Now(), got, want)
		}
	}
	step(1, true, 1)
	for range 2 { // the first network fails
		step(2, true, 1)
	}
	step(2, true, 2)
	step(1, false, 1) // from before
	for range 2 {
		step(2, true, 1)
	}
	step(2, true, 2)
	for range 5 { // both work, unicast by the first one
		step(1, false, 1)
		step(2, true, 1)
	}
	for range 5 { // multicasts alone, by both
		step(2, true, 1)
		step(1, true, 1)
	}
}

// A system that would drop packets of the second network is warned of.
func TestStrictFilterIsWarnedOf(t *testing.T) {
	h := twoNetworks(t, 1, false)[0]
	for _, c := range []struct {
		value string
		warns bool
	}{{"1", true}, {"2", false}} {
		var log bytes.Buffer
		h.Do(func() {
			for name, value := range map[string]string{"all": "0", second: c.value} {
				if err := os.WriteFile("/proc/sys/net/ipv4/conf/"+name+"/rp_filter", []byte(value), 0); err != nil {
					t.Fatal(err)
				}
			}
			openUntilEnd(t, Config{
				Interface: netns.Interface, Also: []string{second}, Log: slog.New(slog.NewTextHandler(&log, nil)),
			})
		})
		if got := strings.Contains(log.String(), "net.ipv4.conf."+second+".rp_filter=2"); got != c.warns {
			t.Errorf("rp_filter %s: warned %v\n%s", c.value, got, log.String())
		}
	}
}

// What cannot be is refused.
func TestFaultsOfSeveralInterfaces(t *testing.T) {
	h := twoNetworks(t, 1, true)[0]
	h.Run("ip", "addr", "del", h.IPv6.String()+"/64", "dev", second)
	h.Run("ip", "addr", "add", "fd98::1/64", "dev", second, "nodad")
	for _, c := range []Config{
		{Interface: "lo", Also: []string{"lo"}},
		{Interface: "lo", Also: []string{"nosuch0"}},
		{Interface: "lo", Also: []string{"nosuch0"}, Filter: closeOnly{}},
		{Interface: netns.Interface, Also: []string{second}, IPv6: true}, // which has another address
	} {
		h.Do(func() {
			if tr, err := Open(c); err == nil {
				t.Errorf("%v: opened", c.Also)
				_ = tr.Close()
			}
		})
	}
}

// closeOnly is a filter that is never attached.
type closeOnly struct{ Filter }

func (closeOnly) Close() error { return nil }

// Peers are bounded.
func TestPeersAreBounded(t *testing.T) {
	h := twoNetworks(t, 1, false)[0]
	l := onBoth(t, h).links
	for i := range 3 * peersMax {
		l.take(dataplane.Endpoint{Port: uint32(1 + i)}, l.indexes[1], true)
	}
	if n := len(l.peers); n > peersMax {
		t.Errorf("%d are remembered", n)
	}
	if got, _ := l.to(dataplane.Endpoint{Port: 3 * peersMax}); got != l.indexes[1] {
		t.Errorf("the last one is sent to by %d", got)
	}
}
