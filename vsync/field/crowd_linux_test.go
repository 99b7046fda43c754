package field

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/khamsin-io/khamsin/internal/netns"
	"github.com/khamsin-io/khamsin/vsync"
)

// crowd is a group of processes, each in a network namespace of its own.
type crowd struct {
	t   *testing.T
	all []*crowdKid
}

// crowdKid is a member as the test holds it.
type crowdKid struct {
	index int
	cmd   *exec.Cmd
	in    io.WriteCloser
	lines *bufio.Reader
	out   *json.Decoder
}

// newCrowd starts members, which join one group.
func newCrowd(t *testing.T, members int, network vsync.Network) *crowd {
	t.Helper()
	if testing.Short() {
		t.Skip("short: many processes")
	}
	need(t)
	ground := netns.Bridged(t, "kcrowd", members, netns.Options{})
	network.Hosts = []string{ground[0].IP.String(), ground[1].IP.String(), ground[2].IP.String()}
	c := &crowd{t: t, all: make([]*crowdKid, members)}
	t.Cleanup(c.end)
	var starting sync.WaitGroup
	faults := make([]error, members)
	for i, h := range ground {
		start := func() { c.all[i], faults[i] = startKid(h, crowdOrders{i, members, network, 20 * time.Millisecond}) }
		if i == 0 {
			start() // it founds the system
		} else {
			starting.Go(start)
		}
	}
	starting.Wait()
	for i, err := range faults {
		if err != nil {
			t.Fatalf("member %d: %v", i, err)
		}
	}
	c.until("all are in the group", func(a []crowdAnswer) bool {
		return !slices.ContainsFunc(a, func(a crowdAnswer) bool { return a.Members != members })
	})
	return c
}

// startKid starts a member and returns when it has joined.
func startKid(h *netns.Host, o crowdOrders) (*crowdKid, error) {
	text, err := json.Marshal(o)
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	k := &crowdKid{index: o.Index, cmd: exec.Command("ip", "netns", "exec", h.Name, self)}
	k.cmd.Env = append(os.Environ(), crowdMark+"="+string(text))
	k.cmd.Stderr = os.Stderr
	if k.in, err = k.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := k.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := k.cmd.Start(); err != nil {
		return nil, err
	}
	k.lines = bufio.NewReader(out)
	line, err := k.lines.ReadString('\n')
	if strings.TrimSpace(line) != netns.Ready {
		return k, fmt.Errorf("says %q, %w", line, err)
	}
	k.out = json.NewDecoder(k.lines)
	return k, nil
}

// end ends all processes. They end by themselves with their input.
func (c *crowd) end() {
	for _, k := range c.all {
		if k != nil {
			_ = k.in.Close()
			timer := time.AfterFunc(patience, func() { _ = k.cmd.Process.Kill() })
			_ = k.cmd.Wait() // one of them was killed
			timer.Stop()
		}
	}
}

// ask gives all members a word, and returns their answers.
func (c *crowd) ask(word string) []crowdAnswer {
	c.t.Helper()
	answers, faults := make([]crowdAnswer, len(c.all)), make([]error, len(c.all))
	var asking sync.WaitGroup
	for i, k := range c.all {
		asking.Go(func() {
			if _, faults[i] = fmt.Fprintln(k.in, word); faults[i] == nil {
				faults[i] = k.out.Decode(&answers[i])
			}
		})
	}
	asking.Wait()
	for i, k := range c.all {
		if faults[i] != nil || answers[i].Fault != "" {
			c.t.Fatalf("member %d: %v, %s", k.index, faults[i], answers[i].Fault)
		}
	}
	return answers
}

// until asks until the answers are so.
func (c *crowd) until(what string, so func([]crowdAnswer) bool) []crowdAnswer {
	c.t.Helper()
	for deadline := time.Now().Add(patience); ; <-time.After(20 * time.Millisecond) {
		a := c.ask("tell")
		if so(a) {
			return a
		}
		if time.Now().After(deadline) {
			c.t.Fatalf("not within %v: %s: %+v", patience, what, a)
		}
	}
}

// kill kills a member as a crash would.
func (c *crowd) kill(i int) {
	c.t.Helper()
	k := c.all[i]
	c.all = slices.Delete(c.all, i, i+1)
	netns.Kill9(c.t, k.cmd)
	_ = k.in.Close()
}

