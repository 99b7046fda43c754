// Package host is the runtime shell around one engine and one transport. It owns what the engine must not know:
// goroutines, wake-ups, the clock, the socket and the executors that call the application's handlers.
//
// The engine has one owner at a time. Whoever owns it runs a turn: take in what waits (packets, commands), let due
// timers run, carry out the output (subscribe, send, hand deliveries to the groups' queues, tell waiters), then let go.
// Two models say who may own it:
//
//   - Combining: any goroutine that has something for the engine takes it when it is free, with one compare-and-swap,
//     and runs the turn itself. When it is taken, the goroutine leaves its command in the inbox (the receiver its
//     packets in the ring rx) and goes on; the owner looks again after letting go, so nothing is left lying. The
//     receiver runs the turn for what it received, and the sweeper those for a stream of sends.
//   - Loop: one goroutine owns the engine for good; everybody else feeds it through the inbox and rx and rings its
//     bell.
//
// Goroutines of a Host, besides those of its Lines: the receiver, the journal (log lines), the sweeper or in the Loop
// model the loop, one that waits for the end, and for every group two executors, one for multicasts, state and views,
// one for point-to-point messages. Handlers never run on a goroutine that owns the engine, so a slow handler holds up
// nothing but its own queue, which the engine bounds.
package host

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/khamsin-io/khamsin/dataplane"
	"github.com/khamsin-io/khamsin/dataplane/clock"
	"github.com/khamsin-io/khamsin/dataplane/frame"
	"github.com/khamsin-io/khamsin/dataplane/ring"
	"github.com/khamsin-io/khamsin/vsync/core"
	"github.com/khamsin-io/khamsin/vsync/internal/engine"
	"github.com/khamsin-io/khamsin/vsync/internal/tuner"
)

// Engine is what the host needs of an engine; *engine.Engine in production. Its methods are called by the owner only.
type Engine interface {
	Start(now clock.Time)
	Receive(now clock.Time, batch []dataplane.Packet)
	Tick(now clock.Time)
	Deadline() clock.Time
	Output() *engine.Output
	Join(now clock.Time, req engine.JoinRequest) engine.Handle
	Leave(now clock.Time, h engine.Handle)
	Terminate(now clock.Time, h engine.Handle)
	Submit(now clock.Time, h engine.Handle, f core.Flavour, head, body []byte) engine.Result
	SubmitTo(now clock.Time, h engine.Handle, to core.Address, msg []byte) engine.Result
	SubmitReply(now clock.Time, h engine.Handle, to core.Address, msg []byte) engine.Result
	SubmitRawTo(now clock.Time, h engine.Handle, to core.Address, msg []byte, reply bool) engine.Result
	Flush(now clock.Time, h engine.Handle, k int, token uint64)
	StateChunk(now clock.Time, transfer uint64, data []byte, last bool) engine.Result
	StateAbort(now clock.Time, transfer uint64)
	Consumed(now clock.Time, h engine.Handle, packets int)
	ConsumedPeers(now clock.Time, h engine.Handle, messages, bytes int)
	Report(now clock.Time, h engine.Handle, who core.Address, reason string) error
	LineClosed(now clock.Time, incarnation uint64)
	LineOpen(now clock.Time, incarnation uint64)
	Stop(now clock.Time)
	Release()
}

// Lines keeps connections to processes whose end the kernel is to tell; *lifeline.Keeper in production.
type Lines interface {
	Start(report func(incarnation uint64, alive bool))
	Want(to core.Address, port uint16)
	Drop(incarnation uint64)
	Close(orderly bool) // waits for reports that are under way
}

// Model says which goroutines may own the engine.
type Model uint8

// The models. docs/decisions/0001-threading.md compares them.
const (
	Combining Model = iota
	Loop
)

// String returns the model's name.
func (m Model) String() string { return [...]string{"combining", "loop"}[m] }

// Waiting says how the receiver waits when nothing is there.
type Waiting uint8

