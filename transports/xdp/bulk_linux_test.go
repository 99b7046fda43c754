package xdp

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/khamsin-io/khamsin/bpf"
	"github.com/khamsin-io/khamsin/dataplane"
	"github.com/khamsin-io/khamsin/internal/netns"
)

const (
	bulkPort    = 7900
	bulkFrom    = 7901
	bulkChannel = dataplane.Channel(4711)
)

// withBulk is a configuration with room for packets of others.
func withBulk(six bool) Config {
	return Config{IPv6: six, GroupPort: groupPort, BulkTx: 1024, BulkRx: 2048}
}

// flowOf returns a flow to the test's channel.
func flowOf(six bool, size int) dataplane.Flow {
	ip := bulkChannel.IPv4()
	if six {
		ip = bulkChannel.IPv6()
	}
	return dataplane.Flow{To: netip.AddrPortFrom(ip, bulkPort), From: bulkFrom, TTL: 1, Size: size}
}

// ear joins a flow's group with a socket on a host.
func ear(tb testing.TB, h *netns.Host, f dataplane.Flow) net.PacketConn {
	tb.Helper()
	var conn net.PacketConn
	var err error
	h.Do(func() {
		var ifi *net.Interface
		if ifi, err = net.InterfaceByName(netns.Interface); err == nil {
			conn, err = net.ListenMulticastUDP("udp", ifi, net.UDPAddrFromAddrPort(f.To))
		}
	})
	check(tb, err)
	tb.Cleanup(func() { _ = conn.Close() })
	return conn
}

func openOutlet(tb testing.TB, tr *Transport, f dataplane.Flow) dataplane.Outlet {
	tb.Helper()
	o, err := tr.PastStack().OpenOutlet(f)
	check(tb, err)
	return o
}

func openInlet(tb testing.TB, tr *Transport, f dataplane.Flow) dataplane.Inlet {
	tb.Helper()
	i, err := tr.PastStack().OpenInlet(f)
	check(tb, err)
	return i
}

// numbered returns a packet with a number and a pattern.
func numbered(n, size int) []byte {
	b := bytes.Repeat([]byte{byte(n), byte(n >> 8), byte(n>>3) ^ 0x5a}, size/3+1)[:size]
	binary.LittleEndian.PutUint32(b, uint32(n))
	return b
}

// collect reads packets until want of them came, and returns how often each number did.
func collect(tb testing.TB, in dataplane.Inlet, want, size int) map[int]int {
	tb.Helper()
	seen := map[int]int{}
	batch := make([]dataplane.Datagram, 64)
	for deadline := time.Now().Add(patience); want > 0 && time.Now().Before(deadline); {
		n, err := in.Receive(batch)
		check(tb, err)
		if n == 0 {
			fds := []unix.PollFd{}
			for _, fd := range in.Files() {
				fds = append(fds, unix.PollFd{Fd: fd, Events: unix.POLLIN})
			}
			_, _ = unix.Poll(fds, 20)
			continue
		}
		for _, d := range batch[:n] {
			number := int(binary.LittleEndian.Uint32(d.Payload))
			if !bytes.Equal(d.Payload, numbered(number, size)) {
				tb.Fatalf("packet %d of %d bytes came otherwise", number, len(d.Payload))
			}
			if d.From.Port() != bulkFrom {
				tb.Fatalf("packet from %v", d.From)
			}
			seen[number]++
			want--
		}
		in.Release()
	}
	return seen
}

// put sends packets from a number on, a few at a time.
func put(tb testing.TB, out dataplane.Outlet, from, n, size int) {
	tb.Helper()
	for i := from; i < from+n; i++ {
		b := numbered(i, size)
		for tries := 0; !out.Put(b[:16], b[16:]); tries++ {
			if check(tb, out.Flush()); tries > 1000 {
				tb.Fatalf("there is never room for packet %d", i)
			}
		}
		if i%16 == 15 {
			check(tb, out.Flush())
		}
	}
	check(tb, out.Flush())
}

