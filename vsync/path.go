package vsync

import (
	"crypto/hkdf"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"net/netip"

	"github.com/khamsin-io/khamsin/dataplane"
)

// Path says where a system's packets may go, for packages that move bytes beside its messages: they go nowhere else.
type Path struct {
	Interface string     // the only one that may be used
	IP        netip.Addr // this process's address on it
	TTL       int        // of multicasts; 0: they stay on this host
	Multicast bool       // IP multicast may be used
	UDP       bool       // UDP may be used; without it TCP alone
	GroupPort uint16     // UDP port of multicasts
	Low, High uint32     // the range of the channels, both included

	// Bulk is the first of BulkCount channels that no group uses for its messages: those of Network.MaxChannels that
	// are left to bulk objects. BulkCount may be 0.
	Bulk      uint32
	BulkCount int
}

// Path returns where packets may go.
func (s *System) Path() (Path, error) {
	c := &s.config
	names, err := c.interfaces()
	if err != nil {
		return Path{}, err
	}
	p := Path{TTL: c.ttl(names), GroupPort: c.GroupPort, Multicast: !c.Network.TCPOnly && !c.Network.UnicastOnly,
		UDP: !c.Network.TCPOnly}
	p.Low, p.High, _ = c.Network.channels()
	groups, bulk := c.Network.shares()
	p.Bulk, p.BulkCount = p.Low+uint32(groups), bulk
	if s.caps.Name == memTransport {
		p.Interface, p.IP, p.TTL = loopback, netip.AddrFrom4([4]byte{127, 0, 0, 1}), 0
		return p, nil
	}
	name := names[0]
	p.Interface = name
	i, err := net.InterfaceByName(name)
	if err != nil {
		return Path{}, fmt.Errorf("interface %s: %w", name, err)
	}
	addrs, err := i.Addrs()
	if err != nil {
		return Path{}, fmt.Errorf("interface %s: %w", name, err)
	}
	own := s.self.Endpoint().AddrPort().Addr()
	for _, a := range addrs {
		prefix, err := netip.ParsePrefix(a.String())
		if err != nil {
			continue
		}
		ip := prefix.Addr().Unmap()
		switch {
		case ip == own:
			p.IP = ip
			return p, nil
		case !p.IP.IsValid() && ip.Is6() == c.Network.IPv6 && !ip.IsLinkLocalUnicast():
			p.IP = ip
		}
	}
	if !p.IP.IsValid() {
		return Path{}, fmt.Errorf("interface %s has no address of the family that this system uses", name)
	}
	return p, nil
}

// memTransport is the name of the transport that leaves no process.
const memTransport = "mem"

// hearing is what a transport does that has packets dropped.
type hearing interface {
	Hear(to netip.AddrPort) (io.Closer, error)
}

// setBeside notes what a transport can do beside messages.
func (s *System) setBeside(t dataplane.Transport) {
	s.sided, _ = t.(dataplane.OneSided)
	s.hearing, _ = t.(hearing)
	if p, ok := t.(interface{ PastStack() dataplane.Bypass }); ok {
		s.bypass = p.PastStack()
	}
}

// OneSided returns what writes into the memory of other processes without their receiving anything, nil when the
// system's transport cannot. It is the transport's, and ends with the system. What is written is not sealed, whatever
// keys there are.
func (s *System) OneSided() dataplane.OneSided { return s.sided }

// Bypass returns what carries multicasts past the kernel's network stack, nil when the system's transport cannot, or
// shall not (XDPOptions.Bulk). It is the transport's, and ends with the system.
func (s *System) Bypass() dataplane.Bypass { return s.bypass }

// Hear lets multicasts that are not the system's messages, to a channel's address and port, come to sockets that the
// caller has opened on the interface of Path, until what it returns is closed. Without it the transport may have them
// dropped (XDPOptions.Exclusive).
func (s *System) Hear(to netip.AddrPort) (io.Closer, error) {
	if s.hearing == nil {
		return io.NopCloser(nil), nil
	}
	return s.hearing.Hear(to)
}

// DeriveKey returns a key of KeyLen bytes that follows from the system's, for a purpose of the caller's: all processes
// of the system get the same, nobody else. It fails with ErrNoKey when the system has no key.
func (s *System) DeriveKey(purpose string) ([]byte, error) {
	if s.key == nil {
		return nil, ErrNoKey
	}
	return hkdf.Key(sha256.New, s.key, nil, "khamsin application: "+purpose, KeyLen)
}
