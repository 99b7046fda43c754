package udp

import (
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/khamsin-io/khamsin/dataplane"
)

// family is what differs between IPv4 and IPv6. A transport is of its LocalIP's family.
type family struct {
	v6      bool
	ifIndex int
}

func (r resolved) family() family { return family{v6: r.LocalIP.Is6(), ifIndex: r.ifIndex} }

// domain returns the sockets' address family.
func (f family) domain() int {
	if f.v6 {
		return unix.AF_INET6
	}
	return unix.AF_INET
}

// ipv6MulticastAll is IPV6_MULTICAST_ALL, which unix does not name.
const ipv6MulticastAll = 29

// basics returns the steps that all sockets need.
func (f family) basics() []func(fd int) error {
	if !f.v6 {
		return []func(int) error{option(unix.IPPROTO_IP, unix.IP_MULTICAST_ALL, 0, "IP_MULTICAST_ALL")}
	}
	return []func(int) error{
		option(unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1, "IPV6_V6ONLY"),
		option(unix.IPPROTO_IPV6, ipv6MulticastAll, 0, "IPV6_MULTICAST_ALL"),
	}
}

// leave returns the step that makes unicast leave by the interface.
func (f family) leave() func(fd int) error {
	index := int(networkOrder(uint32(f.ifIndex)))
	if f.v6 {
		return option(unix.IPPROTO_IPV6, unix.IPV6_UNICAST_IF, index, "IPV6_UNICAST_IF")
	}
	return option(unix.IPPROTO_IP, unix.IP_UNICAST_IF, index, "IP_UNICAST_IF")
}

// multicasts returns the steps of the socket that sends multicasts.
func (f family) multicasts(r resolved) []func(fd int) error {
	if f.v6 {
		return []func(int) error{
			option(unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_IF, f.ifIndex, "IPV6_MULTICAST_IF"),
			option(unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_HOPS, r.TTL, "IPV6_MULTICAST_HOPS"),
			option(unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_LOOP, 1, "IPV6_MULTICAST_LOOP"),
		}
	}
	return []func(int) error{
		func(fd int) error {
			mreq := &unix.IPMreqn{Address: r.LocalIP.As4(), Ifindex: int32(f.ifIndex)}
			if err := unix.SetsockoptIPMreqn(fd, unix.IPPROTO_IP, unix.IP_MULTICAST_IF, mreq); err != nil {
				return fmt.Errorf("IP_MULTICAST_IF %q: %w", r.Interface, err)
			}
			return nil
		},
		option(unix.IPPROTO_IP, unix.IP_MULTICAST_TTL, r.TTL, "IP_MULTICAST_TTL"),
		option(unix.IPPROTO_IP, unix.IP_MULTICAST_LOOP, 1, "IP_MULTICAST_LOOP"),
	}
}

// pktinfo returns the step that makes each message say where it was sent to.
func (f family) pktinfo() func(fd int) error {
	if f.v6 {
		return option(unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1, "IPV6_RECVPKTINFO")
	}
	return option(unix.IPPROTO_IP, unix.IP_PKTINFO, 1, "IP_PKTINFO")
}

// any returns the address of all interfaces.
func (f family) any() netip.Addr {
	if f.v6 {
		return netip.IPv6Unspecified()
	}
	return netip.IPv4Unspecified()
}

// group returns a channel's address.
func (f family) group(ch dataplane.Channel) netip.Addr {
	if f.v6 {
		return ch.IPv6()
	}
	return ch.IPv4()
}

// join makes a socket a member of a channel, or ends that.
func (f family) join(fd int, ch dataplane.Channel, member bool) error {
	if f.v6 {
		opt := unix.IPV6_JOIN_GROUP
		if !member {
			opt = unix.IPV6_LEAVE_GROUP
		}
		return unix.SetsockoptIPv6Mreq(fd, unix.IPPROTO_IPV6, opt,
			&unix.IPv6Mreq{Multiaddr: ch.IPv6().As16(), Interface: uint32(f.ifIndex)})
	}
	opt := unix.IP_ADD_MEMBERSHIP
	if !member {
		opt = unix.IP_DROP_MEMBERSHIP
	}
	return unix.SetsockoptIPMreqn(fd, unix.IPPROTO_IP, opt,
		&unix.IPMreqn{Multiaddr: ch.IPv4().As4(), Ifindex: int32(f.ifIndex)})
}

// sockaddr returns an address as the kernel wants it. One that is valid on its link only is one of this link.
func (f family) sockaddr(ip netip.Addr, port uint16) unix.Sockaddr {
	if !f.v6 {
		return &unix.SockaddrInet4{Addr: ip.As4(), Port: int(port)}
	}
	sa := &unix.SockaddrInet6{Addr: ip.As16(), Port: int(port)}
	if ip.IsLinkLocalUnicast() {
		sa.ZoneId = uint32(f.ifIndex)
	}
	return sa
}

// endpointOf returns the address of a socket.
func endpointOf(sa unix.Sockaddr) dataplane.Endpoint {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return dataplane.EndpointOf(netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port)))
	case *unix.SockaddrInet6:
		return dataplane.EndpointOf(netip.AddrPortFrom(netip.AddrFrom16(sa.Addr), uint16(sa.Port)))
	}
	return dataplane.Endpoint{}
}

// probeRoute tells whether multicasts can leave by the interface. Over IPv6 they need a route, which a loopback
// interface usually lacks.
func (f family) probeRoute(r resolved) error {
	if !f.v6 {
		return nil
	}
	fd, err := unix.Socket(f.domain(), unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("udp: socket: %w", err)
	}
	defer func() { _ = unix.Close(fd) }()
	for _, step := range f.multicasts(r) {
		if err := step(fd); err != nil {
			return fmt.Errorf("udp: %w", err)
		}
	}
	if err := unix.Connect(fd, f.sockaddr(f.group(dataplane.ChannelMin), r.GroupPort)); err != nil {
		return fmt.Errorf("udp: no IPv6 multicast by interface %q: %w (`ip -6 route add multicast ff15::/16 dev %s "+
			"table local` makes a route; without multicast GroupPort is 0)", r.Interface, err, r.Interface)
	}
	return nil
}