// Packets of a flow go from an outlet to an inlet past the stack, of all sizes, also in several UMEM chunks, while the
// transports' own go on; all frames are there at the end, which Close checks.
func TestBulk(t *testing.T) {
	requireXDP(t)
	for _, tc := range []struct {
		name string
		mtu  int
		size int
		six  bool
		cfg  func(c *Config)
	}{
		{"ipv4", 1500, 1440, false, func(*Config) {}},
		{"ipv6", 1500, 1440, true, func(*Config) {}},
		{"generic", 1500, 1440, false, func(c *Config) { c.Mode = bpf.ModeGeneric }},
		{"exclusive", 1500, 100, false, func(c *Config) { c.Exclusive = true }},
		{"jumbo", 9000, 8928, false, func(*Config) {}},
		{"jumbo, ipv6", 9000, 8927, true, func(*Config) {}},
		{"jumbo, large chunks", 9000, 8928, false, func(c *Config) { c.MTU = 8900 }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if tc.mtu > 1500 {
				requireSegments(t)
			}
			hosts := netns.Pair(t, prefix, netns.Options{IPv6: tc.six, MTU: tc.mtu})
			cfg := withBulk(tc.six)
			tc.cfg(&cfg)
			a, b := openUntilEnd(t, hosts[0], cfg), openUntilEnd(t, hosts[1], cfg)
			f := flowOf(tc.six, tc.size)
			stack := ear(t, hosts[1], f)
			in, out := openInlet(t, b, f), openOutlet(t, a, f)
			check(t, b.Subscribe(9))
			bypassing(t, a, b, 9)
			const rounds, each = 40, 64
			for r := range rounds { // more packets than there are frames
				put(t, out, r*each, each, tc.size)
				send(t, a, dataplane.Endpoint{}, 9, []byte("message"))
				seen := collect(t, in, each, tc.size)
				for n := r * each; n < (r+1)*each; n++ {
					if seen[n] != 1 {
						t.Fatalf("packet %d came %d times", n, seen[n])
					}
				}
				expect(t, b, "message")
			}
			put(t, out, 0, 300, tc.size) // nobody reads what does not fit any more, and Close has to take it back
			check(t, stack.SetReadDeadline(time.Now().Add(50*time.Millisecond)))
			if n, _, err := stack.ReadFrom(make([]byte, 10)); err == nil {
				t.Errorf("a packet of %d bytes came by the stack", n)
			}
			check(t, in.Close(), out.Close(), in.Close(), out.Close())
			if _, err := in.Receive(make([]dataplane.Datagram, 1)); !errors.Is(err, dataplane.ErrClosed) {
				t.Errorf("Receive of a closed inlet: %v", err)
			}
			if err := out.Flush(); !errors.Is(err, dataplane.ErrClosed) || out.Put([]byte("ab"), nil) {
				t.Errorf("Flush of a closed outlet: %v", err)
			}
			in, out = openInlet(t, b, f), openOutlet(t, a, f) // again; the transport closes them
			put(t, out, 7, 20, tc.size)
			if seen := collect(t, in, 20, tc.size); len(seen) != 20 {
				t.Errorf("%d of 20 packets came", len(seen))
			}
		})
	}
}

// As soon as another socket of the host listens to the channel as well, the packets go to the stack, and so to all.
func TestBulkIsShared(t *testing.T) {
	requireXDP(t)
	hosts := netns.Pair(t, prefix, netns.Options{})
	a, b := openUntilEnd(t, hosts[0], withBulk(false)), openUntilEnd(t, hosts[1], withBulk(false))
	f := flowOf(false, 100)
	_ = ear(t, hosts[1], f)
	in, out := openInlet(t, b, f), openOutlet(t, a, f)
	put(t, out, 0, 1, 100)
	if seen := collect(t, in, 1, 100); seen[0] != 1 {
		t.Fatal("nothing came past the stack")
	}
	other := ear(t, hosts[1], f)
	until(t, "packets by the stack", func() bool {
		n, err := in.Receive(make([]dataplane.Datagram, 8))
		if check(t, err); n > 0 {
			in.Release()
		}
		put(t, out, 1, 1, 100)
		check(t, other.SetReadDeadline(time.Now().Add(20*time.Millisecond)))
		n, _, err = other.ReadFrom(make([]byte, 200))
		return err == nil && n == 100
	})
	check(t, other.Close())
	until(t, "packets past the stack again", func() bool {
		put(t, out, 2, 1, 100)
		n, err := in.Receive(make([]dataplane.Datagram, 8))
		if check(t, err); n > 0 {
			in.Release()
		}
		return n > 0
	})
	again := ear(t, hosts[1], f) // of a second inlet of this transport: both are heard by the stack
	second := openInlet(t, b, f)
	put(t, out, 3, 1, 100)
	check(t, again.SetReadDeadline(time.Now().Add(patience)))
	if n, _, err := again.ReadFrom(make([]byte, 200)); err != nil || n != 100 {
		t.Errorf("two inlets: %d bytes by the stack, %v", n, err)
	}
	check(t, second.Close(), again.Close())
}