// killRelay kills the member that passes most on while messages of all come everywhere, and waits until they come
// again.
func (c *crowd) killRelay() {
	c.t.Helper()
	before := c.ask("tell")
	c.moving(5)
	busiest, most := 0, uint64(0)
	for i, a := range c.ask("tell") {
		if n := a.Relayed - before[i].Relayed; n > most {
			busiest, most = i, n
		}
	}
	if most == 0 {
		c.t.Fatal("nobody passes anything on")
	}
	began := time.Now()
	c.kill(busiest)
	c.moving(5)
	c.t.Logf("member %d, which passed %d packets on, was killed; %v later all had delivered five more messages of each",
		busiest, most, time.Since(began).Round(time.Millisecond))
}

// quiet sees that under traffic only a few connections in a second, in all, make room for others.
func (c *crowd) quiet(most float64) {
	c.t.Helper()
	retired := func() (n uint64) {
		for _, a := range c.ask("tell") {
			n += a.Retired
		}
		return n
	}
	before, began := retired(), time.Now()
	c.moving(30)
	rate := float64(retired()-before) / time.Since(began).Seconds()
	c.t.Logf("%.1f connections in a second were retired", rate)
	if rate > most {
		c.t.Errorf("%.1f connections in a second were retired, want up to %.0f", rate, most)
	}
}

// moving waits until every member has delivered some more messages of every member that is there.
func (c *crowd) moving(more uint64) {
	c.t.Helper()
	before := c.ask("tell")
	c.until("messages of all come everywhere", func(a []crowdAnswer) bool {
		for i := range a {
			for _, k := range c.all {
				if a[i].From[k.index] < before[i].From[k.index]+more {
					return false
				}
			}
		}
		return true
	})
}

// rest ends the traffic, and sees that every member has delivered all that those who are there sent, and the same of
// those who are not, in one order.
func (c *crowd) rest() []crowdAnswer {
	c.t.Helper()
	sent := c.ask("stop")
	a := c.until("all is delivered everywhere", func(a []crowdAnswer) bool {
		for i := range a {
			for j, k := range c.all {
				if a[i].Members != len(c.all) || a[i].From[k.index] != sent[j].Sent || a[i].Digest != a[0].Digest {
					return false
				}
			}
		}
		return true
	})
	var total uint64
	for _, n := range a[0].From {
		total += n
	}
	c.t.Logf("%d members delivered the same %d messages", len(a), total)
	return a
}

// An inner node of the tree is killed in the middle of traffic: a process that passes on more than any other just then.
// Those who are left deliver all that each of them sends, and all the same of the dead one, in one order.
//
// rows: TRN-01, TRN-02, TRN-07
func TestRelayIsKilled(t *testing.T) {
	for _, x := range []struct {
		name    string
		network vsync.Network
	}{
		{"unicast", vsync.Network{UnicastOnly: true}},
		{"tcp", vsync.Network{TCPOnly: true}},
	} {
		t.Run(x.name, func(t *testing.T) {
			const members = 16 // above the fan-out, so that there are inner nodes
			c := newCrowd(t, members, x.network)
			c.ask("go")
			c.killRelay()
			c.rest()
		})
	}
}

// In a system of more processes than each may have connections, all send to all, one that relays is killed, and nobody
// ever has more connections than allowed. Without the bound each comes to have one with everybody.
//
// rows: TRN-04, TRN-07
func TestConnectionsAreBounded(t *testing.T) {
	const members, limit = 25, 16
	c := newCrowd(t, members, vsync.Network{TCPOnly: true, MaxConnections: limit})
	c.ask("go")
	c.moving(5)
	c.quiet(members)
	c.killRelay()
	var peak, open, retired uint64
	for i, a := range c.rest() {
		peak, open, retired = max(peak, a.Most), max(open, a.Open), retired+a.Retired
		if a.Most > limit {
			t.Errorf("member %d had %d connections, want up to %d", c.all[i].index, a.Most, limit)
		}
	}
	t.Logf("%d connections at a time, %d at the end, the most of any process; %d were retired in all", peak, open,
		retired)
}
