package oob

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/khamsin-io/khamsin/internal/netns"
	"github.com/khamsin-io/khamsin/oob/internal/catalog"
	"github.com/khamsin-io/khamsin/vsync"
)

// Holders that apply the same ordered changes to their copies keep them equal, and later copies have the changes.
//
// rows: OOB-22
func TestOrderedChanges(t *testing.T) {
	const changes, size = 10_000, 1 << 16
	c := newCluster(t, 2)
	groups := make([]*vsync.Group, 2)
	views := make([][]byte, 2)
	done := make(chan struct{}, 2)
	c.members[0].put(t, "f", size)
	if err := c.members[0].store.Replicate("f", c.addresses(0, 1)).Wait(within(t)); err != nil {
		t.Fatal(err)
	}
	for i, m := range c.members {
		o, err := m.store.Fetch(within(t), "f")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = o.Close() })
		if views[i], err = o.Edit(); err != nil {
			t.Fatal(err)
		}
		groups[i] = m.sys.NewGroup("changes")
		n := 0
		err = groups[i].Handle(1, func(at, v int64) {
			views[i][at] += views[i][(at+v)%size] + byte(v) // what it does depends on the order
			if n++; n == 2*changes {
				done <- struct{}{}
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := groups[i].Join(within(t)); err != nil {
			t.Fatal(err)
		}
	}
	ctx := within(t)
	for _, g := range groups {
		go func() {
			for i := range int64(changes) {
				if err := g.OrderedSend(ctx, 1, i*7919%size, i); err != nil {
					t.Error(err)
					return
				}
			}
		}()
	}
	<-done
	<-done
	if !bytes.Equal(views[0], views[1]) {
		t.Error("the copies differ")
	}
}

// One request for all copies, or one for each, come to the same; together they cost fewer bytes.
//
// rows: OOB-41
func TestTogetherOrOneByOne(t *testing.T) {
	const size = 2 << 20
	c := newCluster(t, 4)
	a := c.members[0]
	b := a.put(t, "together", size)
	if err := a.store.Replicate("together", c.addresses(0, 1, 2, 3)).Wait(within(t)); err != nil {
		t.Fatal(err)
	}
	sent := func() (n uint64) {
		for _, m := range c.members {
			n += m.store.Stats().SentBytes
		}
		return n
	}
	first := sent()
	d := a.put(t, "one by one", size)
	for i := range 3 {
		to := c.addresses(0, 1, 2, 3)[:i+2]
		if err := a.store.Replicate("one by one", to).Wait(within(t)); err != nil {
			t.Fatal(err)
		}
	}
	if second := sent() - first; second < 2*first {
		t.Errorf("%d bytes together, %d one by one", first, second)
	}
	for _, m := range c.members {
		m.want(t, "together", b)
		m.want(t, "one by one", d)
	}
}

// A receiver learns of an object by itself, though its sender dies before it can tell anybody.
//
// rows: OOB-30
func TestNotifiedThoughTheSenderDies(t *testing.T) {
	c := newCluster(t, 2, func(c *cluster) { c.mortal = true })
	got := make(chan string, 1)
	c.members[1].store.OnArrive(func(o *Object) {
		c.members[0].sys.Kill()
		got <- o.Name()
		if err := o.Close(); err != nil {
			t.Error(err)
		}
	})
	c.members[0].put(t, "f", 1000)
	c.members[0].store.Replicate("f", c.addresses(0, 1))
	if name := <-got; name != "f" {
		t.Errorf("notified of %q", name)
	}
	_, err := c.members[1].store.Await(within(t), func(l []Info) bool { return len(l) == 1 && len(l[0].Holders) == 1 })
	if err != nil {
		t.Fatal(err)
	}
	if err := c.members[1].store.Delete("f").Wait(within(t)); err != nil {
		t.Fatal(err)
	}
	if err := c.members[1].store.uses(within(t), 0); err != nil {
		t.Error(err)
	}
}

// Each transfer that may run has a multicast address of its own, in the configured range.
//
// rows: OOB-16
func TestChannels(t *testing.T) {
	c := newCluster(t, 1, func(c *cluster) {
		c.system = append(c.system, withNetwork(vsync.Network{ChannelLow: 1000, ChannelHigh: 3000}))
		c.store = append(c.store, WithMaxTransfers(200))
	})
	seen := map[netip.Addr]bool{}
	for slot := range 200 {
		x := &session{transfer: catalog.Transfer{Slot: slot}}
		p := c.members[0].store.castPath(x)
		b := p.Group.As4()
		if n := binary.BigEndian.Uint32(b[:]) - 239<<24; n < 1000 || n > 3000 {
			t.Errorf("slot %d has %v", slot, p.Group)
		}
		seen[p.Group] = true
	}
	if len(seen) != 200 {
		t.Errorf("%d addresses for 200 transfers", len(seen))
	}
}

// As many transfers as run at once by default use addresses that are within the limit of the system's and that no
// group uses for its messages.
//
// rows: IPM-04, OOB-14
func TestChannelsWithinTheLimit(t *testing.T) {
	const low = 1000
	c := newCluster(t, 1, func(c *cluster) {
		c.system = append(c.system, withNetwork(vsync.Network{ChannelLow: low, ChannelHigh: 3000}))
	})
	s := c.members[0].store
	if s.path.Bulk+uint32(s.path.BulkCount) != low+25 || s.catalog.Limit() != s.path.BulkCount {
		t.Errorf("%d channels from %d on for %d transfers at once", s.path.BulkCount, s.path.Bulk, s.catalog.Limit())
	}
	seen := map[netip.Addr]bool{}
	for slot := range s.catalog.Limit() {
		x := &session{transfer: catalog.Transfer{Slot: slot}}
		b := s.castPath(x).Group.As4()
		if n := binary.BigEndian.Uint32(b[:]) - 239<<24; n < s.path.Bulk || n >= low+25 {
			t.Errorf("slot %d has channel %d", slot, n)
		}
		seen[netip.AddrFrom4(b)] = true
	}
	if len(seen) != s.catalog.Limit() {
		t.Errorf("%d addresses for %d transfers", len(seen), s.catalog.Limit())
	}
}

// The limit of transfers is a parameter of the system.
//
// rows: PAR-37
func TestLimitOfTheSystem(t *testing.T) {
	t.Setenv("ISIS_OOBMAXIPMCADDRS", "2")
	c := newCluster(t, 2)
	if n := c.members[0].store.catalog.Limit(); n != 2 {
		t.Errorf("%d transfers at once", n)
	}
	for i := range 6 {
		c.members[0].put(t, fmt.Sprint("big ", i), 2<<20)
	}
	var last *Request
	for i := range 6 {
		last = c.members[0].store.Replicate(fmt.Sprint("big ", i), c.addresses(0, 1))
	}
	for most := 0; last.Err() == nil; {
		if most = max(most, c.members[1].store.Stats().Transfer); most > 2 {
			t.Fatalf("%d transfers at once", most)
		}
		select {
		case <-last.Done():
			return
		default:
		}
	}
}

// A target without room is named in the error; the others get their copies, and nothing is left behind.
func TestTargetWithoutRoom(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("none", dir, "tmpfs", 0, "size=1m"); err != nil {
		netns.Require(t, "netns", fmt.Errorf("a full file system: %w", err))
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	c := newCluster(t, 2)
	c.store = append(c.store, WithDirectory(dir))
	full := c.join()
	c.settle()
	b := c.members[0].put(t, "f", 3<<20)
	err := c.members[0].store.Replicate("f", c.addresses(0, 1, 2)).Wait(within(t))
	var partial *PartialError
	if !errors.As(err, &partial) || !slices.Equal(partial.Failed, []vsync.Address{full.sys.Address()}) {
		t.Errorf("replicate: %v", err)
	}
	c.members[1].want(t, "f", b)
	if err := full.store.uses(within(t), 0); err != nil {
		t.Error(err)
	}
	if _, err := full.store.Create("g", 3<<20); !errors.Is(err, ErrNoSpace) {
		t.Errorf("create: %v", err)
	}
}

// Connections that say nothing, or nonsense, or name transfers that there are not, hold nobody up.
func TestForeignConnections(t *testing.T) {
	c := newCluster(t, 3, func(c *cluster) { c.system = append(c.system, withNetwork(vsync.Network{TCPOnly: true})) })
	for i := range 60 {
		conn, err := net.Dial("tcp", c.members[1].store.listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		b := append([]byte{'K', 'H', 'B', 1}, make([]byte, 100)...)
		switch i % 3 {
		case 0:
			b = b[:0]
		case 1:
			b = randomBytes(uint64(i), 4096)
		}
		if _, err := conn.Write(b); err != nil {
			t.Fatal(err)
		}
	}
	b := c.members[0].put(t, "f", 1<<20)
	if err := c.members[0].store.Replicate("f", c.addresses(0, 1, 2)).Wait(within(t)); err != nil {
		t.Fatal(err)
	}
	c.members[1].want(t, "f", b)
	if n := c.members[1].store.Stats().LinksRefused; n < 20 {
		t.Errorf("%d connections were refused", n)
	}
}

// Values travel in an object as the bytes that the codec makes of them.
//
// rows: OOB-35
func TestMarshalled(t *testing.T) {
	c := newCluster(t, 2)
	want := []string{"a", "list", "of strings"}
	a, b := c.members[0], c.members[1]
	body, err := a.sys.Types().Marshal(want, int64(7))
	if err != nil {
		t.Fatal(err)
	}
	o, err := a.store.Create("values", int64(len(body)))
	if err != nil {
		t.Fatal(err)
	}
	copy(o.Bytes(), body)
	if err := errors.Join(a.store.Register(within(t), o), o.Close()); err != nil {
		t.Fatal(err)
	}
	a.store.Replicate("values", c.addresses(0, 1))
	got, err := b.store.Fetch(within(t), "values")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = got.Close() }()
	var list []string
	var n int64
	if err := b.sys.Types().Unmarshal(got.Bytes(), &list, &n); err != nil || !slices.Equal(list, want) || n != 7 {
		t.Errorf("%q %d %v", list, n, err)
	}
}

// A large message stays among the messages.
//
// rows: OOB-46
func TestLargeMessagesStayInBand(t *testing.T) {
	c := newCluster(t, 2)
	got := make(chan int, 1)
	var groups []*vsync.Group
	var stores []*Store
	for i, m := range c.members {
		g := m.sys.NewGroup("with messages")
		s, err := Attach(g)
		if err != nil {
			t.Fatal(err)
		}
		err = g.Handle(1, func(b []byte) {
			if i == 1 {
				got <- len(b)
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := g.Join(within(t)); err != nil {
			t.Fatal(err)
		}
		groups, stores = append(groups, g), append(stores, s)
		t.Cleanup(func() { _ = s.Close() })
	}
	if err := groups[0].OrderedSend(within(t), 1, make([]byte, 1<<20)); err != nil {
		t.Fatal(err)
	}
	if n := <-got; n != 1<<20 {
		t.Errorf("%d bytes arrived", n)
	}
	for _, s := range stores {
		if st := s.Stats(); st.SentBytes+st.LinkSent > 0 {
			t.Errorf("the store sent: %+v", st)
		}
	}
}

// Whoever dies whenever: survivors that were to get an object get it, with the right bytes, as long as one that held it
// lives, and otherwise are told that it is lost.
//
// rows: OOB-31, OOB-42, OOB-40
func TestRandomFaults(t *testing.T) {
	runs := 8
	if testing.Short() {
		runs = 3
	}
	if n, err := strconv.Atoi(os.Getenv("KHAMSIN_FAULTS")); err == nil {
		runs = n
	}
	whole, lost := 0, 0
	for seed := range uint64(runs) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			w, l := faultRun(t, seed)
			whole, lost = whole+w, lost+l
		})
	}
	t.Logf("%d runs: %d copies whole and right, %d told that the object is lost", runs, whole, lost)
}

func faultRun(t *testing.T, seed uint64) (whole, lost int) {
	rng := rand.New(rand.NewPCG(seed, 4))
	c := newCluster(t, 5, func(c *cluster) {
		c.mortal = true
		switch rng.IntN(3) {
		case 0:
			if os.Getenv(suiteOverXDP) == "" {
				c.system = append(c.system, withNetwork(vsync.Network{TCPOnly: true}))
			}
		case 1:
			c.store = append(c.store, WithReceiveLoss(0.3*rng.Float64()))
		}
	})
	size := 1 + rng.IntN(24<<20)
	b := c.members[0].put(t, "f", size)
	holders := 1 + rng.IntN(2)
	if err := c.members[0].store.Replicate("f", c.addresses(0, 1)[:holders]).Wait(within(t)); err != nil {
		t.Fatal(err)
	}
	r := c.members[4].store.Replicate("f", c.addresses(0, 1, 2, 3, 4))
	deaths := 1 + rng.IntN(2)
	dead := rng.Perm(4)[:deaths] // the one that asked lives
	for _, i := range dead {
		time.Sleep(time.Duration(rng.IntN(20)) * time.Millisecond)
		c.members[i].sys.Kill()
	}
	survives := false
	for i := range holders {
		survives = survives || !slices.Contains(dead, i)
	}
	for i := 2; i < 5; i++ {
		if slices.Contains(dead, i) {
			continue
		}
		o, err := c.members[i].store.Fetch(within(t), "f")
		switch {
		case err == nil:
			if !bytes.Equal(o.Bytes(), b) {
				t.Errorf("seed %d: member %d has other bytes", seed, i)
			}
			whole++
			_ = o.Close()
		case errors.Is(err, ErrLost) && !survives:
			lost++
		default:
			t.Errorf("seed %d: member %d: %v, a holder survives: %v", seed, i, err, survives)
		}
	}
	if err := r.Wait(within(t)); err != nil && (!errors.Is(err, ErrLost) || survives) {
		t.Errorf("seed %d: the request: %v", seed, err)
	}
	return whole, lost
}

// Messages of the group pass a transfer: they are delivered everywhere while it runs, in both directions, many times
// over. How much later than without one khamsin perf bulk --traffic tells.
//
// rows: OOB-37
func TestMessagesPassTransfers(t *testing.T) {
	c := newCluster(t, 3, func(c *cluster) { c.store = append(c.store, WithReceiveLoss(0.98)) }) // it takes long
	c.members[0].put(t, "f", 64<<20)
	request := c.members[0].store.Replicate("f", c.addresses(0, 1, 2))
	moving := func(l []Info) bool { return len(l) > 0 && l[0].State == Moving }
	if _, err := c.members[0].store.Await(within(t), moving); err != nil {
		t.Fatal(err)
	}
	for i := range 100 {
		m := c.members[i%3]
		if err := m.group.SendBytes(within(t), vsync.Ordered, 0, []byte{byte(i)}); err != nil {
			t.Fatal(err)
		}
		if err := m.group.Flush(within(t)); err != nil {
			t.Fatal(err)
		}
	}
	if i, err := c.members[0].store.Lookup("f"); err != nil || i.State != Moving || request.Err() != nil {
		t.Errorf("the transfer ended before the messages were delivered: %+v %v %v", i, err, request.Err())
	}
}
