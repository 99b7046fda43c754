package vsync

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/khamsin-io/khamsin/dataplane"
	"github.com/khamsin-io/khamsin/dataplane/frame"
	"github.com/khamsin-io/khamsin/dataplane/tree"
	"github.com/khamsin-io/khamsin/dataplane/wire"
	"github.com/khamsin-io/khamsin/transports/tcp"
	"github.com/khamsin-io/khamsin/transports/udp"
	"github.com/khamsin-io/khamsin/vsync/internal/engine"
	"github.com/khamsin-io/khamsin/vsync/internal/seal"
)

// Network says which packets a system may use where, and where other processes are. The zero value is UDP with IP
// multicast.
type Network struct {
	UnicastOnly bool // no multicast: packets to a group go through a tree of its members
	TCPOnly     bool // neither multicast nor UDP: TCP connections, and the tree
	TCPDirect   bool // TCPOnly without the tree: everybody is connected with everybody
	FanOut      int  // packets that a member of a tree sends for one; 0: tree.DefaultFanOut

	// MaxConnections bounds the TCP connections of a process with TCPOnly, at least 6. Up to three quarters of them,
	// less two, everybody is connected with everybody; in larger systems each process has some neighbours, by way of
	// whom it talks to the others. The bound holds when members differ as well: then connections are closed in turn, in
	// order. 0: 64, or with TCPDirect, which needs one for every other process, 1024. Lifelines are not counted: they
	// are four.
	MaxConnections int

	// Hosts are where the membership service may be: names or addresses. A process on another host never serves as a
	// member of it, and Start fails there with ErrNoOracle when it finds none. Without multicast they are also where
	// processes look for each other, each with a port or with the first ones from PeerPort on. Empty means that any
	// process may serve; without multicast that is an error, unless processes talk on the loopback only.
	//
	// A system is founded when processes on a majority of the hosts agree who founds it, so that a minority that is cut
	// off founds none. Until then Start waits, for OracleLost at most; FastStart founds without asking. All processes
	// of a system need the same list, with the same names. Several names or ports of one address are one host. Each
	// process is on the host with the address it talks from, or on the first one with another address of its machine.
	Hosts []string

	// ChannelLow and ChannelHigh bound the channels, whose addresses are 239.0.0.0 plus their numbers, and MaxChannels
	// is how many of them are used: one for finding each other, four for bulk objects (none when MaxChannels is below
	// 16), the others for groups, which share them when they are more. Zero: 5000, 505000 and 25. All processes of a
	// system need the same ones.
	ChannelLow, ChannelHigh uint32
	MaxChannels             int

	// IPv6 takes the interface's IPv6 address instead of its IPv4 one. All processes of a system need the same. A
	// loopback interface usually has no route for IPv6 multicast; UnicastOnly or TCPOnly do without.
	IPv6 bool

	SkipFirst bool       // leave out the first one of the interfaces that are named or that the subnet selects
	Subnet    netip.Addr // with Netmask: use the interfaces whose IPv4 address, masked, is this one; both 0: all
	Netmask   netip.Addr
}

// Defaults of a Network.
const (
	defaultChannelLow  = 5000
	defaultChannelHigh = 505000
	defaultMaxChannels = 25
	seedPorts          = 8  // ports of a host where processes are looked for
	defaultConnections = 64 // MaxConnections with a tree
	connectionsMin     = 6
	otherConnections   = 2 // of those in use, kept for others than neighbours
)

