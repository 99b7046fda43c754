package oob

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/khamsin-io/khamsin/dataplane"
	"github.com/khamsin-io/khamsin/dataplane/transporttest"
	"github.com/khamsin-io/khamsin/transports/mem"
	"github.com/khamsin-io/khamsin/vsync"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 30 * time.Second

func within(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// member is one process of a test's group.
type member struct {
	sys   *vsync.System
	group *vsync.Group
	store *Store
}

// cluster starts members whose messages stay in this process, and whose bulk packets go over the loopback.
type cluster struct {
	t         testing.TB
	hub       *mem.Hub
	system    []vsync.Option
	group     []vsync.GroupOption
	store     []Option
	suspect   time.Duration
	sides     *transporttest.Sides // they write into each other's memory
	mortal    bool                 // members die: the ORACLE is a process that does not
	log       vsync.Option
	discovery time.Duration
	hosts     *hosts // nil: they are all on the loopback
	members   []*member
}

func newCluster(t testing.TB, n int, change ...func(c *cluster)) *cluster {
	t.Helper()
	c := &cluster{t: t, hub: mem.NewHub(), suspect: 3 * time.Second, log: vsync.WithMute(),
		discovery: 60 * time.Millisecond}
	for _, f := range change {
		f(c)
	}
	if os.Getenv(suiteOverXDP) != "" && c.hosts == nil {
		overXDP(c)
	}
	if c.mortal {
		sys, err := c.start(vsync.WithOracleSize(1))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = sys.Close() })
	}
	for range n {
		c.join()
	}
	c.settle()
	return c
}

func (c *cluster) options(more ...vsync.Option) []vsync.Option {
	suspect := c.suspect
	if c.mortal {
		suspect = 400 * time.Millisecond
	}
	transport := c.transport
	if c.hosts != nil {
		transport = c.hosts.transport
	}
	return append(append(slices.Clone(c.system),
		vsync.WithTransport(transport), vsync.WithDiscovery(c.discovery),
		vsync.WithHeartbeat(50*time.Millisecond), vsync.WithSuspectAfter(suspect), c.log,
	), more...)
}

// transport opens a transport inside of this process.
func (c *cluster) transport(config *vsync.Config) (dataplane.Transport, error) {
	t, err := vsync.Mem(c.hub)(config)
	if err == nil && c.sides != nil {
		t = sidedTransport{t, c.sides.Side()}
	}
	return t, err
}

// sidedTransport is a transport with one-sided writes.
type sidedTransport struct {
	dataplane.Transport
	*transporttest.Side
}

// start starts a system, on the next host where there are hosts.
func (c *cluster) start(more ...vsync.Option) (sys *vsync.System, err error) {
	options := c.options(more...)
	if c.hosts == nil {
		return vsync.Start(context.Background(), options...)
	}
	c.hosts.next().Do(func() { sys, err = vsync.Start(context.Background(), options...) })
	return sys, err
}

func (c *cluster) join() *member {
	c.t.Helper()
	sys, err := c.start(vsync.WithEligible(!c.mortal))
	if err != nil {
		c.t.Fatal(err)
	}
	m := &member{sys: sys, group: sys.NewGroup("objects of "+c.t.Name(), c.group...)}
	if c.hosts == nil {
		m.store, err = Attach(m.group, c.store...)
	} else {
		m.store, err = c.hosts.attach(m.group, c.store)
	}
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() {
		_ = sys.Close()
		_ = m.store.Close()
	})
	if err := m.group.Join(within(c.t)); err != nil {
		c.t.Fatal(err)
	}
	c.members = append(c.members, m)
	return m
}

// settle waits until all members know where all others' packets go.
func (c *cluster) settle() {
	c.t.Helper()
	ctx := within(c.t)
	for _, m := range c.members {
		for {
			changed := m.store.Changed()
			if m.store.members() == len(c.members) {
				break
			}
			select {
			case <-changed:
			case <-ctx.Done():
				c.t.Fatal("the members do not find each other")
			}
		}
	}
}

// members returns how many members have said where their packets go.
func (s *Store) members() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := s.group.View()
	for i := range v.Size() {
		if m := s.catalog.Member(v.Members[i]); m != nil && m.Unit > 0 {
			n++
		}
	}
	return n
}

func (c *cluster) addresses(numbers ...int) (list []vsync.Address) {
	for _, i := range numbers {
		list = append(list, c.members[i].sys.Address())
	}
	return list
}

func randomBytes(seed uint64, n int) []byte {
	rng := rand.New(rand.NewPCG(seed, 1))
	b := make([]byte, n)
	for i := 0; i+8 <= n; i += 8 {
		v := rng.Uint64()
		for k := range 8 {
			b[i+k] = byte(v >> (8 * k))
		}
	}
	return b
}

