package tcp

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/khamsin-io/khamsin/dataplane"
	"github.com/khamsin-io/khamsin/dataplane/clock"
	"github.com/khamsin-io/khamsin/dataplane/counters"
	"github.com/khamsin-io/khamsin/dataplane/frame"
	"github.com/khamsin-io/khamsin/dataplane/invariant"
)

var _ dataplane.Transport = (*Transport)(nil)

// Transport is the TCP transport. Its methods may be called as dataplane.Transport says.
type Transport struct {
	cfg    Config
	local  dataplane.Endpoint
	arena  *frame.Arena
	clock  clock.Source
	log    *slog.Logger
	closed atomic.Bool
	waiter waiter

	listener, epoll, event int // descriptors; -1 before they are open

	sending   sync.Mutex // held by Send
	receiving sync.Mutex // held by Receive

	mu     sync.Mutex // guards what follows, and keeps descriptors open while it is held
	links  map[int32]*link
	peers  map[dataplane.Endpoint]*link // those that packets are sent by
	send   sender
	header unix.Msghdr
	shut   bool // descriptors are closed

	ending int        // links whose end has begun
	paused bool       // strangers wait in the system's queue
	turnAt clock.Time // when a connection that is in use may be retired again

	present, most   atomic.Uint64 // connections now, and the most there ever were
	retired, waited counters.Counter

	sent, sentBytes, sendDropped, sendCalls counters.Counter // written with mu held

	_       counters.Pad
	receive receiver

	received, receivedBytes, calls, undersize, stalled counters.Counter // written by Receive
	refusals                                           refusals
}

// refusals counts connections that were cut off: see Refused.
type refusals struct{ noHello, imposter, length, broken counters.Counter }

// Open opens a transport.
func Open(cfg Config) (*Transport, error) {
	cfg, err := cfg.resolve()
	if err != nil {
		return nil, err
	}
	t := &Transport{
		cfg: cfg, clock: clock.Monotonic(), log: cfg.Log, listener: -1, epoll: -1, event: -1,
		links: map[int32]*link{}, peers: map[dataplane.Endpoint]*link{},
	}
	t.send.refused = map[dataplane.Endpoint]holdOff{}
	if t.log == nil {
		t.log = slog.New(slog.DiscardHandler)
	}
	if err := t.open(); err != nil {
		return nil, errors.Join(err, t.release())
	}
	return t, nil
}

// open acquires what release gives back, in part when it fails.
func (t *Transport) open() (err error) {
	if t.arena, err = frame.New(t.cfg.Arena); err != nil {
		return err
	}
	if err := t.listen(); err != nil {
		return err
	}
	if t.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return fmt.Errorf("tcp: epoll: %w", err)
	}
	if t.event, err = unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC); err != nil {
		return fmt.Errorf("tcp: eventfd: %w", err)
	}
	for _, fd := range []int{t.listener, t.event} {
		event := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)}
		if err := unix.EpollCtl(t.epoll, unix.EPOLL_CTL_ADD, fd, &event); err != nil {
			return fmt.Errorf("tcp: epoll: %w", err)
		}
	}
	return nil
}

// Caps says what the transport can do.
func (t *Transport) Caps() dataplane.Caps {
	return dataplane.Caps{Name: "tcp", MTU: t.cfg.MTU, Batch: batchMax}
}

// Arena returns the arena that packets are sent from and received into.
func (t *Transport) Arena() *frame.Arena { return t.arena }

// Local returns the address and port that others connect to.
func (t *Transport) Local() dataplane.Endpoint { return t.local }

// Subscribe fails: there are no channels.
func (t *Transport) Subscribe(dataplane.Channel) error { return t.noChannels() }

// Unsubscribe fails: there are no channels.
func (t *Transport) Unsubscribe(dataplane.Channel) error { return t.noChannels() }

func (t *Transport) noChannels() error {
	if t.closed.Load() {
		return dataplane.ErrClosed
	}
	return dataplane.ErrNoMulticast
}

// enter takes the lock of a method that one goroutine at a time may call. It returns false when the transport is
// closed.
func (t *Transport) enter(mu *sync.Mutex, method string) bool {
	if !mu.TryLock() {
		if !t.closed.Load() {
			invariant.Fail("tcp: two goroutines are in %s of %v", method, t.local)
		}
		return false
	}
	if t.closed.Load() {
		mu.Unlock()
		return false
	}
	return true
}

// cut counts a connection that is cut off. The first one for each reason is logged.
func (t *Transport) cut(why *counters.Counter, text string) {
	why.Inc()
	if why.Load() == 1 {
		t.log.Warn("tcp: connection cut off; further ones for this reason are only counted", "reason", text,
			"local", t.local)
	}
}

// Connections returns how many connections are open.
func (t *Transport) Connections() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.links)
}

// Refused returns how many connections were cut off since the transport was opened.
func (t *Transport) Refused() Refused {
	r := &t.refusals
	return Refused{
		NoHello: r.noHello.Load(), Imposter: r.imposter.Load(), Length: r.length.Load(), Broken: r.broken.Load(),
	}
}

// Stats returns counters since the transport was opened.
func (t *Transport) Stats() dataplane.Stats {
	return dataplane.Stats{
		SentPackets:      t.sent.Load(),
		SentBytes:        t.sentBytes.Load(),
		SendDropped:      t.sendDropped.Load(),
		SendCalls:        t.sendCalls.Load(),
		ReceivedPackets:  t.received.Load(),
		ReceivedBytes:    t.receivedBytes.Load(),
		ReceiveCalls:     t.calls.Load(),
		ReceiveUndersize: t.undersize.Load(),
		ReceiveStalled:   t.stalled.Load(),
		Connections:      t.present.Load(),
		ConnectionsMost:  t.most.Load(),
		Retired:          t.retired.Load(),
	}
}

// Close closes all connections and unmaps the arena, after Send and Receive have returned. What was sent before goes
// out as far as the system gets it out. A second Close does nothing.
func (t *Transport) Close() error {
	if t.closed.Swap(true) {
		return nil
	}
	t.Wake()
	t.receiving.Lock() // kept: nothing may enter any more
	t.sending.Lock()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.shut = true
	return t.release()
}

// release gives back what open acquired.
func (t *Transport) release() error {
	var errs []error
	for fd := range t.links {
		errs = append(errs, unix.Close(int(fd)))
	}
	clear(t.links)
	for _, fd := range []int{t.listener, t.event, t.epoll} {
		if fd >= 0 {
			errs = append(errs, unix.Close(fd))
		}
	}
	if t.arena != nil {
		errs = append(errs, t.arena.Close())
	}
	return errors.Join(errs...)
}
