//go:build cgo && rdma

package rdma

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/khamsin-io/khamsin/dataplane"
	"github.com/khamsin-io/khamsin/dataplane/frame"
)

// controlPort is where the left one of two machines waits for the right one's word.
const controlPort = 18792

// peersPatience is how long one machine waits for the other.
const peersPatience = 90 * time.Second

// pair is what the two machines of a test have between them, besides RDMA.
type pair struct {
	*testing.T
	left    bool
	lossy   bool
	encoder *json.Encoder
	decoder *json.Decoder
}

// newPair meets the other machine. The one with the lower address is the left one, and listens.
func newPair(t *testing.T) *pair {
	t.Helper()
	self, peer := os.Getenv("KHAMSIN_RDMA_SELF"), os.Getenv("KHAMSIN_RDMA_PEER")
	if self == "" || peer == "" {
		if required("rdma-peer") {
			t.Fatal("KHAMSIN_RDMA_SELF and KHAMSIN_RDMA_PEER do not say where two machines with RDMA are")
		}
		t.Skip("no second machine: KHAMSIN_RDMA_SELF and KHAMSIN_RDMA_PEER are not set")
	}
	a, b := netip.MustParseAddr(self), netip.MustParseAddr(peer)
	p := &pair{T: t, left: a.Less(b), lossy: os.Getenv("KHAMSIN_RDMA_LOSS") != ""}
	conn, err := connectPeers(p.left, netip.AddrPortFrom(a, controlPort), netip.AddrPortFrom(b, controlPort))
	if err != nil {
		t.Fatalf("the other machine is not there: %v", err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(2 * peersPatience)); err != nil {
		t.Fatal(err)
	}
	p.encoder, p.decoder = json.NewEncoder(conn), json.NewDecoder(conn)
	return p
}

// connectPeers makes a connection: one side listens, the other calls until it does.
func connectPeers(listens bool, self, peer netip.AddrPort) (net.Conn, error) {
	deadline := time.Now().Add(peersPatience)
	if listens {
		l, err := net.ListenTCP("tcp4", net.TCPAddrFromAddrPort(self))
		if err != nil {
			return nil, err
		}
		defer l.Close()
		if err := l.SetDeadline(deadline); err != nil {
			return nil, err
		}
		return l.Accept()
	}
	for {
		conn, err := net.DialTimeout("tcp4", peer.String(), time.Second)
		if err == nil || time.Now().After(deadline) {
			return conn, err
		}
		time.Sleep(100 * time.Millisecond) // between two calls; the limit is above
	}
}

// tell sends v to the other machine.
func (p *pair) tell(v any) {
	p.Helper()
	if err := p.encoder.Encode(v); err != nil {
		p.Fatalf("tell the other machine: %v", err)
	}
}

// hear receives into v what the other machine tells.
func (p *pair) hear(v any) {
	p.Helper()
	if err := p.decoder.Decode(v); err != nil {
		p.Fatalf("hear the other machine: %v", err)
	}
}

// meet returns when both machines have come to a point of the test.
func (p *pair) meet(where string) {
	p.Helper()
	p.tell(where)
	var there string
	if p.hear(&there); there != where {
		p.Fatalf("the other machine is at %q, this one at %q", there, where)
	}
}

// Datagrams and multicasts over the wire: all come, in order, where nothing is lost; where something is, what comes and
// what is counted as missing make up what was sent.
func TestPeersDatagrams(t *testing.T) {
	t.Run("socket", func(t *testing.T) { peersDatagrams(t, JoinSocket) })
	t.Run("manager", func(t *testing.T) { peersDatagrams(t, JoinManager) })
}

func peersDatagrams(t *testing.T, how Join) {
	p := newPair(t)
	tr := openUntilEnd(t, func(c *Config) { c.Join = how })
	var there dataplane.Endpoint
	p.tell(tr.Local())
	p.hear(&there)
	const ch = dataplane.Channel(42)
	const total, window = 2000, 100
	if err := tr.Subscribe(ch); err != nil {
		t.Fatal(err)
	}
	p.meet("subscribed")
	if p.left {
		for round := 0; round < total/window; round++ {
			var batch []dataplane.Packet
			for i := range window {
				packet := dataplane.Packet{Frame: filled(t, tr, round*window+i, 20+i*37%1300), To: there}
				if i%2 == 1 {
					packet.Channel, packet.To = ch, dataplane.Endpoint{}
				}
				batch = append(batch, packet)
			}
			sendAll(t, tr, batch)
			p.meet(fmt.Sprint(round)) // the receiver has what came of them
		}
		p.meet("done")
		return
	}
	received, multicasts := 0, 0
	for round := 0; round < total/window; round++ {
		n, m := receiveNumbered(t, tr, window, there, p.lossy)
		received, multicasts = received+n, multicasts+m
		p.meet(fmt.Sprint(round))
	}
	st := tr.Stats()
	switch {
	case !p.lossy && (received != total || st.ReceiveDropped != 0):
		t.Errorf("%d of %d came; %+v", received, total, st)
	case p.lossy && (received < total*8/10 || st.ReceiveDropped == 0 || received+int(st.ReceiveDropped) > total):
		t.Errorf("%d of %d came; %+v", received, total, st)
	}
	t.Logf("MEASURED: of %d datagrams over the wire %d came, %d of them multicast, and %d are known to be missing",
		total, received, multicasts, st.ReceiveDropped)
	p.meet("done")
}

// Bulk memory goes from one machine to the other without being received: 64 MiB, digests compared; also under loss.
func TestPeersOneSided(t *testing.T) {
	p := newPair(t)
	tr := openUntilEnd(t, nil)
	size := 64 << 20
	if p.lossy {
		size = 8 << 20
	}
	region, err := tr.OpenRegion(size)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), peersPatience)
	defer cancel()
	if p.left {
		rnd := rand.NewChaCha8([32]byte{1})
		_, _ = rnd.Read(region.Bytes())
		var key []byte
		p.hear(&key)
		w, err := tr.Connect(ctx, key)
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		if err := w.Write(ctx, region, dataplane.Copy{Len: size}, 77); err != nil {
			t.Fatal(err)
		}
		took := time.Since(began)
		t.Logf("MEASURED: %d MiB written over the wire in %.1fs (emulated)", size>>20, took.Seconds())
		p.tell(sha256.Sum256(region.Bytes()))
		p.meet("compared")
		if err := w.Close(); err != nil {
			t.Error(err)
		}
		return
	}
	p.tell(region.Key())
	if notice, err := region.Await(ctx); notice != 77 || err != nil {
		t.Fatalf("notice %d, %v", notice, err)
	}
	var want [32]byte
	p.hear(&want)
	if got := sha256.Sum256(region.Bytes()); got != want {
		t.Errorf("digest %x, want %x", got, want)
	}
	p.meet("compared")
}

