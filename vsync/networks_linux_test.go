package vsync

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/khamsin-io/khamsin/internal/netns"
)

// secondNetwork is the name of the second interface of hosts that share two networks.
const secondNetwork = "kvs2"

// sharing is a group of processes on hosts that share two networks.
type sharing struct {
	hosts   []*netns.Host
	members []*member
	total   int // messages that were sent
}

// networkModes are the ways in which several networks are used, with what the environment says.
func networkModes() map[string][]string {
	return map[string][]string{
		"multicast": nil, "IPv6": {"ISIS_USEIPv6=true"}, "unicast": {"ISIS_UNICAST_ONLY=true"},
	}
}

// onTwoNetworks starts processes on three hosts. Edit changes their configuration.
func onTwoNetworks(t testing.TB, mode string, edit func(*Config)) *sharing {
	t.Helper()
	x := &sharing{hosts: netns.Bridged(t, "kvs-two", 3, netns.Options{IPv6: mode == "IPv6"})}
	netns.AddNetwork(t, x.hosts, secondNetwork, 98)
	env := append(networkModes()[mode], "ISIS_NETWORK_INTERFACES="+netns.Interface+","+secondNetwork)
	if mode == "unicast" {
		var hosts []string
		for _, h := range x.hosts {
			hosts = append(hosts, h.IP.String())
		}
		env = append(env, "ISIS_HOSTS="+strings.Join(hosts, ","))
	}
	for i, h := range x.hosts {
		config, err := configFrom(env)
		if err != nil {
			t.Fatal(err)
		}
		config.Mute, config.FastStart = true, i == 0
		edit(&config)
		var s *System
		h.Do(func() { s, err = Start(context.Background(), WithConfig(config)) })
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() })
		x.members = append(x.members, joined(t, s, "two"))
	}
	for _, m := range x.members {
		m.untilSize(t, len(x.hosts))
	}
	x.exchange(t, 30)
	return x
}

// exchange sends messages from all members in turn, and returns when all have got all.
func (x *sharing) exchange(t testing.TB, count int) {
	t.Helper()
	for range count {
		x.members[x.total%len(x.members)].send(t, Ordered, uint64(x.total))
		x.total++
	}
	for _, m := range x.members {
		m.untilCount(t, x.total)
	}
}

// Three hosts share two networks. The group keeps its view and delivers everything, once and in one order, while one of
// the networks carries nothing, and while it carries packets in one direction only; over IPv6 and without multicast as
// well.
//
// rows: NET-08
func TestGroupOnTwoNetworks(t *testing.T) {
	if testing.Short() {
		t.Skip("three failures, each longer than silence is borne")
	}
	for mode := range networkModes() {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			groupOnTwoNetworks(t, mode)
		})
	}
}

func groupOnTwoNetworks(t *testing.T, mode string) {
	t.Helper()
	x := onTwoNetworks(t, mode, func(c *Config) {
		c.Heartbeat, c.SuspectAfter = 150*time.Millisecond, 800*time.Millisecond
	})
	hosts, bridge, views := x.hosts, x.hosts[0].Bridge, make([]int, len(x.hosts))
	for i, m := range x.members {
		views[i] = changes(m)
	}
	suspicion := x.members[0].sys.config.SuspectAfter
	for _, cut := range [][]string{
		{hosts[0].Port, hosts[1].Port, hosts[2].Port}, // all of the first network
		{hosts[1].Port}, // what the second host sends by it
		{netns.PortOf(secondNetwork, 0), netns.PortOf(secondNetwork, 1), netns.PortOf(secondNetwork, 2)},
	} {
		var heals []func()
		for _, port := range cut {
			heals = append(heals, bridge.Block(port, false))
		}
		for end := time.Now().Add(2 * suspicion); time.Now().Before(end); { // longer than silence is borne
			x.exchange(t, 30)
		}
		for _, heal := range heals {
			heal()
		}
		x.exchange(t, 30)
	}
	for i, m := range x.members {
		if now := changes(m); now != views[i] {
			t.Errorf("host %d saw %d views while networks failed", i, now-views[i])
		}
		if !slices.Equal(sinceLastView(m), sinceLastView(x.members[0])) {
			t.Errorf("host %d got other messages, or in another order, than host 0", i)
		}
	}
}

// changes counts a member's views.
func changes(m *member) (n int) {
	for _, e := range m.entries() {
		if e.Change {
			n++
		}
	}
	return n
}

// What a group of three on two networks misses when one of them dies: the time from just before its bridge is taken
// down until all have got a message of each that was sent after that. The networks die in turn, each while it is used.
func BenchmarkFailOver(b *testing.B) {
	for _, mode := range []string{"multicast", "IPv6", "unicast"} {
		b.Run(mode, func(b *testing.B) {
			x := onTwoNetworks(b, mode, func(*Config) {})
			bridge := x.hosts[0].Bridge
			var took []float64
			for b.Loop() {
				network := []string{"br0", secondNetwork}[len(took)%2]
				for end := time.Now().Add(300 * time.Millisecond); time.Now().Before(end); {
					x.exchange(b, 3) // both networks are well known
				}
				cut := time.Now()
				bridge.Run("ip", "link", "set", network, "down")
				x.exchange(b, 3)
				took = append(took, float64(time.Since(cut).Microseconds())/1000)
				bridge.Run("ip", "link", "set", network, "up")
			}
			slices.Sort(took)
			b.ReportMetric(took[len(took)/2], "ms-p50")
			b.ReportMetric(took[len(took)-1], "ms-max")
			b.ReportMetric(0, "ns/op")
			for i, m := range x.members {
				if v := m.group.View(); v.Size() != len(x.hosts) {
					b.Error(fmt.Errorf("host %d is in view %v", i, v))
				}
			}
		})
	}
}
