package vsync

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/khamsin-io/khamsin/internal/netns"
)

// The membership service is on the hosts that are listed, and nowhere else, with multicast and without. A process on
// another host that starts while none of them is up fails within a bounded time, and says why; when one is up, it
// attaches.
//
// rows: ORC-07, ORC-09
func TestHostsOfTheOracle(t *testing.T) {
	for _, unicast := range []bool{false, true} {
		hosts := netns.Bridged(t, "kvs-hosts", 4, netns.Options{})
		start := func(i int) (s *System, err error) {
			c := DefaultConfig()
			c.Interfaces, c.TTL, c.Mute = []string{netns.Interface}, 1, true
			c.Network.UnicastOnly = unicast
			c.Network.Hosts = []string{hosts[0].IP.String(), hosts[1].IP.String()}
			c.Discovery, c.OracleLost = 100*time.Millisecond, 3*time.Second
			hosts[i].Do(func() { s, err = Start(context.Background(), WithConfig(c)) })
			if err == nil {
				t.Cleanup(func() { _ = s.Close() })
			}
			return s, err
		}
		began := time.Now()
		_, err := start(3)
		if !errors.Is(err, ErrNoOracle) || !strings.Contains(err.Error(), hosts[0].IP.String()) {
			t.Fatalf("unicast %v: without an ORACLE %v", unicast, err)
		}
		if took := time.Since(began); took > patience {
			t.Errorf("it took %v", took)
		}
		var systems []*System
		for _, i := range []int{0, 2, 3, 1} {
			s, err := start(i)
			if err != nil {
				t.Fatalf("unicast %v: host %d: %v", unicast, i, err)
			}
			systems = append(systems, s)
		}
		m := joined(t, systems[1], "g")
		m.send(t, Ordered, 1)
		m.untilCount(t, 1)
		for i, s := range systems {
			for _, a := range s.State().Oracle {
				if ip := a.Endpoint().AddrPort().Addr(); ip != hosts[0].IP && ip != hosts[1].IP {
					t.Errorf("unicast %v: process %d: a member of the ORACLE is on %v", unicast, i, ip)
				}
			}
		}
	}
}

// Without multicast the list of hosts is required, unless nothing leaves the host.
//
// rows: ORC-08
func TestHostsAreRequired(t *testing.T) {
	h := netns.Pair(t, "kvs-hosts", netns.Options{})[0]
	for _, n := range []Network{{UnicastOnly: true}, {TCPOnly: true}} {
		c := DefaultConfig()
		c.Interfaces, c.Mute, c.Network = []string{netns.Interface}, true, n
		h.Do(func() {
			_, err := Start(context.Background(), WithConfig(c))
			if err == nil || !strings.Contains(err.Error(), "ISIS_HOSTS") {
				t.Errorf("%+v: %v", n, err)
			}
		})
	}
}
