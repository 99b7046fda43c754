package udp

import (
	"bytes"
	"encoding/binary"
	"errors"
	"log/slog"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/khamsin-io/khamsin/dataplane"
	"github.com/khamsin-io/khamsin/dataplane/frame"
	"github.com/khamsin-io/khamsin/dataplane/invariant"
)

const testTimeout = 10 * time.Second

// burst makes n packets of size bytes to an endpoint.
func burst(tb testing.TB, tr *Transport, to dataplane.Endpoint, n, size int) []dataplane.Packet {
	tb.Helper()
	batch := make([]dataplane.Packet, n)
	for i := range batch {
		f, ok := tr.Arena().Tx().Get()
		if !ok {
			tb.Fatal("no frame")
		}
		f.Len = uint32(size)
		binary.BigEndian.PutUint32(tr.Arena().Bytes(f), uint32(i))
		batch[i] = dataplane.Packet{Frame: f, To: to}
	}
	return batch
}

// sendAll sends a batch that must be accepted whole.
func sendAll(tb testing.TB, tr *Transport, batch []dataplane.Packet) {
	tb.Helper()
	if n, err := tr.Send(batch); n != len(batch) || err != nil {
		tb.Fatalf("Send of %d: %d, %v", len(batch), n, err)
	}
}

// receiveNumbers receives the packets of a burst, each once, and releases them.
func receiveNumbers(tb testing.TB, tr *Transport, n int) {
	tb.Helper()
	seen := make([]bool, n)
	batch := make([]dataplane.Packet, n)
	for got := 0; got < n; {
		k, err := tr.Receive(batch, dataplane.Wait{Timeout: testTimeout})
		if k == 0 || err != nil {
			tb.Fatalf("%d of %d packets came; Receive: %d, %v", got, n, k, err)
		}
		for _, p := range batch[:k] {
			number := binary.BigEndian.Uint32(tr.Arena().Bytes(p.Frame))
			if seen[number] {
				tb.Fatalf("packet %d came twice", number)
			}
			seen[number] = true
			tr.Arena().Release(p.Frame)
		}
		got += k
	}
}

// Packets of one size to one destination are one message on the way out and one on the way in: with one message per
// system call, one call each.
func TestSuperPackets(t *testing.T) {
	for _, tc := range []struct {
		name            string
		gso, gro        bool
		packets, size   int
		sends, receives uint64
	}{
		{"both", true, true, 40, 1400, 1, 1},
		{"sent", true, false, 40, 1400, 1, 40},
		{"received", false, true, 40, 1400, 40, 40}, // the loopback puts nothing together that was not together
		{"neither", false, false, 40, 1400, 40, 40},
		{"beyond 64 packets", true, true, 65, 100, 2, 2},
		{"beyond 64 KiB", true, true, 47, 1400, 2, 2},
		{"one byte each", true, true, 64, 4, 1, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			cfg := Config{DisableBatch: true, DisableGSO: !tc.gso, DisableGRO: !tc.gro}
			a, b := openUntilEnd(t, cfg), openUntilEnd(t, cfg)
			sendAll(t, a, burst(t, a, b.Local(), tc.packets, tc.size))
			receiveNumbers(t, b, tc.packets)
			if got := a.Stats().SendCalls; got != tc.sends {
				t.Errorf("%d system calls to send, want %d", got, tc.sends)
			}
			if got := b.Stats().ReceiveCalls; got != tc.receives {
				t.Errorf("%d system calls to receive, want %d", got, tc.receives)
			}
		})
	}
}

// All messages of a batch take one system call.
func TestBatchesOfMessages(t *testing.T) {
	cfg := Config{DisableGSO: true, DisableGRO: true}
	a, b := openUntilEnd(t, cfg), openUntilEnd(t, cfg)
	sendAll(t, a, burst(t, a, b.Local(), sendMessages, 200))
	receiveNumbers(t, b, sendMessages)
	if s, r := a.Stats().SendCalls, b.Stats().ReceiveCalls; s != 1 || r != 1 {
		t.Errorf("%d system calls to send and %d to receive, want 1 and 1", s, r)
	}
}