// validate reports everything that is wrong.
func (n *Network) validate() error {
	var faults []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			faults = append(faults, fmt.Errorf(format, args...))
		}
	}
	check(!n.UnicastOnly || !n.TCPOnly, "UnicastOnly and TCPOnly are both set: choose one")
	check(!n.TCPDirect || n.TCPOnly, "TCPDirect needs TCPOnly")
	check(n.FanOut >= 0 && n.FanOut <= tree.FanOutMax, "FanOut is %d, want up to %d", n.FanOut, tree.FanOutMax)
	check(n.MaxConnections == 0 || n.MaxConnections >= connectionsMin && n.MaxConnections <= tcp.ConnectionsMax,
		"MaxConnections is %d, want %d to %d", n.MaxConnections, connectionsMin, tcp.ConnectionsMax)
	low, high, most := n.channels()
	check(low >= 1 && low < high && high <= uint32(dataplane.ChannelMax),
		"channels %d to %d: want a low one below a high one, from 1 to %d", low, high, dataplane.ChannelMax)
	check(most >= 2 && most <= udp.ChannelsMax, "MaxChannels is %d, want 2 to %d", most, udp.ChannelsMax)
	lone := n.Subnet // one that is 0 selects nothing by itself
	if n.Netmask.IsValid() {
		lone = n.Netmask
	}
	check(n.Subnet.IsValid() == n.Netmask.IsValid() || lone.IsUnspecified(),
		"Subnet and Netmask belong together: one of them is missing")
	for _, h := range n.Hosts {
		check(h != "" && !strings.ContainsAny(h, " \t/,"), "host %q is no name or address", h)
	}
	return errors.Join(faults...)
}

// channels returns the range of channels and how many are used.
func (n *Network) channels() (low, high uint32, most int) {
	low, high, most = n.ChannelLow, n.ChannelHigh, n.MaxChannels
	if low == 0 {
		low = defaultChannelLow
	}
	if high == 0 {
		high = max(defaultChannelHigh, low+1)
	}
	if most == 0 {
		most = defaultMaxChannels
	}
	return low, high, most
}

// ByNetwork returns the transport that Config.Network asks for; it is the default.
func ByNetwork() TransportFactory {
	return func(c *Config) (dataplane.Transport, error) {
		switch n := &c.Network; {
		case n.TCPOnly:
			return overTree(c, openTCP)
		case n.UnicastOnly:
			return overTree(c, openUnicast)
		}
		return UDP()(c)
	}
}

// TCP returns the transport over TCP connections, whatever Config.Network says about it.
func TCP() TransportFactory {
	return func(c *Config) (dataplane.Transport, error) {
		c.Network.TCPOnly, c.Network.UnicastOnly = true, false
		return ByNetwork()(c)
	}
}

// UnicastUDP returns the transport over UDP without multicast, whatever Config.Network says about it.
func UnicastUDP() TransportFactory {
	return func(c *Config) (dataplane.Transport, error) {
		c.Network.UnicastOnly, c.Network.TCPOnly = true, false
		return ByNetwork()(c)
	}
}

// overTree opens a transport without multicast on the interface of the configuration, and gives it channels.
func overTree(c *Config, open func(c *Config) (dataplane.Transport, error)) (dataplane.Transport, error) {
	inner, err := open(c)
	if err != nil {
		return nil, fmt.Errorf("open transport: %w", err)
	}
	seeds, err := c.seeds(inner.Local())
	if err != nil {
		return nil, errors.Join(err, inner.Close())
	}
	tc := tree.Config{FanOut: c.Network.FanOut, Direct: c.Network.TCPDirect, Seeds: seeds}
	if bounded, ok := inner.(interface{ Enough() int }); ok {
		tc.Neighbours = bounded.Enough() - otherConnections
	}
	if c.key != nil {
		ring, err := seal.NewRing(c.key(), 0) // to open packets with, in the goroutine that receives
		if err != nil {
			return nil, errors.Join(err, inner.Close())
		}
		tc.Genuine = func(packet []byte) bool {
			var h wire.Header
			return h.Peek(packet) == nil && ring.Open(packet, h.Signed, true) == nil
		}
	}
	t, err := tree.New(inner, tc)
	if err != nil {
		return nil, errors.Join(err, inner.Close())
	}
	return t, nil
}

// Sizes of the TCP transport's arena: packets may be long, since nothing cuts them.
const (
	tcpPacket     = 16000
	tcpChunkBytes = 16384
	tcpFrames     = 4096
)

func openTCP(c *Config) (dataplane.Transport, error) {
	name, err := c.oneInterface()
	if err != nil {
		return nil, err
	}
	mtu := tcpPacket
	if c.MaxPacket > 0 {
		mtu = min(mtu, c.MaxPacket)
	}
	most := c.Network.MaxConnections
	if most == 0 && !c.Network.TCPDirect {
		most = defaultConnections
	}
	return tcp.Open(tcp.Config{
		Interface: name, Connections: most, IPv6: c.Network.IPv6, Port: c.PeerPort, MTU: mtu, Log: c.logger(),
		Arena: frame.Config{ChunkSize: tcpChunkBytes, TxChunks: max(tcpFrames, 2*c.MaxUnstable), RxRuns: tcpFrames},
	})
}

