package vsync

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"

	"github.com/khamsin-io/khamsin/dataplane"
	"github.com/khamsin-io/khamsin/transports/mem"
)

// channelTap is a transport that notes which channels it sends to, and how many packets to none.
type channelTap struct {
	dataplane.Transport
	mu   *sync.Mutex
	seen map[dataplane.Channel]int
}

func (c *channelTap) Send(batch []dataplane.Packet) (int, error) {
	c.mu.Lock()
	for _, p := range batch {
		c.seen[p.Channel]++
	}
	c.mu.Unlock()
	return c.Transport.Send(batch)
}

// channelTapped starts two systems whose channels are noted.
func channelTapped(t *testing.T, c Config, mu *sync.Mutex, seen map[dataplane.Channel]int) (systems []*System) {
	t.Helper()
	hub := mem.NewHub()
	tapped := func(c *Config) (dataplane.Transport, error) {
		tr, err := Mem(hub)(c)
		if err != nil {
			return nil, err
		}
		return &channelTap{tr, mu, seen}, nil
	}
	for range 2 {
		opts := append([]Option{WithConfig(c)}, quick(hub)...)
		s, err := Start(t.Context(), append(opts, WithTransport(tapped))...)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() })
		systems = append(systems, s)
	}
	return systems
}

// Discovery and the traffic of groups use multicast by default, within the range that is set and no more channels than
// are allowed, however many groups there are; and no group hears another's messages, though they share channels.
//
// rows: IPM-01, IPM-02, IPM-04, IPM-06
func TestChannelsOfGroups(t *testing.T) {
	const low, high, most, groups = 7000, 7100, 4, 12
	var mu sync.Mutex
	seen := map[dataplane.Channel]int{}
	c := DefaultConfig()
	c.Network.ChannelLow, c.Network.ChannelHigh, c.Network.MaxChannels = low, high, most
	systems := channelTapped(t, c, &mu, seen)
	discovery := 0
	mu.Lock()
	for ch, n := range seen {
		if ch != 0 {
			discovery += n
		}
	}
	mu.Unlock()
	if discovery == 0 {
		t.Error("nothing was multicast to find each other")
	}
	var members [2][]*member
	for g := range groups {
		for i, s := range systems {
			members[i] = append(members[i], joined(t, s, fmt.Sprint("group ", g)))
		}
	}
	for g, m := range members[0] {
		m.untilSize(t, 2)
		for n := range uint64(20) {
			m.send(t, Ordered, uint64(g)*1000+n)
		}
	}
	for i := range members {
		for g, m := range members[i] {
			m.untilCount(t, 20)
			for n, got := range m.state {
				if got != uint64(g)*1000+uint64(n) {
					t.Fatalf("group %d got %d as its number %d", g, got, n)
				}
			}
		}
	}
	mu.Lock()
	defer mu.Unlock()
	used := 0
	for ch := range seen {
		if ch == 0 {
			continue
		}
		if used++; ch < low || ch > high {
			t.Errorf("channel %d is not from %d to %d", ch, low, high)
		}
	}
	if used < 2 || used > most {
		t.Errorf("%d channels were used, want 2 to %d: %v", used, most, seen)
	}
}

// Groups and bulk objects together use no more channels than are allowed, within the range.
//
// rows: IPM-02, IPM-04
func TestSharesOfChannels(t *testing.T) {
	for _, c := range []struct {
		n            Network
		groups, bulk int
	}{
		{Network{}, 21, 4},
		{Network{MaxChannels: 4}, 4, 0},
		{Network{MaxChannels: 16}, 12, 4},
		{Network{ChannelLow: 100, ChannelHigh: 109}, 10, 0},
		{Network{ChannelLow: 100, ChannelHigh: 119, MaxChannels: 64}, 16, 4},
	} {
		groups, bulk := c.n.shares()
		if e := c.n.engineChannels(); groups != c.groups || bulk != c.bulk || e.Count != groups {
			t.Errorf("%+v: %d and %d, the engine has %d, want %d and %d", c.n, groups, bulk, e.Count, c.groups, c.bulk)
		}
	}
}

// Groups that ask for a multicast address of their own get one, so that nobody else's packets come by it; when too many
// ask, some share, and no more addresses are used than are allowed.
//
// rows: IPM-13, IPM-14
func TestOwnChannels(t *testing.T) {
	const most, wishes = 4, 5 // of the four one is for finding each other, and one stays for all
	var mu sync.Mutex
	seen := map[dataplane.Channel]int{}
	c := DefaultConfig()
	c.Network.MaxChannels = most
	systems := channelTapped(t, c, &mu, seen)
	pairs := map[string][2]*member{}
	var names []string
	form := func(name string, opts ...GroupOption) {
		names = append(names, name)
		pairs[name] = [2]*member{joined(t, systems[0], name, opts...), joined(t, systems[1], name, opts...)}
		pairs[name][0].untilSize(t, 2)
	}
	for i := range wishes {
		form(fmt.Sprint("wish ", i), WithMulticast())
		form(fmt.Sprint("other ", i))
	}
	low, _, _ := c.Network.channels()
	users := map[dataplane.Channel][]string{}
	for i, name := range names {
		mu.Lock()
		clear(seen)
		mu.Unlock()
		for n := range uint64(100) {
			pairs[name][0].send(t, Ordered, uint64(i)*1000+n)
		}
		pairs[name][1].untilCount(t, 100)
		mu.Lock()
		var main dataplane.Channel
		packets := 0
		for ch, n := range seen {
			if ch > dataplane.Channel(low) && n > packets {
				main, packets = ch, n
			}
		}
		mu.Unlock()
		users[main] = append(users[main], name)
		if said := pairs[name][0].group.State().Channel; said != uint32(main) {
			t.Errorf("the state of %q says channel %d, most packets go to %d", name, said, main)
		}
	}
	own := 0
	for _, list := range users {
		if len(list) == 1 {
			own++
		}
	}
	if len(users) != most-1 || own != most-2 || len(users[0]) > 0 {
		t.Errorf("groups by channel: %v; want %d channels, all but one with a single group", users, most-1)
	}
	for _, name := range []string{"wish 0", "wish 1"} {
		if !slices.ContainsFunc(slices.Collect(maps.Values(users)), func(list []string) bool {
			return len(list) == 1 && list[0] == name
		}) {
			t.Errorf("%q has no channel of its own: %v", name, users)
		}
	}
}

func TestUnicastOrMulticast(t *testing.T) {
	s := startIn(t, nil, true)
	err := s.NewGroup("both", WithUnicast(), WithMulticast()).Join(within(t))
	if !errors.Is(err, ErrArgument) {
		t.Errorf("joining with both gives %v, want ErrArgument", err)
	}
}