// A system that accepts the option and then refuses super-packets (here because checksums are off) costs nothing but
// one line in the log.
func TestGSOTurnsItselfOff(t *testing.T) {
	var log bytes.Buffer
	a := openUntilEnd(t, Config{Log: slog.New(slog.NewTextHandler(&log, nil))})
	b := openUntilEnd(t, Config{})
	if err := unix.SetsockoptInt(a.sender.socket.fd, unix.SOL_SOCKET, unix.SO_NO_CHECK, 1); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		sendAll(t, a, burst(t, a, b.Local(), 100, 300))
		receiveNumbers(t, b, 100)
	}
	if a.sender.gso || strings.Count(log.String(), "UDP_SEGMENT") != 1 {
		t.Errorf("gso %v, log %q, want it off and said once", a.sender.gso, log.String())
	}
	if st := a.Stats(); st.SentPackets != 300 || st.SendDropped != 0 {
		t.Errorf("sent %d, dropped %d", st.SentPackets, st.SendDropped)
	}
}

// A destination that the system refuses is no reason to turn super-packets off.
func TestGSOSurvivesBadDestination(t *testing.T) {
	a, b := openUntilEnd(t, Config{}), openUntilEnd(t, Config{})
	batch := burst(t, a, b.Local(), 10, 300)
	if n, err := a.sender.stage(batch); n != 10 || err != nil || a.sender.staged != 1 {
		t.Fatalf("staged %d packets in %d messages: %v", n, a.sender.staged, err)
	}
	// Port 0: EINVAL, as a system without UDP_SEGMENT would say.
	a.sender.headers.setName(0, family{}, loopback.ip.As16(), 0)
	if n := a.sender.flush(); n != 10 || !a.sender.gso {
		t.Fatalf("%d packets disposed of, gso %v, want 10 and true", n, a.sender.gso)
	}
	if st := a.Stats(); st.SendDropped != 10 || st.SendNoRoom != 0 {
		t.Errorf("%d dropped, %d for want of room, want 10 and none", st.SendDropped, st.SendNoRoom)
	}
	for _, p := range batch {
		a.Arena().Release(p.Frame)
	}
}

// The processes of one host take ports from the configured one on.
//
// rows: NET-02, NET-03
func TestPortsFollowEachOther(t *testing.T) {
	base := freePort(t)
	if base > 65000 {
		base -= 1000
	}
	group := base + 2 // in the middle of the range: left out
	last := uint32(0)
	for i := range 20 {
		tr := openUntilEnd(t, Config{Port: base, GroupPort: group, Arena: frame.Config{TxChunks: 8, RxRuns: 8}})
		port := tr.Local().Port
		if port <= last || port == uint32(group) || port > uint32(base)+DefaultPortTries {
			t.Fatalf("transport %d has port %d after %d, base %d", i, port, last, base)
		}
		last = port
	}
	_, err := Open(Config{Port: uint16(last), PortTries: 1})
	if !errors.Is(err, unix.EADDRINUSE) || !strings.Contains(err.Error(), "all taken") {
		t.Fatalf("Open at a taken port: %v", err)
	}
}

// rows: NET-12
func TestConfigFaults(t *testing.T) {
	for _, tc := range []struct {
		cfg  Config
		want string
	}{
		{Config{Interface: "nosuchif0"}, `interface "nosuchif0"`},
		{Config{LocalIP: netip.MustParseAddr("192.0.2.1")}, `interface "lo" has no address 192.0.2.1`},
		{Config{LocalIP: netip.MustParseAddr("::")}, "LocalIP ::"},
		{Config{LocalIP: netip.MustParseAddr("0.0.0.0")}, "LocalIP 0.0.0.0"},
		{Config{LocalIP: netip.MustParseAddr("239.1.1.1")}, "LocalIP 239.1.1.1"},
		{Config{Port: 7000, GroupPort: 7000}, "Port and GroupPort are both 7000"},
		{Config{MTU: 65508}, "MTU 65508"},
		{Config{MTU: -1}, "MTU -1"},
		{Config{TTL: 256}, "TTL 256"},
		{Config{PortTries: -1}, "PortTries -1"},
		{Config{RecvBuffer: -1}, "RecvBuffer -1"},
		{Config{Channels: 1025}, "Channels 1025"},
		{Config{MTU: 1800, Arena: frame.Config{ChunkSize: 2048}}, "MTU 1800 does not fit the 1664 bytes"},
		{Config{Arena: frame.Config{TxChunks: -1}}, "TxChunks -1"},
	} {
		tr, err := Open(tc.cfg)
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%+v: error %v, want %q", tc.cfg, err, tc.want)
		}
		if err == nil {
			_ = tr.Close()
		}
	}
}

