package xdp

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/khamsin-io/khamsin/bpf"
	"github.com/khamsin-io/khamsin/dataplane"
	"github.com/khamsin-io/khamsin/dataplane/clock"
	"github.com/khamsin-io/khamsin/dataplane/counters"
	"github.com/khamsin-io/khamsin/dataplane/frame"
	"github.com/khamsin-io/khamsin/dataplane/invariant"
	"github.com/khamsin-io/khamsin/transports/udp"
)

var (
	_ dataplane.Transport   = (*Transport)(nil)
	_ dataplane.GroupFilter = (*Transport)(nil)
)

// Transport is the AF_XDP transport. Its methods may be called as dataplane.Transport says.
type Transport struct {
	cfg     Config
	ifi     *net.Interface
	stack   *udp.Transport
	demux   *bpf.Demux
	closed  atomic.Bool
	control sync.Mutex // held to change subscriptions

	resolver *resolver
	receiver receiver
	bulk     *bulk // nil: no packets but the transport's own go past the stack

	_       counters.Pad
	sending sync.Mutex // held by Send
	sender  sender
}

// Open opens a transport. It fails with a *bpf.MissingError when the system lacks something, so that the caller can
// fall back to UDP.
func Open(cfg Config) (*Transport, error) {
	if cfg.Interface == "" {
		return nil, errors.New("xdp: Interface is empty: name an Ethernet interface")
	}
	ifi, err := net.InterfaceByName(cfg.Interface)
	if err != nil {
		return nil, fmt.Errorf("xdp: interface %q: %w", cfg.Interface, err)
	}
	if ifi.Flags&net.FlagLoopback != 0 || len(ifi.HardwareAddr) != len(mac{}) {
		return nil, &bpf.MissingError{Need: bpf.NeedInterface, What: fmt.Sprintf("use %q", cfg.Interface),
			Hint: "it is no Ethernet: name one, or use UDP"}
	}
	cfg = cfg.withDefaults(ifi.MTU)
	if err := cfg.validate(ifi.MTU); err != nil {
		return nil, err
	}
	if err := bpf.ProbeDemux(); err != nil {
		return nil, fmt.Errorf("xdp: %w", err)
	}
	t := &Transport{cfg: cfg, ifi: ifi}
	if t.resolver, err = newResolver(ifi.Index, cfg.IPv6); err != nil {
		return nil, err
	}
	if err := t.open(); err != nil {
		return nil, errors.Join(err, t.resolver.close())
	}
	return t, nil
}

// open opens the UDP transport, and beside it the sockets.
func (t *Transport) open() error {
	cfg := udp.Config{
		Interface: t.cfg.Interface, LocalIP: t.cfg.LocalIP, IPv6: t.cfg.IPv6,
		Port: t.cfg.Port, PortTries: t.cfg.PortTries, GroupPort: t.cfg.GroupPort,
		Channels: t.cfg.Channels, TTL: t.cfg.TTL, MTU: t.cfg.MTU,
		RecvBuffer: t.cfg.RecvBuffer, SendBuffer: t.cfg.SendBuffer, Arena: t.cfg.Arena, Log: t.cfg.Log,
		DisableGRO: true, Beside: t.openBeside,
		// A super-packet that reaches a program in generic mode uncut would be taken for one packet.
		DisableGSO: true,
	}
	switch { // as package udp does, for the headers that are written here
	case t.cfg.TTL < 0:
		t.cfg.TTL = 0
	case t.cfg.TTL == 0:
		t.cfg.TTL = 1
	}
	if t.cfg.GroupFilter {
		filter, err := bpf.OpenFilter()
		if err != nil {
			return err
		}
		cfg.Filter = filter
	}
	var err error
	if t.stack, err = udp.Open(cfg); err != nil {
		return err
	}
	t.sender.stack = t.stack
	return nil
}

// openBeside opens the AF_XDP sockets and connects them to the demultiplexer.
func (t *Transport) openBeside(arena *frame.Arena, local dataplane.Endpoint) (udp.Source, error) {
	t.receiver = receiver{cfg: &t.cfg, arena: arena, local: local, transport: t}
	t.sender = sender{
		cfg: &t.cfg, arena: arena, resolver: t.resolver, clock: clock.Monotonic(),
		origin: origin{mac: mac(t.ifi.HardwareAddr), v6: t.cfg.IPv6, ip: local.IP, port: uint16(local.Port)},
	}
	var err error
	t.demux, err = bpf.OpenDemux(bpf.DemuxConfig{
		IfIndex: t.ifi.Index, Mode: t.cfg.Mode, FrameMax: t.frameMax(), ByGroup: t.cfg.GroupFilter,
		Exclusive: t.cfg.Exclusive, Verify: t.cfg.Verify,
	})
	if err != nil {
		return nil, err
	}
	if err := t.connect(arena, local.AddrPort()); err != nil {
		return nil, errors.Join(err, t.receiver.Close())
	}
	return &t.receiver, nil
}

