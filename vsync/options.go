package vsync

import (
	"fmt"
	"log/slog"
	"time"

	"github.com/khamsin-io/khamsin/vsync/codec"
	"github.com/khamsin-io/khamsin/vsync/internal/engine"
)

// Option changes one setting of a system. Options override the environment, and later ones earlier ones.
type Option func(*settings)

// settings is the configuration in the making.
type settings struct {
	Config
	replaced bool // WithConfig: the environment does not count
}

func set(change func(c *Config)) Option { return func(s *settings) { change(&s.Config) } }

// WithConfig replaces the whole configuration, whatever the environment says. Options behind it still apply.
func WithConfig(c Config) Option {
	return func(s *settings) { s.Config, s.replaced = c, true }
}

// WithSystemName names the system; systems of different names ignore each other. At most 255 bytes.
func WithSystemName(name string) Option { return set(func(c *Config) { c.SystemName = name }) }

// WithSystemKey makes all packets of the system authenticated: who has not the key cannot join the system, send
// anything that it takes in, or declare a process of it failed. Payloads can still be read by everybody; see
// WithGroupKey. All processes of a system need the same key. docs/security.md says what that protects against, and what
// it costs.
func WithSystemKey(key KeySource) Option { return set(func(c *Config) { c.SystemKey = key }) }

// WithoutChecksum sends packets without a checksum, unless the system has a key, and takes in what comes without
// looking: for networks that damage nothing. All processes of a system must agree.
func WithoutChecksum() Option { return set(func(c *Config) { c.NoChecksum = true }) }

// WithStatus puts a status socket into a directory, such as StatusDir(): see Config.StatusDir.
func WithStatus(dir string) Option { return set(func(c *Config) { c.StatusDir = dir }) }

// WithTransport says how packets travel: UDP(), the default, or Mem of a network shared by several systems.
func WithTransport(f TransportFactory) Option { return set(func(c *Config) { c.Transport = f }) }

// WithInterfaces names the network interfaces to talk on. The default is loopback only. Several can be used over UDP:
// multicasts leave by all of them, and a process is known by its address on the first one, which with IPv6 the others
// must have as well.
func WithInterfaces(names ...string) Option { return set(func(c *Config) { c.Interfaces = names }) }

// WithTTL sets the hops a multicast may travel, 0 to 255. The default is 0 on loopback and 1 on named interfaces.
func WithTTL(hops int) Option { return set(func(c *Config) { c.TTL = hops }) }

// WithPorts sets the UDP port of multicasts, which all processes of a system share, and the first one tried for
// point-to-point traffic; processes that start later on the same host take following ones.
func WithPorts(group, peer uint16) Option {
	return set(func(c *Config) { c.GroupPort, c.PeerPort = group, peer })
}

// WithOracleSize sets how many processes run the membership service when enough are there: 1, 3, 5 or 7.
// Three survive the loss of one at a time.
func WithOracleSize(n int) Option { return set(func(c *Config) { c.OracleSize = n }) }

// WithEligible says whether this process may be one of them. The default is yes.
func WithEligible(yes bool) Option { return set(func(c *Config) { c.Eligible = yes }) }

// WithFastStart founds a new system at once, without looking for a running one. Use it in one process only: each one
// that starts so is a system of its own.
func WithFastStart() Option { return set(func(c *Config) { c.FastStart = true }) }

// WithIgnorePartitions keeps this process going without a majority of the membership service. Parts of a divided
// network then go on separately, and their states diverge.
func WithIgnorePartitions() Option { return set(func(c *Config) { c.IgnorePartitions = true }) }

// WithDiscovery sets how long a starting process looks for a running system before it founds one.
func WithDiscovery(d time.Duration) Option { return set(func(c *Config) { c.Discovery = d }) }

// WithHeartbeat sets the time between signs of life.
func WithHeartbeat(d time.Duration) Option { return set(func(c *Config) { c.Heartbeat = d }) }

// WithOracleLost sets for how long the membership service may be silent before this process gives up with
// ErrOracleLost. Less than twice SuspectAfter counts as that.
func WithOracleLost(d time.Duration) Option { return set(func(c *Config) { c.OracleLost = d }) }

