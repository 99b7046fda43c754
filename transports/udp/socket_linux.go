package udp

import (
	"errors"
	"fmt"
	"math/bits"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// socket is one UDP socket. Its descriptor is open as long as the transport.
type socket struct {
	fd        int
	multicast bool
	full      bool   // the system lets it join no more groups; guarded by Transport.control
	drops     uint32 // datagrams lost in its life, as last reported; Receive only
}

// newSocket opens a socket with what all sockets of a transport need. What fails in configure closes it.
func newSocket(r resolved, configure ...func(fd int) error) (*socket, error) {
	fd, err := unix.Socket(r.family().domain(), unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("udp: socket: %w", err)
	}
	steps := append(r.family().basics(),
		option(unix.SOL_SOCKET, unix.SO_RXQ_OVFL, 1, "SO_RXQ_OVFL"),
		buffer(unix.SO_RCVBUFFORCE, unix.SO_RCVBUF, r.RecvBuffer, "SO_RCVBUF"),
	)
	steps = append(steps, configure...)
	for _, step := range steps {
		if err := step(fd); err != nil {
			return nil, errors.Join(fmt.Errorf("udp: %w", err), unix.Close(fd))
		}
	}
	return &socket{fd: fd}, nil
}

// option returns a step that sets an integer option.
func option(level, name, value int, what string) func(fd int) error {
	return func(fd int) error {
		if err := unix.SetsockoptInt(fd, level, name, value); err != nil {
			return fmt.Errorf("%s = %d: %w", what, value, err)
		}
		return nil
	}
}

// buffer returns a step that asks for a buffer beyond the system's limit, which takes a privilege, or else within it.
func buffer(force, plain, size int, what string) func(fd int) error {
	return func(fd int) error {
		if unix.SetsockoptInt(fd, unix.SOL_SOCKET, force, size) == nil {
			return nil
		}
		return option(unix.SOL_SOCKET, plain, size, what)(fd)
	}
}

// bindTo returns a step that binds to an address and port.
func (f family) bindTo(ip netip.Addr, port uint16) func(fd int) error {
	return func(fd int) error {
		if err := unix.Bind(fd, f.sockaddr(ip, port)); err != nil {
			return fmt.Errorf("bind to %v: %w", netip.AddrPortFrom(ip, port), err)
		}
		return nil
	}
}

// openUnicast opens the socket that sends everything and receives unicast, at the first free port.
func openUnicast(r resolved) (*socket, error) {
	f := r.family()
	steps := []func(int) error{
		buffer(unix.SO_SNDBUFFORCE, unix.SO_SNDBUF, r.SendBuffer, "SO_SNDBUF"), f.leave(),
	}
	if r.GroupPort != 0 {
		steps = append(steps, f.multicasts(r)...)
	}
	if len(r.indexes) > 0 {
		steps = append(steps, f.pktinfo()) // tells by which interface others send
	}
	return newSocket(r, append(steps, func(fd int) error { return bindFirstFree(fd, r) })...)
}

// networkOrder returns v as the kernel reads an integer in network byte order.
func networkOrder(v uint32) uint32 {
	if probe := uint16(1); *(*byte)(unsafe.Pointer(&probe)) == 1 {
		return bits.ReverseBytes32(v)
	}
	return v
}

// bindFirstFree binds to the first free one of the configured ports, leaving out the group port.
func bindFirstFree(fd int, r resolved) error {
	f := r.family()
	if r.Port == 0 {
		return f.bindTo(r.LocalIP, 0)(fd)
	}
	last := min(int(r.Port)+r.PortTries-1, 65535)
	for port := int(r.Port); port <= last; port++ {
		if uint16(port) == r.GroupPort {
			continue
		}
		if err := f.bindTo(r.LocalIP, uint16(port))(fd); !errors.Is(err, unix.EADDRINUSE) {
			return err
		}
	}
	return fmt.Errorf("ports %d to %d of %v are all taken: %w", r.Port, last, r.LocalIP, unix.EADDRINUSE)
}

// openGroup opens a socket that receives multicast. It takes part in the group port with the other processes of the
// host, and gets only the groups that it joined itself.
func openGroup(r resolved) (*socket, error) {
	f := r.family()
	s, err := newSocket(r,
		option(unix.SOL_SOCKET, unix.SO_REUSEADDR, 1, "SO_REUSEADDR"),
		f.pktinfo(), f.bindTo(f.any(), r.GroupPort),
	)
	if err != nil {
		return nil, err
	}
	// A second fence: what the interface filter lets through is checked against IP_PKTINFO all the same, so a system
	// that does not allow this loses nothing.
	if len(r.indexes) == 0 {
		_ = unix.BindToDevice(s.fd, r.Interface)
	}
	s.multicast = true
	return s, nil
}

// probeGSO tells whether the kernel knows UDP_SEGMENT.
func probeGSO(fd int) error {
	_, err := unix.GetsockoptInt(fd, unix.SOL_UDP, unix.UDP_SEGMENT)
	return err
}

// enableGRO asks for super-packets.
func enableGRO(fd int) error { return unix.SetsockoptInt(fd, unix.SOL_UDP, unix.UDP_GRO, 1) }