// The scope of multicast: as configured, and the host alone or the local network by default.
//
// rows: IPM-16
func TestDefaults(t *testing.T) {
	for _, tc := range []struct {
		cfg      Config
		ifMTU    int
		loopback bool
		ttl, mtu int
	}{
		{Config{}, 65536, true, 0, 1472},
		{Config{}, 1500, false, 1, 1472},
		{Config{}, 1280, false, 1, 1252},
		{Config{TTL: -1, MTU: 8972}, 9000, false, 0, 8972},
		{Config{TTL: 5}, 9000, false, 5, 1472},
		{Config{TTL: 5}, 65536, true, 5, 1472},
	} {
		got := tc.cfg.withDefaults(tc.ifMTU, tc.loopback)
		if got.TTL != tc.ttl || got.MTU != tc.mtu {
			t.Errorf("%+v: TTL %d, MTU %d, want %d and %d", tc.cfg, got.TTL, got.MTU, tc.ttl, tc.mtu)
		}
		if room := got.Arena.ChunkSize - got.Arena.Headroom; room < got.MTU {
			t.Errorf("%+v: a chunk has room for %d of %d bytes", tc.cfg, room, got.MTU)
		}
	}
}

// captured receives one datagram at a socket that joined a channel, and returns its TTL and destination port.
func captured(t *testing.T, port uint16, ch dataplane.Channel, send func()) (ttl int) {
	t.Helper()
	r, err := Config{GroupPort: port}.resolve()
	if err != nil {
		t.Fatal(err)
	}
	s, err := openGroup(r)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(s.fd)
	member := &unix.IPMreqn{Multiaddr: ch.IPv4().As4(), Ifindex: int32(r.ifIndex)}
	if err := errors.Join(
		unix.SetsockoptIPMreqn(s.fd, unix.IPPROTO_IP, unix.IP_ADD_MEMBERSHIP, member),
		unix.SetsockoptInt(s.fd, unix.IPPROTO_IP, unix.IP_PKTINFO, 0),
		unix.SetsockoptInt(s.fd, unix.IPPROTO_IP, unix.IP_RECVTTL, 1),
		unix.SetNonblock(s.fd, false),
		unix.SetsockoptTimeval(s.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 10}),
	); err != nil {
		t.Fatal(err)
	}
	send()
	buf, oob := make([]byte, 100), make([]byte, 100)
	_, n, _, _, err := unix.Recvmsg(s.fd, buf, oob, 0)
	if err != nil {
		t.Fatal(err)
	}
	messages, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil || len(messages) != 1 || messages[0].Header.Type != unix.IP_TTL {
		t.Fatalf("control messages %+v, %v", messages, err)
	}
	return int(binary.NativeEndian.Uint32(messages[0].Data))
}

// rows: IPM-15, IPM-16
func TestMulticastScopeOnTheWire(t *testing.T) {
	port := freePort(t)
	for _, tc := range []struct{ configured, want int }{{0, 0}, {-1, 0}, {1, 1}, {7, 7}} {
		tr := openUntilEnd(t, Config{GroupPort: port, TTL: tc.configured})
		ttl := captured(t, port, 9, func() {
			batch := burst(t, tr, dataplane.Endpoint{}, 1, 20)
			batch[0].Channel = 9
			sendAll(t, tr, batch)
		})
		if ttl != tc.want {
			t.Errorf("TTL %d configured, %d in the packet, want %d", tc.configured, ttl, tc.want)
		}
	}
}

