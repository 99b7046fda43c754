package rdma

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"

	"github.com/khamsin-io/khamsin/dataplane/frame"
)

// Errors of this package.
var (
	// immutable: an error
	ErrNotBuilt = errors.New("rdma: not in this binary: build it on Linux with cgo and -tags rdma")

	// immutable: an error
	ErrNoDevice = errors.New("no RDMA device")

	// immutable: an error
	ErrRefused = errors.New("rdma: the other process refused the connection")
)

// Defaults and limits of a Config.
const (
	DefaultPhysPort     = 1
	DefaultChannels     = 64
	DefaultSendDepth    = 1024
	DefaultReceiveDepth = 1024
	DefaultInline       = 128
	DefaultTxChunks     = 4096
	DefaultRxRuns       = 4096
	DefaultLargeTx      = 64
	DefaultLargeRx      = 64
	DefaultLargeDepth   = 64
	DefaultRails        = 64
	DepthMax            = 1 << 15
	ChannelsMax         = 1024
	InlineMax           = 1024
	TTLMax              = 255
	LargeMax            = 1 << 20
	LargeDepthMax       = 4096
	RailsMax            = 1024

	grhBytes    = 40         // what the device writes in front of a datagram
	qkeyBase    = 0x4b680000 // Q_Keys: the highest bit must be 0, the lower half is the group port
	qpNumberMax = 1<<24 - 1
	regionMax   = 1 << 40
	chunkMax    = 8192 // of the default arena: holds the headroom and the largest MTU of a port
)

// Join is how a transport makes the network deliver a channel.
type Join int

// Ways to join.
const (
	JoinAuto    Join = iota // JoinSocket over RoCE v2, JoinManager over InfiniBand
	JoinSocket              // an ordinary socket joins, by IGMP; RoCE v2 only
	JoinManager             // the kernel's RDMA connection manager does: by the subnet manager, on RoCE by IGMP
)

// Config says how a transport is opened. Zero fields take their defaults; Device or Interface must be given.
type Config struct {
	// Device is the RDMA device, such as "mlx5_0". Default: the one that belongs to Interface.
	Device string

	// PhysPort is the device's port, from 1. Default DefaultPhysPort.
	PhysPort int

	// Interface is the network interface whose address is the port's GID. Default: the one of the first usable GID.
	Interface string

	// LocalIP chooses one of several addresses of the interface.
	LocalIP netip.Addr

	// GroupPort separates systems: only transports with the same one hear each other. It needs no free port. Zero
	// leaves multicast out.
	GroupPort uint16

	// Channels is how many channels can be subscribed at the same time, up to ChannelsMax. Default DefaultChannels.
	Channels int

	// Join is how channels are joined. Default JoinAuto.
	Join Join

	// TTL is how many networks packets may enter, the hop limit of every packet: 1 to TTLMax. Zero is 1.
	TTL int

	// MTU is the largest payload in bytes. Default: the port's MTU, or what a chunk of the arena holds if that is less.
	MTU int

	// Large is the largest payload in bytes to one process, up to LargeMax: those above the MTU go by a rail, which is
	// a reliable queue pair to that process. Zero: there are none. A device that copies nothing into work requests has
	// none either: see Caps.
	Large int

	// LargeDepth is how many large frames may wait for Receive, from all senders together: beyond that they are slowed
	// down. Rails is how many processes can be sent large frames to at the same time, and how many can send some here;
	// the rail used last is given up for another.
	LargeDepth, Rails int

	// SendDepth is how many packets may be on their way through the device; more is back-pressure. ReceiveDepth is how
	// many may wait for Receive; what comes beyond them is lost, and only the device counts it.
	SendDepth, ReceiveDepth int

	// Inline is the size in bytes up to which a payload is copied into its work request, at most InlineMax. The device
	// may do less. Default DefaultInline; negative: none.
	Inline int

	// Arena sizes the frames. RxRuns are those that the users of Receive can hold; ReceiveDepth more are added for the
	// device. Default: chunks that hold a headroom and the MTU, DefaultTxChunks and DefaultRxRuns of them; with Large,
	// runs that hold it, DefaultLargeTx and DefaultLargeRx of them, and LargeDepth more for the device. All of it is
	// pinned in memory: see docs/rdma.md for limits.
	Arena frame.Config

	// Log is told of failed and repaired queue pairs. Default: nothing is logged.
	Log *slog.Logger
}

// validate reports everything that is wrong with c and can be told without a device.
func (c Config) validate() error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf("rdma: "+format, args...)) }
	if c.Device == "" && c.Interface == "" {
		fault("neither Device nor Interface is set: name one, such as \"mlx5_0\" or \"eth1\"")
	}
	if c.LocalIP.IsValid() && (c.LocalIP.IsUnspecified() || c.LocalIP.IsMulticast()) {
		fault("LocalIP %v is no address of a host", c.LocalIP)
	}
	check := func(name string, value, limit int) {
		if value < 0 || value > limit {
			fault("%s %d is not from 1 to %d", name, value, limit)
		}
	}
	check("PhysPort", c.PhysPort, 255)
	check("Channels", c.Channels, ChannelsMax)
	check("Join", int(c.Join), int(JoinManager))
	check("TTL", c.TTL, TTLMax)
	check("MTU", c.MTU, 4096)
	check("Large", c.Large, LargeMax)
	check("LargeDepth", c.LargeDepth, LargeDepthMax)
	check("Rails", c.Rails, RailsMax)
	check("SendDepth", c.SendDepth, DepthMax)
	check("ReceiveDepth", c.ReceiveDepth, DepthMax)
	if c.Inline > InlineMax {
		fault("Inline %d is above %d", c.Inline, InlineMax)
	}
	return errors.Join(faults...)
}

