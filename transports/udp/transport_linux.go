package udp

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

var (
	_ dataplane.Transport   = (*Transport)(nil)
	_ dataplane.GroupFilter = (*Transport)(nil)
)

// Transport is the UDP transport. Its methods may be called as dataplane.Transport says.
type Transport struct {
	cfg    resolved
	caps   dataplane.Caps
	local  dataplane.Endpoint
	arena  *frame.Arena
	clock  clock.Source
	log    *slog.Logger
	links  *links // nil with one interface
	closed atomic.Bool

	// sockets are those that Receive reads: the unicast one, and the multicast ones that ever joined a group. The
	// slice is replaced, never changed; control is held to replace it.
	sockets atomic.Pointer[[]*socket]

	control sync.Mutex // guards what follows, and keeps descriptors open while it is held
	groups  []*socket  // multicast sockets; does not change
	gro     bool       // they receive super-packets
	joined  map[dataplane.Channel]*socket
	shut    bool // descriptors are closed

	filtered atomic.Uint64                                  // packets that the filter dropped, as last known
	listens  atomic.Pointer[map[dataplane.Channel]struct{}] // the keys of joined
	lostMost atomic.Uint64                                  // the most that was ever reported as lost

	_       counters.Pad
	sending sync.Mutex // held by Send
	sender  sender

	_         counters.Pad
	receiving sync.Mutex // held by Receive
	receiver  receiver
	waiter    waiter
	turn      int // which socket is read first
	beside    Source
	besides   int // polls of beside
}

// Open opens a transport.
func Open(cfg Config) (*Transport, error) {
	r, err := cfg.resolve()
	if err != nil {
		if cfg.Filter != nil {
			err = errors.Join(err, cfg.Filter.Close())
		}
		return nil, err
	}
	t := &Transport{cfg: r, caps: r.capsOf(), clock: clock.Monotonic(), log: r.Log}
	t.joined = map[dataplane.Channel]*socket{}
	t.listen()
	if t.log == nil {
		t.log = slog.New(slog.DiscardHandler)
	}
	if err := t.open(); err != nil {
		return nil, errors.Join(err, t.release())
	}
	t.noteShort()
	t.noteStrict()
	return t, nil
}

// open acquires what release gives back, in part when it fails.
func (t *Transport) open() (err error) {
	t.waiter.event = -1
	if t.arena, err = frame.New(t.cfg.Arena); err != nil {
		return err
	}
	slots := receiveMessages
	if t.cfg.gro {
		slots = receiveSuperMessages
	}
	if t.cfg.Beside != nil {
		slots = receiveBesideMessages
	}
	t.receiver = receiver{
		arena: t.arena, mtu: t.cfg.MTU, ifIndex: int32(t.cfg.ifIndex), batches: !t.cfg.DisableBatch, noteOff: t.noteOff,
	}
	if err := t.receiver.init(slots, t.cfg.gro); err != nil {
		return fmt.Errorf("udp: message headers: %w", err)
	}
	if err := t.openGroups(); err != nil { // first, so that the unicast socket gets another port
		return err
	}
	unicast, err := openUnicast(t.cfg)
	if err != nil {
		return err
	}
	t.sockets.Store(&[]*socket{unicast})
	if err := t.openSender(unicast); err != nil {
		return err
	}
	t.enableGRO(unicast)
	name, err := unix.Getsockname(unicast.fd)
	if err != nil {
		return fmt.Errorf("udp: getsockname: %w", err)
	}
	t.local = endpointOf(name)
	t.openLinks()
	t.shedOwn()
	return t.openBeside()
}

// openBeside opens the other source and what waits for both.
func (t *Transport) openBeside() (err error) {
	var files []int32
	if t.cfg.Beside != nil {
		t.receiver.own = t.local
		t.receiver.arm(receiveBesideMessages) // before the other source takes the frames
		if t.beside, err = t.cfg.Beside(t.arena, t.local); err != nil {
			t.beside = nil
			return err
		}
		files = t.beside.Files()
	}
	if err := t.waiter.init(len(t.groups)+1, files); err != nil {
		return fmt.Errorf("udp: eventfd: %w", err)
	}
	return nil
}