// openUnicast opens UDP without multicast.
func openUnicast(c *Config) (dataplane.Transport, error) {
	cfg, err := c.udpConfig()
	if err != nil {
		return nil, err
	}
	cfg.GroupPort = 0
	return udp.Open(cfg)
}

// seeds returns where processes may be.
func (c *Config) seeds(local dataplane.Endpoint) ([]dataplane.Endpoint, error) {
	hosts, here := c.Network.Hosts, local.AddrPort().Addr()
	if len(hosts) == 0 {
		if !here.IsLoopback() {
			return nil, fmt.Errorf("without multicast, processes on other hosts than %v are found by Network.Hosts, "+
				"or ISIS_HOSTS: name at least one host", here)
		}
		hosts = []string{here.String()}
	}
	var seeds []dataplane.Endpoint
	for _, h := range hosts {
		name, port, err := net.SplitHostPort(h)
		if err != nil {
			name, port = strings.Trim(h, "[]"), ""
		}
		addr, err := lookUp(name, local.AddrPort().Addr().Is4())
		if err != nil {
			return nil, fmt.Errorf("host %q: %w", h, err)
		}
		first, last := int(c.PeerPort), min(int(c.PeerPort)+seedPorts-1, 65535)
		if port != "" {
			if first, err = strconv.Atoi(port); err != nil || first < 1 || first > 65535 {
				return nil, fmt.Errorf("host %q: port %q is not a number from 1 to 65535", h, port)
			}
			last = first
		}
		for p := first; p <= last; p++ {
			seeds = append(seeds, dataplane.EndpointOf(netip.AddrPortFrom(addr, uint16(p))))
		}
	}
	return seeds, nil
}

// settleEligible notes the hosts that are listed, each of them once, and which of them this process is on: the one with
// the address it talks from, or else one with another address of this machine. Who is on none is not eligible.
func (c *Config) settleEligible(local dataplane.Endpoint) error {
	c.listed, c.host = nil, ""
	if len(c.Network.Hosts) == 0 || !c.Eligible {
		return nil
	}
	here := []netip.Addr{local.AddrPort().Addr()}
	if addrs, err := net.InterfaceAddrs(); err == nil {
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil {
				here = append(here, p.Addr().Unmap())
			}
		}
	}
	var faults []error
	var known []netip.Addr
	for _, h := range c.Network.Hosts {
		name, _, err := net.SplitHostPort(h)
		if err != nil {
			name = strings.Trim(h, "[]")
		}
		name = strings.ToLower(strings.TrimSuffix(name, "."))
		addr, err := lookUp(name, local.AddrPort().Addr().Is4())
		if err != nil {
			faults = append(faults, fmt.Errorf("host %q: %w", h, err))
		}
		if slices.Contains(c.listed, name) || err == nil && slices.Contains(known, addr) {
			continue // another port, or another name
		}
		c.listed, known = append(c.listed, name), append(known, addr)
		if err == nil && (addr == here[0] || c.host == "" && slices.Contains(here, addr)) {
			c.host = name
		}
	}
	switch {
	case c.host != "":
		return nil
	case len(faults) > 0:
		return errors.Join(faults...)
	case c.FastStart:
		return fmt.Errorf("FastStart on %v, which is none of the hosts %v that may serve", here[0], c.Network.Hosts)
	}
	c.Eligible = false
	return nil
}

// where says, for an error, which processes may be the membership service.
func (c *Config) where() string {
	if len(c.Network.Hosts) == 0 {
		return "any other process may"
	}
	if c.host != "" {
		return fmt.Sprintf("to found one takes processes on %d of the hosts %s at the same time", len(c.listed)/2+1,
			strings.Join(c.listed, ", "))
	}
	return "those on " + strings.Join(c.Network.Hosts, ", ") + " may"
}

