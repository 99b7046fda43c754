package oob

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/khamsin-io/khamsin/bpf"
	"github.com/khamsin-io/khamsin/dataplane"
	"github.com/khamsin-io/khamsin/internal/netns"
	"github.com/khamsin-io/khamsin/transports/xdp"
	"github.com/khamsin-io/khamsin/vsync"
)

const (
	pastPrefix = "kxdp-oob"

	// suiteOverXDP makes the members of all tests' clusters hosts with AF_XDP.
	suiteOverXDP = "KHAMSIN_OOB_OVER_XDP"
)

func requireXDP(tb testing.TB) {
	tb.Helper()
	netns.Require(tb, "xdp", bpf.ProbeDemux())
}

// hosts are where the members of a cluster are, when they are not all on the loopback.
type hosts struct {
	t    testing.TB
	all  []*netns.Host
	used int
	open func(host int) vsync.TransportFactory
}

// withHosts puts members on hosts of their own, the first one on the first, over AF_XDP unless open says otherwise.
func withHosts(n int, o netns.Options, open func(host int) vsync.TransportFactory) func(c *cluster) {
	if open == nil {
		open = func(int) vsync.TransportFactory {
			return vsync.XDP(vsync.XDPOptions{Bulk: vsync.BulkByXDP})
		}
	}
	return func(c *cluster) {
		requireXDP(c.t)
		c.hosts = &hosts{t: c.t, all: netns.Bridged(c.t, pastPrefix, n, o), open: open}
		c.system = append(c.system, vsync.WithInterfaces(netns.Interface))
		c.discovery = 600 * time.Millisecond // there is a network between them, and one that starts
		logs := &logged{}
		c.log = vsync.WithLogger(slog.New(slog.NewTextHandler(logs, nil)))
		c.t.Cleanup(func() {
			if c.t.Failed() {
				c.t.Log(logs.String())
			}
		})
	}
}

// hostsMax is how many hosts the clusters of the suite need: five members, an ORACLE, a joiner.
const hostsMax = 7

// overXDP puts the members of any test on hosts, and says at its end how much went past the stack.
func overXDP(c *cluster) {
	withHosts(hostsMax, netns.Options{}, nil)(c)
	c.t.Cleanup(func() {
		var sent, received uint64
		for _, m := range c.members {
			st := m.store.Stats()
			sent, received = sent+st.XDPSent, received+st.XDPReceived
		}
		c.t.Logf("past the stack: %d sent, %d received", sent, received)
	})
}

func (h *hosts) next() *netns.Host {
	h.t.Helper()
	if h.used == len(h.all) {
		h.t.Fatalf("all %d hosts are in use", h.used)
	}
	h.used++
	return h.all[h.used-1]
}

// transport opens the transport of the host whose turn it is.
func (h *hosts) transport(c *vsync.Config) (dataplane.Transport, error) {
	return h.open(h.used - 1)(c)
}

// attach makes a store on the host whose turn it is.
func (h *hosts) attach(g *vsync.Group, options []Option) (s *Store, err error) {
	host := h.all[h.used-1]
	options = append(options[:len(options):len(options)], func(s *settings) {
		s.inside = func(work func() error) error {
			fd, err := unix.Open("/run/netns/"+host.Name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				return err
			}
			err = unix.Setns(fd, unix.CLONE_NEWNET) // the thread ends with the work
			if _ = unix.Close(fd); err != nil {
				return err
			}
			return work()
		}
	})
	host.Do(func() { s, err = Attach(g, options...) })
	return s, err
}

