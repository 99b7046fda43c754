package tcp

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"runtime"
	"testing"
	"time"

	"github.com/khamsin-io/khamsin/dataplane"
	"github.com/khamsin-io/khamsin/dataplane/frame"
)

// waitAtMost is how long a test waits for what must happen.
const waitAtMost = 15 * time.Second

func open(t testing.TB, cfg Config) *Transport {
	t.Helper()
	tr, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := tr.Close(); err != nil {
			t.Error(err)
		}
	})
	return tr
}

// send sends one packet and tells whether it was not dropped.
func send(t *testing.T, from *Transport, to dataplane.Endpoint, payload []byte) bool {
	t.Helper()
	f, ok := from.Arena().Tx().Get()
	if !ok {
		t.Fatal("no frame to send with")
	}
	f.Len = uint32(len(payload))
	copy(from.Arena().Bytes(f), payload)
	before := from.Stats().SendDropped
	if n, err := from.Send([]dataplane.Packet{{Frame: f, To: to}}); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	return from.Stats().SendDropped == before
}

// receive polls a transport until ok says that it is enough, and returns the payloads.
func receive(t *testing.T, tr *Transport, ok func(got [][]byte) bool) (got [][]byte) {
	t.Helper()
	batch := make([]dataplane.Packet, 64)
	for end := time.Now().Add(waitAtMost); !ok(got); {
		if time.Now().After(end) {
			t.Fatalf("not so after %v: %d packets, refused %+v, stats %+v", waitAtMost, len(got), tr.Refused(),
				tr.Stats())
		}
		n, err := tr.Receive(batch, dataplane.Wait{Timeout: 10 * time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range batch[:n] {
			got = append(got, bytes.Clone(tr.Arena().Bytes(p.Frame)))
			tr.Arena().Rx().Release(p.Frame)
		}
	}
	return got
}

// stranger connects and writes bytes, and returns the connection.
func stranger(t *testing.T, to *Transport, b []byte) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", to.Local().AddrPort().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if _, err := c.Write(b); err != nil {
		t.Fatal(err)
	}
	return c
}

// closed tells whether the other side ends a connection.
func closed(c net.Conn) bool {
	_ = c.SetReadDeadline(time.Now().Add(waitAtMost))
	_, err := c.Read(make([]byte, 1))
	return err == io.EOF || err != nil && !err.(net.Error).Timeout()
}

// Strangers with garbage are counted and cut off, whatever they claim, and memory does not follow their claims.
//
// rows: TRN-03
func TestGarbage(t *testing.T) {
	good := appendHello(nil, dataplane.Endpoint{IP: [16]byte{10: 0xff, 11: 0xff, 12: 127, 15: 1}, Port: 9})
	imposter := appendHello(nil, dataplane.Endpoint{IP: [16]byte{10: 0xff, 11: 0xff, 12: 10, 15: 9}, Port: 9})
	huge := binary.LittleEndian.AppendUint32(bytes.Clone(good), 1<<31)
	tr := open(t, Config{})
	for _, c := range []struct {
		name  string
		bytes []byte
		count func(r Refused) uint64
	}{
		{"http", []byte("GET / HTTP/1.1\r\n\r\n"), func(r Refused) uint64 { return r.NoHello }},
		{"zeros", make([]byte, 100), func(r Refused) uint64 { return r.NoHello }},
		{"another host's address", imposter, func(r Refused) uint64 { return r.Imposter }},
		{"a length of 2 GiB", huge, func(r Refused) uint64 { return r.Length }},
	} {
		t.Run(c.name, func(t *testing.T) {
			var before, after runtime.MemStats
			count := c.count(tr.Refused())
			runtime.ReadMemStats(&before)
			conn := stranger(t, tr, c.bytes)
			receive(t, tr, func([][]byte) bool { return c.count(tr.Refused()) == count+1 })
			receive(t, tr, func([][]byte) bool { return tr.Connections() == 0 })
			runtime.ReadMemStats(&after)
			if grew := after.TotalAlloc - before.TotalAlloc; grew > 1<<20 {
				t.Errorf("%d bytes were allocated", grew)
			}
			if !closed(conn) {
				t.Error("the connection is still open")
			}
		})
	}
	a := open(t, Config{}) // who behaves is served as before
	if !send(t, a, tr.Local(), []byte("hello")) {
		t.Fatal("dropped")
	}
	receive(t, tr, func(got [][]byte) bool { return len(got) == 1 && string(got[0]) == "hello" })
}

// Strangers who say nothing do not stay, there are never more connections than allowed, and who comes meanwhile waits.
//
// rows: TRN-04
func TestSilentStrangers(t *testing.T) {
	tr := open(t, Config{Connections: 3})
	var conns []net.Conn
	for range 5 {
		conns = append(conns, stranger(t, tr, []byte(helloMagic[:3])))
	}
	receive(t, tr, func([][]byte) bool { return tr.Connections() == 3 })
	other := open(t, Config{})
	if !send(t, other, tr.Local(), []byte("patient")) {
		t.Error("dropped")
	}
	got := receive(t, tr, func(got [][]byte) bool { return len(got) == 1 && tr.Connections() <= 1 })
	if string(got[0]) != "patient" || tr.Refused().NoHello != 5 || tr.Waited() == 0 {
		t.Errorf("got %q, refused %+v, waited %d", got, tr.Refused(), tr.Waited())
	}
	if most := tr.Stats().ConnectionsMost; most != 3 {
		t.Errorf("%d connections at a time, want 3", most)
	}
	for i, c := range conns {
		if !closed(c) {
			t.Errorf("connection %d is still open", i)
		}
	}
}