func (t *Transport) openSender(unicast *socket) (err error) {
	t.sender = sender{
		socket: unicast, arena: t.arena, groupPort: t.cfg.GroupPort, family: t.cfg.family(), mtu: t.cfg.MTU,
		segMax:  t.cfg.ifMTU - headerBytes(t.cfg.LocalIP),
		noteOff: t.noteOff, gso: !t.cfg.DisableGSO, batches: !t.cfg.DisableBatch,
	}
	if t.sender.headers, err = newHeaders(sendMessages, sendFrames); err != nil {
		return fmt.Errorf("udp: message headers: %w", err)
	}
	if err := probeGSO(unicast.fd); t.sender.gso && err != nil {
		t.sender.gso = false
		t.noteOff("UDP_SEGMENT", err)
	}
	return nil
}

// enableGRO asks for super-packets at a socket. From one that cannot do it datagrams come one by one.
func (t *Transport) enableGRO(s *socket) {
	if !t.cfg.gro {
		return
	}
	if err := enableGRO(s.fd); err != nil {
		t.noteOff("UDP_GRO", err)
	} else if s.multicast {
		t.gro = true
	}
}

// noteOff logs that the system cannot do something.
func (t *Transport) noteOff(what string, err error) {
	t.log.Warn("udp: the system refuses an offload, going on without", "offload", what, "error", err, "local", t.local)
}

// Caps says what the transport can do.
func (t *Transport) Caps() dataplane.Caps { return t.caps }

// Arena returns the arena that packets are sent from and received into.
func (t *Transport) Arena() *frame.Arena { return t.arena }

// Local returns the address and port that others send to.
func (t *Transport) Local() dataplane.Endpoint { return t.local }

// Buffers returns the bytes that the system granted for the buffers of each socket. The system doubles what it grants
// for overhead of its own, which is left out here. They are zero after Close.
func (t *Transport) Buffers() (receive, send int) {
	t.control.Lock()
	defer t.control.Unlock()
	if t.shut {
		return 0, 0
	}
	return t.granted()
}

// enter takes the lock of a method that one goroutine at a time may call. It returns false when the transport is
// closed.
func (t *Transport) enter(mu *sync.Mutex, method string) bool {
	if !mu.TryLock() {
		if !t.closed.Load() {
			invariant.Fail("udp: two goroutines are in %s of %v", method, t.local)
		}
		return false
	}
	if t.closed.Load() {
		mu.Unlock()
		return false
	}
	return true
}

// Send sends a batch. It waits a few milliseconds at most for room in the socket buffer; what then has none is
// dropped.
func (t *Transport) Send(batch []dataplane.Packet) (int, error) {
	if !t.enter(&t.sending, "Send") {
		return 0, dataplane.ErrClosed
	}
	defer t.sending.Unlock()
	return t.sender.send(batch)
}

// Receive returns packets that wait, or waits for some.
func (t *Transport) Receive(batch []dataplane.Packet, wait dataplane.Wait) (int, error) {
	if !t.enter(&t.receiving, "Receive") {
		return 0, dataplane.ErrClosed
	}
	defer t.receiving.Unlock()
	if len(batch) == 0 {
		return 0, nil
	}
	n, err := t.poll(batch, true)
	if t.waiter.stuck {
		t.receiver.stalled.Inc()
	}
	if n > 0 || err != nil || wait.Timeout == 0 {
		return n, err
	}
	return t.await(batch, wait)
}

// pollBad is how many reads of nothing but bad datagrams one poll makes of a socket before it turns to the next.
const pollBad = 16

// socketTurn is how often the sockets get their turn while the other source has packets, or is spun on.
const socketTurn = 16

// poll returns packets that are there, without waiting. With all, it looks everywhere before it says that there are
// none; without, it looks at the sockets, which takes system calls, now and then only, when there is another source.
func (t *Transport) poll(batch []dataplane.Packet, all bool) (int, error) {
	t.waiter.stuck = false
	t.arena.Rx().Free() // takes in what other goroutines released
	if n := t.receiver.deliver(batch); n > 0 {
		return n, nil
	}
	if t.receiver.rest.at < t.receiver.rest.size {
		t.waiter.stuck = true // no frame for the next datagram
		return 0, nil
	}
	if t.beside == nil {
		return t.pollSockets(batch)
	}
	t.besides++
	first := t.besides%socketTurn != 0
	if first {
		if n, err := t.beside.Poll(batch); n > 0 || err != nil || !all {
			return n, err
		}
	}
	if n, err := t.pollSockets(batch); n > 0 || err != nil || first {
		return n, err
	}
	return t.beside.Poll(batch)
}

