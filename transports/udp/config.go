package udp

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"

	"github.com/khamsin-io/khamsin/dataplane"
	"github.com/khamsin-io/khamsin/dataplane/frame"
)

// Defaults and limits of a Config.
const (
	DefaultInterface  = "lo"
	DefaultMTUMax     = 1472 // payload of an Ethernet frame of 1500 bytes
	DefaultPortTries  = 64
	DefaultRecvBuffer = 4 << 20
	DefaultSendBuffer = 2 << 20
	DefaultChannels   = 64
	DefaultTxChunks   = 4096
	DefaultRxRuns     = 512
	MTUMax            = 65507 // payload of the longest UDP datagram over IPv4
	TTLMax            = 255
	ChannelsMax       = 1024

	headersIPv4 = 28 // bytes of the IP and UDP headers
	headersIPv6 = 48
)

// headerBytes returns the bytes of the headers in front of a payload from an address.
func headerBytes(ip netip.Addr) int {
	if ip.Is6() {
		return headersIPv6
	}
	return headersIPv4
}

// Config says how a transport is opened. Zero fields take their defaults.
type Config struct {
	// Interface is the interface that packets leave and arrive by. Default DefaultInterface.
	Interface string

	// Also names further interfaces. Multicasts leave by all of them and are received by all of them, once; unicast
	// takes the one by which the other process is heard. Processes are known by their address on Interface, which
	// others must be able to answer to by any of the networks: rp_filter of the interfaces must not be 1, and with
	// IPv6 each interface must have that address. Without multicast, unicast to processes that are silent takes all of
	// them. Neither Filter nor Beside works with more than one interface.
	Also []string

	// LocalIP is the address that others send to, and decides between IPv4 and IPv6. Default: the interface's first
	// IPv4 address, or with IPv6 its first global IPv6 address, else its link-local one.
	LocalIP netip.Addr
	IPv6    bool

	// Port is the unicast port. Zero lets the system choose. When it is taken, the following ports are tried,
	// PortTries in all (default DefaultPortTries), so that the processes of one host find one each.
	Port      uint16
	PortTries int

	// GroupPort is the one UDP port of all multicast channels, shared by the processes of a host. Zero leaves
	// multicast out.
	GroupPort uint16

	// Channels is how many channels can be subscribed at the same time, up to ChannelsMax. Default DefaultChannels.
	// The sockets for them are opened at once: one for every 20, or whatever the system's igmp_max_memberships says.
	Channels int

	// TTL is how many networks multicast packets may enter: from 1 to TTLMax. Zero is the default: they stay on the
	// host (IP TTL 0) when the interface is a loopback, and in the local network (1) on any other. A negative TTL
	// keeps them on the host in either case.
	TTL int

	// MTU is the largest payload in bytes. Default: the interface's MTU less the headers, 28 bytes with IPv4 and 48
	// with IPv6, at most DefaultMTUMax.
	MTU int

	// RecvBuffer and SendBuffer are the bytes asked for as socket buffers; Transport.Buffers tells what was granted.
	RecvBuffer, SendBuffer int

	// DisableGSO and DisableGRO turn off the kernel's cutting of super-packets on sending and making of them on
	// receiving. DisableBatch uses one system call for each message, where the kernel knows neither sendmmsg nor
	// recvmmsg. All are turned off by themselves where they do not work.
	DisableGSO, DisableGRO, DisableBatch bool

	// Arena sizes the frames. Default: chunks that hold a headroom and the MTU, DefaultTxChunks of them to send with,
	// and DefaultRxRuns to receive in. Super-packets land beside the arena and are copied into its frames.
	Arena frame.Config

	// Filter is put on every multicast socket, which then gets no super-packets: a filter sees only the first packet of
	// each. Default: packets of all groups of the subscribed channels come. Open takes it, even when it fails.
	Filter Filter

	// Beside opens another source, which Receive polls before the sockets. Multicasts that this transport sent itself
	// are then dropped when they come back, since the other way out brings none back.
	Beside OpenSource

	// Log is told, once each, which offloads are off and why. Default: nothing is logged.
	Log *slog.Logger
}

// resolved is a complete Config with what Open learnt about the interface.
type resolved struct {
	Config
	ifIndex int
	ifMTU   int     // of the interface that carries least
	indexes []int32 // of all interfaces, when there is more than one
	gro     bool    // wanted
}

// resolve checks c and fills it in for an interface.
func (c Config) resolve() (resolved, error) {
	if c.Interface == "" {
		c.Interface = DefaultInterface
	}
	if err := c.validate(); err != nil {
		return resolved{}, err
	}
	ifi, err := net.InterfaceByName(c.Interface)
	if err != nil {
		return resolved{}, fmt.Errorf("udp: interface %q: %w", c.Interface, err)
	}
	if c.LocalIP, err = localIP(ifi, c.LocalIP, c.IPv6); err != nil {
		return resolved{}, err
	}
	r := resolved{Config: c, ifIndex: ifi.Index, ifMTU: ifi.MTU}
	if err := r.resolveAlso(); err != nil {
		return resolved{}, err
	}
	r.Config = c.withDefaults(r.ifMTU, ifi.Flags&net.FlagLoopback != 0)
	r.gro = !r.DisableGRO
	return r, r.checkSizes()
}

