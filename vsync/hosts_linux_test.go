package vsync

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/khamsin-io/khamsin/internal/netns"
)

// listing is hosts of which the first ones are listed as where the membership service may be.
type listing struct {
	hosts   []*netns.Host
	listed  int
	unicast bool
}

// started is what Start returned.
type started struct {
	host int
	s    *System
	err  error
}

// start starts a process on each of some hosts at once, and returns what came of it in their order.
func (l *listing) start(t *testing.T, lost time.Duration, on ...int) []started {
	t.Helper()
	c := DefaultConfig()
	c.Interfaces, c.TTL, c.Mute = []string{netns.Interface}, 1, true
	c.Network.UnicastOnly = l.unicast
	for _, h := range l.hosts[:l.listed] {
		c.Network.Hosts = append(c.Network.Hosts, h.IP.String())
	}
	c.Discovery, c.OracleLost = 100*time.Millisecond, lost
	results := make([]started, len(on))
	done := make(chan struct{})
	for k, i := range on {
		go func() {
			defer func() { done <- struct{}{} }()
			results[k].host = i
			l.hosts[i].Do(func() { results[k].s, results[k].err = Start(context.Background(), WithConfig(c)) })
		}()
	}
	for range on {
		<-done
	}
	for _, r := range results {
		if r.err == nil {
			t.Cleanup(func() { _ = r.s.Close() })
		}
	}
	return results
}

// The membership service is on the hosts that are listed, and nowhere else, with multicast and without. A process on
// another host that starts while none of them is up fails within a bounded time, and says why; when one is up, it
// attaches.
//
// rows: ORC-07, ORC-09
func TestHostsOfTheOracle(t *testing.T) {
	for _, unicast := range []bool{false, true} {
		l := listing{netns.Bridged(t, "kvs-hosts", 4, netns.Options{}), 2, unicast}
		began := time.Now()
		err := l.start(t, 3*time.Second, 3)[0].err
		if !errors.Is(err, ErrNoOracle) || !strings.Contains(err.Error(), l.hosts[0].IP.String()) {
			t.Fatalf("unicast %v: without an ORACLE %v", unicast, err)
		}
		if took := time.Since(began); took > patience {
			t.Errorf("it took %v", took)
		}
		all := append(l.start(t, patience, 0, 1), l.start(t, patience, 2, 3)...)
		for _, r := range all {
			if r.err != nil {
				t.Fatalf("unicast %v: host %d: %v", unicast, r.host, r.err)
			}
		}
		m := joined(t, all[2].s, "g")
		m.send(t, Ordered, 1)
		m.untilCount(t, 1)
		for _, r := range all {
			for _, a := range r.s.State().Oracle {
				if ip := a.Endpoint().AddrPort().Addr(); ip != l.hosts[0].IP && ip != l.hosts[1].IP {
					t.Errorf("unicast %v: process %d: a member of the ORACLE is on %v", unicast, r.host, ip)
				}
			}
		}
	}
}

// Of five hosts that are listed two are cut off: processes there found no system, and say within a bounded time what
// they miss. The other three found one. When the cable is back processes on the two hosts attach to it.
//
// rows: ORC-07
func TestMinorityOfHostsFoundsNothing(t *testing.T) {
	for _, unicast := range []bool{false, true} {
		l := listing{netns.Bridged(t, "kvs-few", 5, netns.Options{}), 5, unicast}
		bridge := l.hosts[0].Bridge
		few := []string{l.hosts[0].Port, l.hosts[1].Port}
		bridge.Run("nft", "add table bridge cut")
		bridge.Run("nft", "add chain bridge cut f { type filter hook forward priority 0; }")
		for _, rule := range []string{
			"iifname { %s } oifname != { %s } drop", "iifname != { %s } oifname { %s } drop",
		} {
			bridge.Run("nft", "add rule bridge cut f "+strings.ReplaceAll(rule, "%s", strings.Join(few, ", ")))
		}
		var minority []started
		done := make(chan struct{})
		go func() {
			defer close(done)
			minority = l.start(t, 2*time.Second, 0, 1)
		}()
		majority := l.start(t, patience, 2, 3, 4)
		<-done
		for _, r := range minority {
			if !errors.Is(r.err, ErrNoOracle) || !strings.Contains(r.err.Error(), "on 3 of the hosts") {
				t.Errorf("unicast %v: host %d, with one other: %v", unicast, r.host, r.err)
			}
		}
		bridge.Run("nft", "delete table bridge cut")
		all := append(majority, l.start(t, patience, 0, 1)...)
		for _, r := range all {
			if r.err != nil {
				t.Fatalf("unicast %v: host %d: %v", unicast, r.host, r.err)
			}
		}
		var members []*member
		for _, r := range all {
			members = append(members, joined(t, r.s, "g"))
		}
		for _, m := range members { // one system, else they were apart
			m.untilSize(t, len(all))
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
