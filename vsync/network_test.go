package vsync

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/khamsin-io/khamsin/dataplane"
)

// networks are the ways to be a system on one host, by the environment.
func networks() map[string][]string {
	return map[string][]string{
		"multicast":  nil,
		"unicast":    {"ISIS_UNICAST_ONLY=true"},
		"tcp":        {"ISIS_TCP_ONLY=true"},
		"tcp direct": {"ISIS_TCP_ONLY=true", "ISIS_TCP_DIRECT=true"},
		"tcp hosts":  {"ISIS_TCP_ONLY=true", "ISIS_HOSTS=localhost,127.0.0.1"}, // as in a cloud
	}
}

// startIn starts a system as the environment says, on ports of the test's own.
func startIn(t *testing.T, env []string, first bool) *System {
	t.Helper()
	c, err := configFrom(env)
	if err != nil {
		t.Fatal(err)
	}
	c.SystemName, c.GroupPort, c.PeerPort = t.Name(), 20900, 20910
	c.Mute, c.FastStart, c.Discovery = true, first, patience
	s, err := Start(context.Background(), WithConfig(c))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil && !errors.Is(err, ErrShutdown) {
			t.Error(err)
		}
	})
	return s
}

// The same program gives the same results over every network: all members get the same messages in one order, and a
// crash is noticed. What the settings rule out is not used: no multicast, no UDP.
//
// rows: TRN-01, TRN-03, TRN-05, TRN-09, TRN-10, IPM-19, ORC-22
func TestNetworks(t *testing.T) {
	for name, env := range networks() {
		t.Run(name, func(t *testing.T) {
			const count = 200
			var systems []*System
			var members []*member
			for i := range 3 {
				s := startIn(t, env, i == 0)
				systems = append(systems, s)
				members = append(members, joined(t, s, "network"))
			}
			for _, m := range members {
				m.untilSize(t, 3)
			}
			for i := range uint64(count) {
				for k, m := range members {
					m.send(t, Ordered, i*3+uint64(k))
				}
			}
			for _, m := range members {
				m.untilCount(t, 3*count)
			}
			for _, m := range members[1:] {
				if !slices.Equal(sinceLastView(m), sinceLastView(members[0])) {
					t.Error("members disagree about the order")
				}
			}
			stats := systems[0].Stats().Transport
			if multicast := name == "multicast"; (stats.SentMulticasts > 0) != multicast {
				t.Errorf("%d packets to multicast addresses", stats.SentMulticasts)
			}
			if udp := ownUDPSockets(t); (udp > 0) != !strings.HasPrefix(name, "tcp") {
				t.Errorf("%d UDP sockets are open", udp)
			}
			systems[2].Kill()
			members[0].untilSize(t, 2)
			members[1].untilSize(t, 2)
		})
	}
}

// sinceLastView returns what a member noted from its last view on.
func sinceLastView(m *member) []entry {
	log := m.entries()
	for i, e := range slices.Backward(log) {
		if e.Change {
			return log[i:]
		}
	}
	return log
}

// ownUDPSockets counts the UDP sockets of this process.
func ownUDPSockets(t *testing.T) (n int) {
	t.Helper()
	table, err := os.ReadFile("/proc/thread-self/net/udp")
	if err != nil {
		t.Skipf("the system does not list sockets: %v", err)
	}
	files, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	socket := regexp.MustCompile(`^socket:\[(\d+)\]$`)
	for _, f := range files {
		target, _ := os.Readlink("/proc/self/fd/" + f.Name()) // the directory's own descriptor is gone
		if m := socket.FindStringSubmatch(target); m != nil && strings.Contains(string(table), " "+m[1]+" ") {
			n++
		}
	}
	return n
}

// A group can be told to do without multicast, beside others that use it.
//
// rows: IPM-12
func TestUnicastGroup(t *testing.T) {
	a, b := startIn(t, nil, true), startIn(t, nil, false)
	x, y := joined(t, a, "plain", WithUnicast()), joined(t, b, "plain", WithUnicast())
	x.untilSize(t, 2)
	y.untilSize(t, 2)
	before := a.Stats().Transport
	if ch := x.group.State().Channel; ch != 0 {
		t.Errorf("the group's state says channel %d", ch)
	}
	const count = 300
	for i := range uint64(count) {
		x.send(t, FIFO, i)
	}
	y.untilCount(t, count)
	after := a.Stats().Transport
	beacons := uint64(patience / time.Millisecond / 100) // the leader of a system announces itself now and then
	if n := after.SentMulticasts - before.SentMulticasts; n > beacons {
		t.Errorf("%d multicasts for %d messages of a group without", n, count)
	}
}

