package field

import (
	"errors"
	"os"
	"os/exec"
	"testing"

	"github.com/khamsin-io/khamsin/bpf"
	"github.com/khamsin-io/khamsin/internal/netns"
	"github.com/khamsin-io/khamsin/vsync"
)

func need(t *testing.T) {
	t.Helper()
	var root error
	if os.Geteuid() != 0 {
		root = errors.New("not root")
	}
	_, nft := exec.LookPath("nft")
	netns.Require(t, "netns", errors.Join(root, nft))
}

// fanOut is so small that members relay for each other: what is killed and cut off is often an inner node of a tree.
const fanOut = 2

// Over every transport, with packets lost, members killed and replaced, and a host cut off until its member is declared
// failed, real systems keep all that the simulator's checkers demand.
//
// rows: TRN-09
func TestCheckersOverTransports(t *testing.T) {
	need(t)
	over := func(f vsync.TransportFactory, six bool) func(c *vsync.Config) {
		return func(c *vsync.Config) { c.Transport, c.Network.IPv6 = f, six }
	}
	tree := func(six bool) func(c *vsync.Config) {
		return func(c *vsync.Config) { c.Network.UnicastOnly, c.Network.IPv6, c.Network.FanOut = true, six, fanOut }
	}
	for _, c := range []struct {
		name   string
		loss   int  // thousandths
		bpf    bool // it takes privileges
		ground func(t *testing.T) ground
		change func(c *vsync.Config)
	}{
		{"udp", 20, false, newBridged, over(vsync.UDP(), false)},
		{"udp over ipv6", 20, false, newBridgedIPv6, over(vsync.UDP(), true)},
		{"unicast tree", 20, false, newBridged, tree(false)},
		{"unicast tree over ipv6", 20, false, newBridgedIPv6, tree(true)},
		{"filtered udp", 20, true, newBridged, over(vsync.FilteredUDP(), false)},
		{"xdp", 20, true, newBridged, over(vsync.XDP(vsync.XDPOptions{}), false)},
		{"xdp over ipv6", 20, true, newBridgedIPv6, over(vsync.XDP(vsync.XDPOptions{}), true)},
		{"generic xdp", 20, true, newBridged, over(vsync.XDP(vsync.XDPOptions{Generic: true}), false)},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.bpf {
				netns.Require(t, "xdp", bpf.ProbeDemux())
			}
			f := newField(t, 1, c.ground, c.change)
			f.run(rounds(t), c.loss)
			f.relays(f.config.Network.UnicastOnly)
		})
	}
}

// variant is a kind of network over TCP.
type variant struct {
	name string
	vsync.Network
}

// overTCP is all kinds of networks over TCP.
var overTCP = []variant{
	{"tree", vsync.Network{FanOut: fanOut}},
	{"ring", vsync.Network{FanOut: fanOut, MaxConnections: 6}}, // so few that members are reached by way of others
	{"direct", vsync.Network{TCPDirect: true}},
}

func (x variant) change(c *vsync.Config) {
	x.TCPOnly, x.Hosts = true, c.Network.Hosts
	c.Network = x.Network
}

// The same over TCP, whose connections are made on any thread: the whole process is in one namespace.
//
// rows: TRN-09
func TestCheckersOverTCP(t *testing.T) {
	need(t)
	runInside(t, "TestInsideTCP")
}

// TestInsideTCP is the part of TestCheckersOverTCP that runs in a namespace.
func TestInsideTCP(t *testing.T) {
	if os.Getenv(insideMark) == "" {
		t.Skip("TestCheckersOverTCP runs this in a namespace")
	}
	for _, x := range overTCP {
		t.Run(x.name, func(t *testing.T) {
			f := newField(t, 1, newAddresses, x.change)
			f.run(rounds(t), 5)
			f.relays(!x.TCPDirect)
		})
	}
}
