package cast

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/khamsin-io/khamsin/oob/internal/transfer"
)

func loopback(t testing.TB, n int) Path {
	t.Helper()
	lo, err := net.InterfaceByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	return Path{
		IP: netip.MustParseAddr("127.0.0.1"), Interface: lo.Index, Loop: true, Port: 18799,
		// other processes may run these tests at the same time
		Group: netip.AddrFrom4([4]byte{239, byte(64 + os.Getpid()%128), byte(os.Getpid()>>8) ^ byte(n>>8), byte(n)}),
	}
}

type testKeys struct{ secret []byte }

func (k testKeys) make(info string) (cipher.AEAD, error) {
	key, err := hkdf.Key(sha256.New, k.secret, nil, info, 32)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

func (k testKeys) Control() (cipher.AEAD, error)         { return k.make("control") }
func (k testKeys) Data(salt []byte) (cipher.AEAD, error) { return k.make("data" + string(salt)) }

// trial is one transfer on the loopback.
type trial struct {
	path      Path
	unit      int
	sizes     []int
	receivers int
	loss      float64
	direct    bool
	keys      Keys
	fill      byte // 0: random
	past      Past
}

// run moves random objects and returns the counters of sender and receivers.
func (c trial) run(t testing.TB) (sent, received *Counters) {
	t.Helper()
	rng := rand.New(rand.NewPCG(1, 2))
	var items []transfer.Item
	var lengths []uint64
	for _, size := range c.sizes {
		b := make([]byte, size)
		for i := range b {
			if b[i] = c.fill; c.fill == 0 {
				b[i] = byte(rng.Uint32())
			}
		}
		list, d := transfer.Sum(b)
		items = append(items, transfer.Item{Data: b, List: list, Digest: d})
		lengths = append(lengths, uint64(size))
	}
	layout, err := transfer.NewLayout(c.unit, lengths)
	if err != nil {
		t.Fatal(err)
	}
	sent, received = &Counters{}, &Counters{}
	stop := make(chan struct{})
	var all, ready, complete sync.WaitGroup
	s := &Sending{Path: c.path, ID: 7, Layout: layout, Items: items, Keys: c.keys, Counters: sent, Stop: stop,
		Past: c.past}
	copies := make([][]transfer.Item, c.receivers)
	for i := range c.receivers {
		for k := range items {
			copies[i] = append(copies[i], transfer.NewItem(make([]byte, len(items[k].Data)), items[k].Digest))
		}
		rc := transfer.NewReceiver(layout, copies[i])
		r := &Receiving{
			Path: c.path, ID: 7, Receiver: rc, Self: uint64(i + 1), Source: c.path.IP, Direct: c.direct, Keys: c.keys,
			Counters: received, Stop: stop, Loss: c.loss, Past: c.past,
			Write: func(item int, b []byte, off int64) error { copy(copies[i][item].Data[off:], b); return nil },
		}
		s.Receivers = append(s.Receivers, Receiver{uint64(i + 1), c.path.IP})
		ready.Add(1)
		complete.Add(1)
		all.Go(func() {
			if err := r.Run(ready.Done, complete.Done); err != nil && !Stopped(err) {
				t.Errorf("receiver: %v", err)
			}
		})
	}
	ready.Wait()
	failed := time.AfterFunc(30*time.Second, func() { panic("the transfer does not end") })
	if err := s.Run2(); err != nil {
		t.Errorf("sender: %v", err)
	}
	complete.Wait()
	failed.Stop()
	close(stop)
	all.Wait()
	for i := range copies {
		for k := range items {
			if !bytes.Equal(copies[i][k].Data, items[k].Data) {
				t.Errorf("receiver %d has object %d wrong", i, k)
			}
		}
	}
	return sent, received
}

// Run2 is Run on a goroutine of its own, whose thread ends with it.
func (s *Sending) Run2() (err error) {
	done := make(chan struct{})
	go func() { defer close(done); err = s.Run() }()
	<-done
	return err
}

// rows: OOB-07, OOB-18, OOB-19
func TestLoopback(t *testing.T) {
	n := 0
	for _, direct := range []bool{true, false} {
		for _, keys := range []Keys{nil, testKeys{[]byte("secret")}} {
			for _, loss := range []float64{0, 0.03, 0.25} {
				for _, unit := range []int{1408, 8896} {
					n++
					name := fmt.Sprintf("direct=%v/sealed=%v/loss=%v/unit=%d", direct, keys != nil, loss, unit)
					t.Run(name, func(t *testing.T) {
						sent, got := trial{
							path: loopback(t, n), unit: unit, sizes: []int{0, 3 << 20, 1, 70_000, 64 << 10},
							receivers: 3, loss: loss,
							direct: direct, keys: keys,
						}.run(t)
						t.Logf("%d packets, %d again, %d parity, %d moved of %d", sent.SentPackets.Load(),
							sent.Repaired.Load(),
							sent.Parity.Load(), got.Moved.Load(), got.ReceivedPackets.Load())
					})
				}
			}
		}
	}
}

// Packets without the key, and those of other transfers, are counted, and change nothing.
func TestForged(t *testing.T) {
	path := loopback(t, 900)
	stop := make(chan struct{})
	var all sync.WaitGroup
	s, err := openUnicast(path)
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	all.Go(func() {
		b := make([]byte, 1424)
		var h transfer.Head
		for i := 0; !stopped(stop); i++ {
			h.Index, h.Session, h.Transfer = uint32(i%4000), uint16(i), 7+uint32(i/4%2)
			h.Type = transfer.Type(1 + i%4)
			h.Put(b)
			s.sendTo(b[:16+i%1409], netip.AddrPortFrom(path.Group, path.Port), path.Interface)
			if i%64 == 0 {
				time.Sleep(time.Millisecond)
			}
		}
	})
	_, got := trial{path: path, unit: 1408, sizes: []int{4 << 20}, receivers: 2, direct: true,
		keys: testKeys{[]byte("k")}}.run(t)
	close(stop)
	all.Wait()
	if got.Malformed.Load() == 0 {
		t.Error("no forged packet was counted")
	}
	if got.Stale.Load() == 0 {
		t.Error("no packet of another transfer was counted")
	}
}

// Who listens to a group with a key sees no byte of an object; without a key it sees all.
//
// rows: OOB-33
func TestCapture(t *testing.T) {
	for i, keys := range []Keys{nil, testKeys{[]byte("k")}} {
		path := loopback(t, 950+i)
		ear, err := openGroup(path)
		if err != nil {
			t.Fatal(err)
		}
		c := trial{path: path, unit: 1408, sizes: []int{1 << 20}, receivers: 1, direct: true, keys: keys, fill: 0xA5}
		c.run(t)
		seen, packets := false, 0
		b := make([]byte, 1<<16)
		for {
			n, _, err := unix.Recvfrom(ear.fd, b, unix.MSG_DONTWAIT)
			if err != nil {
				break
			}
			packets++
			seen = seen || bytes.Contains(b[:n], bytes.Repeat([]byte{0xA5}, 16))
		}
		if ear.close(); seen != (keys == nil) || packets == 0 {
			t.Errorf("with a key: %v; bytes of the object in %d packets: %v", keys != nil, packets, seen)
		}
	}
}

func BenchmarkLoopback(b *testing.B) {
	const size = 64 << 20
	b.SetBytes(size)
	for i := range b.N {
		trial{path: loopback(b, 1000+i%100), unit: 1408, sizes: []int{size}, receivers: 1, direct: true}.run(b)
	}
}
