//go:build cgo && rdma

package rdma

// #include "verbs.h"
import "C"

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/Mellanox/rdmamap"

	"github.com/khamsin-io/khamsin/dataplane"
	"github.com/khamsin-io/khamsin/dataplane/clock"
	"github.com/khamsin-io/khamsin/dataplane/counters"
	"github.com/khamsin-io/khamsin/dataplane/frame"
	"github.com/khamsin-io/khamsin/dataplane/invariant"
)

var _ dataplane.Transport = (*Transport)(nil)

// Transport is the RDMA transport. Its methods may be called as dataplane.Transport says.
type Transport struct {
	cfg    Config
	caps   dataplane.Caps
	local  dataplane.Endpoint
	gid    gid
	ip     netip.Addr // of sockets
	lids   lids
	arena  *frame.Arena
	clock  clock.Source
	log    *slog.Logger
	closed atomic.Bool

	device device
	region handle // the arena, registered
	srq    handle
	pair   handle // the queue pair of all datagrams

	control sync.Mutex // guards what follows, and keeps descriptors open while it is held
	groups  groups
	shut    bool
	sided   oneSided
	keeper  *keeper // of rails; nil without large frames

	_       counters.Pad
	sending sync.Mutex // held by Send
	sender  sender

	_         counters.Pad
	receiving sync.Mutex // held by Receive
	receiver  receiver
	waiter    waiter
}

// Open opens a transport.
func Open(cfg Config) (*Transport, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	if err := loadLibrary(); err != nil {
		return nil, err
	}
	setDefault(&cfg.PhysPort, DefaultPhysPort)
	t := &Transport{clock: clock.Monotonic(), log: cfg.Log}
	if t.log == nil {
		t.log = slog.New(slog.DiscardHandler)
	}
	t.waiter.event = -1
	if err := t.open(cfg); err != nil {
		return nil, errors.Join(err, t.release())
	}
	return t, nil
}

// locate finds the device and its address, each from the other if need be.
func (t *Transport) locate(cfg *Config) (err error) {
	if cfg.Device == "" {
		if cfg.Device, err = rdmamap.GetRdmaDeviceForNetdevice(cfg.Interface); err != nil {
			return fmt.Errorf("%w: interface %q belongs to none: %w", ErrNoDevice, cfg.Interface, err)
		}
	}
	if t.device, err = openDevice(cfg.Device, cfg.PhysPort); err != nil {
		return err
	}
	list, err := readGIDs(sysfs, cfg.Device, cfg.PhysPort)
	if err != nil {
		return err
	}
	if t.gid, err = chooseGID(list, cfg.Interface, cfg.LocalIP); err != nil {
		return err
	}
	if cfg.Interface == "" {
		cfg.Interface = t.gid.ndev
	}
	return nil
}

// open acquires what release gives back, in part when it fails.
func (t *Transport) open(cfg Config) (err error) {
	if err = t.locate(&cfg); err != nil {
		return err
	}
	portMTU := int(t.device.attr.mtu)
	t.cfg = cfg.withDefaults(portMTU)
	if err := t.settle(); err != nil {
		return err
	}
	if err := t.cfg.checkSizes(portMTU, int(t.device.attr.max_msg)); err != nil {
		return err
	}
	t.cfg.SendDepth = min(t.cfg.SendDepth, int(t.device.attr.max_qp_wr))
	t.cfg.ReceiveDepth = min(t.cfg.ReceiveDepth, int(t.device.attr.max_srq_wr))
	t.cfg.LargeDepth = min(t.cfg.LargeDepth, int(t.device.attr.max_srq_wr))
	t.caps = dataplane.Caps{
		Name: "rdma", MTU: t.cfg.MTU, Large: t.cfg.Large, Batch: batchMax, ZeroCopy: true, BusyPoll: true,
		Multicast: t.cfg.GroupPort != 0 && (t.infiniband() || t.gid.addr.Is4In6() && t.gid.kind == typeRoCE2),
	}
	t.caps.LoopsBack = t.caps.Multicast
	if t.cfg.GroupPort != 0 && !t.caps.Multicast {
		t.log.Warn("rdma: no multicast: it needs RoCE v2 with an IPv4 address", "gid", t.gid.addr, "type", t.gid.kind)
	}
	if t.arena, err = frame.New(t.cfg.Arena); err != nil {
		return err
	}
	if t.region, err = t.device.register(t.arena.Memory(), false); err != nil {
		return err
	}
	if err := t.openPair(); err != nil {
		return err
	}
	if err := t.openRails(); err != nil {
		return err
	}
	if t.caps.Multicast {
		if err := t.groups.open(t.cfg); err != nil {
			return err
		}
	}
	t.sided.init()
	if err := t.waiter.init(); err != nil {
		return fmt.Errorf("rdma: eventfd: %w", err)
	}
	if err := t.receiver.prime(); err != nil {
		return err
	}
	if t.keeper != nil {
		t.keeper.start()
	}
	return nil
}