// Transports with different group ports do not hear each other, though their channels have the same numbers.
//
// rows: NET-06
func TestGroupPortsSeparate(t *testing.T) {
	one, other := freePort(t), freePort(t)
	a, b := openUntilEnd(t, Config{GroupPort: one}), openUntilEnd(t, Config{GroupPort: other})
	if err := errors.Join(a.Subscribe(5), b.Subscribe(5)); err != nil {
		t.Fatal(err)
	}
	for _, port := range []uint16{other, one} { // what a gets comes last: then the other had time to come as well
		tr := openUntilEnd(t, Config{GroupPort: port})
		batch := burst(t, tr, dataplane.Endpoint{}, 1, 20)
		batch[0].Channel = 5
		sendAll(t, tr, batch)
	}
	receiveNumbers(t, a, 1)
	receiveNumbers(t, b, 1)
	if x, y := a.Stats().ReceivedPackets, b.Stats().ReceivedPackets; x != 1 || y != 1 {
		t.Errorf("received %d and %d packets, want 1 and 1", x, y)
	}
}

// Unicast datagrams that somebody sends to the group port belong to no channel.
func TestUnicastToGroupPortIsForeign(t *testing.T) {
	port := freePort(t)
	tr := openUntilEnd(t, Config{GroupPort: port, Channels: 1})
	if err := tr.Subscribe(5); err != nil {
		t.Fatal(err)
	}
	if err := loopback.inject(netip.AddrPortFrom(loopback.ip, port), []byte("stray")); err != nil {
		t.Fatal(err)
	}
	other := openUntilEnd(t, Config{GroupPort: port})
	batch := burst(t, other, dataplane.Endpoint{}, 1, 20)
	batch[0].Channel = 5
	sendAll(t, other, batch)
	receiveNumbers(t, tr, 1)
	if st := tr.Stats(); st.ReceiveForeign != 1 || st.ReceivedPackets != 1 {
		t.Errorf("stats %+v, want 1 foreign and 1 received", st)
	}
}

// Endpoints that are no IPv4 address of a process cost the packet.
func TestImpossibleEndpoints(t *testing.T) {
	tr := openUntilEnd(t, Config{})
	for i, to := range []dataplane.Endpoint{
		{},
		dataplane.EndpointOf(netip.MustParseAddrPort("[2001:db8::1]:9")),
		dataplane.EndpointOf(netip.MustParseAddrPort("239.0.0.1:9")),
		dataplane.EndpointOf(netip.MustParseAddrPort("0.0.0.0:9")),
		dataplane.EndpointOf(netip.MustParseAddrPort("255.255.255.255:9")),
		{IP: tr.Local().IP, Port: 1<<16 + tr.Local().Port},
	} {
		sendAll(t, tr, burst(t, tr, to, 2, 50))
		if got := tr.Stats().SendDropped; got != uint64(2*(i+1)) {
			t.Errorf("%v: %d dropped in all, want %d", to, got, 2*(i+1))
		}
	}
	if n, err := tr.Receive(make([]dataplane.Packet, 4), dataplane.Wait{}); n != 0 || err != nil {
		t.Errorf("received %d, %v", n, err)
	}
}

// Datagrams longer than the interface's MTU go through in IP fragments, and are never put into super-packets.
func TestLargeMTU(t *testing.T) {
	for _, mtu := range []int{8972, MTUMax} {
		cfg := Config{MTU: mtu, Arena: frame.Config{TxChunks: 8, RxRuns: 32}}
		a, b := openUntilEnd(t, cfg), openUntilEnd(t, cfg)
		for range 3 {
			sendAll(t, a, burst(t, a, b.Local(), 5, mtu))
			receiveNumbers(t, b, 5)
		}
		if st := b.Stats(); st.ReceivedBytes != uint64(15*mtu) {
			t.Errorf("MTU %d: received %d bytes", mtu, st.ReceivedBytes)
		}
	}
}

