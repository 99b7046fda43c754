package vsync

import (
	"errors"
	"fmt"
	"time"

	"github.com/khamsin-io/khamsin/bpf"
	"github.com/khamsin-io/khamsin/dataplane"
	"github.com/khamsin-io/khamsin/dataplane/frame"
	"github.com/khamsin-io/khamsin/transports/udp"
	"github.com/khamsin-io/khamsin/transports/xdp"
)

// XDPOptions say how AF_XDP is used. The zero value is right for most: all queues, in the driver where that works.
type XDPOptions struct {
	// Generic keeps the program out of the driver. See bpf.ModeGeneric for what that costs.
	Generic bool

	// Queues are the receive queues to use. A queue serves one process only: processes that share an interface need
	// different ones. Empty means all.
	Queues []int

	// Exclusive promises that every process of this host that belongs to a system on these ports uses XDP, on queues
	// of its own. Multicasts are then never looped back to this host, and unwanted ones dropped by the driver.
	Exclusive bool

	// Latency makes Auto prefer XDP where it is quicker for single packets but carries less.
	Latency bool

	// BusyPoll makes a receiver that spins drive the network card itself, for up to that time at once.
	BusyPoll time.Duration

	// Bulk says how the multicasts of bulk objects (package oob) travel. The default goes by the driver.
	Bulk XDPBulk
}

// XDPBulk says how the multicasts of bulk objects travel in a system over AF_XDP.
type XDPBulk uint8

// The ways. Whatever they say, small transfers, and those between processes of one host, go by UDP.
const (
	BulkByDriver XDPBulk = iota // past the stack where the driver works without copies, by UDP in super-packets else
	BulkByUDP
	BulkByXDP // past the stack wherever AF_XDP works; it takes 10 MiB of memory, or with jumbo packets 80
)

// Frames that a system sets aside for bulk objects that go past the stack.
const (
	bulkTxFrames = 1024
	bulkRxFrames = 4096
)

// XDP returns a transport over AF_XDP sockets on the interface of the configuration, past the kernel's network stack.
// It takes Linux 6.6, an Ethernet interface, and CAP_NET_ADMIN, CAP_NET_RAW, CAP_BPF, CAP_PERFMON and CAP_IPC_LOCK, or
// root. Start fails with an error that says what is missing; Auto goes on with UDP. docs/xdp.md says when it pays.
func XDP(o XDPOptions) TransportFactory {
	return func(c *Config) (dataplane.Transport, error) {
		name, err := c.oneInterface()
		if err != nil {
			return nil, err
		}
		ttl := c.ttl([]string{name})
		if ttl == 0 {
			ttl = -1
		}
		cfg := xdp.Config{
			Interface: name, IPv6: c.Network.IPv6, Port: c.PeerPort, GroupPort: c.GroupPort, TTL: ttl,
			MTU:    c.MaxPacket,
			Queues: o.Queues, Exclusive: o.Exclusive, BusyPoll: o.BusyPoll, GroupFilter: true,
			Arena: frame.Config{TxChunks: max(txFrames, 2*c.MaxUnstable), RxRuns: rxFrames}, Log: c.logger(),
		}
		if o.Generic {
			cfg.Mode = bpf.ModeGeneric
		}
		if o.Bulk != BulkByUDP {
			cfg.BulkTx, cfg.BulkRx, cfg.BulkNoCopy = bulkTxFrames, bulkRxFrames, o.Bulk == BulkByDriver
		}
		if o.Bulk == BulkByXDP {
			cfg.Arena.RxRuns += bulkTxFrames + bulkRxFrames
		}
		t, err := xdp.Open(cfg)
		if err != nil {
			return nil, fmt.Errorf("open transport: %w", err)
		}
		return t, nil
	}
}

// Auto returns a transport over AF_XDP or over UDP, whichever does better for what the options ask, and logs why:
//
//   - XDP where the driver works without copies (zero-copy).
//   - Where it copies, XDP for latency (XDPOptions.Latency, or a receiver that polls: BusyPoll), and UDP else. There
//     the kernel handles the packets of a UDP super-packet together and a copying driver each for itself: on virtual
//     Ethernet UDP was measured to deliver 1.8 to 4.7 times as much, and XDP to take three quarters of UDP's time from
//     a sender to the others at low rates (docs/xdp.md).
//   - UDP where XDP does not work, and on loopback, where it has nothing to offer; there nothing is logged.
//
// SystemState shows what was chosen and why. Nothing is sent to find that out.
func Auto(o XDPOptions) TransportFactory {
	return func(c *Config) (dataplane.Transport, error) {
		if len(c.Interfaces) != 1 || c.Interfaces[0] == loopback {
			return UDP()(c)
		}
		name := c.Interfaces[0]
		t, err := XDP(o)(c)
		if err != nil {
			c.choice = fmt.Sprintf("UDP, since XDP does not work here: %v", err)
			c.logger().Warn("XDP does not work here, using UDP", "interface", name, "reason", err)
			return UDP()(c)
		}
		yes, why := xdpPays(t.Caps().ZeroCopy, o.Latency || c.Waiting == BusyPoll)
		if yes {
			c.choice = "XDP: " + why
			c.logger().Info("using XDP", "interface", name, "reason", why)
			return t, nil
		}
		c.choice = "UDP: " + why
		c.logger().Info("using UDP", "interface", name, "reason", why)
		if err := t.Close(); err != nil {
			return nil, fmt.Errorf("close transport: %w", err)
		}
		return UDP()(c)
	}
}

// xdpPays decides between XDP and UDP where both work, and says why.
func xdpPays(zeroCopy, latency bool) (yes bool, why string) {
	switch {
	case zeroCopy:
		return true, "the driver works without copies"
	case latency:
		return true, "the driver copies each packet, but latency is asked for"
	}
	return false, "the driver copies each packet, and super-packets over UDP carry more; " +
		"XDPOptions.Latency prefers XDP all the same"
}

// FilteredUDP returns the UDP transport with a filter in the kernel that drops multicasts of groups that this process
// has not joined, though they come by a channel that it listens to. It takes CAP_BPF, or root. It pays where processes
// share channels with many groups that are not theirs; docs/xdp.md has the numbers.
func FilteredUDP() TransportFactory {
	return func(c *Config) (dataplane.Transport, error) {
		filter, err := bpf.OpenFilter()
		if err != nil {
			return nil, fmt.Errorf("open transport: %w", err)
		}
		cfg, err := c.udpConfig()
		if err != nil {
			return nil, errors.Join(err, filter.Close())
		}
		cfg.Filter = filter
		t, err := udp.Open(cfg)
		if err != nil {
			return nil, fmt.Errorf("open transport: %w", err)
		}
		return t, nil
	}
}
