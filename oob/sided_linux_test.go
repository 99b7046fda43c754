package oob

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/khamsin-io/khamsin/dataplane/transporttest"
	"github.com/khamsin-io/khamsin/vsync"
)

func withSides(c *cluster) { c.sides = transporttest.NewSides() }

// side returns a member's memory as the others see it.
func (m *member) side() *transporttest.Side { return m.sys.OneSided().(sidedTransport).Side }

// eventually waits until something is so.
func eventually(t testing.TB, ok func() bool, format string, args ...any) {
	t.Helper()
	for ctx := within(t); !ok(); {
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
			t.Fatalf(format, args...)
		}
	}
}

// closed fails when a region is open, of what nothing moves any more.
func (c *cluster) closed() {
	c.t.Helper()
	for i, m := range c.members {
		eventually(c.t, func() bool { return m.side().Open.Load() == 0 }, "member %d still has regions open", i)
	}
}

// A big object goes from memory to memory, to all targets of a chain, wherever its bytes are at the source; a small one
// goes as before.
//
// rows: FUT-04
func TestSided(t *testing.T) {
	c := newCluster(t, 4, withSides)
	const size = 5<<20 + 17
	b := c.members[0].put(t, "f", size)
	if err := c.members[1].store.Replicate("f", c.addresses(0, 1, 2, 3)).Wait(within(t)); err != nil {
		t.Fatal(err)
	}
	for i, m := range c.members {
		m.want(t, "f", b)
		st := m.store.Stats()
		if i > 0 && (st.LandedBytes != size || st.LinkReceived > size/100) || i < 3 && st.WrittenBytes != size ||
			st.SentPackets != 0 {
			t.Errorf("member %d: %+v", i, st)
		}
	}
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	o, err := c.members[3].store.FromFile("file", path)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.members[3].store.Register(within(t), o); err != nil {
		t.Fatal(err)
	}
	if err := c.members[3].store.Replicate("file", c.addresses(3, 0)).Wait(within(t)); err != nil {
		t.Fatal(err)
	}
	if st := c.members[3].store.Stats(); st.WrittenBytes != size {
		t.Errorf("the bytes of a file are not written: %+v", st)
	}
	small := c.members[0].put(t, "small", 100_000)
	if err := c.members[0].store.Replicate("small", c.addresses(0, 2)).Wait(within(t)); err != nil {
		t.Fatal(err)
	}
	c.members[0].want(t, "file", b)
	c.members[2].want(t, "small", small)
	if st := c.members[2].store.Stats(); st.LandedBytes != size || st.ReceivedBytes == 0 {
		t.Errorf("a small object did not come by multicast: %+v", st)
	}
	if err := o.Close(); err != nil {
		t.Error(err)
	}
	c.closed()
}

// Where one member has no such memory, or there is a key, everything goes as it did before.
//
// rows: FUT-04
func TestUnsided(t *testing.T) {
	key := vsync.StaticKey(bytes.Repeat([]byte{3}, vsync.KeyLen))
	for name, mode := range map[string]func(c *cluster){
		"switched off": func(c *cluster) { c.store = append(c.store, WithoutOneSided()) },
		"group key":    func(c *cluster) { c.group = append(c.group, vsync.WithGroupKey(key)) },
		"system key":   func(c *cluster) { c.system = append(c.system, vsync.WithSystemKey(key)) },
		"files":        func(c *cluster) { c.store = append(c.store, WithDirectory(c.t.TempDir())) },
		"tcp, system key": func(c *cluster) {
			c.system = append(c.system, withNetwork(vsync.Network{TCPOnly: true}), vsync.WithSystemKey(key))
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, 3, withSides, mode)
			b := c.members[0].put(t, "f", 2<<20)
			if err := c.members[0].store.Replicate("f", c.addresses(0, 1, 2)).Wait(within(t)); err != nil {
				t.Fatal(err)
			}
			c.members[2].want(t, "f", b)
			for i, m := range c.members {
				if n := m.side().Writes.Load() + m.store.Stats().LandedBytes; n != 0 {
					t.Errorf("member %d wrote, or was written into", i)
				}
			}
		})
	}
}

// Memory that cannot be registered, writers that break and holders that die cost time, and no object.
//
// rows: FUT-04, OOB-42
func TestSidedFaults(t *testing.T) {
	failed := errors.New("as the test wants it")
	for name, spoil := range map[string]func(n int, s *transporttest.Side){
		"target cannot register": func(n int, s *transporttest.Side) {
			if n == 2 {
				s.Refuse = func(int) error { return failed }
			}
		},
		"writers break": func(_ int, s *transporttest.Side) {
			s.Break = func(n uint64) error {
				if n%5 == 0 {
					return failed
				}
				return nil
			}
		},
		"source dies": func(int, *transporttest.Side) {},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, 4, withSides)
			for n, m := range c.members {
				spoil(n, m.side())
			}
			b := c.members[1].put(t, "f", 32<<20)
			if err := c.members[1].store.Replicate("f", c.addresses(0, 1)).Wait(within(t)); err != nil {
				t.Fatal(err)
			}
			if name == "source dies" {
				c.members[0].side().Break = func(n uint64) error { // the first holder is the source
					if n == 10 {
						go c.members[0].sys.Kill()
						return failed
					}
					return nil
				}
			}
			c.members[0].store.Replicate("f", c.addresses(0, 1, 2, 3))
			c.members[2].want(t, "f", b)
			c.members[3].want(t, "f", b)
			if name == "target cannot register" && c.members[2].store.Stats().Unsided == 0 {
				t.Error("nothing says that a copy could not be registered")
			}
			if name != "source dies" {
				c.closed()
			}
		})
	}
}

// What is registered is not freed before nobody writes into it: a deletion in the middle of a transfer.
//
// rows: FUT-04
func TestSidedDeleted(t *testing.T) {
	c := newCluster(t, 3, withSides)
	c.members[0].put(t, "f", 32<<20)
	held := make(chan struct{})
	c.members[0].side().Break = func(n uint64) error {
		if n == 5 {
			<-held // the writer is in the middle of it
		}
		return nil
	}
	c.members[0].store.Replicate("f", c.addresses(0, 1, 2))
	eventually(t, func() bool { return c.members[1].store.Stats().LandedBytes > 0 }, "nothing moves")
	if err := c.members[1].store.Delete("f").Wait(within(t)); err != nil {
		t.Fatal(err)
	}
	close(held)
	for _, m := range c.members {
		if err := m.store.uses(within(t), 0); err != nil {
			t.Error(err)
		}
	}
	c.closed()
}
