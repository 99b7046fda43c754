package chain

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/khamsin-io/khamsin/dataplane/transporttest"
	"github.com/khamsin-io/khamsin/oob/internal/catalog"
	"github.com/khamsin-io/khamsin/oob/internal/transfer"
)

type testKeys string

func (k testKeys) Data(salt []byte) (cipher.AEAD, error) {
	key := sha256.Sum256(append([]byte(k), salt...))
	block, err := aes.NewCipher(key[:])
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// stop is one process of a chain in a test.
type stop struct {
	in    *Incoming
	items []transfer.Item
	l     net.Listener
	done  chan struct{}
}

func objects(sizes ...int) (items []transfer.Item, lengths []uint64) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, size := range sizes {
		b := make([]byte, size)
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		list, d := transfer.Sum(b)
		items = append(items, transfer.Item{Data: b, List: list, Digest: d})
		lengths = append(lengths, uint64(size))
	}
	return items, lengths
}

// serve lets a stop take connections. Each of them is closed after a number of bytes, when cut is not zero.
func (s *stop) serve(t *testing.T, all *sync.WaitGroup, cut int64) {
	all.Go(func() {
		var once sync.Once
		for {
			c, err := s.l.Accept()
			if err != nil {
				return
			}
			if cut > 0 {
				c = &cutting{Conn: c, left: cut}
			}
			g, err := ReadGreeting(c)
			if err == nil {
				err = s.in.Serve(c, g, func() { once.Do(func() { close(s.done) }) })
			}
			if err != nil && cut == 0 {
				t.Errorf("serve: %v", err)
			}
			_ = c.Close()
		}
	})
}

// cutting is a connection that breaks after some bytes.
type cutting struct {
	net.Conn
	left int64
}

func (c *cutting) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if c.left -= int64(n); c.left < 0 {
		_ = c.Close()
		return 0, io.ErrUnexpectedEOF
	}
	return n, err
}

// newStops returns three processes that are to get some objects.
func newStops(t *testing.T, l *transfer.Layout, items []transfer.Item, how *Incoming) (stops []*stop) {
	for range 3 {
		s := &stop{done: make(chan struct{})}
		for _, it := range items {
			s.items = append(s.items, transfer.NewItem(make([]byte, len(it.Data)), it.Digest))
		}
		s.in = &Incoming{
			Receiver: transfer.NewReceiver(l, s.items), Direct: how.Direct, Progress: NewProgress(0), Keys: how.Keys,
			Counters: how.Counters,
			Write:    func(item int, b []byte, off int64) error { copy(s.items[item].Data[off:], b); return nil },
		}
		var err error
		if s.l, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
		stops = append(stops, s)
	}
	return stops
}

// rows: OOB-17, OOB-07
func TestChain(t *testing.T) {
	for _, keys := range []Keys{nil, testKeys("k")} {
		for _, direct := range []bool{true, false} {
			for _, cut := range []int64{0, 700_000} {
				t.Run(fmt.Sprintf("sealed=%v/direct=%v/cut=%d", keys != nil, direct, cut), func(t *testing.T) {
					items, lengths := objects(3<<20, 0, 1, Unit+1, 200_000)
					layout, err := transfer.NewLayout(Unit, lengths)
					if err != nil {
						t.Fatal(err)
					}
					var all sync.WaitGroup
					var counters Counters
					ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
					local := netip.MustParseAddr("127.0.0.1")
					stops := newStops(t, layout, items, &Incoming{Direct: direct, Keys: keys, Counters: &counters})
					for _, s := range stops {
						s.serve(t, &all, cut)
					}
					from, progress := items, NewProgress(layout.Total())
					for _, s := range stops {
						o := &Outgoing{
							Local: local, Peer: s.l.Addr().(*net.TCPAddr).AddrPort(), Transfer: 5, Layout: layout,
							Items:    from,
							Progress: progress, Keys: keys, Counters: &counters,
						}
						all.Go(func() {
							if err := o.Run(ctx); err != nil && ctx.Err() == nil {
								t.Errorf("feed: %v", err)
							}
						})
						from, progress = s.items, s.in.Progress
					}
					for i, s := range stops {
						select {
						case <-s.done:
						case <-ctx.Done():
							t.Fatalf("stop %d does not get everything", i)
						}
						for k := range items {
							if !bytes.Equal(s.items[k].Data, items[k].Data) {
								t.Errorf("stop %d has object %d wrong", i, k)
							}
						}
					}
					if cut > 0 && counters.Retries.Load() == 0 {
						t.Error("no connection broke")
					}
					time.AfterFunc(50*time.Millisecond, cancel)
					for _, s := range stops {
						_ = s.l.Close()
					}
					all.Wait()
					cancel()
				})
			}
		}
	}
}