// A peer that does not read costs its own packets, in bounded memory and time, and nobody else's.
//
// rows: TRN-13
func TestSlowReader(t *testing.T) {
	const frames, size = 256, 4000
	a := open(t, Config{SendBuffer: 64 << 10, Arena: frame.Config{TxChunks: frames}})
	slow := open(t, Config{RecvBuffer: 16 << 10})
	other := open(t, Config{})
	payload := make([]byte, size)
	dropped := 0
	began := time.Now()
	for range 2000 {
		if !send(t, a, slow.Local(), payload) {
			dropped++
		}
	}
	if took := time.Since(began); took > waitAtMost/2 {
		t.Errorf("2000 packets to a peer that does not read took %v", took)
	}
	if dropped == 0 {
		t.Error("nothing was dropped: 8 MB went somewhere")
	}
	if free := a.Arena().Tx().Free(); free != frames {
		t.Errorf("%d of %d frames are free", free, frames)
	}
	if !send(t, a, other.Local(), []byte("quick")) {
		t.Error("a packet to another peer was dropped")
	}
	receive(t, other, func(got [][]byte) bool { return len(got) == 1 })
	sent := 2000 - dropped // those that were not dropped arrive whole when it reads again
	send(t, a, slow.Local(), payload)
	receive(t, slow, func(got [][]byte) bool {
		if len(got) < sent {
			send(t, a, slow.Local(), payload)
		}
		return len(got) >= sent
	})
	if r := slow.Refused(); r != (Refused{}) {
		t.Errorf("the slow peer refused %+v: the stream is out of step", r)
	}
}

// A peer that ends and comes back at the same address is dialled again.
func TestReconnect(t *testing.T) {
	a := open(t, Config{})
	b, err := Open(Config{})
	if err != nil {
		t.Fatal(err)
	}
	to := b.Local()
	send(t, a, to, []byte("one"))
	receive(t, b, func(got [][]byte) bool { return len(got) == 1 })
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	receive(t, a, func([][]byte) bool { return a.Connections() == 0 })
	again := open(t, Config{Port: to.AddrPort().Port(), PortTries: 1})
	receive(t, again, func(got [][]byte) bool {
		if len(got) == 0 {
			send(t, a, to, []byte("two")) // until it is no longer held off
		}
		return len(got) > 0 && string(got[0]) == "two"
	})
}

// Two processes that talk to each other share one connection.
//
// rows: TRN-05
func TestOneConnectionForTwo(t *testing.T) {
	all := []*Transport{open(t, Config{}), open(t, Config{}), open(t, Config{}), open(t, Config{})}
	for i, a := range all {
		for _, b := range all[:i] {
			send(t, a, b.Local(), []byte{1})
			receive(t, b, func(got [][]byte) bool { return len(got) == 1 })
			send(t, b, a.Local(), []byte{2})
			receive(t, a, func(got [][]byte) bool { return len(got) == 1 })
		}
	}
	for _, a := range all {
		if n := a.Connections(); n != len(all)-1 {
			t.Errorf("%v has %d connections, want %d", a.Local(), n, len(all)-1)
		}
	}
}

// Processes of one host take following ports.
//
// rows: NET-03
func TestFollowingPorts(t *testing.T) {
	first := open(t, Config{})
	port := first.Local().AddrPort().Port()
	if port > 65000 {
		t.Skipf("the system chose port %d, too high for this", port)
	}
	last := port
	for range 5 {
		b := open(t, Config{Port: port})
		if got := b.Local().AddrPort().Port(); got <= last {
			t.Errorf("port %d after %d", got, last)
		} else {
			last = got
		}
	}
}

func FuzzHello(f *testing.F) {
	f.Add(appendHello(nil, dataplane.Endpoint{Port: 5}))
	f.Add([]byte(helloMagic))
	f.Fuzz(func(t *testing.T, b []byte) {
		peer, ok := parseHello(b)
		if ok && !bytes.Equal(appendHello(nil, peer), b[:helloBytes]) {
			t.Fatalf("%x reads as %v", b, peer)
		}
	})
}

// Config refuses what cannot be, all at once.
func TestBadConfig(t *testing.T) {
	_, err := Open(Config{PortTries: -1, MTU: MTUMax + 1, SendBuffer: -1, Connections: -1, DeadAfter: -1})
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{"PortTries", "MTU", "SendBuffer", "Connections", "DeadAfter"} {
		if !bytes.Contains([]byte(err.Error()), []byte(want)) {
			t.Errorf("%v does not name %s", err, want)
		}
	}
	if _, err := Open(Config{Interface: "nosuch0"}); err == nil {
		t.Error("an interface that is not there is accepted")
	}
}
