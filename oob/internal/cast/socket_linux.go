package cast

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	segmentsMax  = 45          // packets of a super-packet: as many as fit with the usual MTU
	superMax     = 1<<16 - 256 // bytes; beyond 64 KiB with all heads the kernel cuts it up before the interface does
	recvBuffer   = 16 << 20    // asked for; the system may give less
	sendBuffer   = 1 << 20
	ipv6AllGroup = 29 // IPV6_MULTICAST_ALL
)

// socket is a UDP socket of one address family.
type socket struct {
	fd int
	v6 bool
}

type step func(fd int) error

func option(level, name, value int, what string) step {
	return func(fd int) error {
		if err := unix.SetsockoptInt(fd, level, name, value); err != nil {
			return fmt.Errorf("%s = %d: %w", what, value, err)
		}
		return nil
	}
}

func buffer(force, plain, size int) step {
	return func(fd int) error {
		if unix.SetsockoptInt(fd, unix.SOL_SOCKET, force, size) == nil {
			return nil
		}
		return unix.SetsockoptInt(fd, unix.SOL_SOCKET, plain, size)
	}
}

func openSocket(v6 bool, steps ...step) (*socket, error) {
	domain := unix.AF_INET
	if v6 {
		domain = unix.AF_INET6
		steps = append([]step{
			option(unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1, "IPV6_V6ONLY"),
			option(unix.IPPROTO_IPV6, ipv6AllGroup, 0, "IPV6_MULTICAST_ALL"),
		}, steps...)
	} else {
		steps = append([]step{option(unix.IPPROTO_IP, unix.IP_MULTICAST_ALL, 0, "IP_MULTICAST_ALL")}, steps...)
	}
	fd, err := unix.Socket(domain, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	for _, s := range steps {
		if err := s(fd); err != nil {
			return nil, errors.Join(err, unix.Close(fd))
		}
	}
	return &socket{fd: fd, v6: v6}, nil
}

func bindTo(ip netip.Addr, port uint16, index int) step {
	return func(fd int) error {
		var sa unix.Sockaddr = &unix.SockaddrInet4{Port: int(port), Addr: as4(ip)}
		if ip.Is6() {
			in6 := &unix.SockaddrInet6{Port: int(port), Addr: ip.As16()}
			if ip.IsLinkLocalUnicast() || ip.IsMulticast() {
				in6.ZoneId = uint32(index)
			}
			sa = in6
		}
		if err := unix.Bind(fd, sa); err != nil {
			return fmt.Errorf("bind to %v: %w", netip.AddrPortFrom(ip, port), err)
		}
		return nil
	}
}

func as4(ip netip.Addr) (b [4]byte) {
	if ip.Is4() {
		b = ip.As4()
	}
	return b
}

func networkOrder(v int) int {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], uint32(v))
	return int(int32(binary.NativeEndian.Uint32(b[:])))
}

// openUnicast opens a socket at any port of this process's address. Everything leaves it by the path's interface.
func openUnicast(p Path) (*socket, error) {
	loop := 0
	if p.Loop {
		loop = 1
	}
	steps := []step{buffer(unix.SO_SNDBUFFORCE, unix.SO_SNDBUF, sendBuffer), buffer(unix.SO_RCVBUFFORCE,
		unix.SO_RCVBUF, sendBuffer)}
	if p.IP.Is6() {
		steps = append(steps,
			option(unix.IPPROTO_IPV6, unix.IPV6_UNICAST_IF, networkOrder(p.Interface), "IPV6_UNICAST_IF"),
			option(unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_IF, p.Interface, "IPV6_MULTICAST_IF"),
			option(unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_HOPS, p.TTL, "IPV6_MULTICAST_HOPS"),
			option(unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_LOOP, loop, "IPV6_MULTICAST_LOOP"))
	} else {
		steps = append(steps,
			option(unix.IPPROTO_IP, unix.IP_UNICAST_IF, networkOrder(p.Interface), "IP_UNICAST_IF"),
			func(fd int) error {
				mreq := &unix.IPMreqn{Address: as4(p.IP), Ifindex: int32(p.Interface)}
				if err := unix.SetsockoptIPMreqn(fd, unix.IPPROTO_IP, unix.IP_MULTICAST_IF, mreq); err != nil {
					return fmt.Errorf("IP_MULTICAST_IF: %w", err)
				}
				return nil
			},
			option(unix.IPPROTO_IP, unix.IP_MULTICAST_TTL, p.TTL, "IP_MULTICAST_TTL"),
			option(unix.IPPROTO_IP, unix.IP_MULTICAST_LOOP, loop, "IP_MULTICAST_LOOP"))
	}
	return openSocket(p.IP.Is6(), append(steps, bindTo(p.IP, 0, p.Interface))...)
}