// validate reports everything that is wrong with c and can be told without the interface.
func (c Config) validate() error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf("udp: "+format, args...)) }
	if c.LocalIP.IsValid() && (c.LocalIP.IsUnspecified() || c.LocalIP.IsMulticast()) {
		fault("LocalIP %v is not the address of a host", c.LocalIP)
	}
	if c.LocalIP.IsValid() && c.IPv6 && c.LocalIP.Unmap().Is4() {
		fault("LocalIP %v is no IPv6 address, which IPv6 asks for", c.LocalIP)
	}
	if c.PortTries < 0 {
		fault("PortTries %d is negative", c.PortTries)
	}
	if c.Port != 0 && c.Port == c.GroupPort {
		fault("Port and GroupPort are both %d", c.Port)
	}
	if c.TTL > TTLMax {
		fault("TTL %d is above %d", c.TTL, TTLMax)
	}
	if c.MTU < 0 || c.MTU > MTUMax {
		fault("MTU %d is not from 1 to %d", c.MTU, MTUMax)
	}
	if c.Channels < 0 || c.Channels > ChannelsMax {
		fault("Channels %d is not from 1 to %d", c.Channels, ChannelsMax)
	}
	if c.RecvBuffer < 0 || c.SendBuffer < 0 {
		fault("RecvBuffer %d or SendBuffer %d is negative", c.RecvBuffer, c.SendBuffer)
	}
	return errors.Join(faults...)
}

// checkSizes reports arena sizes that do not fit the MTU.
func (r resolved) checkSizes() error {
	if err := r.Arena.Validate(); err != nil {
		return err
	}
	if room := r.Arena.ChunkSize - r.Arena.Headroom; room < r.MTU {
		return fmt.Errorf("udp: MTU %d does not fit the %d bytes behind a chunk's headroom", r.MTU, room)
	}
	if r.MTU < 1 {
		return fmt.Errorf("udp: interface %q has an MTU of %d, too small for a payload", r.Interface, r.ifMTU)
	}
	return nil
}

// withDefaults fills in the zero fields for an interface.
func (c Config) withDefaults(ifMTU int, loopback bool) Config {
	setDefault(&c.PortTries, DefaultPortTries)
	setDefault(&c.MTU, min(ifMTU-headerBytes(c.LocalIP), DefaultMTUMax))
	setDefault(&c.Channels, DefaultChannels)
	setDefault(&c.RecvBuffer, DefaultRecvBuffer)
	setDefault(&c.SendBuffer, DefaultSendBuffer)
	switch {
	case c.TTL < 0 || c.TTL == 0 && loopback:
		c.TTL = 0
	case c.TTL == 0:
		c.TTL = 1
	}
	a := &c.Arena
	setDefault(&a.Headroom, frame.DefaultHeadroom)
	if a.ChunkSize == 0 {
		a.ChunkSize = frame.DefaultChunkSize
		for a.ChunkSize < a.Headroom+c.MTU && a.ChunkSize < frame.ChunkSizeMax {
			a.ChunkSize *= 2
		}
	}
	setDefault(&a.TxChunks, DefaultTxChunks)
	setDefault(&a.RxRuns, DefaultRxRuns)
	setDefault(&a.RunChunks, 1)
	return c
}

func setDefault(field *int, value int) {
	if *field == 0 {
		*field = value
	}
}

// localIP returns the address to use of an interface: want, if that is one of its addresses, else the first one of the
// family that is asked for, link-local ones last.
func localIP(ifi *net.Interface, want netip.Addr, six bool) (netip.Addr, error) {
	addrs, err := ifi.Addrs()
	if err != nil {
		return netip.Addr{}, fmt.Errorf("udp: addresses of interface %q: %w", ifi.Name, err)
	}
	want = want.Unmap().WithZone("")
	var last netip.Addr
	for _, a := range addrs {
		prefix, err := netip.ParsePrefix(a.String())
		if err != nil {
			continue
		}
		has := prefix.Addr().Unmap()
		switch {
		case want.IsValid() && has == want:
			return has, nil
		case want.IsValid() && has.Is4() && has.IsLoopback() && prefix.Masked().Contains(want):
			return want, nil // all of 127.0.0.0/8 is this host
		case want.IsValid() || has.Is6() != six:
		case has.IsLinkLocalUnicast():
			last = has
		default:
			return has, nil
		}
	}
	switch {
	case want.IsValid():
		return netip.Addr{}, fmt.Errorf("udp: interface %q has no address %v", ifi.Name, want)
	case last.IsValid():
		return last, nil
	case six:
		return netip.Addr{}, fmt.Errorf("udp: interface %q has no IPv6 address", ifi.Name)
	}
	return netip.Addr{}, fmt.Errorf("udp: interface %q has no IPv4 address", ifi.Name)
}

// capsOf returns what a transport of this configuration can do.
func (r resolved) capsOf() dataplane.Caps {
	multicast := r.GroupPort != 0
	caps := dataplane.Caps{
		Name: "udp", MTU: r.MTU, Batch: batchMax, Multicast: multicast, LoopsBack: multicast && r.Beside == nil,
	}
	if r.DisableBatch && r.DisableGSO && !r.gro {
		caps.Batch = 1
	}
	return caps
}

// batchMax is the batch that Caps recommends: a few super-packets.
const batchMax = 256
