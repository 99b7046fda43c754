package vsync

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/khamsin-io/khamsin/transports/udp"
	"github.com/khamsin-io/khamsin/vsync/codec"
	"github.com/khamsin-io/khamsin/vsync/internal/engine"
	"github.com/khamsin-io/khamsin/vsync/internal/host"
)

// Config is everything that can be set about a system. DefaultConfig and ConfigFromEnv return complete ones; options of
// Start change single fields.
type Config struct {
	SystemName string // systems of different names ignore each other, even on the same ports

	Transport  TransportFactory // how packets travel; nil means ByNetwork
	Network    Network          // which packets may go where; the default is UDP with IP multicast
	Interfaces []string         // network interfaces to talk on; the default is loopback only
	TTL        int              // multicast hops: 0 stays on this host; -1 means 0 on loopback and 1 elsewhere
	GroupPort  uint16           // UDP port of multicasts, the same in all processes of a system
	PeerPort   uint16           // first UDP port tried for point-to-point traffic; later processes take following ones
	MaxPacket  int              // bytes of the longest packet, 0 for what the transport allows
	RecvBuffer int              // bytes asked for as each socket's receive buffer, 0 for the default: see Buffers
	SendBuffer int              // bytes asked for as the sending socket's buffer, 0 likewise
	Batch      int              // packets taken from the transport at once, 0 for what it advises

	OracleSize       int  // processes that run the membership service: 1, 3, 5 or 7
	Eligible         bool // whether this process may be one of them
	FastStart        bool // found a new system at once instead of looking for a running one
	IgnorePartitions bool // go on even without a majority of the membership service: several halves may then diverge

	Discovery       time.Duration // how long a starting process looks for a running system
	Heartbeat       time.Duration // between signs of life
	SuspectAfter    time.Duration // silence after which a process is declared failed
	NoLifelines     bool          // no TCP connections to watched processes: a crash is noticed by silence alone
	ProtocolTimeout time.Duration // before a request to the membership service is repeated
	OracleLost      time.Duration // silence of the membership service after which a process gives up
	StuckAfter      time.Duration // for which a live member's handlers may take nothing before it is declared failed

	MaxMessage  int // bytes of the longest message
	MaxUnstable int // packets of one sender in one group that not all members have acknowledged
	MaxQueue    int // packets of one group that its handlers have not finished

	MaxTransfers int // of bulk objects (package oob) that run at once in a group

	// NoCompression sends messages as they are. Else those of 16 KiB and more that shrink by an eighth or more are
	// compressed
	NoCompression bool
	Types         *codec.Registry // of the application's types; nil: the system has one of its own

	QueryTimeout    time.Duration // of queries whose context has no deadline
	HandlerDeadline time.Duration // a handler that runs longer is named in the log
	HandlerLimit    time.Duration // a handler that runs longer ends the system here; zero: never

	Threading   Threading // who runs the protocols
	Waiting     Waiting   // how the receiver waits for packets
	PinReceiver bool      // the receiver keeps a thread of its own; slower on all that was measured
	Autotune    bool      // adjust packets, windows, batches and socket buffers to what is lost

	// StatusDir is where the system puts a Unix socket that tells its state as JSON to who connects: khamsin top, and
	// other programs of the same user. Empty: nowhere, unless KHAMSIN_STATUS is 1, for StatusDir, or a directory.
	StatusDir string

	SystemKey  KeySource // packets are authenticated with it; nil: they have a checksum alone
	NoChecksum bool      // not even that, without a key: for networks that damage nothing

	Logger  *slog.Logger                   // where the library reports; nil means slog.Default()
	LogDir  string                         // directory of a log file besides; empty: none
	noLog   bool                           // the environment says that there shall be none
	key     func() []byte                  // that SystemKey gave; a function, so that it is never printed
	hints   []string                       // for the log, about the environment
	choice  string                         // what Auto chose, and why
	Mute    bool                           // report nothing at all
	OnPanic func(group string, reason any) // called when a handler panics, instead of ending the process
}

