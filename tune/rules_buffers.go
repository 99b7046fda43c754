package tune

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/khamsin-io/khamsin/tune/hostview"
)

// socketCaps judges the limits of socket buffers. A network namespace of its own shows them, since Linux 6.1 or so,
// but cannot change them.
func socketCaps(c *checker) {
	for _, limit := range []struct {
		name string
		want int
		side string
		how  Severity
	}{
		{"net.core.rmem_max", c.need.Receive, "receive", High},
		{"net.core.wmem_max", c.need.Send, "send", Medium},
	} {
		f := Finding{Severity: limit.how, Cause: Loss, Why: fmt.Sprintf(
			"caps every %s buffer without a word; the library asks for %d bytes: %s", limit.side, limit.want,
			c.bufferReason(limit.side))}
		if c.ownNamespace() {
			f.Fix = fmt.Sprintf("on the host, outside this network namespace: sysctl -w %s=%d", limit.name, limit.want)
		}
		c.atLeast(limit.name, int64(limit.want), f)
	}
}

// bufferReason says where the wanted size of a buffer comes from.
func (c *checker) bufferReason(side string) string {
	factor, want := vsyncReceiveFactor, c.need.Receive
	if side == "send" {
		factor, want = vsyncSendFactor, c.need.Send
	}
	if want == factor*c.need.Packet {
		return fmt.Sprintf("%d times the longest packet of %d", factor, c.need.Packet)
	}
	return fmt.Sprintf("more than %d times the longest packet of %d", factor, c.need.Packet)
}

// The manual's sizes of socket buffers in packets.
const (
	vsyncReceiveFactor = 64
	vsyncSendFactor    = 32
)

// ownNamespace tells whether the caller is in a network namespace that is not the host's first: that alone has the
// settings of the device layer.
func (c *checker) ownNamespace() bool {
	return !c.host.Exists(sysctlPath("net.core.netdev_max_backlog"))
}

// grantedBuffers looks at what the kernel really gives.
func grantedBuffers(c *checker) {
	got, err := c.host.System().Buffers(c.need.Receive, c.need.Send)
	for _, side := range []struct {
		name, limit         string
		want, plain, forced int
		how                 Severity
	}{
		{"SO_RCVBUF", "net.core.rmem_max", c.need.Receive, got.Receive, got.ForcedReceive, High},
		{"SO_SNDBUF", "net.core.wmem_max", c.need.Send, got.Send, got.ForcedSend, Medium},
	} {
		name, wanted := side.name+" granted", fmt.Sprintf("%d", side.want)
		if err != nil {
			c.unknown(name, wanted, err)
			continue
		}
		found := fmt.Sprint(side.plain)
		best := max(side.plain, side.forced)
		if side.forced > side.plain {
			found += fmt.Sprintf(", %d with CAP_NET_ADMIN", side.forced)
		}
		c.add(Finding{
			Setting: name, Found: found, Wanted: wanted, Severity: worse(best < side.want, side.how), Cause: Loss,
			Why: "what a socket of this process gets when it asks: bursts that do not fit are lost",
			Fix: "raise " + side.limit + ", or give the process CAP_NET_ADMIN",
		})
	}
}

// udpMemory judges the pages that all UDP sockets of the host may hold together.
func udpMemory(c *checker) {
	const name = "net.ipv4.udp_mem"
	page := int64(os.Getpagesize())
	want := (int64(c.need.Receive)*int64(c.need.Sockets)*processesPerHost + page - 1) / page
	wanted := fmt.Sprintf("a maximum of at least %d pages", want)
	limits, err := c.host.Ints(sysctlPath(name))
	if err == nil && len(limits) != 3 {
		err = fmt.Errorf("%d numbers, want three: %w", len(limits), hostview.ErrGarbage)
	}
	if err != nil {
		if c.ownNamespace() {
			err = fmt.Errorf("belongs to the host, not to this network namespace: %w", err)
		}
		c.unknown(name, wanted, err)
		return
	}
	value := fmt.Sprintf("%d %d %d", min(limits[0], want), max(limits[1], want), max(limits[2], want))
	c.add(Finding{
		Setting: name, Found: fmt.Sprint(limits), Wanted: wanted, Severity: worse(limits[2] < want, Medium),
		Cause: Loss,
		Why: fmt.Sprintf("pages for the buffers of all UDP sockets together: here %d processes of %d sockets",
			processesPerHost, c.need.Sockets),
		Changes: []Change{{Kind: Sysctl, Target: name, Value: value}},
	})
}

// processesPerHost is for how many processes of the library a host should have room.
const processesPerHost = 8