// A channel beyond those configured is refused with the system's reason, and leaving one makes room for it.
func TestChannelsRunOut(t *testing.T) {
	tr := openUntilEnd(t, Config{GroupPort: freePort(t), Channels: 1})
	limit := dataplane.Channel(memberships())
	for ch := dataplane.Channel(1); ch <= limit; ch++ {
		if err := tr.Subscribe(ch); err != nil {
			t.Fatalf("channel %d of %d: %v", ch, limit, err)
		}
	}
	if err := tr.Subscribe(limit + 1); !errors.Is(err, unix.ENOBUFS) {
		t.Errorf("channel %d of %d: %v", limit+1, limit, err)
	}
	if err := errors.Join(tr.Unsubscribe(1), tr.Subscribe(limit+1)); err != nil {
		t.Error(err)
	}
}

func TestBuffers(t *testing.T) {
	tr := open(t, Config{RecvBuffer: 100 << 10, SendBuffer: 50 << 10})
	if receive, send := tr.Buffers(); receive != 100<<10 || send != 50<<10 {
		t.Errorf("granted %d and %d", receive, send)
	}
	if err := tr.Close(); err != nil {
		t.Fatal(err)
	}
	if receive, send := tr.Buffers(); receive != 0 || send != 0 {
		t.Errorf("%d and %d after Close", receive, send)
	}
}

// Two goroutines in one method are the caller's mistake, and are told.
func TestTwoCallersTripAssertion(t *testing.T) {
	tr := openUntilEnd(t, Config{})
	tr.receiving.Lock() // stands for the first
	defer tr.receiving.Unlock()
	defer func() {
		var v *invariant.Violation
		if err, _ := recover().(error); !errors.As(err, &v) {
			t.Errorf("a second Receive was let in: %v", err)
		}
	}()
	_, _ = tr.Receive(make([]dataplane.Packet, 1), dataplane.Wait{})
}

// A Receive that sleeps notices the socket of a first subscription.
func TestSubscribeWhileAsleep(t *testing.T) {
	port := freePort(t)
	for range 20 {
		a, b := openUntilEnd(t, Config{GroupPort: port}), openUntilEnd(t, Config{GroupPort: port})
		done := make(chan error, 1)
		go func() {
			batch := make([]dataplane.Packet, 1)
			n, err := b.Receive(batch, dataplane.Wait{Timeout: testTimeout})
			if n == 1 {
				b.Arena().Release(batch[0].Frame)
			} else if err == nil {
				err = errors.New("nothing came")
			}
			done <- err
		}()
		for b.waiter.state.Load() != napAsleep {
			runtime.Gosched()
		}
		if err := b.Subscribe(3); err != nil {
			t.Fatal(err)
		}
		batch := burst(t, a, dataplane.Endpoint{}, 1, 20)
		batch[0].Channel = 3
		sendAll(t, a, batch)
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
}

// A packet ends the sleep of a Receive, and a wake-up that comes too late for it is not lost.
func TestWakeStates(t *testing.T) {
	var w waiter
	if err := w.init(0, nil); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(w.event)
	if w.taken() || w.wake() || !w.taken() || w.taken() {
		t.Fatal("a wake-up while awake is taken once, without ringing")
	}
	w.state.Store(napAsleep)
	if !w.wake() || w.wake() {
		t.Fatal("of two wake-ups in a sleep the first rings")
	}
	if err := w.ring(); err != nil {
		t.Fatal(err)
	}
	if err := w.sleep(nil, testTimeout); err != nil || !w.taken() {
		t.Fatalf("a sleep after a wake-up returns and leaves it: %v", err)
	}
	w.wake()
	if err := w.sleep(nil, testTimeout); err != nil || !w.taken() {
		t.Fatalf("a wake-up just before the sleep is lost: %v", err)
	}
	start := time.Now()
	for range 2 { // the ring that nobody waited for ends one sleep, and no more
		if err := w.sleep(nil, 5*time.Millisecond); err != nil {
			t.Fatal(err)
		}
	}
	if took := time.Since(start); took < 5*time.Millisecond || w.taken() {
		t.Fatalf("two sleeps of 5ms took %v", took)
	}
}