// lookUp returns a host's first address of a family.
func lookUp(name string, four bool) (netip.Addr, error) {
	if a, err := netip.ParseAddr(name); err == nil {
		return a.Unmap(), nil
	}
	ips, err := net.LookupIP(name)
	if err != nil {
		return netip.Addr{}, err
	}
	for _, ip := range ips {
		if a, ok := netip.AddrFromSlice(ip); ok && a.Unmap().Is4() == four {
			return a.Unmap(), nil
		}
	}
	return netip.Addr{}, errors.New("has no address of the family that this process uses")
}

// interfaces returns the interfaces to talk on: those that are named, or with a subnet those that it selects, without
// the first one if that is to be skipped.
func (c *Config) interfaces() ([]string, error) {
	names := slices.Clone(c.Interfaces)
	if n := &c.Network; n.selects() {
		var err error
		if names, err = n.selected(); err != nil {
			return nil, err
		}
	}
	if c.Network.SkipFirst && len(names) > 0 {
		names = names[1:]
	}
	if len(names) == 0 {
		return nil, c.noInterface()
	}
	return names, nil
}

// noInterface says why no interface is left, in the words of what was set.
func (c *Config) noInterface() error {
	n := &c.Network
	what := strings.Join(c.Interfaces, ", ")
	if n.selects() {
		what = fmt.Sprintf("those that are up and, under netmask %v, have the subnet %v", n.Netmask, n.Subnet)
	}
	if n.SkipFirst {
		what += ", when the first one is skipped"
	}
	return fmt.Errorf("interfaces: none is left of %s", what)
}

// oneInterface returns the interface to talk on, for transports that use no more than one.
func (c *Config) oneInterface() (string, error) {
	names, err := c.interfaces()
	switch {
	case err != nil:
		return "", err
	case len(names) > 1:
		return "", fmt.Errorf("%w: %s", errOneInterface, strings.Join(names, ", "))
	}
	return names[0], nil
}

// selects tells whether interfaces are chosen by their addresses.
func (n *Network) selects() bool { return n.Subnet.IsValid() && n.Netmask.IsValid() }

// selected returns the interfaces that are up and have an address in the subnet. A loopback is among them only when
// there is nothing else.
func (n *Network) selected() ([]string, error) {
	all, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("interfaces: %w", err)
	}
	var names, loopbacks []string
	for _, ifi := range all {
		if ifi.Flags&net.FlagUp == 0 {
			continue
		}
		addrs, err := ifi.Addrs()
		if err != nil {
			return nil, fmt.Errorf("addresses of interface %q: %w", ifi.Name, err)
		}
		switch {
		case !slices.ContainsFunc(addrs, func(a net.Addr) bool { return n.matches(a.String()) }):
		case ifi.Flags&net.FlagLoopback != 0:
			loopbacks = append(loopbacks, ifi.Name)
		default:
			names = append(names, ifi.Name)
		}
	}
	if len(names) == 0 {
		names = loopbacks
	}
	return names, nil
}

// matches tells whether an interface's address, printed as a prefix, lies in the subnet.
func (n *Network) matches(prefix string) bool {
	p, err := netip.ParsePrefix(prefix)
	if err != nil || !p.Addr().Unmap().Is4() {
		return false
	}
	has, mask, want := p.Addr().Unmap().As4(), n.Netmask.As4(), n.Subnet.As4()
	for i := range has {
		if has[i]&mask[i] != want[i]&mask[i] {
			return false
		}
	}
	return true
}

// Of the channels, some are left to bulk objects, unless there are few.
const (
	bulkChannels = 4
	bulkLeast    = 16
)

// shares returns how many channels the protocols use, from the lowest on, and how many behind them bulk objects may.
func (n *Network) shares() (protocols, bulk int) {
	low, high, most := n.channels()
	all := int(min(uint32(most), high-low+1))
	if all < bulkLeast {
		return all, 0
	}
	return all - bulkChannels, bulkChannels
}

// engineChannels returns the channels that the protocols use.
func (n *Network) engineChannels() engine.Channels {
	low, _, _ := n.channels()
	count, _ := n.shares()
	return engine.Channels{Low: dataplane.Channel(low), Count: count}
}