// A writer whose peer dies is told, within the time that retries take; a region whose writer dies as well.
func TestPeersDeath(t *testing.T) {
	p := newPair(t)
	tr := openUntilEnd(t, nil)
	region, err := tr.OpenRegion(1 << 20)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), peersPatience)
	defer cancel()
	if p.left {
		var key []byte
		p.hear(&key)
		w, err := tr.Connect(ctx, key)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Write(ctx, region, dataplane.Copy{Len: 1 << 20}, 1); err != nil {
			t.Fatal(err)
		}
		p.meet("written")
		p.meet("region closed") // the other side closes it without a word: as if it had died
		if err := w.Write(ctx, region, dataplane.Copy{Len: 1 << 20}, 2); !errors.Is(err, dataplane.ErrPeerGone) {
			t.Errorf("write to a region that is gone: %v", err)
		}
		return
	}
	p.tell(region.Key())
	if notice, err := region.Await(ctx); notice != 1 || err != nil {
		t.Fatalf("notice %d, %v", notice, err)
	}
	p.meet("written")
	if err := region.Close(); err != nil {
		t.Error(err)
	}
	p.meet("region closed")
}

// filled returns a frame that holds a number and a pattern.
func filled(tb testing.TB, tr *Transport, n, size int) frame.Frame {
	tb.Helper()
	f, ok := tr.Arena().Tx().Get()
	if !ok {
		tb.Fatal("no frame to send with")
	}
	f.Len = uint32(size)
	copy(tr.Arena().Bytes(f), pattern(n, size))
	return f
}

// pattern returns size bytes, at least four, that begin with n and depend on it.
func pattern(n, size int) []byte {
	b := bytes.Repeat([]byte{byte(n * 7)}, size)
	b[0], b[1], b[2], b[3] = byte(n>>24), byte(n>>16), byte(n>>8), byte(n)
	return b
}

// sendAll sends a whole batch.
func sendAll(tb testing.TB, tr *Transport, batch []dataplane.Packet) {
	tb.Helper()
	for deadline := time.Now().Add(peersPatience); len(batch) > 0; {
		n, err := tr.Send(batch)
		if err != nil || time.Now().After(deadline) {
			tb.Fatalf("Send: %v; %d packets are left", err, len(batch))
		}
		batch = batch[n:]
	}
}

// receiveNumbered receives n packets of a sender and checks them; where packets are lost, it gives up when none has
// come for a while. It returns how many came, and by a channel.
func receiveNumbered(tb testing.TB, tr *Transport, n int, from dataplane.Endpoint, lossy bool) (came, multicasts int) {
	tb.Helper()
	wait := peersPatience
	if lossy {
		wait = 300 * time.Millisecond
	}
	batch := make([]dataplane.Packet, 64)
	for came < n {
		k, err := tr.Receive(batch, dataplane.Wait{Timeout: wait})
		if err != nil {
			tb.Fatal(err)
		}
		if k == 0 {
			if !lossy {
				tb.Fatalf("%d of %d packets came: %+v", came, n, tr.Stats())
			}
			return came, multicasts
		}
		for _, p := range batch[:k] {
			b := tr.Arena().Bytes(p.Frame)
			number := int(b[0])<<24 | int(b[1])<<16 | int(b[2])<<8 | int(b[3])
			if p.From != from || !bytes.Equal(b, pattern(number, len(b))) {
				tb.Errorf("packet %d from %v is not what was sent", number, p.From)
			}
			if p.Channel != 0 {
				multicasts++
			}
			tr.Arena().Rx().Release(p.Frame)
		}
		came += k
	}
	return came, multicasts
}
