package vsync

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync/atomic"

	"github.com/khamsin-io/khamsin/dataplane"
	"github.com/khamsin-io/khamsin/dataplane/clock"
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

	closing atomic.Bool
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
	transport, err := open(&config)
	if err != nil {
		return nil, err
	}
	s := &System{config: config, self: newAddress(transport.Local())}
	s.log = config.logger().With("system", config.SystemName, "self", s.self.String())
	if s.host, err = newHost(&config, s.self, transport, s.log); err != nil {
		return nil, errors.Join(err, transport.Close())
	}
	s.host.Start()
	select {
	case <-s.host.Attached():
	case <-s.host.Over():
		<-s.host.Done()
		return nil, public(s.host.Err())
	case <-ctx.Done():
		return nil, errors.Join(context.Cause(ctx), s.host.Close())
	}
	stop := context.AfterFunc(ctx, func() { _ = s.Close() })
	go func() {
		<-s.host.Done()
		stop()
	}()
	return s, nil
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

// newHost makes the engine and the host around it.
func newHost(c *Config, self Address, t dataplane.Transport, log *slog.Logger) (*host.Host, error) {
	timing, limits := engine.Defaults()
	timing.Discovery, timing.Heartbeat = c.Discovery, c.Heartbeat
	timing.Suspect, timing.Request = c.SuspectAfter, c.ProtocolTimeout
	limits.Message, limits.Window, limits.Queue = c.MaxMessage, c.MaxUnstable, c.MaxQueue
	caps := t.Caps()
	mtu := caps.MTU
	if c.MaxPacket > 0 {
		mtu = min(mtu, c.MaxPacket)
	}
	e, err := engine.New(engine.Config{
		Self: self, System: c.SystemName, Seed: randomNumber(), Arena: t.Arena(), MTU: mtu, Timing: timing,
		Limits: limits, Channels: c.Network.engineChannels(),
		Oracle: engine.Oracle{
			Size: c.OracleSize, Eligible: c.Eligible, FastStart: c.FastStart, IgnoreCut: c.IgnorePartitions,
		},
	})
	if err != nil {
		return nil, err
	}
	return host.New(host.Config{
		Engine: e, Transport: t, Clock: clock.Monotonic(), Logger: log, Model: c.Threading, Waiting: c.Waiting,
		Queue: limits.Queue, Message: limits.Message, Pinned: c.PinReceiver, OnPanic: c.OnPanic,
	})
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