// put registers random bytes and returns them.
func (m *member) put(t testing.TB, name string, size int) []byte {
	t.Helper()
	o, err := m.store.Create(name, int64(size))
	if err != nil {
		t.Fatal(err)
	}
	b := randomBytes(uint64(len(name))+uint64(size), size)
	copy(o.Bytes(), b)
	if err := m.store.Register(within(t), o); err != nil {
		t.Fatal(err)
	}
	if err := o.Close(); err != nil {
		t.Fatal(err)
	}
	return b
}

// want checks that a member gets an object with some bytes.
func (m *member) want(t testing.TB, name string, b []byte) {
	t.Helper()
	o, err := m.store.Fetch(within(t), name)
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	if !bytes.Equal(o.Bytes(), b) {
		t.Errorf("object %s differs", name)
	}
}

// modes are the ways in which bytes travel, and who may read them.
func modes() map[string]func(c *cluster) {
	key := vsync.StaticKey(bytes.Repeat([]byte{3}, vsync.KeyLen))
	unicast := func(c *cluster) { c.system = append(c.system, withNetwork(vsync.Network{UnicastOnly: true})) }
	tcp := func(c *cluster) { c.system = append(c.system, withNetwork(vsync.Network{TCPOnly: true})) }
	return map[string]func(c *cluster){
		"multicast": func(*cluster) {},
		"unicast":   unicast,
		"tcp":       tcp,
		"multicast, group key": func(c *cluster) {
			c.group = append(c.group, vsync.WithGroupKey(key))
		},
		"tcp, system key":  func(c *cluster) { tcp(c); c.system = append(c.system, vsync.WithSystemKey(key)) },
		"multicast, files": func(c *cluster) { c.store = append(c.store, WithDirectory(c.t.TempDir())) },
		"multicast, loss":  func(c *cluster) { c.store = append(c.store, WithReceiveLoss(0.05)) },
	}
}

func withNetwork(n vsync.Network) vsync.Option {
	c := vsync.DefaultConfig()
	c.Network = n
	return vsync.WithConfig(c)
}

// rows: OOB-01, OOB-02, OOB-06, OOB-07, OOB-08, OOB-12, OOB-13, OOB-17, OOB-18, OOB-20, OOB-23, OOB-26, OOB-27
func TestReplicate(t *testing.T) {
	for name, mode := range modes() {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, 4, mode)
			a := c.members[0]
			b := a.put(t, "f", 5<<20+17)
			_, err := c.members[1].store.Await(within(t), func(l []Info) bool {
				return len(l) == 1 &&
					len(l[0].Holders) == 1
			})
			if err != nil {
				t.Fatal(err)
			}
			empty := c.members[1].put(t, "nothing", 0)
			if err := a.store.Replicate("nothing", c.addresses(0, 1, 2)).Wait(within(t)); err != nil {
				t.Fatal(err)
			}
			c.members[2].want(t, "nothing", empty)
			done := make(chan error, 1)
			r := c.members[1].store.Replicate("f", c.addresses(0, 2, 3))
			r.Then(func(err error) { done <- err })
			c.members[2].want(t, "f", b)
			c.members[3].want(t, "f", b)
			if err := <-done; err != nil {
				t.Fatal(err)
			}
			if i, err := c.members[1].store.Lookup("f"); err != nil || len(i.Holders) != 3 || i.State != Settled ||
				i.Local {
				t.Errorf("%+v %v", i, err)
			}
			if err := a.store.Replicate("f", c.addresses(3)).Wait(within(t)); err != nil {
				t.Fatal(err)
			}
			if n := len(a.store.copyNames()); n != 0 && slices.Contains(a.store.copyNames(), "f") {
				t.Error("a member that is not listed keeps its copy")
			}
			if err := a.store.Delete("f").Wait(within(t)); err != nil {
				t.Fatal(err)
			}
			if _, err := a.store.Fetch(within(t), "f"); !errors.Is(err, ErrDeleted) {
				t.Errorf("fetch of a deleted object: %v", err)
			}
		})
	}
}

func (s *Store) copyNames() (names []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for n := range s.copies {
		names = append(names, n)
	}
	return names
}

