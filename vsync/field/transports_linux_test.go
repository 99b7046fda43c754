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

// Over every transport, with packets lost, members killed and replaced, and a host cut off until its member is declared
// failed, real systems keep all that the simulator's checkers demand.
//
// rows: TRN-09
func TestCheckersOverTransports(t *testing.T) {
	need(t)
	over := func(f vsync.TransportFactory) func(c *vsync.Config) {
		return func(c *vsync.Config) { c.Transport = f }
	}
	for _, c := range []struct {
		name   string
		loss   int  // thousandths
		bpf    bool // it takes privileges
		change func(c *vsync.Config)
	}{
		{"udp", 20, false, over(vsync.UDP())},
		{"unicast tree", 20, false, func(c *vsync.Config) { c.Network.UnicastOnly = true }},
		{"filtered udp", 20, true, over(vsync.FilteredUDP())},
		{"xdp", 20, true, over(vsync.XDP(vsync.XDPOptions{}))},
		{"generic xdp", 20, true, over(vsync.XDP(vsync.XDPOptions{Generic: true}))},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.bpf {
				netns.Require(t, "xdp", bpf.ProbeDemux())
			}
			newField(t, 1, newBridged, c.change).run(rounds(t), c.loss)
		})
	}
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
	for _, direct := range []bool{false, true} {
		name := "tree"
		if direct {
			name = "direct"
		}
		t.Run(name, func(t *testing.T) {
			change := func(c *vsync.Config) { c.Network.TCPOnly, c.Network.TCPDirect = true, direct }
			newField(t, 1, newAddresses, change).run(rounds(t), 5)
		})
	}
}