// All packets of big objects go past the stack, without and with losses, open and sealed, over both families and in
// jumbo frames; small objects go by UDP.
//
// rows: OOB-07, OOB-19, OOB-33
func TestPastTheStack(t *testing.T) {
	requireXDP(t)
	key := vsync.StaticKey(make([]byte, vsync.KeyLen))
	for _, tc := range []struct {
		name    string
		options netns.Options
		loss    float64
		change  func(c *cluster)
	}{
		{"plain", netns.Options{}, 0, nil},
		{"1 % lost", netns.Options{}, 0.01, nil},
		{"5 % lost", netns.Options{}, 0.05, nil},
		{"sealed", netns.Options{}, 0.01, func(c *cluster) { c.group = append(c.group, vsync.WithGroupKey(key)) }},
		{"files", netns.Options{}, 0.01, func(c *cluster) {
			c.store = append(c.store, WithDirectory(c.t.TempDir()))
		}},
		{"jumbo", netns.Options{MTU: 9000}, 0.01, nil},
		{"ipv6", netns.Options{IPv6: true}, 0.01, func(c *cluster) {
			config := vsync.DefaultConfig()
			config.Network.IPv6, config.Interfaces = true, []string{netns.Interface}
			c.system = append(c.system, vsync.WithConfig(config))
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := newCluster(t, 4, withHosts(4, tc.options, nil), func(c *cluster) {
				c.store = append(c.store, WithReceiveLoss(tc.loss))
				if tc.change != nil {
					tc.change(c)
				}
			})
			a := c.members[0]
			a.put(t, "small", 100_000)
			if err := a.store.Replicate("small", c.addresses(0, 1, 2, 3)).Wait(within(t)); err != nil {
				t.Fatal(err)
			}
			if st := a.store.Stats(); st.XDPSent != 0 || st.SentPackets == 0 {
				t.Errorf("of the %d packets of a small object %d left past the stack", st.SentPackets, st.XDPSent)
			}
			a.gone(t, "small")
			before := a.store.Stats()
			b := a.put(t, "f", 16<<20+17)
			if err := a.store.Replicate("f", c.addresses(0, 1, 2, 3)).Wait(within(t)); err != nil {
				t.Fatal(err)
			}
			for _, m := range c.members {
				m.want(t, "f", b)
			}
			a.gone(t, "f")
			after := a.store.Stats()
			packets, single := after.SentPackets-before.SentPackets, after.Single-before.Single
			if after.XDPSent != packets-single || after.XDPRefused != 0 {
				t.Errorf("of %d packets, %d to one receiver alone, %d left past the stack; %d refusals", packets,
					single, after.XDPSent, after.XDPRefused)
			}
			if unit := uint64(a.store.unit); packets < (16<<20)/unit || tc.options.MTU == 9000 && unit < 8000 {
				t.Errorf("%d packets of %d bytes", packets, unit)
			}
			for i, m := range c.members[1:] {
				st := m.store.Stats()
				if st.XDPReceived < st.ReceivedPackets*8/10 || st.XDPRefused != 0 {
					t.Errorf("receiver %d: of %d packets %d came past the stack; %d refusals", i, st.ReceivedPackets,
						st.XDPReceived, st.XDPRefused)
				}
			}
		})
	}
}

// gone deletes an object, the only one, and waits until this member sends nothing of it any more, so that its counters
// agree with each other.
func (m *member) gone(t *testing.T, name string) {
	t.Helper()
	if err := m.store.Delete(name).Wait(within(t)); err != nil {
		t.Fatal(err)
	}
	if err := m.store.uses(within(t), 0); err != nil {
		t.Fatal(err)
	}
}

// Members over UDP and members over AF_XDP understand each other, whichever sends. One that would use AF_XDP and finds
// its queue taken is one over UDP.
func TestPastAndUDPTogether(t *testing.T) {
	taken := func(c *vsync.Config) (dataplane.Transport, error) {
		other, err := xdp.Open(xdp.Config{Interface: netns.Interface, GroupPort: 17999})
		if err != nil {
			return nil, err
		}
		t.Cleanup(func() { _ = other.Close() })
		return vsync.Auto(vsync.XDPOptions{Latency: true, Bulk: vsync.BulkByXDP})(c)
	}
	c := newCluster(t, 4, withHosts(4, netns.Options{}, func(host int) vsync.TransportFactory {
		return [...]vsync.TransportFactory{
			vsync.XDP(vsync.XDPOptions{Bulk: vsync.BulkByXDP}), taken,
			vsync.XDP(vsync.XDPOptions{}), vsync.XDP(vsync.XDPOptions{Bulk: vsync.BulkByXDP, Generic: true}),
		}[host]
	}))
	for i, m := range c.members {
		name := fmt.Sprint("of ", i)
		b := m.put(t, name, 8<<20)
		if err := m.store.Replicate(name, c.addresses(0, 1, 2, 3)).Wait(within(t)); err != nil {
			t.Fatal(err)
		}
		for _, other := range c.members {
			other.want(t, name, b)
		}
	}
	for i, m := range c.members {
		st := m.store.Stats()
		if past := i == 0 || i == 3; past != (st.XDPSent > 0) || past != (st.XDPReceived > 0) || st.XDPRefused != 0 {
			t.Errorf("member %d: %+v", i, st)
		}
	}
}