// rows: OOB-04, OOB-09, OOB-11, OOB-24, OOB-25, OOB-43
func TestErrors(t *testing.T) {
	c := newCluster(t, 2)
	a := c.members[0].store
	for _, name := range []string{"", ".", "..", "a/b", "a\\b", "a\x00", "nul:", "x.", "x ", string([]byte{0xff}),
		string(make([]byte, 300))} {
		if _, err := a.Create(name, 1); !errors.Is(err, ErrName) {
			t.Errorf("name %q: %v", name, err)
		}
	}
	check := func(what string, err, want error) {
		t.Helper()
		if !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", what, err, want)
		}
	}
	check("unknown", a.Replicate("none", c.addresses(0)).Wait(within(t)), ErrNotFound)
	c.members[0].put(t, "f", 100)
	check("move in one call", a.Replicate("f", c.addresses(1)).Wait(within(t)), ErrLastCopy)
	stranger := c.addresses(0)[0]
	stranger.Incarnation++
	check("a process that is no member", a.Replicate("f", []vsync.Address{stranger}).Wait(within(t)),
		vsync.ErrNotMember)
	o, err := c.members[1].store.Create("f", 3)
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	check("the name is taken", c.members[1].store.Register(within(t), o), ErrExists)
	waiting := make(chan error, 1)
	go func() {
		_, err := c.members[1].store.Fetch(within(t), "f")
		waiting <- err
	}()
	short, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	_, err = a.Fetch(short, "later")
	check("fetch of what does not come", err, context.DeadlineExceeded)
	if err := a.Delete("f").Wait(within(t)); err != nil {
		t.Fatal(err)
	}
	check("deleted while fetch waits", <-waiting, ErrDeleted)
	_, err = a.Create("big", 1<<50)
	check("no memory", err, ErrNoSpace)
	_, err = Attach(c.members[0].sys.NewGroup("other"), WithMaxTransfers(0))
	if err == nil {
		t.Error("no transfers at all are accepted")
	}
}

// A handler cannot wait for what its own group must deliver.
//
// rows: OOB-25
func TestInsideAHandler(t *testing.T) {
	got := make(chan error, 2)
	c := newCluster(t, 1)
	m := c.members[0]
	g := m.sys.NewGroup("with a handler")
	s, err := Attach(g)
	if err != nil {
		t.Fatal(err)
	}
	err = g.Handle(1, func(ctx context.Context, name string) {
		_, err := s.Fetch(ctx, name)
		got <- err
		got <- s.Register(ctx)
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Join(within(t)); err != nil {
		t.Fatal(err)
	}
	if err := g.Send(within(t), 1, "x"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := <-got; !errors.Is(err, vsync.ErrWouldBlock) {
			t.Errorf("%v, want ErrWouldBlock", err)
		}
	}
	if err := g.Leave(within(t)); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// rows: OOB-28, OOB-29, FUT-20
func TestOnArrive(t *testing.T) {
	c := newCluster(t, 2)
	var mu sync.Mutex
	var names []string
	grew := make(chan struct{}, 10)
	for range 2 {
		c.members[1].store.OnArrive(func(o *Object) {
			mu.Lock()
			names = append(names, o.Name())
			mu.Unlock()
			if err := o.Close(); err != nil {
				t.Error(err)
			}
			grew <- struct{}{}
		})
	}
	c.members[0].put(t, "f", 100)
	if err := c.members[0].store.Replicate("f", c.addresses(0, 1)).Wait(within(t)); err != nil {
		t.Fatal(err)
	}
	<-grew
	<-grew
	if !slices.Equal(names, []string{"f", "f"}) {
		t.Errorf("notified of %v", names)
	}
}

// rows: OOB-20, OOB-21
func TestEdit(t *testing.T) {
	c := newCluster(t, 3)
	a, b := c.members[0], c.members[1]
	first := a.put(t, "f", 300_000)
	if err := a.store.Replicate("f", c.addresses(0, 1)).Wait(within(t)); err != nil {
		t.Fatal(err)
	}
	o, err := a.store.Fetch(within(t), "f")
	if err != nil {
		t.Fatal(err)
	}
	e, err := o.Edit()
	if err != nil {
		t.Fatal(err)
	}
	e[1000]++
	b.want(t, "f", first)
	if err := b.store.Replicate("f", c.addresses(0, 1, 2)).Wait(within(t)); err != nil {
		t.Fatal(err)
	}
	c.members[2].want(t, "f", first)
	if err := a.store.Replicate("f", c.addresses(0, 1)).Wait(within(t)); err != nil { // 2 loses it
		t.Fatal(err)
	}
	second := bytes.Clone(e)
	r := a.store.Replicate("f", c.addresses(0, 1, 2))
	e[2000]++
	if err := r.Wait(within(t)); err != nil {
		t.Fatal(err)
	}
	c.members[2].want(t, "f", second)
	b.want(t, "f", first)
	if err := o.Close(); err != nil {
		t.Fatal(err)
	}
}