// withDefaults fills in the zero fields for a port of an MTU.
func (c Config) withDefaults(portMTU int) Config {
	setDefault(&c.PhysPort, DefaultPhysPort)
	setDefault(&c.Channels, DefaultChannels)
	setDefault(&c.TTL, 1)
	setDefault(&c.SendDepth, DefaultSendDepth)
	setDefault(&c.ReceiveDepth, DefaultReceiveDepth)
	setDefault(&c.Inline, DefaultInline)
	c.Inline = max(0, c.Inline)
	a := &c.Arena
	setDefault(&a.Headroom, frame.DefaultHeadroom)
	if a.ChunkSize == 0 {
		want := portMTU
		if c.MTU > 0 {
			want = c.MTU
		}
		for a.ChunkSize = frame.DefaultChunkSize; a.ChunkSize < a.Headroom+want && a.ChunkSize < chunkMax; {
			a.ChunkSize *= 2
		}
	}
	setDefault(&c.MTU, min(portMTU, max(1, a.ChunkSize-a.Headroom)))
	setDefault(&a.TxChunks, DefaultTxChunks)
	setDefault(&a.RxRuns, DefaultRxRuns)
	setDefault(&a.RunChunks, (a.Headroom+portMTU+a.ChunkSize-1)/a.ChunkSize) // the longest datagram that can come
	a.RxRuns += c.ReceiveDepth
	c.setLarge()
	return c
}

// setLarge fills in what large frames need.
func (c *Config) setLarge() {
	a := &c.Arena
	if c.Large == 0 {
		c.LargeDepth, c.Rails, a.LargeTx, a.LargeRx = 0, 0, 0, 0
		return
	}
	setDefault(&c.LargeDepth, DefaultLargeDepth)
	setDefault(&c.Rails, DefaultRails)
	setDefault(&a.LargeRun, (a.Headroom+c.Large+a.ChunkSize-1)/a.ChunkSize)
	setDefault(&a.LargeTx, DefaultLargeTx)
	setDefault(&a.LargeRx, DefaultLargeRx)
	a.LargeRx += c.LargeDepth
}

// checkSizes reports sizes that do not fit each other or the port, whose longest message is given as well. Defaults are
// filled in.
func (c Config) checkSizes(portMTU, longest int) error {
	if err := c.Arena.Validate(); err != nil {
		return err
	}
	room := c.Arena.ChunkSize - c.Arena.Headroom
	switch {
	case c.Arena.Headroom < grhBytes:
		return fmt.Errorf("rdma: Headroom %d does not hold the device's header of %d", c.Arena.Headroom, grhBytes)
	case c.MTU > portMTU:
		return fmt.Errorf("rdma: MTU %d is above the %d of the port: raise the interface's MTU, or lower this one",
			c.MTU, portMTU)
	case room < c.MTU:
		return fmt.Errorf("rdma: MTU %d does not fit the %d bytes behind a chunk's headroom", c.MTU, room)
	case c.Large > 0 && c.Large <= c.MTU:
		return fmt.Errorf("rdma: Large %d is not above the MTU of %d: leave it 0, or raise it", c.Large, c.MTU)
	case c.Large > longest:
		return fmt.Errorf("rdma: Large %d is above the %d bytes of the port's longest message", c.Large, longest)
	case c.Large > c.Arena.LargeRun*c.Arena.ChunkSize-c.Arena.Headroom && c.Large > 0:
		return fmt.Errorf("rdma: %d chunks of %d bytes do not hold a frame of %d: set Arena.LargeRun", c.Arena.LargeRun,
			c.Arena.ChunkSize, c.Large)
	case c.Arena.RunChunks*c.Arena.ChunkSize-c.Arena.Headroom < portMTU:
		// A datagram longer than its buffer would be an error of the queue pair, and anybody can send one.
		return fmt.Errorf("rdma: %d chunks of %d bytes do not hold the longest datagram, of %d: set Arena.RunChunks",
			c.Arena.RunChunks, c.Arena.ChunkSize, portMTU)
	}
	return nil
}

// qkey returns the Q_Key of all datagrams.
func (c Config) qkey() uint32 { return qkeyBase | uint32(c.GroupPort) }

func setDefault(field *int, value int) {
	if *field == 0 {
		*field = value
	}
}

// VerbsStats counts a transport's work for the device, one-sided writes left out.
type VerbsStats struct {
	Calls        uint64 // into C from Send and Receive
	WorkRequests uint64 // posted to send
	Inlined      uint64 // of them, with their payload inside
	Signalled    uint64 // of them, that asked for a completion
	Buffers      uint64 // posted to receive in
	Repairs      uint64 // of the queue pair, after a failure
	Rails        uint64 // opened for large frames
	RailFailures uint64 // of rails that were not answered, broke, or stood still
	LargeSent    uint64 // large frames posted
	LargeCame    uint64 // large frames received
}