// Threading says which goroutines run the protocols. See docs/decisions/0001-threading.md.
type Threading = host.Model

// The threading models.
const (
	Combining  = host.Combining // the caller of a send, when they are free; else whoever is running them takes it along
	EngineLoop = host.Loop      // one goroutine of their own
)

// Waiting says how a system waits for packets.
type Waiting = host.Waiting

// The waiting strategies.
const (
	Adaptive = host.Adaptive // poll while that pays, else sleep
	Block    = host.Block    // sleep at once: least processor time
	BusyPoll = host.BusyPoll // never sleep: least latency, takes a whole core
)

// Default ports: below the ephemeral range of Linux, and free of well-known services.
const (
	DefaultGroupPort = 18720
	DefaultPeerPort  = 18730
)

// DefaultConfig returns the configuration that Start uses when neither environment nor options say otherwise.
func DefaultConfig() Config {
	t, l := engine.Defaults()
	return Config{
		SystemName:      "khamsin",
		Interfaces:      []string{loopback},
		TTL:             -1,
		GroupPort:       DefaultGroupPort,
		PeerPort:        DefaultPeerPort,
		OracleSize:      3,
		Eligible:        true,
		Discovery:       t.Discovery,
		Heartbeat:       t.Heartbeat,
		SuspectAfter:    t.Suspect,
		ProtocolTimeout: t.Request,
		OracleLost:      t.OracleLost,
		StuckAfter:      t.Stuck,
		MaxMessage:      l.Message,
		MaxUnstable:     l.Window,
		MaxQueue:        l.Queue,
		MaxTransfers:    4,
		QueryTimeout:    15 * time.Second,
		HandlerDeadline: 10 * time.Second,
		Autotune:        true,
	}
}

// loopback is the name of the interface that leaves no host.
const loopback = "lo"

// Limits of settings.
const (
	maxPacketMin    = 512
	maxPacketMax    = 65507 // payload of a UDP datagram
	messageMin      = 1 << 10
	messageMax      = 64 << 20
	unstableMin     = 16
	unstableMax     = 1 << 16
	systemMax       = 255 // bytes of a system's name
	socketBufferMin = 4 << 10
	socketBufferMax = 1 << 30
	batchMax        = 1024
	transfersMax    = 256
)

// The manual's sizes of socket buffers, in packets of the longest kind.
const (
	recvPackets = 64
	sendPackets = 32
)

// Buffers returns the bytes of the socket buffers that the UDP transport asks for: RecvBuffer and SendBuffer, or else
// 64 and 32 times the longest packet (ISIS_MAXMSGLEN), and not less than the transport's own defaults.
func (c *Config) Buffers() (receive, send int) {
	receive, send = c.RecvBuffer, c.SendBuffer
	if receive == 0 {
		receive = max(recvPackets*c.MaxPacket, udp.DefaultRecvBuffer)
	}
	if send == 0 {
		send = max(sendPackets*c.MaxPacket, udp.DefaultSendBuffer)
	}
	return receive, send
}