// The waiting strategies.
const (
	Adaptive Waiting = iota // spin while that pays, else block
	Block                   // sleep in the kernel at once
	BusyPoll                // never sleep: takes a whole core
)

// String returns the strategy's name.
func (w Waiting) String() string { return [...]string{"adaptive", "block", "busy"}[w] }

// Limits of a host.
const (
	inboxSlots  = 256  // commands that wait for the owner
	rxSlots     = 1024 // packets that wait for the owner
	roundsMax   = 16   // turns that a goroutine runs for others before it hands them to the receiver
	journalMax  = 256  // log lines that wait to be written
	scratchKeep = 64 << 10
	peerQuota   = 256 << 10 // bytes of point-to-point messages after which their consumption is told at the latest
)

// retryAfter is how long packets wait that the transport would not take.
const retryAfter = 100 * time.Microsecond

// Config is what a host is made from. Engine, Transport, Clock and Logger are required.
type Config struct {
	Engine    Engine
	Transport dataplane.Transport
	Clock     clock.Source
	Logger    *slog.Logger
	Model     Model
	Waiting   Waiting
	Queue     int                            // the engine's Limits.Queue: deliveries of a group that are not consumed
	Message   int                            // the engine's Limits.Message: bytes of one message
	Pinned    bool                           // the receiver owns its thread
	Batch     int                            // packets taken from the transport at once; 0: as it advises
	Tuner     *tuner.Config                  // where the autotuner starts; nil: it is off
	Lines     Lines                          // nil: none
	CloseWait time.Duration                  // how long Close waits for the system, and again for handlers; default 5 s
	OnPanic   func(group string, reason any) // a handler panicked; nil: log and crash
	OnSuspect func(who core.Address)         // this process accused another; called by the owner, must not block
	OnClose   func()                         // called when all else has ended, before the transport is closed
}

// Host runs one engine. All its methods may be called by any goroutine.
type Host struct {
	cfg       Config
	engine    Engine
	transport dataplane.Transport
	arena     *frame.Arena
	clock     clock.Source

	owner atomic.Uint32 // ownFree, ownHeld or ownDead
	_     [60]byte

	inbox *inbox
	rx    *ring.SPSC[dataplane.Packet] // receiver to owner

	deadline   atomic.Int64 // clock.Time at which a turn has something to do; written by the owner
	sleepUntil atomic.Int64 // what the receiver (in the Loop model the loop) sleeps for; 0 while it is awake
	wanted     atomic.Bool  // the receiver sleeps until the engine is free
	bell       chan struct{}
	_          [64]byte
	streams    streams // what senders read for each message must not lie beside what others write for each turn
	_          [64]byte
	stager     stager

	receiver atomic.Uint64 // number of the receiver's goroutine
	inline   []*executor   // the receiver's own
	own      ownerState
	tuning   autotuner
	batch    atomic.Int64 // packets that the receiver takes from the transport at once
	journal  *journal
	calls    sync.Pool

	ctx       context.Context // ends when the host is over; parent of the handlers' contexts
	cancel    context.CancelFunc
	attached  chan struct{} // closed by EventAttached
	overOnce  sync.Once
	over      chan struct{} // closed when the engine is over or the host was killed
	overErr   error         // valid when over is closed
	dead      chan struct{} // closed when no turn will ever run again
	done      chan struct{} // closed when everything has ended
	doneErr   error         // valid when done is closed
	stopOnce  sync.Once
	stopAsked chan struct{}  // closed by Close
	stopping  atomic.Bool    // receiver and loop: leave
	killed    atomic.Bool    // executors: drop what is queued
	workers   sync.WaitGroup // receiver, loop

	joining sync.Mutex // guards ended, and that executors start only before it is set
	ended   bool
	groups  sync.WaitGroup // executors
}