// frameMax returns the bytes of the longest frame that the sockets take.
func (t *Transport) frameMax() int {
	if t.cfg.segments() {
		return t.cfg.MTU + t.cfg.frameHeaders() + vlanTag
	}
	return t.cfg.chunkFrame()
}

// connect opens the sockets, gives them frames, and lets packets come.
func (t *Transport) connect(arena *frame.Arena, local netip.AddrPort) error {
	if err := t.openSockets(arena); err != nil {
		return err
	}
	t.bulk = newBulk(t, arena)
	t.sender.init(t.receiver.sockets[0], t.bulk)
	t.receiver.init(t.bulk)
	for _, s := range t.receiver.sockets {
		if err := t.demux.AddSocket(s.queue, s.fd); err != nil {
			return err
		}
		if t.cfg.BusyPoll > 0 {
			if err := s.busyPoll(t.cfg.BusyPoll); err != nil {
				return bpf.Explain("turn busy polling on", err)
			}
		}
	}
	if t.cfg.Exclusive && t.cfg.GroupPort != 0 {
		if err := t.demux.Listen(netip.AddrPortFrom(netip.Addr{}, t.cfg.GroupPort)); err != nil {
			return err
		}
	}
	return t.demux.Listen(local)
}

// openSockets opens a socket on each queue, until the interface has no more when none are named.
func (t *Transport) openSockets(arena *frame.Arena) error {
	queues, all := t.cfg.Queues, len(t.cfg.Queues) == 0
	for q := 0; all && q < bpf.QueuesMax; q++ {
		queues = append(queues, q)
	}
	var first *socket
	for _, q := range queues {
		s, err := t.openSocket(arena, q, first)
		if first == nil && err == nil && t.cfg.BulkNoCopy && !s.zeroCopy {
			t.cfg.dropBulk()
			if err = s.close(); err == nil {
				s, err = t.openSocket(arena, q, nil)
			}
		}
		if err != nil {
			if all && first != nil && errors.Is(err, errNoQueue) {
				return nil
			}
			return err
		}
		t.receiver.sockets = append(t.receiver.sockets, s)
		if first == nil {
			first = s
		}
	}
	return nil
}