// openGroup opens a socket that receives the path's group, in super-packets where the kernel makes them.
func openGroup(p Path) (*socket, error) {
	steps := []step{
		option(unix.SOL_SOCKET, unix.SO_REUSEADDR, 1, "SO_REUSEADDR"),
		buffer(unix.SO_RCVBUFFORCE, unix.SO_RCVBUF, recvBuffer),
		func(fd int) error { _ = unix.SetsockoptInt(fd, unix.SOL_UDP, unix.UDP_GRO, 1); return nil },
		bindTo(p.Group, p.Port, p.Interface),
		func(fd int) error {
			var err error
			if p.IP.Is6() {
				err = unix.SetsockoptIPv6Mreq(fd, unix.IPPROTO_IPV6, unix.IPV6_JOIN_GROUP,
					&unix.IPv6Mreq{Multiaddr: p.Group.As16(), Interface: uint32(p.Interface)})
			} else {
				err = unix.SetsockoptIPMreqn(fd, unix.IPPROTO_IP, unix.IP_ADD_MEMBERSHIP,
					&unix.IPMreqn{Multiaddr: as4(p.Group), Ifindex: int32(p.Interface)})
			}
			if err != nil {
				return fmt.Errorf("join %v: %w", p.Group, err)
			}
			return nil
		},
	}
	return openSocket(p.IP.Is6(), steps...)
}

func (s *socket) close() { _ = unix.Close(s.fd) }

// room returns how many packets of a size the receive buffer holds, with what the kernel needs beside them.
func (s *socket) room(size int) uint32 {
	n, err := unix.GetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_RCVBUF)
	if err != nil {
		return 64
	}
	return uint32(max(64, n/4/size))
}

// port returns the UDP port that the socket is bound to, 0 when the system does not say.
func (s *socket) port() uint16 {
	sa, err := unix.Getsockname(s.fd)
	if err != nil {
		return 0
	}
	return addrPort(sa).Port()
}

// name is a socket address as the kernel reads and writes it.
type name struct {
	in6 unix.RawSockaddrInet6
	_   [4]byte
}

// set makes n an address, and returns its length.
func (n *name) set(ap netip.AddrPort, index int) uint32 {
	ip := ap.Addr()
	if ip.Is4() {
		in4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(n))
		*in4 = unix.RawSockaddrInet4{Family: unix.AF_INET, Addr: ip.As4()}
		binary.BigEndian.PutUint16((*[2]byte)(unsafe.Pointer(&in4.Port))[:], ap.Port())
		return unix.SizeofSockaddrInet4
	}
	n.in6 = unix.RawSockaddrInet6{Family: unix.AF_INET6, Addr: ip.As16()}
	if ip.IsLinkLocalUnicast() || ip.IsMulticast() {
		n.in6.Scope_id = uint32(index)
	}
	binary.BigEndian.PutUint16((*[2]byte)(unsafe.Pointer(&n.in6.Port))[:], ap.Port())
	return unix.SizeofSockaddrInet6
}

// get returns the address that the kernel wrote.
func (n *name) get() netip.AddrPort {
	if n.in6.Family == unix.AF_INET {
		in4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(n))
		return netip.AddrPortFrom(netip.AddrFrom4(in4.Addr),
			binary.BigEndian.Uint16((*[2]byte)(unsafe.Pointer(&in4.Port))[:]))
	}
	return netip.AddrPortFrom(netip.AddrFrom16(n.in6.Addr).Unmap(),
		binary.BigEndian.Uint16((*[2]byte)(unsafe.Pointer(&n.in6.Port))[:]))
}

// mmsghdr is struct mmsghdr of sendmmsg(2) and recvmmsg(2).
type mmsghdr struct {
	hdr unix.Msghdr
	len uint32
}

func sendmmsg(fd int, msgs []mmsghdr) (int, unix.Errno) {
	n, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(&msgs[0])), uintptr(len(msgs)),
		unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
	return int(n), errno
}

func recvmmsg(fd int, msgs []mmsghdr) (int, unix.Errno) {
	n, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, uintptr(fd), uintptr(unsafe.Pointer(&msgs[0])), uintptr(len(msgs)),
		unix.MSG_DONTWAIT, 0, 0)
	return int(n), errno
}

// sendTo sends one short packet. That it does not go out is no error: it is repeated.
func (s *socket) sendTo(b []byte, ap netip.AddrPort, index int) {
	var sa unix.Sockaddr = &unix.SockaddrInet4{Port: int(ap.Port()), Addr: as4(ap.Addr())}
	if ap.Addr().Is6() {
		in6 := &unix.SockaddrInet6{Port: int(ap.Port()), Addr: ap.Addr().As16()}
		if ap.Addr().IsLinkLocalUnicast() || ap.Addr().IsMulticast() {
			in6.ZoneId = uint32(index)
		}
		sa = in6
	}
	_ = unix.Sendto(s.fd, b, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, sa)
}

// await waits until one of the sockets has something, or can send, or the transfer is stopped, or d is over.
func (f *stopFile) await(d time.Duration, events int16, sockets ...*socket) {
	fds := append(make([]unix.PollFd, 0, 3), unix.PollFd{Fd: int32(f.fd), Events: unix.POLLIN})
	for _, s := range sockets {
		fds = append(fds, unix.PollFd{Fd: int32(s.fd), Events: events})
	}
	ms := max(0, int((d+time.Millisecond-1)/time.Millisecond))
	_, _ = unix.Poll(fds, ms) // whatever it says, the sockets are asked next
}