// Validate reports everything that is wrong with c, or nil.
func (c *Config) Validate() error {
	var faults []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			faults = append(faults, fmt.Errorf(format, args...))
		}
	}
	check(c.SystemName != "" && len(c.SystemName) <= systemMax,
		"SystemName has %d bytes, want 1 to %d", len(c.SystemName), systemMax)
	check(len(c.Interfaces) > 0, "Interfaces is empty: name at least one, such as %q", loopback)
	check(c.TTL >= -1 && c.TTL <= 255, "TTL is %d, want 0 to 255, or -1 for the default", c.TTL)
	check(c.GroupPort != 0, "GroupPort is 0, want 1 to 65535")
	check(c.PeerPort != 0 && c.PeerPort < 65535, "PeerPort is %d, want 1 to 65534", c.PeerPort)
	check(c.GroupPort != c.PeerPort, "GroupPort and PeerPort are both %d", c.PeerPort)
	check(c.MaxPacket == 0 || c.MaxPacket >= maxPacketMin && c.MaxPacket <= maxPacketMax,
		"MaxPacket is %d, want %d to %d, or 0", c.MaxPacket, maxPacketMin, maxPacketMax)
	for _, b := range []struct {
		name  string
		bytes int
	}{{"RecvBuffer", c.RecvBuffer}, {"SendBuffer", c.SendBuffer}} {
		check(b.bytes == 0 || b.bytes >= socketBufferMin && b.bytes <= socketBufferMax,
			"%s is %d, want %d to %d, or 0", b.name, b.bytes, socketBufferMin, socketBufferMax)
	}
	check(c.Batch >= 0 && c.Batch <= batchMax, "Batch is %d, want 1 to %d, or 0", c.Batch, batchMax)
	check(c.OracleSize == 1 || c.OracleSize == 3 || c.OracleSize == 5 || c.OracleSize == 7,
		"OracleSize is %d, want 1, 3, 5 or 7", c.OracleSize)
	check(!c.FastStart || c.Eligible, "FastStart needs a process that is Eligible")
	for _, d := range []struct {
		name  string
		value time.Duration
	}{
		{"Discovery", c.Discovery}, {"Heartbeat", c.Heartbeat}, {"SuspectAfter", c.SuspectAfter},
		{"ProtocolTimeout", c.ProtocolTimeout}, {"QueryTimeout", c.QueryTimeout},
		{"StuckAfter", c.StuckAfter}, {"OracleLost", c.OracleLost},
	} {
		check(d.value > 0, "%s is %v, want more than 0", d.name, d.value)
	}
	check(c.SuspectAfter > 2*c.Heartbeat, "SuspectAfter is %v, want more than two heartbeats of %v", c.SuspectAfter,
		c.Heartbeat)
	check(c.MaxMessage >= messageMin && c.MaxMessage <= messageMax,
		"MaxMessage is %d, want %d to %d", c.MaxMessage, messageMin, messageMax)
	check(c.MaxUnstable >= unstableMin && c.MaxUnstable <= unstableMax,
		"MaxUnstable is %d, want %d to %d", c.MaxUnstable, unstableMin, unstableMax)
	check(c.MaxQueue >= c.MaxUnstable, "MaxQueue is %d, want at least MaxUnstable, %d", c.MaxQueue, c.MaxUnstable)
	check(c.MaxTransfers >= 1 && c.MaxTransfers <= transfersMax, "MaxTransfers is %d, want 1 to %d", c.MaxTransfers,
		transfersMax)
	check(c.HandlerDeadline >= time.Millisecond, "HandlerDeadline is %v, want a millisecond or more", c.HandlerDeadline)
	check(c.HandlerLimit == 0 || c.HandlerLimit >= time.Millisecond,
		"HandlerLimit is %v, want a millisecond or more, or 0", c.HandlerLimit)
	if err := c.Network.validate(); err != nil {
		faults = append(faults, err)
	}
	check(c.Threading <= EngineLoop, "Threading is %d, want Combining or EngineLoop", uint8(c.Threading))
	check(c.Waiting <= BusyPoll, "Waiting is %d, want Adaptive, Block or BusyPoll", uint8(c.Waiting))
	return errors.Join(faults...)
}

// ttl returns the multicast TTL to use.
func (c *Config) ttl() int {
	switch {
	case c.TTL >= 0:
		return c.TTL
	case len(c.Interfaces) == 1 && c.Interfaces[0] == loopback:
		return 0
	}
	return 1
}

// logger returns where to report.
func (c *Config) logger() *slog.Logger {
	switch {
	case c.Mute:
		return slog.New(slog.DiscardHandler)
	case c.Logger != nil:
		return c.Logger
	}
	return slog.Default()
}
