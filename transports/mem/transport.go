package mem

import (
	"sync"
	"sync/atomic"

	"github.com/khamsin-io/khamsin/dataplane"
	"github.com/khamsin-io/khamsin/dataplane/clock"
	"github.com/khamsin-io/khamsin/dataplane/counters"
	"github.com/khamsin-io/khamsin/dataplane/frame"
	"github.com/khamsin-io/khamsin/dataplane/invariant"
	"github.com/khamsin-io/khamsin/dataplane/ring"
)

// batchMax is the batch that Caps recommends.
const batchMax = 64

var _ dataplane.Transport = (*Transport)(nil)

// Transport is one station of a Hub. Its methods may be called as dataplane.Transport says.
type Transport struct {
	hub   *Hub
	caps  dataplane.Caps
	local dataplane.Endpoint
	arena *frame.Arena
	clock clock.Source
	inbox inbox
	bell  *ring.Bell // rung for packets, Wake and Close

	sending   sync.Mutex // held by Send
	receiving sync.Mutex // held by Receive
	closed    atomic.Bool
	woken     atomic.Bool // Wake was called and no Receive has returned for it yet

	sent, sentBytes, sentMulticasts, sendDropped, sendCalls counters.Counter // written by Send
}

func newTransport(h *Hub, cfg Config) (*Transport, error) {
	arena, err := frame.New(cfg.Arena)
	if err != nil {
		return nil, err
	}
	t := &Transport{
		hub:   h,
		arena: arena,
		clock: clock.Monotonic(),
		bell:  ring.NewBell(),
		caps: dataplane.Caps{
			Name:      "mem",
			MTU:       cfg.MTU,
			Batch:     batchMax,
			Multicast: !cfg.UnicastOnly,
			BusyPoll:  true,
			LoopsBack: !cfg.UnicastOnly,
		},
	}
	t.inbox.init(arena, cfg)
	return t, nil
}

// Caps says what the transport can do.
func (t *Transport) Caps() dataplane.Caps { return t.caps }

// Arena returns the arena of the transport's frames.
func (t *Transport) Arena() *frame.Arena { return t.arena }

// Local returns the transport's endpoint in its hub.
func (t *Transport) Local() dataplane.Endpoint { return t.local }

// Subscribe starts receiving a channel.
func (t *Transport) Subscribe(ch dataplane.Channel) error {
	if err := t.checkChannel(ch); err != nil {
		return err
	}
	return t.hub.subscribe(t, ch)
}

// Unsubscribe stops receiving a channel.
func (t *Transport) Unsubscribe(ch dataplane.Channel) error {
	if err := t.checkChannel(ch); err != nil {
		return err
	}
	return t.hub.unsubscribe(t, ch)
}

func (t *Transport) checkChannel(ch dataplane.Channel) error {
	switch {
	case t.closed.Load():
		return dataplane.ErrClosed
	case !t.caps.Multicast:
		return dataplane.ErrNoMulticast
	case ch < dataplane.ChannelMin || ch > dataplane.ChannelMax:
		return dataplane.ErrBadChannel
	}
	return nil
}

// Send copies each packet of the batch to its receivers.
func (t *Transport) Send(batch []dataplane.Packet) (int, error) {
	if !t.enter(&t.sending, "Send") {
		return 0, dataplane.ErrClosed
	}
	defer t.sending.Unlock()
	if len(batch) == 0 {
		return 0, nil
	}
	t.sendCalls.Inc()
	t.hub.mu.RLock()
	defer t.hub.mu.RUnlock()
	for i := range batch {
		if err := t.sendOne(batch[i]); err != nil {
			return i, err
		}
	}
	return len(batch), nil
}

// sendOne delivers one packet and releases its frame. An error leaves the frame with the caller.
func (t *Transport) sendOne(p dataplane.Packet) error {
	if p.Channel != 0 {
		if err := t.checkChannel(p.Channel); err != nil {
			return err
		}
	}
	payload := t.arena.Bytes(p.Frame)
	if len(payload) > t.caps.MTU {
		return dataplane.ErrTooLarge
	}
	p.From = t.local
	if !t.hub.deliver(p, payload) {
		t.sendDropped.Inc()
	}
	t.sent.Inc()
	t.sentBytes.Add(uint64(len(payload)))
	if p.Channel != 0 {
		t.sentMulticasts.Inc()
	}
	t.arena.Tx().Release(p.Frame)
	return nil
}

// enter takes the lock of a method that one goroutine at a time may call. It returns false when the transport is
// closed.
func (t *Transport) enter(mu *sync.Mutex, method string) bool {
	if !mu.TryLock() {
		if !t.closed.Load() {
			invariant.Fail("mem: two goroutines are in %s of %v", method, t.local)
		}
		return false
	}
	if t.closed.Load() {
		mu.Unlock()
		return false
	}
	return true
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
	n, stalled := t.inbox.take(batch)
	if stalled {
		t.countStall()
	}
	if n > 0 || wait.Timeout == 0 {
		return n, nil
	}
	deadline := t.clock.Now().Add(wait.Timeout)
	for left := wait.Timeout; ; left = deadline.Sub(t.clock.Now()) {
		if t.woken.Swap(false) {
			return 0, nil
		}
		if wait.Timeout < 0 {
			left = -1
		} else if left <= 0 {
			return 0, nil
		}
		t.bell.WaitTimeout(wait.Spin, left)
		if t.closed.Load() {
			return 0, dataplane.ErrClosed
		}
		if n, _ := t.inbox.take(batch); n > 0 {
			return n, nil
		}
	}
}

func (t *Transport) countStall() {
	t.inbox.mu.Lock()
	defer t.inbox.mu.Unlock()
	t.inbox.stalls++
}

// Wake makes a Receive that is blocked, or else the next one that would block, return at once.
func (t *Transport) Wake() {
	t.woken.Store(true)
	t.bell.Ring()
}

// Stats returns counters since the transport was opened.
func (t *Transport) Stats() dataplane.Stats {
	b := &t.inbox
	b.mu.Lock()
	defer b.mu.Unlock()
	return dataplane.Stats{
		SentPackets:      t.sent.Load(),
		SentBytes:        t.sentBytes.Load(),
		SentMulticasts:   t.sentMulticasts.Load(),
		SendDropped:      t.sendDropped.Load(),
		SendCalls:        t.sendCalls.Load(),
		ReceivedPackets:  b.received,
		ReceivedBytes:    b.receivedBytes,
		ReceiveCalls:     b.calls,
		ReceiveDropped:   b.dropped,
		ReceiveOversize:  b.oversize,
		ReceiveUndersize: b.undersize,
		ReceiveStalled:   b.stalls,
	}
}

// Close takes the transport off its hub and unmaps its arena, after Send and Receive have returned. A second Close
// does nothing.
func (t *Transport) Close() error {
	if t.closed.Swap(true) {
		return nil
	}
	t.bell.Ring()
	t.hub.remove(t)
	t.receiving.Lock() // kept: nothing may enter any more
	t.sending.Lock()
	return t.release()
}

// release gives back the frames of the inbox and the arena.
func (t *Transport) release() error {
	t.inbox.discard()
	return t.arena.Close()
}
