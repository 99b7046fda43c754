//go:build cgo && rdma

package rdma

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/khamsin-io/khamsin/dataplane"
)

// exchangeOne sends one packet, by a channel if ch is not zero, and receives it.
func exchangeOne(t *testing.T, a, b *Transport, ch dataplane.Channel) {
	t.Helper()
	p := dataplane.Packet{Frame: filled(t, a, 5, 50), To: b.Local(), Channel: ch}
	if ch != 0 {
		p.To = dataplane.Endpoint{}
	}
	sendAll(t, a, []dataplane.Packet{p})
	if n, _ := receiveNumbered(t, b, 1, a.Local(), false); n != 1 {
		t.Fatalf("%d packets came", n)
	}
}

// A queue pair in error is repaired under its old number, with its subscriptions, and what was lost is counted.
func TestQueuePairIsRepaired(t *testing.T) {
	a, b := openUntilEnd(t, nil), openUntilEnd(t, nil)
	const ch = dataplane.Channel(9)
	for _, tr := range []*Transport{a, b} {
		if err := tr.Subscribe(ch); err != nil {
			t.Fatal(err)
		}
	}
	exchangeOne(t, a, b, 0)
	for round := uint64(1); round <= 3; round++ {
		local := a.Local()
		if err := failPair(a.pair); err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(peersPatience); a.Verbs().Repairs < round; {
			sendAll(t, a, []dataplane.Packet{{Frame: filled(t, a, 1, 300), To: b.Local()}})
			if time.Now().After(deadline) {
				t.Fatalf("not repaired: %+v", a.Verbs())
			}
			drain(t, b)
		}
		drain(t, b)
		if a.Stats().SendDropped < round || a.Local() != local {
			t.Errorf("round %d: %+v, %v was %v", round, a.Stats(), a.Local(), local)
		}
		exchangeOne(t, a, b, 0)
		exchangeOne(t, b, a, 0)
		exchangeOne(t, b, a, ch)
		drain(t, b) // its own multicast
	}
}

