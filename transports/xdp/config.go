package xdp

import (
	"errors"
	"fmt"
	"log/slog"
	"math/bits"
	"net/netip"
	"time"

	"github.com/khamsin-io/khamsin/bpf"
	"github.com/khamsin-io/khamsin/dataplane/frame"
)

// Defaults and limits of a Config.
const (
	DefaultMTUMax   = 1472  // payload of an Ethernet frame of 1500 bytes
	MTUMax          = 16000 // payload of a jumbo frame that fits a chunk of 16 KiB
	DefaultTxChunks = 4096
	DefaultRxFrames = 4096
	DefaultTxRing   = 1024
	DefaultRxRing   = 2048
	RingMax         = 1 << 16

	etherHeader  = 14
	headersIPv4  = 28 // bytes of the IP and UDP headers
	headersIPv6  = 48
	roomInFront  = 256  // what the kernel keeps free in front of a received frame
	umemChunkMin = 2048 // bytes: limits of AF_XDP
	umemChunkMax = 4096 // a page
	vlanTag      = 4    // bytes that a tagged frame is longer
	socketFrames = 16   // frames that the sockets' side keeps for itself
)

// Config says how a transport is opened. Zero fields take their defaults.
type Config struct {
	// Interface is the one interface that packets leave and arrive by. It must be named, and not be a loopback.
	Interface string

	// LocalIP is the address that others send to, and decides between IPv4 and IPv6. Default: the interface's first
	// IPv4 address, or with IPv6 its first IPv6 one.
	LocalIP netip.Addr
	IPv6    bool

	// Port, PortTries, GroupPort, Channels, TTL, RecvBuffer and SendBuffer are those of udp.Config.
	Port                   uint16
	PortTries              int
	GroupPort              uint16
	Channels               int
	TTL                    int
	RecvBuffer, SendBuffer int

	// MTU is the largest payload in bytes. It must fit the interface's MTU less the headers, 28 bytes with IPv4 and 48
	// with IPv6: there are no IP fragments. Default: just that, at most DefaultMTUMax. Above some 3,700, a frame takes
	// several UMEM chunks, which needs Linux 6.6.
	MTU int

	// Mode says where the program runs if no other process has attached it yet: in the driver, or generically in the
	// stack. The default chooses by the driver.
	Mode bpf.Mode

	// Queues are the receive queues to open sockets on. A queue can belong to one process only. Default: all.
	Queues []int

	// RxRing and TxRing are the packets that each queue's rings hold, powers of two up to RingMax. Defaults
	// DefaultRxRing and DefaultTxRing.
	RxRing, TxRing int

	// DisableZeroCopy makes the kernel copy frames even where the driver could do without.
	DisableZeroCopy bool

	// BusyPoll makes a Receive that spins drive the network card's queue itself, for up to that time per turn. It
	// needs a driver that supports it. Zero leaves that to interrupts.
	BusyPoll time.Duration

	// GroupFilter makes the kernel drop packets of groups that were not admitted (dataplane.GroupFilter).
	GroupFilter bool

	// Exclusive promises that no other process of this host receives on GroupPort, unless by this transport on
	// another queue. Multicasts then always leave by AF_XDP, which brings none back to this host, and those that
	// nobody asked for are dropped instead of being passed to the stack.
	Exclusive bool

	// BulkTx and BulkRx are frames, of the arena's Rx pool, that are set aside for packets of others that go past the
	// stack beside the transport's own (Transport.Bypass): those that outlets send from, and those that wait for
	// inlets. Each outlet takes some 256 frames, each inlet up to 1,024 on each queue. Zero: there are none.
	BulkTx, BulkRx int

	// BulkNoCopy sets them aside only where the driver works without copies.
	BulkNoCopy bool

	// Verify drops packets with a wrong checksum in the kernel already. Receivers verify anyway.
	Verify bool

	// Arena sizes the frames. RunChunks must be 1, Headroom at least 298 with IPv4 and 318 with IPv6, ChunkSize at
	// least 2048. Default: chunks that hold the MTU, DefaultTxChunks of them to send with and DefaultRxFrames to
	// receive in. All of it is locked in memory, which takes CAP_IPC_LOCK or a limit (ulimit -l) that is high enough.
	Arena frame.Config

	// Log is told, once each, what had to be done without. Default: nothing is logged.
	Log *slog.Logger

	wideBulk bool // packets of others may take several UMEM chunks, since the interface's MTU does
}

// withDefaults fills in the zero fields for an interface.
func (c Config) withDefaults(ifMTU int) Config {
	c.IPv6 = c.IPv6 || c.LocalIP.Is6() && !c.LocalIP.Is4In6()
	setDefault(&c.MTU, min(ifMTU-c.packetHeaders(), DefaultMTUMax))
	setDefault(&c.RxRing, DefaultRxRing)
	setDefault(&c.TxRing, DefaultTxRing)
	a := &c.Arena
	setDefault(&a.Headroom, frame.DefaultHeadroom)
	if a.ChunkSize == 0 {
		a.ChunkSize = frame.DefaultChunkSize
		for a.ChunkSize < a.Headroom+c.MTU && a.ChunkSize < frame.ChunkSizeMax {
			a.ChunkSize *= 2
		}
	}
	setDefault(&a.TxChunks, DefaultTxChunks)
	setDefault(&a.RxRuns, DefaultRxFrames)
	setDefault(&a.RunChunks, 1)
	c.wideBulk = c.BulkTx > 0 && ifMTU+etherHeader+vlanTag > c.chunkFrame()
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}

