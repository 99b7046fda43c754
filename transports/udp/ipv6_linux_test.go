package udp

import (
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/khamsin-io/khamsin/dataplane"
	"github.com/khamsin-io/khamsin/dataplane/transporttest"
	"github.com/khamsin-io/khamsin/internal/netns"
)

// The suite over IPv6 between two hosts, with multicast and all offloads.
//
// rows: NET-14
func TestConformanceOverIPv6(t *testing.T) {
	var places []where
	for _, h := range netns.Pair(t, "khamsin-udp", netns.Options{IPv6: true}) {
		places = append(places, where{ifName: netns.Interface, ip: h.IPv6, do: h.Do})
	}
	transporttest.Run(t, factory(places...), offloads...)
}

// inject6 is inject over IPv6.
func (w where) inject6(to netip.AddrPort, payload []byte) (err error) {
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unix.Close(fd)) }()
	ifi, err := net.InterfaceByName(w.ifName)
	if err != nil {
		return err
	}
	f := family{v6: true, ifIndex: ifi.Index}
	return errors.Join(
		unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_IF, ifi.Index),
		unix.Bind(fd, f.sockaddr(w.ip, 0)),
		unix.Sendto(fd, payload, 0, f.sockaddr(to.Addr(), to.Port())),
	)
}

// A transport takes the address of the family that it is asked for: a global one if there is one, else the link-local
// one, by which hosts of one link reach each other too.
func TestAddressOfFamily(t *testing.T) {
	hosts := netns.Pair(t, "khamsin-udp", netns.Options{IPv6: true})
	openAt := func(i int, c Config) (tr *Transport) {
		c.Interface = netns.Interface
		hosts[i].Do(func() { tr = openUntilEnd(t, c) })
		return tr
	}
	if got := openAt(0, Config{}).Local().AddrPort().Addr(); got != hosts[0].IP {
		t.Errorf("without a wish %v, want %v", got, hosts[0].IP)
	}
	if got := openAt(0, Config{IPv6: true}).Local().AddrPort().Addr(); got != hosts[0].IPv6 {
		t.Errorf("with IPv6 %v, want %v", got, hosts[0].IPv6)
	}
	var locals []netip.Addr
	for _, h := range hosts {
		h.Run("ip", "addr", "del", h.IPv6.String()+"/64", "dev", netns.Interface)
		h.Run("ip", "addr", "add", "fe80::"+h.IP.String()[len("10.99.0."):]+"/64", "dev", netns.Interface, "nodad")
		locals = append(locals, netip.MustParseAddr("fe80::"+h.IP.String()[len("10.99.0."):]))
	}
	port := freePort(t)
	a := openAt(0, Config{LocalIP: locals[0], GroupPort: port})
	b := openAt(1, Config{LocalIP: locals[1], GroupPort: port})
	if err := b.Subscribe(7); err != nil {
		t.Fatal(err)
	}
	sendAll(t, a, burst(t, a, b.Local(), 10, 100))
	receiveNumbers(t, b, 10)
	batch := burst(t, a, dataplane.Endpoint{}, 10, 100)
	for i := range batch {
		batch[i].Channel = 7
	}
	sendAll(t, a, batch)
	receiveNumbers(t, b, 10)
	// An address of the other family is nobody's.
	sendAll(t, a, burst(t, a, dataplane.EndpointOf(netip.AddrPortFrom(hosts[1].IP, 9)), 3, 100))
	if st := a.Stats(); st.SendDropped != 3 {
		t.Errorf("%d packets to the other family dropped, want 3", st.SendDropped)
	}
}

// What cannot be had of a family is an error that says so.
func TestNoSuchFamily(t *testing.T) {
	hosts := netns.Pair(t, "khamsin-udp", netns.Options{})
	hosts[0].Do(func() {
		_, err := Open(Config{Interface: netns.Interface, IPv6: true})
		if err == nil || !strings.Contains(err.Error(), "has no IPv6 address") {
			t.Errorf("error %v", err)
		}
	})
	if _, err := Open(Config{LocalIP: loopback.ip, IPv6: true}); err == nil || !strings.Contains(err.Error(), "IPv6") {
		t.Errorf("an IPv4 address with IPv6: %v", err)
	}
}

// A channel's address names it, over both families; other addresses name none.
//
// rows: IPM-03
func TestChannelAddresses(t *testing.T) {
	for _, ch := range []dataplane.Channel{dataplane.ChannelMin, 5000, 0x123456, dataplane.ChannelMax} {
		four, six := ch.IPv4(), ch.IPv6()
		if !four.IsMulticast() || !six.IsMulticast() {
			t.Errorf("%d: %v and %v", ch, four, six)
		}
		if a, b := dataplane.ChannelOfIPv4(four.As4()), dataplane.ChannelOfIPv6(six.As16()); a != ch || b != ch {
			t.Errorf("%d came back as %d and %d", ch, a, b)
		}
	}
	for _, ip := range []string{"ff02::1", "ff15::4b48:5400:1", "fd15::4b48:5300:1", "ff15::1:4b48:5300:1"} {
		if ch := dataplane.ChannelOfIPv6(netip.MustParseAddr(ip).As16()); ch != 0 {
			t.Errorf("%s is channel %d", ip, ch)
		}
	}
	if ch := dataplane.ChannelOfIPv4([4]byte{224, 0, 0, 1}); ch != 0 {
		t.Errorf("224.0.0.1 is channel %d", ch)
	}
}