// drain releases what is there, and what comes while more does.
func drain(t *testing.T, tr *Transport) {
	t.Helper()
	batch := make([]dataplane.Packet, 64)
	for {
		n, err := tr.Receive(batch, dataplane.Wait{Timeout: 50 * time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			return
		}
		for _, p := range batch[:n] {
			tr.Arena().Rx().Release(p.Frame)
		}
	}
}

// What another program may send is counted and dropped: nothing at all, more than the MTU, and with another key.
func TestForeignDatagrams(t *testing.T) {
	b := openUntilEnd(t, func(c *Config) { c.MTU = 500 })
	big := openUntilEnd(t, nil)
	other := openUntilEnd(t, func(c *Config) { c.GroupPort = testGroupPort + 1 })
	for _, size := range []int{501, 1000, big.Caps().MTU} {
		sendAll(t, big, []dataplane.Packet{{Frame: filled(t, big, 1, size), To: b.Local()}})
	}
	empty := filled(t, big, 1, 4)
	empty.Len = 0
	sendAll(t, big, []dataplane.Packet{{Frame: empty, To: b.Local()}})
	sendAll(t, other, []dataplane.Packet{{Frame: filled(t, other, 1, 40), To: b.Local()}})
	exchangeOne(t, big, b, 0)
	st := b.Stats()
	if st.ReceiveOversize != 3 || st.ReceiveUndersize != 1 || st.ReceivedPackets != 1 || st.ReceiveDropped != 0 {
		t.Errorf("%+v", st)
	}
}

// Channels that the connection manager joins are received as those that a socket joins, and by nobody else; as many as
// are configured, and again after leaving.
func TestJoinByManager(t *testing.T) {
	byManager := func(c *Config) { c.Join, c.Channels = JoinManager, 3 }
	a, b, c := openUntilEnd(t, nil), openUntilEnd(t, byManager), openUntilEnd(t, byManager)
	for ch := dataplane.Channel(1); ch <= 3; ch++ {
		if err := errors.Join(b.Subscribe(ch), b.Subscribe(ch)); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Subscribe(4); err != nil {
		t.Fatal(err)
	}
	if err := b.Subscribe(5); !errors.Is(err, unix.ENOBUFS) {
		t.Errorf("a fourth channel: %v", err)
	}
	for range 2 {
		for ch := dataplane.Channel(1); ch <= 3; ch++ {
			exchangeOne(t, a, b, ch)
		}
		exchangeOne(t, a, c, 4)
		if err := errors.Join(b.Unsubscribe(2), b.Subscribe(2)); err != nil {
			t.Fatal(err)
		}
	}
	if got := c.Stats().ReceivedPackets; got != 2 {
		t.Errorf("%d packets came to the one with another channel", got)
	}
	if err := b.Unsubscribe(1); err != nil {
		t.Fatal(err)
	}
	sendAll(t, a, []dataplane.Packet{{Frame: filled(t, a, 1, 30), Channel: 1}})
	exchangeOne(t, a, b, 0) // the first that comes is not the one by the channel
	drain(t, c)
}

// Without a group port there is no multicast, and it is said.
func TestNoMulticast(t *testing.T) {
	tr := openUntilEnd(t, func(c *Config) { c.GroupPort = 0 })
	f := filled(t, tr, 1, 20)
	_, err := tr.Send([]dataplane.Packet{{Frame: f, Channel: 1}})
	for _, err := range []error{err, tr.Subscribe(1), tr.Unsubscribe(1)} {
		if !errors.Is(err, dataplane.ErrNoMulticast) {
			t.Errorf("got %v", err)
		}
	}
	tr.Arena().Tx().Release(f)
}

// Endpoints that are no queue pair of a host cost the packet.
func TestImpossibleEndpoints(t *testing.T) {
	tr := openUntilEnd(t, nil)
	good := tr.Local()
	for i, to := range []dataplane.Endpoint{
		{}, {IP: good.IP}, {Port: good.Port}, {IP: good.IP, Port: qpNumberMax}, {IP: good.IP, Port: 1 << 31},
		{IP: [16]byte{0: 0x20, 15: 1}, Port: good.Port},
		{IP: [16]byte{10: 255, 11: 255, 12: 255, 13: 255, 14: 255, 15: 255}, Port: good.Port},
	} {
		sendAll(t, tr, []dataplane.Packet{{Frame: filled(t, tr, 1, 20), To: to}})
		if got := tr.Stats().SendDropped; got != uint64(i+1) {
			t.Errorf("%v: %d dropped in all, want %d", to, got, i+1)
		}
	}
}

// A full send queue holds the sender up and takes what follows when there is room again.
func TestSendQueueIsFull(t *testing.T) {
	a := openUntilEnd(t, func(c *Config) { c.SendDepth, c.Inline = 16, -1 })
	b := openUntilEnd(t, nil)
	for range 10 {
		var batch []dataplane.Packet
		for i := range 100 {
			batch = append(batch, dataplane.Packet{Frame: filled(t, a, i, 200), To: b.Local()})
		}
		if n, err := a.Send(nil); n != 0 || err != nil {
			t.Fatal(n, err)
		}
		sendAll(t, a, batch)
		if n, _ := receiveNumbered(t, b, 100, a.Local(), false); n < 100 {
			t.Fatalf("%d came", n)
		}
	}
	if got := a.Stats(); got.SendDropped != 0 || got.SentPackets != 1000 {
		t.Errorf("%+v", got)
	}
}

// Faults of a configuration are told by name.
func TestConfigFaults(t *testing.T) {
	for _, tc := range []struct {
		cfg  Config
		want string
	}{
		{Config{}, "neither Device nor Interface"},
		{Config{Device: "x", MTU: 4097}, "MTU 4097"},
		{Config{Device: "x", SendDepth: -1}, "SendDepth -1"},
		{Config{Device: "x", TTL: 256}, "TTL 256"},
		{Config{Device: "x", Large: LargeMax + 1, Rails: -1, LargeDepth: -1}, "Large 1048577"},
		{Config{Device: "x", Inline: 5000}, "Inline 5000"},
	} {
		if _, err := Open(tc.cfg); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%+v: %v, want %q", tc.cfg, err, tc.want)
		}
	}
	cfg := deviceConfig(t)
	cfg.Arena.ChunkSize, cfg.MTU = 512, 400
	if _, err := Open(cfg); err == nil || !strings.Contains(err.Error(), "MTU 400 does not fit") {
		t.Errorf("an MTU above the chunk: %v", err)
	}
	cfg = deviceConfig(t)
	cfg.Interface = "nosuchif0"
	if _, err := Open(cfg); err == nil || !strings.Contains(err.Error(), "no GID for interface \"nosuchif0\"") {
		t.Errorf("an interface of another device: %v", err)
	}
}

// A frame that came can be sent on, whole, without a copy: the payload stands at the same place in its chunk.
func TestPayloadOffset(t *testing.T) {
	a, b := openUntilEnd(t, nil), openUntilEnd(t, nil)
	size := a.Caps().MTU
	sendAll(t, a, []dataplane.Packet{{Frame: filled(t, a, 3, size), To: b.Local()}})
	batch := make([]dataplane.Packet, 1)
	if n, err := b.Receive(batch, dataplane.Wait{Timeout: peersPatience}); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	p := batch[0]
	if fresh := filled(t, b, 1, 10); p.Frame.Off != fresh.Off {
		t.Errorf("payload at %d, in fresh frames at %d", p.Frame.Off, fresh.Off)
		b.Arena().Release(fresh)
	} else {
		b.Arena().Release(fresh)
	}
	sendAll(t, b, []dataplane.Packet{{Frame: p.Frame, To: p.From}})
	if n, err := a.Receive(batch, dataplane.Wait{Timeout: peersPatience}); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	if got := a.Arena().Bytes(batch[0].Frame); !bytes.Equal(got, pattern(3, size)) {
		t.Error("the payload changed on its way there and back")
	}
	a.Arena().Release(batch[0].Frame)
}
