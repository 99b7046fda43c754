package vsync

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/khamsin-io/khamsin/dataplane"
	"github.com/khamsin-io/khamsin/dataplane/clock"
	"github.com/khamsin-io/khamsin/vsync/codec"
	"github.com/khamsin-io/khamsin/vsync/core"
	"github.com/khamsin-io/khamsin/vsync/internal/engine"
	"github.com/khamsin-io/khamsin/vsync/internal/host"
)

// System is this process's part in a system of processes. Any number of Systems can live in one process; each is a
// process of its own to the others. All methods may be called by any goroutine. A nil System is one that does not run.
type System struct {
	config Config
	self   Address
	log    *slog.Logger
	host   *host.Host

	types   *codec.Registry
	closing atomic.Bool
	calls   atomic.Uint64 // queries
	caps    dataplane.Caps
	sided   dataplane.OneSided // nil: the transport has none
	bypass  dataplane.Bypass   // likewise
	hearing hearing            // likewise
	keptMu  sync.Mutex         // guards ended
	ended   bool               // frames are not to be touched any more
	kept    atomic.Int64       // packets that handlers keep
	engine  *engine.Engine     // to be touched inside host.Do only
	logFile *os.File
	buffers sync.Pool // of *buffer
	key     []byte    // nil when the system has none
	status  *statusSocket

	counters sync.Map // by name of a group: *atomic.Uint64, see secret

	watchOnce sync.Once
	watching  chan struct{} // closed when the watchdog has ended

	mu       sync.Mutex
	groups   []*Group // joined and not over, in the order of joining
	suspects map[Address]bool
}

// Start attaches this process to the system that it finds, or founds one when it finds none within the discovery time.
// It reads the environment first (ConfigFromEnv), then applies the options. When it returns, groups can be joined.
//
// The system lives until Close, until ctx ends, which closes it in the background, or until it is declared failed.
func Start(ctx context.Context, opts ...Option) (*System, error) {
	s, err := start(ctx, opts)
	if err != nil {
		return nil, fmt.Errorf("vsync: start: %w", err)
	}
	return s, nil
}

func start(ctx context.Context, opts []Option) (*System, error) {
	config, err := resolve(opts)
	if err != nil {
		return nil, err
	}
	open := config.Transport
	if open == nil {
		open = ByNetwork()
	}
	var key []byte
	if config.SystemKey != nil {
		if key, err = keyOf(config.SystemKey); err != nil {
			return nil, fmt.Errorf("system key: %w", err)
		}
		config.key = func() []byte { return key }
	}
	transport, err := open(&config)
	if err != nil {
		return nil, err
	}
	if err := config.settleEligible(transport.Local()); err != nil {
		return nil, errors.Join(err, transport.Close())
	}
	s := &System{
		key: key, config: config, self: newAddress(transport.Local()), watching: make(chan struct{}),
		suspects: make(map[Address]bool),
	}
	if err := s.open(transport); err != nil {
		return nil, errors.Join(err, transport.Close())
	}
	s.host.Start()
	var late <-chan time.Time
	if !s.config.Eligible || len(s.config.listed) > 1 && !s.config.FastStart {
		timer := time.NewTimer(s.config.OracleLost)
		defer timer.Stop()
		late = timer.C
	}
	select {
	case <-s.host.Attached():
	case <-late:
		err := fmt.Errorf("%w (%s; it looked for %v)", ErrNoOracle, s.config.where(), s.config.OracleLost)
		return nil, s.abandon(err)
	case <-s.host.Over():
		return nil, s.abandon(nil)
	case <-ctx.Done():
		return nil, s.abandon(context.Cause(ctx))
	}
	if dir := config.statusDir(); dir != "" {
		if err := s.openStatus(dir); err != nil { // a convenience: the system is not ended for it
			s.log.Warn("no status socket", "err", err)
		}
	}
	stop := context.AfterFunc(ctx, func() { _ = s.Close() })
	go func() {
		<-s.host.Done()
		stop()
		s.closeStatus()
		s.closeLog()
	}()
	return s, nil
}

// abandon ends a system that has not become part of one, and returns why that is: err, or what the host says.
func (s *System) abandon(err error) error {
	if err == nil {
		<-s.host.Done()
		err = public(s.host.Err())
	} else {
		err = errors.Join(err, s.host.Close())
	}
	s.closeLog()
	return err
}

// open makes what is inside of a system.
func (s *System) open(transport dataplane.Transport) (err error) {
	if s.types, err = newTypes(s.config.Types); err != nil {
		return err
	}
	if err := s.openLog(); err != nil {
		return err
	}
	if err := s.openHost(transport); err != nil {
		s.closeLog()
		return err
	}
	return nil
}

// resolve returns the configuration that environment and options make.
func resolve(opts []Option) (Config, error) {
	config, envErr := ConfigFromEnv()
	if envErr != nil {
		config = DefaultConfig()
	}
	s := settings{Config: config}
	for _, o := range opts {
		o(&s)
	}
	if envErr != nil && !s.replaced {
		return Config{}, envErr
	}
	return s.Config, s.Validate()
}

// newAddress draws the address of a process that is reached at an endpoint.
func newAddress(local dataplane.Endpoint) Address {
	a := Address{PID: uint32(os.Getpid()), Incarnation: randomNumber()}
	a.SetEndpoint(local)
	return a
}