// backlog judges the queue and the budget between an interface and the sockets.
func backlog(c *checker) {
	backlogMin, budgetMin := int64(1000), int64(300)
	if c.Profile != Latency {
		backlogMin, budgetMin = 4096, 600
	}
	if c.ownNamespace() {
		err := errors.New("belongs to the host, not to this network namespace")
		c.unknown("net.core.netdev_max_backlog", fmt.Sprintf("at least %d", backlogMin), err)
		c.unknown("net.core.netdev_budget", fmt.Sprintf("at least %d", budgetMin), err)
		return
	}
	c.atLeast("net.core.netdev_max_backlog", backlogMin, Finding{Severity: Medium, Cause: Loss,
		Why: "packets that wait between an interface, loopback and veth included, and the sockets; more are lost"})
	c.atLeast("net.core.netdev_budget", budgetMin, Finding{Severity: Low, Cause: Loss,
		Why: "packets that one round of the receive interrupt may handle before it yields"})
	c.atLeast("net.core.netdev_budget_usecs", 2000, Finding{Severity: Low, Cause: Loss,
		Why: "microseconds that one round of the receive interrupt may take"})
}

// softnet tells whether packets were lost or delayed between interface and sockets since the host started.
func softnet(c *checker) {
	const name, path = "softnet drops", "/proc/net/softnet_stat"
	text, err := c.host.Text(path)
	if err != nil {
		c.unknown(name, "0", err)
		return
	}
	var dropped, squeezed uint64
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) < 3 {
			c.unknown(name, "0", fmt.Errorf("%s %w", path, hostview.ErrGarbage))
			return
		}
		d, err1 := strconv.ParseUint(fields[1], 16, 64)
		s, err2 := strconv.ParseUint(fields[2], 16, 64)
		if err1 != nil || err2 != nil {
			c.unknown(name, "0", fmt.Errorf("%s %w", path, hostview.ErrGarbage))
			return
		}
		dropped, squeezed = dropped+d, squeezed+s
	}
	c.add(Finding{
		Setting: name, Found: fmt.Sprintf("%d lost, %d times out of budget", dropped, squeezed), Wanted: "0",
		Severity: worse(dropped+squeezed > 0, Note),
		Why:      "since the host started; what grows while Khamsin runs asks for more backlog or budget",
	})
}

// udpErrors tells what UDP sockets of this network namespace lost since it was made.
func udpErrors(c *checker) {
	const name, path, wanted = "UDP RcvbufErrors", "/proc/thread-self/net/snmp", "0"
	counters, err := c.snmpUDP(path)
	if err != nil {
		c.unknown(name, wanted, err)
		return
	}
	lost, came := counters["RcvbufErrors"], counters["InDatagrams"]
	c.add(Finding{
		Setting: name, Found: fmt.Sprintf("%d lost, %d received", lost, came), Wanted: wanted,
		Severity: worse(lost > 0, Note),
		Why:      "datagrams of all processes lost for want of room in a socket; does it grow while Khamsin runs?",
	})
}

// snmpUDP reads the UDP counters of the kernel by name.
func (c *checker) snmpUDP(path string) (map[string]uint64, error) {
	text, err := c.host.Text(path)
	if err != nil {
		return nil, err
	}
	var names []string
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) == 0 || fields[0] != "Udp:" {
			continue
		}
		if names == nil {
			names = fields
			continue
		}
		counters := map[string]uint64{}
		for i := 1; i < min(len(names), len(fields)); i++ {
			n, err := strconv.ParseUint(fields[i], 10, 64)
			if err != nil {
				return nil, fmt.Errorf("%s %w", path, hostview.ErrGarbage)
			}
			counters[names[i]] = n
		}
		for _, must := range []string{"InDatagrams", "RcvbufErrors"} {
			if !slices.Contains(names, must) {
				return nil, fmt.Errorf("%s does not count %s", path, must)
			}
		}
		return counters, nil
	}
	return nil, fmt.Errorf("%s %w: no line of UDP", path, hostview.ErrGarbage)
}

// memberships judges how many multicast groups one socket may join.
func memberships(c *checker) {
	if c.Transport == "tcp" {
		return
	}
	c.atLeast("net.ipv4.igmp_max_memberships", int64(c.need.Channels), Finding{Severity: Low, Cause: Packets,
		Why: "multicast addresses of one socket; with fewer the library opens more sockets and reads each of them"})
	c.atLeast("net.ipv4.igmp_max_msf", 10, Finding{Severity: Low, Cause: Packets,
		Why: "sources that one multicast membership may filter"})
}

// reversePath judges the filter of packets whose sender would be answered by another interface.
func reversePath(c *checker) {
	if c.link.Loopback {
		return
	}
	one := "net.ipv4.conf." + strings.ReplaceAll(c.Interface, ".", "/") + ".rp_filter"
	all, err1 := c.host.Int(sysctlPath("net.ipv4.conf.all.rp_filter"))
	own, err2 := c.host.Int(sysctlPath(one))
	if err := errors.Join(err1, err2); err != nil {
		c.unknown(one, "0 or 2", err)
		return
	}
	f := Finding{
		Setting: one, Found: fmt.Sprintf("%d, and %d for all", own, all), Wanted: "0 or 2",
		Severity: worse(max(own, all) == 1, Medium), Cause: Loss,
		Why: "1 drops multicast from a sender that the route back does not lead to by this interface; " +
			"the larger of both counts",
		Changes: []Change{{Kind: Sysctl, Target: one, Value: "2"}},
	}
	c.add(f)
}