// Exclusive transports have multicasts dropped that nobody asked for: objects come all the same.
func TestObjectsBesideExclusiveTransports(t *testing.T) {
	for _, bulk := range []vsync.XDPBulk{vsync.BulkByUDP, vsync.BulkByDriver, vsync.BulkByXDP} {
		t.Run(fmt.Sprint(bulk), func(t *testing.T) {
			c := newCluster(t, 3, withHosts(3, netns.Options{}, func(int) vsync.TransportFactory {
				return vsync.XDP(vsync.XDPOptions{Exclusive: true, Bulk: bulk})
			}))
			for _, size := range []int{1000, 4 << 20} {
				name := fmt.Sprint("of ", size)
				b := c.members[0].put(t, name, size)
				if err := c.members[0].store.Replicate(name, c.addresses(0, 1, 2)).Wait(within(t)); err != nil {
					t.Fatal(err)
				}
				c.members[1].want(t, name, b)
				c.members[2].want(t, name, b)
			}
			st := c.members[0].store.Stats()
			if (st.XDPSent > 0) != (bulk == vsync.BulkByXDP) || st.XDPRefused > 0 {
				t.Errorf("%+v", st)
			}
		})
	}
}

// troubled is a transport whose way past the stack fails: at once, or after some calls.
type troubled struct {
	*xdp.Transport
	after int // calls of each outlet and inlet that work
}

func (t troubled) PastStack() dataplane.Bypass {
	return troubledBypass{t.Transport.PastStack(), t.after}
}

type troubledBypass struct {
	dataplane.Bypass
	after int
}

var errTrouble = fmt.Errorf("the queue is taken")

func (b troubledBypass) OpenOutlet(f dataplane.Flow) (dataplane.Outlet, error) {
	if b.after == 0 {
		return nil, errTrouble
	}
	o, err := b.Bypass.OpenOutlet(f)
	return &troubledOutlet{o, b.after}, err
}

func (b troubledBypass) OpenInlet(f dataplane.Flow) (dataplane.Inlet, error) {
	if b.after == 0 {
		return nil, errTrouble
	}
	i, err := b.Bypass.OpenInlet(f)
	return &troubledInlet{i, b.after}, err
}

type troubledOutlet struct {
	dataplane.Outlet
	left int
}

func (o *troubledOutlet) Flush() error {
	if o.left--; o.left < 0 {
		return errTrouble
	}
	return o.Outlet.Flush()
}

type troubledInlet struct {
	dataplane.Inlet
	left int
}

func (i *troubledInlet) Receive(batch []dataplane.Datagram) (int, error) {
	if i.left <= 0 {
		return 0, errTrouble
	}
	n, err := i.Inlet.Receive(batch)
	if n > 0 {
		i.left--
	}
	return n, err
}

// logged collects what is logged.
type logged struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func (l *logged) count(what string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.text.String(), what)
}

