package tune

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/khamsin-io/khamsin/tune/hostview"
)

// multicastPath judges whether multicast can leave and arrive by the interface.
func multicastPath(c *checker) {
	const setting, wanted = "multicast", "able, on an interface that is up"
	switch {
	case c.Transport == "tcp":
		return
	case c.linkErr != nil:
		c.unknown(setting, wanted, c.linkErr)
		return
	}
	able := c.link.Multicast || c.link.Loopback // the library names the loopback's index, which is enough
	found := "able"
	if !able {
		found = "not able"
	}
	if !c.link.Up {
		found += ", down"
	}
	c.add(Finding{
		Setting: setting, Found: found, Wanted: wanted, Severity: worse(!able || !c.link.Up, High), Cause: Loss,
		Why: "groups send to multicast addresses on this interface",
		Fix: fmt.Sprintf("ip link set dev %s up multicast on", c.Interface),
	})
	c.multicastRoute()
}

// multicastRoute tells which interface the routing table would give multicast to. The library names the interface
// itself, so a route elsewhere matters to other programs only.
func (c *checker) multicastRoute() {
	const setting, path = "multicast route", "/proc/thread-self/net/route"
	text, err := c.host.Text(path)
	if err != nil {
		c.unknown(setting, c.Interface, err)
		return
	}
	best, through := -1, "none"
	first := true
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if first || len(fields) < 8 {
			first = false
			continue
		}
		to, err1 := strconv.ParseUint(fields[1], 16, 32)
		mask, err2 := strconv.ParseUint(fields[7], 16, 32)
		if err1 != nil || err2 != nil {
			c.unknown(setting, c.Interface, fmt.Errorf("%s %w", path, hostview.ErrGarbage))
			return
		}
		const group = 239 // the file is in the byte order of little endian: the first byte is the lowest
		if bits := ones(uint32(mask)); uint32(group)&uint32(mask) == uint32(to) && bits > best {
			best, through = bits, fields[0]
		}
	}
	c.add(Finding{
		Setting: setting, Found: through, Wanted: c.Interface, Severity: worse(through != c.Interface, Note),
		Why: "the library names its interface and needs no route; programs that do not would use the one found",
	})
}

func ones(v uint32) int {
	n := 0
	for ; v != 0; v &= v - 1 {
		n++
	}
	return n
}

// packetSize judges that packet, MTU and buffer fit together.
func packetSize(c *checker) {
	const setting = "packet, MTU, buffer"
	wanted := fmt.Sprintf("MTU of at least %d", c.need.Packet+ipUDPHeaders)
	if c.linkErr != nil {
		c.unknown(setting, wanted, c.linkErr)
		return
	}
	f := Finding{
		Setting: setting, Found: fmt.Sprintf("%d, %d, %d", c.need.Packet, c.link.MTU, c.need.Receive), Wanted: wanted,
		Severity: worse(c.need.Packet+ipUDPHeaders > c.link.MTU, High), Cause: Loss,
		Why: "a longer packet travels in IP fragments, and is lost whenever one of them is",
		Fix: fmt.Sprintf("ISIS_MAXMSGLEN=%d, and buffers of %d and %d; or an MTU of %d in the whole network",
			c.link.MTU-ipUDPHeaders, vsyncReceiveFactor*(c.link.MTU-ipUDPHeaders),
			vsyncSendFactor*(c.link.MTU-ipUDPHeaders), c.need.Packet+ipUDPHeaders),
	}
	c.add(f)
	const jumbo = 9000
	if c.Profile == Bulk && !c.link.Loopback {
		c.add(Finding{
			Setting: "MTU for bulk", Found: strconv.Itoa(c.link.MTU), Wanted: "9000, if the whole network takes it",
			Severity: worse(c.link.MTU < jumbo, Low), Cause: Packets,
			Why:     "fewer and larger packets; a switch or peer with a smaller MTU would lose them all",
			Changes: []Change{{Kind: MTU, Target: c.Interface, Value: strconv.Itoa(jumbo)}},
		})
	}
}

// pathMTU compares the longest packet with what the kernel knows of the path to a peer.
func pathMTU(c *checker) {
	if !c.Peer.IsValid() {
		return
	}
	setting, wanted := "path MTU to "+c.Peer.String(), fmt.Sprintf("at least %d", c.need.Packet+ipUDPHeaders)
	mtu, err := c.host.System().PathMTU(c.Peer)
	if err != nil {
		c.unknown(setting, wanted, err)
		return
	}
	c.add(Finding{
		Setting: setting, Found: strconv.Itoa(mtu), Wanted: wanted, Cause: Loss,
		Severity: worse(c.need.Packet+ipUDPHeaders > mtu, High),
		Why:      "as far as the kernel knows; khamsin tune probe measures it",
		Fix:      fmt.Sprintf("ISIS_MAXMSGLEN=%d", mtu-ipUDPHeaders),
	})
}