// What cannot work is refused: too large packets, other flows, more than there are frames for.
func TestBulkRefusals(t *testing.T) {
	requireXDP(t)
	h := netns.Pair(t, prefix, netns.Options{})[0]
	if without := open(t, h, Config{GroupPort: groupPort}); without.PastStack() != nil {
		t.Error("there is something for others though nothing was set aside")
	} else {
		check(t, without.Close())
	}
	copying := withBulk(false)
	copying.BulkNoCopy = true // virtual Ethernet copies
	if without := open(t, h, copying); without.PastStack() != nil {
		t.Error("there is something for others though the driver copies")
	} else {
		check(t, without.Close())
	}
	tr := openUntilEnd(t, h, withBulk(false))
	p := tr.PastStack()
	for name, change := range map[string]func(f *dataplane.Flow){
		"family":  func(f *dataplane.Flow) { f.To = flowOf(true, 1).To },
		"address": func(f *dataplane.Flow) { f.To = netip.MustParseAddrPort("10.0.0.1:80") },
		"port":    func(f *dataplane.Flow) { f.To = netip.AddrPortFrom(f.To.Addr(), 0) },
		"MTU":     func(f *dataplane.Flow) { f.Size = 1473 },
		"size":    func(f *dataplane.Flow) { f.Size = 0 },
	} {
		f := flowOf(false, 1000)
		change(&f)
		_, err := p.OpenInlet(f)
		_, err2 := p.OpenOutlet(f)
		if err == nil || err2 == nil {
			t.Errorf("%s: %v, %v", name, err, err2)
		}
	}
	for name, change := range map[string]func(f *dataplane.Flow){
		"TTL":  func(f *dataplane.Flow) { f.TTL = 0 },
		"from": func(f *dataplane.Flow) { f.From = 0 },
	} {
		f := flowOf(false, 1000)
		if change(&f); true {
			if _, err := p.OpenOutlet(f); err == nil {
				t.Errorf("%s: opened", name)
			}
		}
	}
	var outlets []dataplane.Outlet
	var err error
	for range 5 {
		var o dataplane.Outlet
		if o, err = p.OpenOutlet(flowOf(false, 1000)); err != nil {
			break
		}
		outlets = append(outlets, o)
	}
	if len(outlets) != 4 || !errors.Is(err, errNoRoom) {
		t.Errorf("%d outlets, then %v", len(outlets), err)
	}
	if outlets[0].Put(make([]byte, 16), make([]byte, 1000)) {
		t.Error("a packet that is too long was taken")
	}
	check(t, outlets[0].Close())
	if _, err := p.OpenOutlet(flowOf(false, 1000)); err != nil {
		t.Errorf("after one is closed: %v", err)
	}
}

// The transport can be closed while outlets and inlets are in use.
func TestBulkEndsWithItsTransport(t *testing.T) {
	requireXDP(t)
	hosts := netns.Pair(t, prefix, netns.Options{})
	a, b := open(t, hosts[0], withBulk(false)), open(t, hosts[1], withBulk(false))
	f := flowOf(false, 1000)
	_ = ear(t, hosts[1], f)
	in, out := openInlet(t, b, f), openOutlet(t, a, f)
	var all sync.WaitGroup
	some := make(chan struct{})
	all.Go(func() {
		for i := 0; ; i++ {
			packet := numbered(i, 1000)
			if !out.Put(packet[:16], packet[16:]) {
				if err := out.Flush(); err != nil {
					if !errors.Is(err, dataplane.ErrClosed) {
						t.Error(err)
					}
					return
				}
			}
		}
	})
	all.Go(func() {
		batch := make([]dataplane.Datagram, 64)
		sum := 0
		for came := 0; ; {
			n, err := in.Receive(batch)
			if err != nil {
				if !errors.Is(err, dataplane.ErrClosed) {
					t.Error(err)
				}
				return
			}
			if n == 0 {
				continue
			}
			for _, d := range batch[:n] {
				for _, x := range d.Payload {
					sum += int(x)
				}
			}
			in.Release()
			if before := came; before < 2000 && before+n >= 2000 {
				close(some)
			}
			came += n
		}
	})
	<-some
	check(t, a.Close(), b.Close())
	all.Wait()
	if _, err := a.PastStack().OpenOutlet(f); !errors.Is(err, dataplane.ErrClosed) {
		t.Errorf("an outlet of a closed transport: %v", err)
	}
}

// Nothing is allocated for a packet.
func TestBulkAllocatesNothing(t *testing.T) {
	requireXDP(t)
	hosts := netns.Pair(t, prefix, netns.Options{})
	a, b := openUntilEnd(t, hosts[0], withBulk(false)), openUntilEnd(t, hosts[1], withBulk(false))
	f := flowOf(false, 1000)
	_ = ear(t, hosts[1], f)
	in, out := openInlet(t, b, f), openOutlet(t, a, f)
	batch := make([]dataplane.Datagram, 64)
	packet := make([]byte, 1000)
	came := 0
	if n := testing.AllocsPerRun(200, func() {
		for range 10 {
			if !out.Put(packet[:16], packet[16:]) {
				t.Fatal("no room")
			}
		}
		if err := out.Flush(); err != nil {
			t.Fatal(err)
		}
		n, err := in.Receive(batch)
		if err != nil {
			t.Fatal(err)
		}
		if n > 0 {
			came += n
			in.Release()
		}
	}); n != 0 {
		t.Errorf("%v allocations for ten packets", n)
	}
	if came < 1000 {
		t.Errorf("only %d of 2,000 packets came", came)
	}
}