// Where there are no sockets past the stack, or they fail in the middle, everything goes by UDP, and that is said once.
func TestPastFallsBack(t *testing.T) {
	requireXDP(t)
	for name, after := range map[string]int{"at once": 0, "in the middle": 20} {
		t.Run(name, func(t *testing.T) {
			logs := &logged{}
			open := func(int) vsync.TransportFactory {
				return func(c *vsync.Config) (dataplane.Transport, error) {
					t, err := vsync.XDP(vsync.XDPOptions{Bulk: vsync.BulkByXDP})(c)
					if err != nil {
						return nil, err
					}
					return troubled{t.(*xdp.Transport), after}, nil
				}
			}
			c := newCluster(t, 3, withHosts(3, netns.Options{}, open), func(c *cluster) {
				c.log = vsync.WithLogger(slog.New(slog.NewTextHandler(logs, nil)))
			})
			for k := range 2 {
				name := fmt.Sprint("f", k)
				b := c.members[0].put(t, name, 8<<20)
				if err := c.members[0].store.Replicate(name, c.addresses(0, 1, 2)).Wait(within(t)); err != nil {
					t.Fatal(err)
				}
				c.members[1].want(t, name, b)
				c.members[2].want(t, name, b)
			}
			for i, m := range c.members {
				st := m.store.Stats()
				if st.XDPRefused != 2 || (st.XDPSent+st.XDPReceived > 0) != (after > 0) {
					t.Errorf("member %d: %+v", i, st)
				}
			}
			if n := logs.count("multicasts go by UDP, not past the stack"); n != 3 {
				t.Errorf("three members said %d times that they do without", n)
			}
		})
	}
}

// More transfers at once than there are frames for go on by UDP.
func TestPastRunsOut(t *testing.T) {
	c := newCluster(t, 2, withHosts(2, netns.Options{}, nil), func(c *cluster) {
		c.store = append(c.store, WithMaxTransfers(12), WithReceiveLoss(0.5)) // they take long, and run at once
	})
	contents := map[string][]byte{}
	var requests []*Request
	for i := range 12 {
		name := fmt.Sprint("f", i)
		contents[name] = c.members[0].put(t, name, 4<<20)
	}
	for name := range contents {
		requests = append(requests, c.members[0].store.Replicate(name, c.addresses(0, 1)))
	}
	for _, r := range requests {
		if err := r.Wait(within(t)); err != nil {
			t.Fatal(err)
		}
	}
	for name, b := range contents {
		c.members[1].want(t, name, b)
	}
	for i, m := range c.members {
		if st := m.store.Stats(); st.XDPRefused == 0 || i == 0 && st.XDPSent == 0 || i == 1 && st.XDPReceived == 0 {
			t.Errorf("member %d: %+v", i, st)
		}
	}
}

// Garbage at the address of a transfer is counted, and changes nothing.
func TestPastGarbage(t *testing.T) {
	c := newCluster(t, 3, withHosts(4, netns.Options{}, nil), func(c *cluster) {
		c.store = append(c.store, WithReceiveLoss(0.5)) // it takes some time
	})
	b := c.members[0].put(t, "f", 32<<20)
	stop := make(chan struct{})
	var thrower sync.WaitGroup
	p := c.members[0].store.castPath(&session{}) // of the first transfer
	to, h := netip.AddrPortFrom(p.Group, p.Port), c.hosts.all[3]
	thrower.Go(func() { h.Do(func() { throw(t, h.IP, to, stop) }) })
	err := c.members[0].store.Replicate("f", c.addresses(0, 1, 2)).Wait(within(t))
	close(stop)
	thrower.Wait()
	if err != nil {
		t.Fatal(err)
	}
	for i, m := range c.members[1:] {
		m.want(t, "f", b)
		if st := m.store.Stats(); st.Malformed == 0 || st.XDPReceived == 0 {
			t.Errorf("receiver %d: %+v", i, st)
		}
	}
}

// throw multicasts packets of all lengths, some of which begin as ours do, from the calling thread's host.
func throw(t *testing.T, from netip.Addr, to netip.AddrPort, stop chan struct{}) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Error(err)
		return
	}
	defer unix.Close(fd)
	if err := errors.Join(
		unix.SetsockoptIPMreqn(fd, unix.IPPROTO_IP, unix.IP_MULTICAST_IF, &unix.IPMreqn{Address: from.As4()}),
		unix.Bind(fd, &unix.SockaddrInet4{Addr: from.As4()})); err != nil {
		t.Error(err)
		return
	}
	rng := randomBytes(9, 1<<16)
	for i := 0; ; i++ {
		select {
		case <-stop:
			return
		case <-time.After(50 * time.Microsecond):
		}
		b := rng[i%1000:][:i%1472]
		if i%3 == 0 && len(b) > 16 {
			b[0] = byte(i % 7)
		}
		_ = unix.Sendto(fd, b, 0, &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())}) // may be full
	}
}