// fragments judges the memory for putting packets together that are longer than the MTU.
func fragments(c *checker) {
	if c.linkErr != nil || c.need.Packet+ipUDPHeaders <= c.link.MTU {
		return
	}
	c.atLeast("net.ipv4.ipfrag_high_thresh", int64(c.need.Receive), Finding{Severity: Medium, Cause: Loss,
		Why: "memory for packets in fragments that are not complete; what does not fit is lost"})
}

// tcpSettings judges what a transport over TCP needs.
func tcpSettings(c *checker) {
	if c.Transport != "tcp" {
		return
	}
	for _, name := range []string{"net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem"} {
		want := int64(c.need.Receive)
		wanted := fmt.Sprintf("a maximum of at least %d", want)
		limits, err := c.host.Ints(sysctlPath(name))
		if err == nil && len(limits) != 3 {
			err = fmt.Errorf("%d numbers, want three: %w", len(limits), hostview.ErrGarbage)
		}
		if err != nil {
			c.unknown(name, wanted, err)
			continue
		}
		c.add(Finding{
			Setting: name, Found: fmt.Sprint(limits), Wanted: wanted, Severity: worse(limits[2] < want, Medium),
			Cause: Packets, Why: "how far the kernel lets the buffers of a connection grow",
			Changes: []Change{{Kind: Sysctl, Target: name,
				Value: fmt.Sprintf("%d %d %d", limits[0], limits[1], max(limits[2], want))}},
		})
	}
	const idle = "net.ipv4.tcp_slow_start_after_idle"
	found, err := c.host.Int(sysctlPath(idle))
	if err != nil {
		c.unknown(idle, "0", err)
		return
	}
	c.add(Finding{
		Setting: idle, Found: fmt.Sprint(found), Wanted: "0", Severity: worse(found != 0, Low), Cause: Scheduling,
		Why:     "a connection that was quiet starts slowly again, though a member's connections are often quiet",
		Changes: []Change{{Kind: Sysctl, Target: idle, Value: "0"}},
	})
}

// zeroCopy judges what the driver can do for AF_XDP.
func zeroCopy(c *checker) {
	const setting = "XDP"
	wanted, bad := "redirect, zero-copy", Note
	if c.Transport == "xdp" {
		bad = Medium
	}
	if c.linkErr != nil {
		c.unknown(setting, wanted, c.linkErr)
		return
	}
	x, err := c.host.System().XDP(c.link.Index)
	if err != nil {
		c.unknown(setting, wanted, err)
		return
	}
	found := "none in the driver"
	switch {
	case x.Redirect && x.ZeroCopy:
		found = wanted
	case x.Redirect:
		found = "redirect, by copying"
	case x.Basic:
		found = "basic, no redirect"
	}
	if c.Transport == "xdp" && !x.Redirect {
		bad = High
	}
	c.add(Finding{
		Setting: setting, Found: found, Wanted: wanted, Severity: worse(found != wanted, bad), Cause: Packets,
		Why: "what the interface's driver gives the transport xdp; without redirect it works in the slow generic mode",
		Fix: "another adapter, or the transport udp",
	})
}

// rdmaDevices looks for RDMA.
func rdmaDevices(c *checker) {
	const setting, dir = "RDMA devices", "/sys/class/infiniband"
	names, err := c.host.Names(dir)
	switch {
	case err != nil && c.host.Exists("/sys/class"):
		names = nil // the directory is there when a driver is
	case err != nil:
		c.unknown(setting, "at least one", err)
		return
	}
	bad := Note
	if c.Transport == "rdma" {
		bad = High
	}
	found := "none"
	if len(names) > 0 {
		found = strings.Join(names, ", ")
	}
	c.add(Finding{
		Setting: setting, Found: found, Wanted: "at least one", Severity: worse(len(names) == 0, bad), Cause: Packets,
		Why: "the transport rdma needs one; soft-RoCE makes one of any Ethernet interface",
		Fix: "rdma link add rxe0 type rxe netdev " + c.Interface,
	})
}

// peerError refuses what no peer can be.
var errPeer = errors.New("peer: want an IPv4 address") // immutable: an error

// ParsePeer reads the address of Options.Peer; empty text is none.
func ParsePeer(text string) (netip.Addr, error) {
	if text == "" {
		return netip.Addr{}, nil
	}
	addr, err := netip.ParseAddr(text)
	if err != nil || !addr.Unmap().Is4() {
		return netip.Addr{}, fmt.Errorf("%w, not %q", errPeer, text)
	}
	return addr.Unmap(), nil
}