// ownerState is touched by the owner only.
type ownerState struct {
	groups    []*Group // by handle
	batch     []dataplane.Packet
	unsent    []dataplane.Packet // not accepted by the transport yet
	retryAt   clock.Time
	dirty     []*queue    // got deliveries in this turn
	roomed    []*Group    // got room in this turn
	receiving bool        // the owner is the receiver, which runs inline executors itself
	inline    []*executor // that the receiver must run when it has let go
	flushes   map[uint64]*flushWait
	rooms     map[uint64]*room // of state transfers that wait
	token     uint64
	scratch   []byte
	head      []byte // of the message that is submitted
	sendErr   int
	sent      Tally
	received  Tally
}

// Ownership states.
const (
	ownFree uint32 = iota
	ownHeld
	ownDead
)

// New returns a host that does nothing until Start.
func New(cfg Config) (*Host, error) {
	if cfg.Engine == nil || cfg.Transport == nil || cfg.Clock == nil || cfg.Logger == nil {
		return nil, errors.New("host: engine, transport, clock and logger are required")
	}
	if cfg.Queue <= 0 || cfg.Message <= 0 {
		return nil, fmt.Errorf("host: limits must be positive, are queue %d and message %d", cfg.Queue, cfg.Message)
	}
	if cfg.CloseWait <= 0 {
		cfg.CloseWait = 5 * time.Second
	}
	h := &Host{
		cfg:       cfg,
		engine:    cfg.Engine,
		transport: cfg.Transport,
		arena:     cfg.Transport.Arena(),
		clock:     cfg.Clock,
		inbox:     newInbox(inboxSlots),
		rx:        ring.NewSPSC[dataplane.Packet](rxSlots),
		bell:      make(chan struct{}, 1),
		streams:   streams{bell: make(chan struct{}, 1)},
		attached:  make(chan struct{}),
		over:      make(chan struct{}),
		stopAsked: make(chan struct{}),
		dead:      make(chan struct{}),
		done:      make(chan struct{}),
	}
	h.stager.inbox = h.inbox
	h.own.batch = make([]dataplane.Packet, rxSlots)
	h.own.flushes = make(map[uint64]*flushWait)
	h.own.rooms = make(map[uint64]*room)
	h.ctx, h.cancel = context.WithCancel(context.Background())
	h.deadline.Store(int64(clock.Never))
	h.journal = newJournal(cfg.Logger)
	if cfg.Batch == 0 {
		cfg.Batch = cfg.Transport.Caps().Batch
	}
	h.batch.Store(int64(min(max(1, cfg.Batch), rxSlots)))
	h.startTuning(cfg.Tuner)
	return h, nil
}

// Start starts the engine and the goroutines. It must be called once.
func (h *Host) Start() {
	h.owner.Store(ownHeld) // nobody can own the engine yet
	h.engine.Start(h.clock.Now())
	go h.journal.run()
	if h.cfg.Lines != nil {
		h.cfg.Lines.Start(h.onLine)
	}
	h.workers.Add(1)
	if h.cfg.Model == Loop {
		h.workers.Add(1)
		go h.forward()
		go h.loop()
	} else {
		h.workers.Add(1)
		go h.receive()
		go h.sweep()
		h.finish(h.clock.Now())
	}
	go h.undertake()
}

// Attached is closed when the process has become part of a system.
func (h *Host) Attached() <-chan struct{} { return h.attached }

// Over is closed when the engine is over; Err then says why.
func (h *Host) Over() <-chan struct{} { return h.over }

// Err returns why the engine is over, nil while it is not.
func (h *Host) Err() error {
	select {
	case <-h.over:
		return h.overErr
	default:
		return nil
	}
}

// Done is closed when every goroutine of the host has ended and the transport is closed.
func (h *Host) Done() <-chan struct{} { return h.done }

// Context ends when the host is over.
func (h *Host) Context() context.Context { return h.ctx }

// setOver records why the engine is over. The first reason counts.
func (h *Host) setOver(err error) {
	h.overOnce.Do(func() {
		h.overErr = err
		close(h.over)
		h.cancel()
	})
}
