package tcp

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/khamsin-io/khamsin/dataplane"
	"github.com/khamsin-io/khamsin/dataplane/clock"
	"github.com/khamsin-io/khamsin/dataplane/frame"
)

// stage of a link's life.
type stage uint8

const (
	stageDialling stage = iota // the connection is being made
	stageStranger              // accepted, and waiting for a hello
	stageOpen
	stageLeaving  // retired: we send no more, and receive until the peer has closed
	stageDraining // the peer sends no more, and gets what is left of a packet
	stageShut     // given up; Receive closes the descriptor when the system reports its end
)

// link is one connection. What sending needs is guarded by Transport.mu; what receiving needs is Receive's alone.
type link struct {
	fd    int
	peer  dataplane.Endpoint // zero for a stranger
	stage stage
	full  bool // the peer did not read: the next Send does not wait for it

	staged  []frame.Frame // packets of the Send that is under way
	touched bool          // in the list of links of that Send
	rest    []byte        // of hello or of a packet that left in part: must leave before anything else

	used   clock.Time // when something was sent or received last; guarded by Transport.mu
	since  clock.Time // of a stranger: when it was accepted; of one that leaves: since when
	buf    []byte     // buf[from:to] has been read and not yet been looked at
	from   int
	to     int
	ready  bool // in the list of links that have something in buf
	filled bool // the last read filled the buffer
	ended  bool // the peer sends no more
}

// Sizes of a link's read buffer: it begins small, so that strangers cost little, and grows for a peer that has much to
// say.
const (
	bufFirst = 4 << 10
	bufMost  = 256 << 10
)

// newSocket opens a socket for an address's family.
func (t *Transport) newSocket(to netip.Addr) (int, error) {
	family := unix.AF_INET
	if to.Is6() && !to.Is4In6() {
		family = unix.AF_INET6
	}
	return unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
}

// tune sets what every connection needs. A system that refuses one of these loses some speed or notices death later.
func (t *Transport) tune(fd int) {
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(t.cfg.DeadAfter/time.Millisecond))
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1)
	idle := max(1, int(t.cfg.DeadAfter/time.Second))
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, idle)
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, max(1, idle/3))
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 3)
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, t.cfg.SendBuffer) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, t.cfg.SendBuffer)
	}
}

// sockaddr returns an address and port as the system wants it.
func sockaddr(ap netip.AddrPort) unix.Sockaddr {
	if a := ap.Addr().Unmap(); a.Is4() {
		return &unix.SockaddrInet4{Addr: a.As4(), Port: int(ap.Port())}
	}
	return &unix.SockaddrInet6{Addr: ap.Addr().As16(), Port: int(ap.Port())}
}

// addrPort reads what the system says about an address.
func addrPort(sa unix.Sockaddr) netip.AddrPort {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr).Unmap(), uint16(sa.Port))
	}
	return netip.AddrPort{}
}

// listen opens the listening socket at the first free one of the configured ports.
func (t *Transport) listen() error {
	fd, err := t.newSocket(t.cfg.LocalIP)
	if err != nil {
		return fmt.Errorf("tcp: socket: %w", err)
	}
	t.listener = fd
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return fmt.Errorf("tcp: SO_REUSEADDR: %w", err)
	}
	if t.cfg.RecvBuffer > 0 { // accepted connections inherit it
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, t.cfg.RecvBuffer); err != nil {
			return fmt.Errorf("tcp: SO_RCVBUF: %w", err)
		}
	}
	last := min(int(t.cfg.Port)+t.cfg.PortTries-1, 65535)
	for port := int(t.cfg.Port); ; port++ {
		err = unix.Bind(fd, sockaddr(netip.AddrPortFrom(t.cfg.LocalIP, uint16(port))))
		if err == nil {
			err = unix.Listen(fd, backlog) // a port that another process listens on is refused here at the latest
		}
		if err == nil {
			break
		}
		if err != unix.EADDRINUSE || t.cfg.Port == 0 || port == last {
			return fmt.Errorf("tcp: listen on %v, ports %d to %d: %w", t.cfg.LocalIP, t.cfg.Port, last, err)
		}
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		return fmt.Errorf("tcp: getsockname: %w", err)
	}
	t.local = dataplane.EndpointOf(addrPort(name))
	return nil
}

// backlog is how many connections may wait to be accepted.
const backlog = 512

// dial begins a connection. The caller holds mu.
func (t *Transport) dial(peer dataplane.Endpoint) (*link, error) {
	to := peer.AddrPort()
	fd, err := t.newSocket(to.Addr())
	if err != nil {
		return nil, err
	}
	t.tune(fd)
	// The connection leaves by the configured address or not at all. In another network namespace than the transport's
	// this fails; the system's own choice could be any network.
	if err = unix.Bind(fd, sockaddr(netip.AddrPortFrom(t.cfg.LocalIP, 0))); err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	if err = unix.Connect(fd, sockaddr(to)); err != nil && err != unix.EINPROGRESS {
		_ = unix.Close(fd)
		return nil, err
	}
	l := &link{fd: fd, peer: peer, stage: stageDialling, rest: appendHello(nil, t.local), used: t.clock.Now()}
	return l, t.adopt(l)
}

// adopt makes a link known to Receive. The caller holds mu.
func (t *Transport) adopt(l *link) error {
	event := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLRDHUP, Fd: int32(l.fd)}
	if err := unix.EpollCtl(t.epoll, unix.EPOLL_CTL_ADD, l.fd, &event); err != nil {
		_ = unix.Close(l.fd)
		return err
	}
	t.links[int32(l.fd)] = l
	t.count()
	return nil
}

// giveUp ends a link whose descriptor Receive will close. The caller holds mu.
func (t *Transport) giveUp(l *link) {
	if l.stage == stageShut {
		return
	}
	if !l.ending() {
		t.ending++
	}
	l.stage = stageShut
	t.forget(l)
	_ = unix.Shutdown(l.fd, unix.SHUT_RDWR) // tells Receive; it hears of one that never was connected anyway
}

// ending tells whether a link's end has begun, and only Receive has to do with it.
func (l *link) ending() bool { return l.stage == stageLeaving || l.stage == stageShut }

// count keeps the counts of connections. The caller holds mu.
func (t *Transport) count() {
	n := uint64(len(t.links))
	t.present.Store(n)
	t.most.Store(max(n, t.most.Load()))
}

// forget makes the next packet to a link's peer take another link, or dial again. The caller holds mu.
func (t *Transport) forget(l *link) {
	if t.peers[l.peer] != l {
		return
	}
	delete(t.peers, l.peer)
	for _, other := range t.links {
		if other != l && other.stage == stageOpen && other.peer == l.peer {
			t.peers[l.peer] = other
			return
		}
	}
}

// length reads the length of the packet at the front of what a link has read; false when it is not there yet.
func (l *link) length() (int, bool) {
	if l.to-l.from < lenBytes {
		return 0, false
	}
	return int(binary.LittleEndian.Uint32(l.buf[l.from:])), true
}