// rows: PAR-02, PAR-03, PAR-04, PAR-05, PAR-08, PAR-09, PAR-10, PAR-11, PAR-12, PAR-13
func TestNetworkSettings(t *testing.T) {
	for env, check := range map[string]func(n Network) bool{
		"": func(n Network) bool {
			low, high, most := n.channels()
			return low == 5000 && high == 505000 && most == 25 && !n.UnicastOnly && !n.TCPOnly && !n.TCPDirect &&
				!n.SkipFirst && len(n.Hosts) == 0 && !n.selects()
		},
		"ISIS_UNICAST_ONLY=1":                     func(n Network) bool { return n.UnicastOnly },
		"ISIS_TCP_ONLY=true ISIS_TCP_DIRECT=true": func(n Network) bool { return n.TCPOnly && n.TCPDirect },
		"ISIS_TCP_DIRECT=true":                    nil,
		"ISIS_TCP_ONLY=1 ISIS_UNICAST_ONLY=1":     nil,
		"ISIS_TCP_ONLY=maybe":                     nil,
		"ISIS_HOSTS=a,10.0.0.1:7,,b": func(n Network) bool {
			return slices.Equal(n.Hosts, []string{"a", "10.0.0.1:7", "b"})
		},
		"ISIS_HOSTS=a/b": nil,
		"ISIS_MCRANGE_LOW=7 ISIS_MCRANGE_HIGH=9": func(n Network) bool {
			return n.ChannelLow == 7 && n.ChannelHigh == 9
		},
		"ISIS_MCRANGE_LOW=9 ISIS_MCRANGE_HIGH=7":  nil,
		"ISIS_MCRANGE_LOW=0":                      nil,
		"ISIS_MCRANGE_HIGH=16777216":              nil,
		"ISIS_MAXIPMCADDRS=3":                     func(n Network) bool { return n.MaxChannels == 3 },
		"ISIS_MAXIPMCADDRS=1":                     nil,
		"ISIS_MAXIPMCADDRS=0":                     func(n Network) bool { return n.UnicastOnly },
		"ISIS_MAXIPMCADDRS=0 ISIS_TCP_ONLY=1":     func(n Network) bool { return n.TCPOnly && !n.UnicastOnly },
		"ISIS_SUBNET=10.0.0.0":                    nil,
		"ISIS_SUBNET=10.x ISIS_NETMASK=255.0.0.0": nil,
		"ISIS_SUBNET=167772160 ISIS_NETMASK=0xff000000": func(n Network) bool {
			return n.Subnet == netip.MustParseAddr("10.0.0.0") && n.Netmask == netip.MustParseAddr("255.0.0.0")
		},
		"ISIS_SKIP_FIRSTINTERFACE=true":          func(n Network) bool { return n.SkipFirst },
		"ISIS_SKIP_FIRST_NETWORK_INTERFACE=true": func(n Network) bool { return n.SkipFirst },
	} {
		c, err := configFrom(strings.Fields(env))
		if check == nil && err == nil {
			t.Errorf("%s: accepted", env)
		}
		if check != nil && (err != nil || !check(c.Network)) {
			t.Errorf("%s: %+v, %v", env, c.Network, err)
		}
	}
}

// A subnet selects the interfaces that lie in it; when none does, the error names the settings.
//
// rows: NET-10, NET-12
func TestInterfaceOfSubnet(t *testing.T) {
	c := DefaultConfig()
	c.Interfaces = []string{"nosuch0"}
	c.Network.Subnet, c.Network.Netmask = netip.MustParseAddr("127.0.0.0"), netip.MustParseAddr("255.0.0.0")
	if name, err := c.oneInterface(); name != loopback || err != nil {
		t.Errorf("%q, %v", name, err)
	}
	c.Network.SkipFirst = true
	if _, err := c.oneInterface(); err == nil || !strings.Contains(err.Error(), "127.0.0.0") {
		t.Errorf("the only one skipped: %v", err)
	}
	c.Network.Subnet = netip.MustParseAddr("203.0.113.0")
	if _, err := c.oneInterface(); err == nil || !strings.Contains(err.Error(), "203.0.113.0") {
		t.Errorf("an empty subnet: %v", err)
	}
	c.Network = Network{}
	c.Network.SkipFirst = true
	_, err := c.oneInterface()
	if err == nil || !strings.Contains(err.Error(), "nosuch0") || !strings.Contains(err.Error(), "skipped") ||
		strings.Contains(err.Error(), "netmask") {
		t.Errorf("the only one that is named skipped: %v", err)
	}
	c.Network.SkipFirst, c.Interfaces = false, []string{"a0", "b0"}
	if _, err := c.oneInterface(); !errors.Is(err, errOneInterface) {
		t.Errorf("two interfaces: %v", err)
	}
	c.Network.SkipFirst = true
	if name, err := c.oneInterface(); name != "b0" || err != nil {
		t.Errorf("the first of two skipped: %q, %v", name, err)
	}
}

// A machine that is listed with two addresses is two hosts, each of the processes that talk from its address. Processes
// that talk from another address of the machine are on the first one that is listed.
//
// rows: ORC-07
func TestHostIsWhereItTalksFrom(t *testing.T) {
	for _, x := range []struct {
		from  string
		hosts []string
		want  string
	}{
		{"127.0.0.1", []string{"127.0.0.2", "127.0.0.1"}, "127.0.0.1"},
		{"127.0.0.1", []string{"127.0.0.1", "127.0.0.2"}, "127.0.0.1"},
		{"127.0.0.2", []string{"127.0.0.1", "127.0.0.2"}, "127.0.0.2"},
		{"127.0.0.3", []string{"192.0.2.1", "127.0.0.1"}, "127.0.0.1"},
		{"127.0.0.3", []string{"192.0.2.1", "127.0.0.2"}, ""},
	} {
		c := DefaultConfig()
		c.Network.Hosts = x.hosts
		local := dataplane.EndpointOf(netip.AddrPortFrom(netip.MustParseAddr(x.from), 1))
		if err := c.settleEligible(local); err != nil || c.host != x.want || c.Eligible != (x.want != "") {
			t.Errorf("from %s with %v: %q, eligible %v, %v; want %q", x.from, x.hosts, c.host, c.Eligible, err, x.want)
		}
	}
}
