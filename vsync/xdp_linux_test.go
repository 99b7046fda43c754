package vsync

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/khamsin-io/khamsin/bpf"
	"github.com/khamsin-io/khamsin/dataplane"
	"github.com/khamsin-io/khamsin/internal/netns"
	"github.com/khamsin-io/khamsin/transports/udp"
	"github.com/khamsin-io/khamsin/transports/xdp"
)

const xdpPrefix = "kxdp-vs"

func requireXDP(tb testing.TB) {
	tb.Helper()
	netns.Require(tb, "xdp", bpf.ProbeDemux())
}

// startAt starts a system on a host and closes it when the test ends.
func startAt(t testing.TB, h *netns.Host, f TransportFactory, opts ...Option) *System {
	t.Helper()
	var s *System
	var err error
	ctx := within(t)
	opts = append([]Option{
		WithTransport(f), WithInterfaces(netns.Interface), WithDiscovery(300 * time.Millisecond),
		WithHeartbeat(100 * time.Millisecond), WithSuspectAfter(2 * time.Second), WithMute(),
	}, opts...)
	h.Do(func() { s, err = Start(context.WithoutCancel(ctx), opts...) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// kept returns a factory that remembers the transport it opened.
func kept(f TransportFactory, opened *dataplane.Transport) TransportFactory {
	return func(c *Config) (dataplane.Transport, error) {
		t, err := f(c)
		*opened = t
		return t, err
	}
}

// orderOf returns what a member delivered, in its order, from the first message of a view on.
func orderOf(m *member, from ViewID) []uint64 {
	var numbers []uint64
	for _, e := range m.entries() {
		if !e.Change && e.View >= from {
			numbers = append(numbers, e.Number)
		}
	}
	return numbers
}

// Three systems on three hosts, over AF_XDP: one order for all, with a join in the middle, and past the stack.
func TestSystemsOverXDP(t *testing.T) {
	requireXDP(t)
	for name, o := range map[string]XDPOptions{"": {}, "exclusive": {Exclusive: true}, "generic": {Generic: true}} {
		t.Run(name, func(t *testing.T) { testSystems(t, XDP(o), true) })
	}
}

// The same over UDP with the filter in the kernel.
func TestSystemsOverFilteredUDP(t *testing.T) {
	netns.Require(t, "xdp", bpf.ProbeFilter())
	testSystems(t, FilteredUDP(), false)
}

func testSystems(t *testing.T, f TransportFactory, past bool) {
	hosts := netns.Bridged(t, xdpPrefix, 3, netns.Options{})
	var opened [3]dataplane.Transport
	var members []*member
	var systems []*System
	const each = 300
	var wg sync.WaitGroup
	sendAll := func(m *member, base uint64) {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for n := range uint64(each) {
				m.send(t, Ordered, base+n)
			}
		}()
	}
	for i, h := range hosts {
		s := startAt(t, h, kept(f, &opened[i]))
		systems = append(systems, s)
		members = append(members, joined(t, s, "g"))
		sendAll(members[i], uint64(i)*1000)
	}
	wg.Wait()
	for _, m := range members {
		m.untilSize(t, 3)
		m.untilCount(t, 3*each)
	}
	from := members[2].entries()[0].View
	want := orderOf(members[0], from)
	for i, m := range members {
		if got := orderOf(m, from); !slices.Equal(got, want) {
			t.Errorf("member %d delivers another order: %d and %d messages", i, len(got), len(want))
		}
		if !slices.Equal(m.state, members[0].state) || len(m.state) != 3*each {
			t.Errorf("member %d has another state: %d messages", i, len(m.state))
		}
	}
	checkNumbers(t, members[0].state, each)
	if past {
		checkBypass(t, opened[:])
	}
	systems[1].Kill()
	for _, m := range []*member{members[0], members[2]} {
		m.untilSize(t, 2)
		m.send(t, Safe, 9999)
	}
	for _, m := range []*member{members[0], members[2]} {
		m.untilCount(t, 3*each+2)
		if v := m.group.View(); v.ID != members[0].group.View().ID || v.Contains(systems[1].Address()) {
			t.Errorf("view after a crash: %v", v)
		}
	}
}

// checkNumbers checks that each sender's numbers are there, once each and in the order in which they were sent.
func checkNumbers(t *testing.T, state []uint64, each int) {
	t.Helper()
	next := map[uint64]uint64{}
	for _, n := range state {
		if sender := n / 1000; n%1000 != next[sender] {
			t.Fatalf("sender %d: number %d when %d was due", sender, n%1000, next[sender])
		} else {
			next[sender]++
		}
	}
	for sender := range uint64(3) {
		if next[sender] != uint64(each) {
			t.Errorf("sender %d: %d of %d messages", sender, next[sender], each)
		}
	}
}

// checkBypass checks that packets went past the stack.
func checkBypass(t *testing.T, opened []dataplane.Transport) {
	t.Helper()
	for i, tr := range opened {
		sent, received, copied := tr.(*xdp.Transport).Bypass()
		st := tr.Stats()
		t.Logf("host %d: %d of %d packets sent and %d of %d received past the stack, %d copied",
			i, sent, st.SentPackets, received, st.ReceivedPackets, copied)
		// Until the transport has learnt about its surroundings packets leave through the stack; they come past it
		// always.
		if sent == 0 || received < st.ReceivedPackets*9/10 {
			t.Errorf("host %d: packets go through the stack", i)
		}
	}
}

// Without privileges XDP fails and says why, and Auto goes on with UDP and says the same in the log.
func TestAutoFallsBack(t *testing.T) {
	requireXDP(t)
	h := netns.Pair(t, xdpPrefix, netns.Options{})[0]
	var log bytes.Buffer
	c := DefaultConfig()
	c.Interfaces, c.Logger = []string{netns.Interface}, slog.New(slog.NewTextHandler(&log, nil))
	open := func(f TransportFactory, drop bool) (tr dataplane.Transport, err error) {
		h.Do(func() {
			if drop {
				defer netns.DropPrivileges(t)()
			}
			tr, err = f(&c)
		})
		return tr, err
	}
	missing := &bpf.MissingError{Need: bpf.NeedCapability}
	if _, err := open(XDP(XDPOptions{}), true); !errors.Is(err, missing) {
		t.Errorf("XDP: %v", err)
	}
	if _, err := open(FilteredUDP(), true); err == nil {
		t.Error("FilteredUDP works without privileges")
	}
	tr, err := open(Auto(XDPOptions{}), true)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := tr.(*udp.Transport); !ok || !strings.Contains(log.String(), "CAP_NET_ADMIN") {
		t.Errorf("%T, log %q", tr, log.String())
	}
	must(tr.Close())
	log.Reset()
	if tr, err = open(Auto(XDPOptions{}), false); err != nil { // this driver copies
		t.Fatal(err)
	}
	if _, ok := tr.(*udp.Transport); !ok || !strings.Contains(log.String(), "super-packets over UDP carry more") {
		t.Errorf("with privileges Auto opens %T, log %q", tr, log.String())
	}
	must(tr.Close())
	if tr, err = open(Auto(XDPOptions{Latency: true}), false); err != nil {
		t.Fatal(err)
	}
	if _, ok := tr.(*xdp.Transport); !ok || !strings.Contains(c.choice, "latency") {
		t.Errorf("for latency Auto opens %T, since %q", tr, c.choice)
	}
	second, err := open(Auto(XDPOptions{Latency: true}), false) // the queue is taken
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := second.(*udp.Transport); !ok || !strings.Contains(log.String(), "another process has it") {
		t.Errorf("%T, log %q", second, log.String())
	}
	must(errors.Join(tr.Close(), second.Close()))
	log.Reset()
	c.Interfaces = []string{loopback}
	if tr, err = open(Auto(XDPOptions{}), false); err != nil {
		t.Fatal(err)
	}
	if _, ok := tr.(*udp.Transport); !ok || log.Len() != 0 {
		t.Errorf("on loopback: %T, log %q", tr, log.String())
	}
	must(tr.Close())
	if _, err := open(XDP(XDPOptions{}), false); err == nil || !strings.Contains(err.Error(), "no Ethernet") {
		t.Errorf("XDP on loopback: %v", err)
	}
}

// The choice between two transports that both work.
func TestXDPPays(t *testing.T) {
	for _, c := range []struct{ zeroCopy, latency, want bool }{
		{false, false, false}, {false, true, true}, {true, false, true}, {true, true, true},
	} {
		if got, why := xdpPays(c.zeroCopy, c.latency); got != c.want || why == "" {
			t.Errorf("zero-copy %v, latency %v: %v, %q", c.zeroCopy, c.latency, got, why)
		}
	}
}

// A system shows which transport it uses, and why when that was chosen.
func TestStateShowsTheTransport(t *testing.T) {
	requireXDP(t)
	h := netns.Pair(t, xdpPrefix, netns.Options{})[0]
	for _, c := range []struct {
		options      XDPOptions
		name, choice string
	}{{XDPOptions{}, "udp", "super-packets"}, {XDPOptions{Latency: true}, "xdp", "latency is asked for"}} {
		s := startAt(t, h, Auto(c.options), WithFastStart())
		if st := s.State(); st.Transport != c.name || !strings.Contains(st.Choice, c.choice) {
			t.Errorf("%q, %q; want %q because of %q", st.Transport, st.Choice, c.name, c.choice)
		}
		must(s.Close())
	}
}