// Nobody without the key feeds a copy, and bytes that are not what was registered are not taken.
func TestForeignLinks(t *testing.T) {
	items, lengths := objects(300_000)
	layout, err := transfer.NewLayout(Unit, lengths)
	if err != nil {
		t.Fatal(err)
	}
	try := func(up, down Keys, damage bool) error {
		r := transfer.NewReceiver(layout, []transfer.Item{transfer.NewItem(make([]byte, lengths[0]), items[0].Digest)})
		var counters Counters
		in := &Incoming{Receiver: r, Direct: true, Progress: NewProgress(0), Keys: down, Counters: &counters}
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		from := items
		if damage {
			b := bytes.Clone(items[0].Data)
			b[100_000] ^= 1
			from = []transfer.Item{{Data: b, List: items[0].List, Digest: items[0].Digest}}
		}
		o := &Outgoing{
			Local: netip.MustParseAddr("127.0.0.1"), Peer: l.Addr().(*net.TCPAddr).AddrPort(), Layout: layout,
			Items:    from,
			Progress: NewProgress(layout.Total()), Keys: up, Counters: &counters,
		}
		go func() { _ = o.Run(ctx) }()
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		g, err := ReadGreeting(c)
		if err != nil {
			t.Fatal(err)
		}
		return in.Serve(c, g, func() { t.Error("complete") })
	}
	if err := try(testKeys("wrong"), testKeys("right"), false); err == nil {
		t.Error("a link with another key is taken")
	}
	if err := try(nil, nil, true); err == nil {
		t.Error("other bytes are taken")
	}
	a, b := net.Pipe()
	go func() { _, _ = a.Write(make([]byte, greetLen)) }()
	if _, err := ReadGreeting(b); !errors.Is(err, ErrForeign) {
		t.Errorf("a foreign greeting: %v", err)
	}
}

func FuzzLink(f *testing.F) {
	_, lengths := objects(200_000)
	layout, err := transfer.NewLayout(Unit, lengths)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(make([]byte, 100))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := transfer.NewReceiver(layout, []transfer.Item{transfer.NewItem(make([]byte, lengths[0]), catalog.Digest{})})
		in := &Incoming{Receiver: r, Direct: true, Progress: NewProgress(0), Counters: &Counters{}}
		x, y := net.Pipe()
		go func() { _, _ = io.Copy(io.Discard, x) }()
		go func() { _, _ = x.Write(b); _ = x.Close() }()
		_ = in.Serve(y, Greeting{Total: layout.Total()}, func() { t.Error("complete") })
		_ = y.Close()
		memory := make([]byte, lengths[0])
		r = transfer.NewReceiver(layout, []transfer.Item{transfer.NewItem(memory, catalog.Digest{})})
		in = &Incoming{
			Receiver: r, Direct: true, Progress: NewProgress(0), Counters: &Counters{},
			Sided: &Sided{OneSided: transporttest.NewSides().Side(), Memory: memory},
		}
		_ = in.Serve(&nopConn{bytes.NewReader(b)}, Greeting{Total: layout.Total(), Sided: true}, func() {
			t.Error("complete")
		})
		l := &link{conn: nopConn{bytes.NewReader(b)}, counters: &Counters{}}
		_, _ = l.readRanges(100)
	})
}

type nopConn struct{ io.Reader }

func (nopConn) Write(b []byte) (int, error)      { return len(b), nil }
func (nopConn) Close() error                     { return nil }
func (nopConn) LocalAddr() net.Addr              { return nil }
func (nopConn) RemoteAddr() net.Addr             { return nil }
func (nopConn) SetDeadline(time.Time) error      { return nil }
func (nopConn) SetReadDeadline(time.Time) error  { return nil }
func (nopConn) SetWriteDeadline(time.Time) error { return nil }