// WithoutLifelines makes silence the only sign that a process is dead: no kernel is asked to close what a dead process
// held.
func WithoutLifelines() Option { return set(func(c *Config) { c.NoLifelines = true }) }

// Detection is a pace of failure detection.
type Detection uint8

// The paces. What they promise stands in docs/failures.md.
const (
	Steady  Detection = iota // 200 ms between signs of life, declared failed after 1.2 s of silence: the default
	Tight                    // 20 ms and 80 ms: for a quiet network and processes that are never late
	Patient                  // 1 s and 5 s: for hosts that are overloaded, or suspended for seconds
)

// WithDetection sets Heartbeat and SuspectAfter together.
func WithDetection(d Detection) Option {
	return set(func(c *Config) { c.Heartbeat, c.SuspectAfter = d.Pace() })
}

// Pace returns Config.Heartbeat and Config.SuspectAfter of a pace; those of Steady for one that is unknown.
func (d Detection) Pace() (heartbeat, suspectAfter time.Duration) {
	switch d {
	case Tight:
		return 20 * time.Millisecond, 80 * time.Millisecond
	case Patient:
		return time.Second, 5 * time.Second
	}
	t, _ := engine.Defaults()
	return t.Heartbeat, t.Suspect
}

// WithSuspectAfter sets the silence after which a process is declared failed: more than two heartbeats.
func WithSuspectAfter(d time.Duration) Option { return set(func(c *Config) { c.SuspectAfter = d }) }

// WithStuckAfter sets how long the handlers of a live member may take nothing at all, while messages wait for them,
// before the others declare it failed, so that it does not hold them up for ever. The default is 20 s.
func WithStuckAfter(d time.Duration) Option { return set(func(c *Config) { c.StuckAfter = d }) }

// WithProtocolTimeout sets the time before a request to the membership service is repeated.
func WithProtocolTimeout(d time.Duration) Option {
	return set(func(c *Config) { c.ProtocolTimeout = d })
}

// WithMaxMessage sets the longest message in bytes, 1 KiB to 64 MiB.
func WithMaxMessage(bytes int) Option { return set(func(c *Config) { c.MaxMessage = bytes }) }

// WithMaxPacket sets the longest packet in bytes, 512 to 65507; longer messages travel in fragments.
func WithMaxPacket(bytes int) Option { return set(func(c *Config) { c.MaxPacket = bytes }) }

// WithMaxUnstable sets how many packets of one sender in one group may be under way before its sends wait, 16 to 65536.
func WithMaxUnstable(packets int) Option {
	return set(func(c *Config) { c.MaxUnstable, c.MaxQueue = packets, max(c.MaxQueue, packets) })
}

// WithThreading says which goroutines run the protocols.
func WithThreading(t Threading) Option { return set(func(c *Config) { c.Threading = t }) }

// WithWaiting says how the system waits for packets.
func WithWaiting(w Waiting) Option { return set(func(c *Config) { c.Waiting = w }) }

// WithBuffers sets the bytes asked for as socket buffers, 4 KiB to 1 GiB each; zero leaves the default. The kernel caps
// what it grants (net.core.rmem_max and wmem_max), and the library warns with both numbers when it did.
func WithBuffers(receive, send int) Option {
	return set(func(c *Config) { c.RecvBuffer, c.SendBuffer = receive, send })
}

// WithAutotune says whether the system adjusts packets, windows, batches and socket buffers to what is lost. The
// default is yes.
func WithAutotune(yes bool) Option { return set(func(c *Config) { c.Autotune = yes }) }

// WithLogger says where the library reports. The default is slog.Default().
func WithLogger(l *slog.Logger) Option { return set(func(c *Config) { c.Logger, c.Mute = l, false }) }

// WithLogDir makes the system write its log to a file of its own in a directory too, which is made when missing.
func WithLogDir(dir string) Option { return set(func(c *Config) { c.LogDir = dir }) }

