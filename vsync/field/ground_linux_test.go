package field

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/khamsin-io/khamsin/internal/netns"
	"github.com/khamsin-io/khamsin/vsync"
)

// ground is where the processes of a field stand.
type ground interface {
	do(host int, fn func())          // runs what opens a process's sockets
	place(host int, c *vsync.Config) // says in a process's configuration where it stands
	ip(host int) netip.Addr

	// weather makes the network lose a share of all packets, in thousandths, and all that goes between one host and the
	// others; nobody is cut off when cut is negative.
	weather(t *testing.T, thousandths, cut int)
}

// bridged is a namespace for each host, joined by a bridge, which loses the packets.
type bridged []*netns.Host

func newBridged(t *testing.T) ground {
	return bridged(netns.Bridged(t, "kfield", hosts, netns.Options{}))
}

// newBridgedIPv6 is newBridged for systems that use IPv6.
func newBridgedIPv6(t *testing.T) ground {
	return bridged(netns.Bridged(t, "kfield", hosts, netns.Options{IPv6: true}))
}

func (g bridged) do(host int, fn func())       { g[host].Do(fn) }
func (g bridged) place(_ int, c *vsync.Config) { c.Interfaces = []string{netns.Interface} }

func (g bridged) ip(host int) netip.Addr {
	if six := g[host].IPv6; six.IsValid() {
		return six
	}
	return g[host].IP
}

func (g bridged) weather(t *testing.T, thousandths, cut int) {
	t.Helper()
	rules := "add table bridge field\ndelete table bridge field\nadd table bridge field\n" +
		"add chain bridge field pass { type filter hook forward priority 0; }\n"
	if thousandths > 0 {
		rules += fmt.Sprintf("add rule bridge field pass numgen random mod 1000 < %d drop\n", thousandths)
	}
	if cut >= 0 {
		port := g[cut].Port
		rules += fmt.Sprintf("add rule bridge field pass iifname %q drop\nadd rule bridge field pass oifname %q drop\n",
			port, port)
	}
	g[0].Bridge.Do(func() { nft(t, rules) })
}

// addresses is one namespace, in which this whole process is, with an interface and an address for each host: for
// transports that open sockets while they run, on any thread. What goes from one address to another is lost on arrival.
type addresses struct{}

// insideMark tells a process of this test that it is in a namespace of its own.
const insideMark = "KHAMSIN_FIELD_INSIDE"

func newAddresses(t *testing.T) ground {
	t.Helper()
	g := addresses{}
	for i := range hosts {
		name := g.network(i)
		t.Cleanup(func() { _ = exec.Command("ip", "link", "del", name).Run() }) // the namespace ends soon anyway
		for _, args := range [][]string{
			{"link", "add", name, "type", "veth", "peer", "name", name + "p"},
			{"addr", "add", g.ip(i).String() + "/32", "dev", name},
			{"link", "set", name + "p", "up"},
			{"link", "set", name, "up"},
		} {
			if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
				t.Fatalf("ip %v: %v: %s", args, err, out)
			}
		}
	}
	return g
}

func (addresses) do(_ int, fn func())     { fn() }
func (addresses) network(host int) string { return fmt.Sprintf("kf%d", host) }

func (g addresses) place(host int, c *vsync.Config) { c.Interfaces = []string{g.network(host)} }

func (addresses) ip(host int) netip.Addr { return netip.AddrFrom4([4]byte{10, 98, 0, byte(host + 1)}) }

func (g addresses) weather(t *testing.T, thousandths, cut int) {
	t.Helper()
	rules := "add table ip field\ndelete table ip field\nadd table ip field\n" +
		"add chain ip field in { type filter hook input priority 0; }\n"
	if cut >= 0 {
		ip := g.ip(cut)
		rules += fmt.Sprintf("add rule ip field in ip saddr %v ip daddr != %v drop\n"+
			"add rule ip field in ip daddr %v ip saddr != %v drop\n", ip, ip, ip, ip)
	}
	if thousandths > 0 {
		rules += fmt.Sprintf("add rule ip field in numgen random mod 1000 < %d drop\n", thousandths)
	}
	nft(t, rules)
}

func nft(t *testing.T, rules string) {
	t.Helper()
	cmd := exec.Command("nft", "-f", "-")
	cmd.Stdin = strings.NewReader(rules)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("nft: %v: %s", err, out)
	}
}

// runInside runs a test of this program in a namespace of its own.
func runInside(t *testing.T, name string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	host := netns.Bridged(t, "kfield", 1, netns.Options{})[0]
	args := []string{"netns", "exec", host.Name, self, "-test.run", "^" + name + "$", "-test.v", "-test.count=1"}
	cmd := exec.Command("ip", args...)
	cmd.Env = append(os.Environ(), insideMark+"=1")
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Errorf("inside: %v", err)
	}
}