// infiniband tells whether the port is one of InfiniBand proper, not of RoCE.
func (t *Transport) infiniband() bool { return t.device.attr.link_layer == linkInfiniBand }

// settle settles what depends on the kind of network.
func (t *Transport) settle() (err error) {
	t.ip = t.gid.addr.Unmap()
	if !t.infiniband() {
		if t.cfg.Join == JoinAuto {
			t.cfg.Join = JoinSocket
		}
		return nil
	}
	t.log.Warn("rdma: this is InfiniBand proper, which the transport has never run on: see docs/rdma.md",
		"device", t.cfg.Device)
	switch {
	case t.cfg.Join == JoinSocket:
		return errors.New("rdma: JoinSocket is for RoCE: a socket joins no group of InfiniBand")
	case t.cfg.Large > 0:
		return errors.New("rdma: Large is for RoCE: rails are not made over InfiniBand yet")
	}
	t.cfg.Join = JoinManager
	t.lids.learn(t.gid.addr.As16(), uint16(t.device.attr.lid))
	t.ip, err = ipOf(t.cfg.Interface, t.cfg.LocalIP)
	return err
}

// openPair makes the queues and the queue pair of the datagrams.
func (t *Transport) openPair() (err error) {
	if t.receiver.queue, err = t.device.openQueue(t.cfg.ReceiveDepth+t.cfg.LargeDepth, nil); err != nil {
		return err
	}
	if t.sender.queue, err = t.device.openQueue(t.cfg.SendDepth, t.receiver.queue.channel); err != nil {
		return err
	}
	errno := C.kh_create_srq(t.device.pd, C.int(t.cfg.ReceiveDepth), &t.srq)
	if err := fault("shared receive queue", errno); err != nil {
		return err
	}
	inline := C.uint32_t(t.cfg.Inline)
	if t.cfg.Large > 0 {
		inline = max(inline, railWordBytes)
	}
	errno = C.kh_create_ud(t.device.pd, t.sender.queue.cq, t.receiver.queue.cq, t.srq, C.int(t.cfg.SendDepth), &inline,
		&t.pair)
	if err := fault("queue pair", errno); err != nil {
		return err
	}
	if err := fault("ready queue pair", C.kh_ud_ready(t.pair, t.device.port, C.uint32_t(t.cfg.qkey()))); err != nil {
		return err
	}
	t.local = dataplane.Endpoint{IP: t.gid.addr.As16(), Port: uint32(C.kh_qp_num(t.pair))}
	if t.cfg.Large > 0 && inline < railWordBytes {
		t.log.Warn("rdma: no frames above the MTU: the device copies nothing into work requests", "local", t.local)
		t.caps.Large = 0
	}
	t.sender.init(t, min(int(inline), t.cfg.Inline))
	t.receiver.init(t)
	return nil
}

// large tells whether there are frames above the MTU.
func (t *Transport) large() bool { return t.caps.Large > 0 }

// Caps says what the transport can do.
func (t *Transport) Caps() dataplane.Caps { return t.caps }

// Arena returns the arena that packets are sent from and received into.
func (t *Transport) Arena() *frame.Arena { return t.arena }

// Local returns the GID and queue pair number that others send to.
func (t *Transport) Local() dataplane.Endpoint { return t.local }

// enter takes the lock of a method that one goroutine at a time may call. It returns false when the transport is
// closed.
func (t *Transport) enter(mu *sync.Mutex, method string) bool {
	if !mu.TryLock() {
		if !t.closed.Load() {
			invariant.Fail("rdma: two goroutines are in %s of %v", method, t.local)
		}
		return false
	}
	if t.closed.Load() {
		mu.Unlock()
		return false
	}
	return true
}