// pollSockets returns packets that wait at the sockets.
func (t *Transport) pollSockets(batch []dataplane.Packet) (int, error) {
	sockets := *t.sockets.Load()
	for range sockets {
		s := sockets[t.turn%len(sockets)]
		t.turn++
		for range pollBad {
			slots := t.receiver.arm(len(batch))
			if slots == 0 {
				t.waiter.stuck = true
				return 0, nil
			}
			filled, err := t.receiver.fetch(s, slots)
			if err != nil {
				return 0, fmt.Errorf("udp: receive: %w", err)
			}
			if filled == 0 {
				break
			}
			if n := t.receiver.deliver(batch); n > 0 {
				return n, nil
			}
		}
	}
	return 0, nil
}

// Wake makes a Receive that is blocked, or else the next one that would block, return at once.
func (t *Transport) Wake() {
	if t.waiter.wake() {
		t.ring()
	}
}

// ring rings the event. The lock keeps its descriptor from being closed, and from being another's by the time of the
// write.
func (t *Transport) ring() {
	t.control.Lock()
	defer t.control.Unlock()
	if t.shut {
		return
	}
	if err := t.waiter.ring(); err != nil {
		invariant.Fail("udp: eventfd %d of %v: %v", t.waiter.event, t.local, err)
	}
}

// Stats returns counters since the transport was opened. Losses for want of room in a socket buffer become known with
// the next packet that has room.
func (t *Transport) Stats() dataplane.Stats {
	s, r := &t.sender, &t.receiver
	filtered := t.countFiltered()
	doubled := uint64(0)
	if t.links != nil {
		doubled = t.links.doubled.Load()
	}
	return dataplane.Stats{
		ReceiveDoubled:   doubled,
		SentPackets:      s.packets.Load(),
		SentBytes:        s.bytes.Load(),
		SentMulticasts:   s.multicasts.Load(),
		SendDropped:      s.dropped.Load(),
		SendNoRoom:       s.noRoom.Load(),
		SendCalls:        s.calls.Load(),
		ReceivedPackets:  r.packets.Load(),
		ReceivedBytes:    r.bytes.Load(),
		ReceiveCalls:     r.calls.Load(),
		ReceiveDropped:   t.lost(filtered), // the kernel counts what filters drop among them, but tells later
		ReceiveFiltered:  filtered,
		ReceiveOversize:  r.oversize.Load(),
		ReceiveUndersize: r.undersize.Load(),
		ReceiveForeign:   r.foreign.Load(),
		ReceiveStalled:   r.stalled.Load(),
	}
}

// Close closes the sockets and unmaps the arena, after Send and Receive have returned. A second Close does nothing.
func (t *Transport) Close() error {
	if t.closed.Swap(true) {
		return nil
	}
	t.Wake()
	t.receiving.Lock() // kept: nothing may enter any more
	t.sending.Lock()
	t.control.Lock()
	defer t.control.Unlock()
	t.countFiltered()
	t.shut = true
	return t.release()
}

// release gives back what open acquired.
func (t *Transport) release() error {
	var errs []error
	if t.beside != nil {
		errs = append(errs, t.beside.Close())
	}
	if t.cfg.Filter != nil {
		errs = append(errs, t.cfg.Filter.Close())
	}
	sockets := t.groups
	if t.sender.socket != nil {
		sockets = append(sockets, t.sender.socket)
	}
	for _, s := range sockets {
		errs = append(errs, unix.Close(s.fd))
	}
	if t.waiter.event >= 0 {
		errs = append(errs, unix.Close(t.waiter.event))
	}
	if t.sender.headers != nil {
		errs = append(errs, t.sender.headers.close())
	}
	if t.receiver.headers != nil {
		errs = append(errs, t.receiver.close())
	}
	if t.arena != nil {
		errs = append(errs, t.arena.Close())
	}
	return errors.Join(errs...)
}