func setDefault(field *int, value int) {
	if *field == 0 {
		*field = value
	}
}

// validate reports everything that is wrong with a complete c on an interface. What package udp checks is left to it.
func (c Config) validate(ifMTU int) error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf("xdp: "+format, args...)) }
	if c.MTU < 1 || c.MTU > MTUMax {
		fault("MTU %d is not from 1 to %d", c.MTU, MTUMax)
	} else if c.MTU > ifMTU-c.packetHeaders() {
		faults = append(faults, &bpf.MissingError{Need: bpf.NeedMTU, What: fmt.Sprintf("send %d bytes at once", c.MTU),
			Hint: fmt.Sprintf("interface %q takes %d: raise its MTU of %d, or lower that of the transport",
				c.Interface, ifMTU-c.packetHeaders(), ifMTU)})
	}
	for _, r := range []struct {
		name string
		size int
	}{{"RxRing", c.RxRing}, {"TxRing", c.TxRing}} {
		if r.size < 1 || r.size > RingMax || r.size&(r.size-1) != 0 {
			fault("%s %d is not a power of two up to %d", r.name, r.size, RingMax)
		}
	}
	for _, q := range c.Queues {
		if q < 0 || q >= bpf.QueuesMax {
			fault("queue %d is not from 0 to %d", q, bpf.QueuesMax-1)
		}
	}
	if c.BulkTx < 0 || c.BulkRx < 0 || (c.BulkTx == 0) != (c.BulkRx == 0) {
		fault("BulkTx %d and BulkRx %d: both or neither", c.BulkTx, c.BulkRx)
	}
	if c.BusyPoll < 0 {
		fault("BusyPoll %v is negative", c.BusyPoll)
	}
	return errors.Join(append(faults, c.validateArena())...)
}

func (c Config) validateArena() error {
	a := c.Arena
	if err := a.Validate(); err != nil {
		return err
	}
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf("xdp: "+format, args...)) }
	if a.RunChunks != 1 {
		fault("RunChunks %d: a UMEM has single chunks", a.RunChunks)
	}
	if a.ChunkSize < umemChunkMin {
		fault("ChunkSize %d is below the %d of a UMEM", a.ChunkSize, umemChunkMin)
	}
	if least := c.headroomMin(); a.Headroom < least || a.Headroom+c.umemChunk()/2 > c.umemChunk() {
		fault("Headroom %d is not from %d to %d", a.Headroom, least, c.umemChunk()/2)
	}
	if room := a.ChunkSize - a.Headroom; room < c.MTU {
		fault("MTU %d does not fit the %d bytes behind a chunk's headroom", c.MTU, room)
	}
	if least := socketFrames + c.BulkTx + c.BulkRx; a.RxRuns <= least {
		fault("RxRuns %d: more than %d are needed", a.RxRuns, least)
	}
	return errors.Join(faults...)
}

// dropBulk does without frames for packets of others, and with rings of the usual size, since the driver copies.
func (c *Config) dropBulk() {
	c.Log.Info("xdp: packets of others go by UDP, since the driver copies", "interface", c.Interface)
	c.BulkTx, c.BulkRx, c.BulkNoCopy, c.wideBulk = 0, 0, false, false
}

// umemChunk returns the bytes of a UMEM chunk: a chunk of the arena, or a page of a larger one.
func (c Config) umemChunk() int { return min(c.Arena.ChunkSize, umemChunkMax) }

// headroom returns the bytes that a UMEM keeps free beside the kernel's own, so that payloads lie at the arena's.
func (c Config) headroom() int { return c.Arena.Headroom - c.headroomMin() }

// headroomMin returns the smallest headroom with which a payload can lie at it, whatever brought the packet.
func (c Config) headroomMin() int { return roomInFront + c.frameHeaders() }

// chunkFrame returns the bytes of the longest frame that the kernel puts into one UMEM chunk.
func (c Config) chunkFrame() int { return c.umemChunk() - c.headroom() - roomInFront }

// fillRing returns the slots of a fill ring: room for all frames that may be in one, those included that inlets
// give back after the transport has replaced them.
func (c Config) fillRing() int { return powerOfTwo(c.RxRing + 2*c.BulkRx) }

// completionRing returns the slots of a completion ring.
func (c Config) completionRing() int { return powerOfTwo(c.TxRing + c.BulkTx) }

// powerOfTwo returns the smallest one that is not below n.
func powerOfTwo(n int) int { return 1 << bits.Len(uint(n-1)) }

// packetHeaders returns the bytes of the IP and UDP headers, and frameHeaders those of Ethernet's as well.
func (c Config) packetHeaders() int {
	if c.IPv6 {
		return headersIPv6
	}
	return headersIPv4
}

func (c Config) frameHeaders() int { return etherHeader + c.packetHeaders() }

// segments tells whether a frame of the MTU takes several UMEM chunks.
func (c Config) segments() bool {
	return c.MTU+c.Arena.Headroom+vlanTag > c.umemChunk()
}