// Send posts a batch. Fewer than all are accepted when SendDepth packets are on their way, and while the address of a
// host that it has not sent to before is being resolved; what is not resolved after a quarter of a second is dropped.
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
	n, err := t.receiver.poll(batch)
	if t.receiver.stuck || t.receiver.large.empty() {
		t.receiver.stalled.Inc()
	}
	if n > 0 || err != nil || wait.Timeout == 0 {
		return n, err
	}
	return t.await(batch, wait)
}

// Wake makes a Receive that is blocked, or else the next one that would block, return at once.
func (t *Transport) Wake() {
	if !t.waiter.wake() {
		return
	}
	t.control.Lock() // keeps the descriptor from being closed, and from being another's by the time of the write
	defer t.control.Unlock()
	if t.shut {
		return
	}
	if err := t.waiter.ring(); err != nil {
		invariant.Fail("rdma: eventfd %d of %v: %v", t.waiter.event, t.local, err)
	}
}

// Stats returns counters since the transport was opened. ReceiveDropped counts the datagrams that were missing before
// one that came, whether the network lost them or there was no buffer: the device does not tell.
func (t *Transport) Stats() dataplane.Stats {
	s, r := &t.sender, &t.receiver
	return dataplane.Stats{
		SentPackets:      s.packets.Load(),
		SentBytes:        s.bytes.Load(),
		SentMulticasts:   s.multicasts.Load(),
		SendDropped:      s.dropped.Load(),
		SendCalls:        s.posts.Load(),
		ReceivedPackets:  r.packets.Load(),
		ReceivedBytes:    r.bytes.Load(),
		ReceiveCalls:     r.takes.Load(),
		ReceiveDropped:   r.dropped.Load(),
		ReceiveOversize:  r.oversize.Load(),
		ReceiveUndersize: r.undersize.Load(),
		ReceiveForeign:   r.foreign.Load(),
		ReceiveStalled:   r.stalled.Load(),
	}
}

// Verbs returns counters of the work for the device.
func (t *Transport) Verbs() VerbsStats {
	s, r := &t.sender, &t.receiver
	return VerbsStats{
		Calls:        s.calls.Load() + r.calls.Load(),
		WorkRequests: s.requests.Load(),
		Inlined:      s.inlined.Load(),
		Signalled:    s.signalled.Load(),
		Buffers:      r.buffers.Load(),
		Repairs:      s.repairs.Load(),
		Rails:        s.opened.Load(),
		RailFailures: s.railFailures.Load(),
		LargeSent:    s.largeSent.Load(),
		LargeCame:    r.largeCame.Load(),
	}
}

// Close destroys the queue pair and unmaps the arena, after Send and Receive have returned. Regions and Remotes are
// closed first. A second Close does nothing.
func (t *Transport) Close() error {
	if t.closed.Swap(true) {
		return nil
	}
	t.Wake()
	err := t.sided.close()
	t.receiving.Lock() // kept: nothing may enter any more
	t.sending.Lock()
	t.control.Lock()
	defer t.control.Unlock()
	t.shut = true
	return errors.Join(err, t.release())
}

// release gives back what open acquired.
func (t *Transport) release() error {
	var errs []error
	if t.keeper != nil {
		errs = append(errs, t.keeper.close())
	}
	errs = append(errs, t.detachAll(), t.groups.close(), closePair(t.pair))
	if t.srq != nil {
		errs = append(errs, fault("shared receive queue", C.kh_destroy_srq(t.srq)))
	}
	if t.receiver.large.srq != nil {
		errs = append(errs, fault("shared receive queue", C.kh_destroy_srq(t.receiver.large.srq)))
	}
	for _, q := range []queue{t.sender.rails.queue, t.sender.queue, t.receiver.queue} {
		errs = append(errs, closeQueue(q.cq))
	}
	errs = append(errs, closeChannel(t.receiver.queue.channel))
	errs = append(errs, t.sender.close())
	t.receiver.close()
	if t.region != nil {
		errs = append(errs, deregister(t.region))
	}
	errs = append(errs, t.device.close(), t.waiter.close())
	if t.arena != nil {
		errs = append(errs, t.arena.Close())
	}
	return errors.Join(errs...)
}