// WithTypes gives the system a registry of types that the application filled, instead of one of its own. It may be
// shared by several systems.
func WithTypes(r *codec.Registry) Option { return set(func(c *Config) { c.Types = r }) }

// WithQueryTimeout sets how long queries wait whose context has no deadline. The default is 15 s.
func WithQueryTimeout(d time.Duration) Option { return set(func(c *Config) { c.QueryTimeout = d }) }

// WithHandlerDeadline sets how long a handler may run before the log names it. The default is 10 s.
func WithHandlerDeadline(d time.Duration) Option {
	return set(func(c *Config) { c.HandlerDeadline = d })
}

// WithHandlerLimit makes the process give itself up, with a *StuckError, when a handler runs for longer: its groups go
// on without it. Otherwise a handler may take any time, and the group's senders wait: until the others lose patience
// with a member that takes nothing, see WithStuckAfter.
func WithHandlerLimit(d time.Duration) Option { return set(func(c *Config) { c.HandlerLimit = d }) }

// WithoutCompression sends long messages as they are.
func WithoutCompression() Option { return set(func(c *Config) { c.NoCompression = true }) }

// WithMute makes the library report nothing.
func WithMute() Option { return set(func(c *Config) { c.Mute = true }) }

// WithPanicHandler says what happens when a handler panics: f is called on the group's goroutine, and the group goes on
// with the next message. Without it the panic is logged and ends the process, since a state that missed half a message
// no longer follows the group's.
func WithPanicHandler(f func(group string, reason any)) Option {
	return set(func(c *Config) { c.OnPanic = f })
}

// GroupOption changes one setting of a group.
type GroupOption func(*groupSettings)

type groupSettings struct {
	safeCopies int
	inline     bool
	unicast    bool
	multicast  bool
	rate       Rate
	key        KeySource
}

func (s *groupSettings) validate() error {
	if s.unicast && s.multicast {
		return fmt.Errorf("%w: WithUnicast and WithMulticast are both set: choose one", ErrArgument)
	}
	return s.rate.Validate()
}

// Numbers of members for queries, WithSafeCopies and FlushK.
const (
	All      = 0
	Majority = -1
)

// WithGroupKey enciphers what the group's messages carry, replies to queries and the state included. Codes, lengths and
// who talks to whom stay visible. All members need the same key, or RandomKey; a process with another one, or none, is
// refused by Join with ErrGroupKey. Handlers notice nothing, except that the payload is a copy.
func WithGroupKey(key KeySource) GroupOption { return func(s *groupSettings) { s.key = key } }

// WithSafeCopies says how many members, the oldest ones, must hold a Safe message before it is delivered anywhere: All,
// Majority, or a number. The default is All.
func WithSafeCopies(n int) GroupOption { return func(s *groupSettings) { s.safeCopies = n } }

// WithUnicast makes this process send its packets to the group's members one by one, not to a multicast address. All
// members of a group should ask for the same.
func WithUnicast() GroupOption { return func(s *groupSettings) { s.unicast = true } }

// WithMulticast asks for a multicast address of the group's own, so that hosts that are not members need not even
// look at its packets. What the member that brings the group to life asks for counts. Groups that begin later get other
// addresses; those that had the address before, when none was free, keep it until they end. There are never more
// addresses than Network.MaxChannels allows, and one stays for all: whoever asks when the others have owners shares
// that one, and notices nothing but packets that are not its own. It has no effect without multicast, and Join fails
// together with WithUnicast. GroupState.Channel tells which address it is.
func WithMulticast() GroupOption { return func(s *groupSettings) { s.multicast = true } }

// WithRateLimit limits what this process multicasts to the group: see Group.SetRate. A Rate that is not valid makes
// Join fail.
func WithRateLimit(r Rate) GroupOption { return func(s *groupSettings) { s.rate = r } }

// WithInlineDelivery promises that the group's handlers never block, on anything. They may then be called on the
// goroutine that receives packets, which saves a wake-up for each burst. A handler that blocks all the same stops the
// whole system meanwhile, so that others may declare this process failed. It has no effect with EngineLoop.
func WithInlineDelivery() GroupOption { return func(s *groupSettings) { s.inline = true } }