// randomNumber returns a random number that is not zero.
func randomNumber() uint64 {
	var b [8]byte
	for {
		_, _ = rand.Read(b[:]) // never fails: see crypto/rand
		if n := binary.LittleEndian.Uint64(b[:]); n != 0 {
			return n
		}
	}
}

// openHost makes the engine and the host around it.
func (s *System) openHost(t dataplane.Transport) (err error) {
	c := &s.config
	timing, limits := engine.Defaults()
	timing.Discovery, timing.Heartbeat = c.Discovery, c.Heartbeat
	timing.Suspect, timing.Request, timing.Stuck = c.SuspectAfter, c.ProtocolTimeout, c.StuckAfter
	timing.OracleLost = max(c.OracleLost, 2*c.SuspectAfter)
	limits.Message, limits.Window, limits.Queue = c.MaxMessage, c.MaxUnstable, c.MaxQueue
	caps := t.Caps()
	s.caps = caps
	s.setBeside(t)
	mtu := caps.MTU
	if c.MaxPacket > 0 {
		mtu = min(mtu, c.MaxPacket)
	}
	lines := s.openLines(caps)
	var port uint16
	if lines != nil {
		port = lines.Port()
	}
	for _, hint := range c.hints {
		s.log.Warn(hint)
	}
	s.hintLoopback()
	s.engine, err = engine.New(engine.Config{
		Key: s.key, NoSums: c.NoChecksum,
		Self: s.self, System: c.SystemName, Seed: randomNumber(), Arena: t.Arena(), MTU: mtu, Timing: timing,
		Limits: limits, Channels: c.Network.engineChannels(), Line: port,
		Oracle: engine.Oracle{
			Size: c.OracleSize, Eligible: c.Eligible, FastStart: c.FastStart, IgnoreCut: c.IgnorePartitions,
			Hosts: c.listed, Host: c.host,
		},
	})
	if err != nil {
		closeLines(lines)
		return err
	}
	hostConfig := host.Config{
		Engine: s.engine, Transport: t, Clock: clock.Monotonic(), Logger: s.log, Model: c.Threading, Waiting: c.Waiting,
		Queue: limits.Queue, Message: limits.Message, Pinned: c.PinReceiver, OnPanic: c.OnPanic,
		OnSuspect: s.suspect, OnClose: s.endKept,
		Batch: c.Batch, Tuner: tunerConfig(c, t, mtu),
	}
	if lines != nil {
		hostConfig.Lines = lineKeeper{lines}
	}
	if s.host, err = host.New(hostConfig); err != nil {
		closeLines(lines)
	}
	return err
}

// Address returns this process's address in the system.
func (s *System) Address() Address {
	if s == nil {
		return NoAddress
	}
	return s.self
}

// Config returns the configuration in force: defaults, environment and options together.
func (s *System) Config() Config { return s.config }

// Logger returns where the system reports.
func (s *System) Logger() *slog.Logger { return s.log }

// Types returns the registry of the types that can be sent. It is frozen when the first group is joined.
func (s *System) Types() *codec.Registry {
	if s == nil {
		return nil
	}
	return s.types
}

// Groups returns the groups of this process that are joined and not over, in the order of joining.
func (s *System) Groups() []*Group {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.groups)
}

// Group returns the joined group with an identifier, nil when there is none: the handle behind a GroupID that came as
// an argument.
func (s *System) Group(id GroupID) *Group {
	for _, g := range s.Groups() {
		if g.ID() == id {
			return g
		}
	}
	return nil
}

// remember notes a group that is being joined.
func (s *System) remember(g *Group) {
	s.mu.Lock()
	s.groups = append(s.groups, g)
	s.mu.Unlock()
	s.watchOnce.Do(func() { go s.watch() })
}

// forget drops a group that is over.
func (s *System) forget(g *Group) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.groups = slices.DeleteFunc(slices.Clone(s.groups), func(x *Group) bool { return x == g })
}

// suspect notes that this process accused another. It is called by the owner of the engine.
func (s *System) suspect(who core.Address) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.suspects[who] = true
}

func (s *System) suspected(who Address) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.suspects[who]
}

// Active tells whether the system is running: from Start until Done.
func (s *System) Active() bool {
	if s == nil {
		return false
	}
	select {
	case <-s.host.Over():
		return false
	default:
		return true
	}
}

// Done is closed at the moment Active becomes false. Goroutines that work for the system should end then.
func (s *System) Done() <-chan struct{} { return s.host.Over() }

// Wait returns when the system is over and everything of it has ended: nil after Close or when Start's context ended,
// else why, such as a *PoisonError.
func (s *System) Wait() error {
	if s == nil {
		return ErrNotRunning
	}
	<-s.host.Done()
	if err := public(s.host.Err()); !errors.Is(err, ErrShutdown) {
		return fmt.Errorf("vsync: %w", err)
	}
	return nil
}

// Close leaves all groups, so that their other members get a view without this process at once, then the system, and
// ends everything that Start began. Blocked calls return errors. It returns nil when all is gone; when a handler does
// not return, ErrHandlerStuck after a few seconds, and what is left is freed when it does. Called inside a handler it
// starts closing and returns nil at once. Closing twice is no error.
func (s *System) Close() error {
	if s == nil {
		return ErrNotRunning
	}
	s.closing.Store(true)
	if err := s.host.Close(); err != nil {
		return fmt.Errorf("vsync: close: %w", err)
	}
	return nil
}

// Kill ends the system without telling anybody, as a crash of the process would: the others find out by its silence.
// For tests and demonstrations.
func (s *System) Kill() { s.host.Kill() }