// openSocket opens a socket and binds it.
func (t *Transport) openSocket(arena *frame.Arena, queue int, first *socket) (*socket, error) {
	s, err := openSocket(&t.cfg, arena.Memory(), queue, first)
	if err != nil {
		return nil, err
	}
	if err := s.bind(&t.cfg, t.ifi.Index, first, t.demux.Mode() == bpf.ModeNative); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

// Caps says what the transport can do.
func (t *Transport) Caps() dataplane.Caps {
	caps := t.stack.Caps()
	caps.Name, caps.LoopsBack, caps.BusyPoll = "xdp", false, true
	caps.ZeroCopy = t.sender.socket.zeroCopy
	caps.Batch = batchMax
	return caps
}

// batchMax is the batch that Caps recommends: what one or two system calls send.
const batchMax = 64

// Arena returns the arena that packets are sent from and received into.
func (t *Transport) Arena() *frame.Arena { return t.stack.Arena() }

// Local returns the address and port that others send to.
func (t *Transport) Local() dataplane.Endpoint { return t.stack.Local() }

// Mode returns where the program runs.
func (t *Transport) Mode() bpf.Mode { return t.demux.Mode() }

// Queues returns how many receive queues have a socket.
func (t *Transport) Queues() int { return len(t.receiver.sockets) }

// enter takes the lock of Send. It returns false when the transport is closed.
func (t *Transport) enter() bool {
	if !t.sending.TryLock() {
		if !t.closed.Load() {
			invariant.Fail("xdp: two goroutines are in Send of %v", t.Local())
		}
		return false
	}
	if t.closed.Load() {
		t.sending.Unlock()
		return false
	}
	return true
}

// Send sends a batch. It waits a few milliseconds at most for room.
func (t *Transport) Send(batch []dataplane.Packet) (int, error) {
	if !t.enter() {
		return 0, dataplane.ErrClosed
	}
	defer t.sending.Unlock()
	return t.sender.send(batch)
}

// Receive returns packets that wait, or waits for some.
func (t *Transport) Receive(batch []dataplane.Packet, wait dataplane.Wait) (int, error) {
	return t.stack.Receive(batch, wait)
}

// Wake makes a Receive that is blocked, or else the next one that would block, return at once.
func (t *Transport) Wake() { t.stack.Wake() }

// Subscribe joins the channel's group at a socket, which tells the network, and lets the program hand over its packets.
func (t *Transport) Subscribe(ch dataplane.Channel) error {
	t.control.Lock()
	defer t.control.Unlock()
	if err := t.stack.Subscribe(ch); err != nil {
		return err
	}
	if err := t.demux.Listen(t.group(ch)); err != nil {
		return errors.Join(fmt.Errorf("xdp: channel %d: %w", ch, err), t.stack.Unsubscribe(ch))
	}
	t.resolver.note(ch, 1)
	return nil
}

// Unsubscribe takes Subscribe back.
func (t *Transport) Unsubscribe(ch dataplane.Channel) error {
	t.control.Lock()
	defer t.control.Unlock()
	if err := t.stack.Unsubscribe(ch); err != nil {
		return err
	}
	t.resolver.note(ch, -1)
	if err := t.demux.Unlisten(t.group(ch)); err != nil {
		return fmt.Errorf("xdp: channel %d: %w", ch, err)
	}
	return nil
}

// Admit starts receiving a group's packets on a channel.
func (t *Transport) Admit(ch dataplane.Channel, group uint32) error {
	return t.changeGroup(ch, group, t.stack.Admit, t.demux.Admit)
}

// Revoke takes Admit back.
func (t *Transport) Revoke(ch dataplane.Channel, group uint32) error {
	return t.changeGroup(ch, group, t.stack.Revoke, t.demux.Revoke)
}

// changeGroup changes the filter of the sockets and that of the program.
func (t *Transport) changeGroup(ch dataplane.Channel, group uint32,
	stack func(dataplane.Channel, uint32) error, demux func(netip.AddrPort, uint32) error) error {
	t.control.Lock()
	defer t.control.Unlock()
	switch {
	case t.closed.Load():
		return dataplane.ErrClosed
	case !t.cfg.GroupFilter || group == 0:
		return nil
	}
	if err := stack(ch, group); err != nil {
		return err
	}
	if err := demux(t.group(ch), group); err != nil {
		return fmt.Errorf("xdp: channel %d, group %d: %w", ch, group, err)
	}
	return nil
}

// group returns the address and port of a channel.
func (t *Transport) group(ch dataplane.Channel) netip.AddrPort {
	return netip.AddrPortFrom(t.cfg.group(ch), t.cfg.GroupPort)
}

// group returns the address of a channel.
func (c *Config) group(ch dataplane.Channel) netip.Addr {
	if c.IPv6 {
		return ch.IPv6()
	}
	return ch.IPv4()
}

// Stats returns counters since the transport was opened, of both ways together.
func (t *Transport) Stats() dataplane.Stats {
	st := t.stack.Stats()
	s, r := &t.sender, &t.receiver
	st.SentPackets += s.packets.Load()
	st.SentBytes += s.bytes.Load()
	st.SentMulticasts += s.multicasts.Load()
	st.SendDropped += s.dropped.Load()
	st.SendCalls += s.calls.Load()
	st.ReceivedPackets += r.packets.Load()
	st.ReceivedBytes += r.bytes.Load()
	st.ReceiveCalls += r.calls.Load()
	st.ReceiveDropped += r.lost()
	st.ReceiveOversize += r.oversize.Load()
	st.ReceiveUndersize += r.undersize.Load()
	st.ReceiveForeign += r.foreign.Load()
	if t.bulk != nil {
		st.ReceiveForeign += t.bulk.foreign.Load()
	}
	return st
}

// Bypass tells how many packets went past the stack, each way, since the transport was opened, and how many of those
// that were sent had to be copied.
func (t *Transport) Bypass() (sent, received, copied uint64) {
	return t.sender.packets.Load(), t.receiver.packets.Load(), t.sender.copied.Load()
}

// Counters returns, by name, what the program did with all packets of the interface, those of other processes included.
func (t *Transport) Counters() (map[string]bpf.Counter, error) { return t.demux.Counters() }

// Close closes the sockets and unmaps the arena, after Send and Receive have returned. A second Close does nothing.
func (t *Transport) Close() error {
	if t.closed.Swap(true) {
		return nil
	}
	t.sending.Lock() // kept: nothing may enter any more
	t.control.Lock()
	defer t.control.Unlock()
	return errors.Join(t.bulk.close(), t.stack.Close(), t.resolver.close())
}
