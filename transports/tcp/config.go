package tcp

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"github.com/khamsin-io/khamsin/dataplane/frame"
)

// Defaults and limits of a Config.
const (
	DefaultInterface   = "lo"
	DefaultMTU         = 8192
	DefaultPortTries   = 64
	DefaultSendBuffer  = 4 << 20
	DefaultConnections = 1024
	DefaultTxChunks    = 4096
	DefaultRxChunks    = 4096
	DefaultDeadAfter   = 5 * time.Second
	MTUMax             = 1 << 20
	ConnectionsMax     = 1 << 16
)

// Config says how a transport is opened. Zero fields take their defaults.
type Config struct {
	// Interface is the one interface that connections use. Default DefaultInterface.
	Interface string

	// LocalIP is the address that others connect to. Default: the interface's first IPv4 address, or else its first
	// IPv6 one, and with IPv6 that in any case.
	LocalIP netip.Addr
	IPv6    bool

	// Port is the port to listen on. Zero lets the system choose. When it is taken the following ones are tried,
	// PortTries in all, so that the processes of one host find one each.
	Port      uint16
	PortTries int

	// MTU is the largest packet in bytes. There are no packets on the wire, so it may be large.
	MTU int

	// SendBuffer and RecvBuffer are the bytes asked for as socket buffers. RecvBuffer zero leaves it to the system.
	SendBuffer, RecvBuffer int

	// Connections bounds the open connections. Three quarters of them, all but 16 at least, may be in use at leisure.
	Connections int

	// DeadAfter is how long a peer may leave data unacknowledged before its connection is given up.
	DeadAfter time.Duration

	// Arena sizes the frames.
	Arena frame.Config

	// Log is told of connections that were cut off, once for each reason. Default: nothing is logged.
	Log *slog.Logger
}

// resolve checks c and fills it in.
func (c Config) resolve() (Config, error) {
	if c.Interface == "" {
		c.Interface = DefaultInterface
	}
	if err := c.validate(); err != nil {
		return c, err
	}
	ifi, err := net.InterfaceByName(c.Interface)
	if err != nil {
		return c, fmt.Errorf("tcp: interface %q: %w", c.Interface, err)
	}
	if c.LocalIP, err = localIP(ifi, c.LocalIP, c.IPv6); err != nil {
		return c, err
	}
	c = c.withDefaults()
	if err := c.Arena.Validate(); err != nil {
		return c, err
	}
	if room := c.Arena.ChunkSize - c.Arena.Headroom; room < c.MTU {
		return c, fmt.Errorf("tcp: MTU %d does not fit the %d bytes behind a chunk's headroom", c.MTU, room)
	}
	return c, nil
}

func (c *Config) validate() error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf("tcp: "+format, args...)) }
	if c.LocalIP.IsValid() && (c.LocalIP.IsUnspecified() || c.LocalIP.IsMulticast()) {
		fault("LocalIP %v is not the address of a host", c.LocalIP)
	}
	if c.PortTries < 0 {
		fault("PortTries %d is negative", c.PortTries)
	}
	if c.MTU < 0 || c.MTU > MTUMax {
		fault("MTU %d is not from 1 to %d", c.MTU, MTUMax)
	}
	if c.SendBuffer < 0 || c.RecvBuffer < 0 {
		fault("SendBuffer %d or RecvBuffer %d is negative", c.SendBuffer, c.RecvBuffer)
	}
	if c.Connections < 0 || c.Connections > ConnectionsMax {
		fault("Connections %d is not from 1 to %d", c.Connections, ConnectionsMax)
	}
	if c.DeadAfter < 0 {
		fault("DeadAfter %v is negative", c.DeadAfter)
	}
	return errors.Join(faults...)
}

func (c Config) withDefaults() Config {
	setDefault(&c.PortTries, DefaultPortTries)
	setDefault(&c.MTU, DefaultMTU)
	setDefault(&c.SendBuffer, DefaultSendBuffer)
	setDefault(&c.Connections, DefaultConnections)
	setDefault(&c.DeadAfter, DefaultDeadAfter)
	a := &c.Arena
	setDefault(&a.Headroom, frame.DefaultHeadroom)
	if a.ChunkSize == 0 {
		a.ChunkSize = frame.DefaultChunkSize
		for a.ChunkSize < a.Headroom+c.MTU && a.ChunkSize < frame.ChunkSizeMax {
			a.ChunkSize *= 2
		}
	}
	setDefault(&a.TxChunks, DefaultTxChunks)
	setDefault(&a.RxRuns, DefaultRxChunks)
	setDefault(&a.RunChunks, 1)
	return c
}

func setDefault[T int | time.Duration](field *T, value T) {
	if *field == 0 {
		*field = value
	}
}

// localIP returns the interface's address to use, or want if that is one of its addresses.
func localIP(ifi *net.Interface, want netip.Addr, wantSix bool) (netip.Addr, error) {
	addrs, err := ifi.Addrs()
	if err != nil {
		return netip.Addr{}, fmt.Errorf("tcp: addresses of interface %q: %w", ifi.Name, err)
	}
	var six netip.Addr
	for _, a := range addrs {
		prefix, err := netip.ParsePrefix(a.String())
		if err != nil {
			continue
		}
		has := prefix.Addr().Unmap()
		switch {
		case want.IsValid() && has == want.Unmap():
			return has, nil
		case want.IsValid() && has.IsLoopback() && prefix.Masked().Contains(want.Unmap()):
			return want.Unmap(), nil // all of 127.0.0.0/8 is this host
		case !want.IsValid() && has.Is4() && !wantSix:
			return has, nil
		case !has.Is4() && !has.IsLinkLocalUnicast() && !six.IsValid():
			six = has
		}
	}
	if want.IsValid() {
		return netip.Addr{}, fmt.Errorf("tcp: interface %q has no address %v", ifi.Name, want)
	}
	if !six.IsValid() {
		if wantSix {
			return netip.Addr{}, fmt.Errorf("tcp: interface %q has no IPv6 address", ifi.Name)
		}
		return netip.Addr{}, fmt.Errorf("tcp: interface %q has no address", ifi.Name)
	}
	return six, nil
}
