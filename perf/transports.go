package perf

import (
	"fmt"
	"slices"

	"github.com/khamsin-io/khamsin/vsync"
)

// byRDMA is the name of the transport that needs a device: members meet on the interface that ISIS_NETWORK_INTERFACES
// names, and not on the loopback.
const byRDMA = "rdma"

// noDevice is why members over RDMA are in no namespaces.
const noDevice = "netns: no RDMA device is in a namespace that was just made"

// transportsByName says how a name of Transports changes a configuration.
func transportsByName() map[string]func(c *vsync.Config) {
	return map[string]func(c *vsync.Config){
		"auto":       func(*vsync.Config) {},
		"udp":        func(c *vsync.Config) { c.Transport = vsync.UDP() },
		"xdp":        func(c *vsync.Config) { c.Transport = vsync.XDP(vsync.XDPOptions{}) },
		byRDMA:       func(c *vsync.Config) { c.Transport = vsync.RDMA() },
		"unicast":    func(c *vsync.Config) { c.Network.UnicastOnly = true },
		"tcp":        func(c *vsync.Config) { c.Network.TCPOnly = true },
		"tcp-direct": func(c *vsync.Config) { c.Network.TCPOnly, c.Network.TCPDirect = true, true },
	}
}

// Transports returns the names of Options.Transport. "auto" is what vsync uses when nothing is configured.
func Transports() []string {
	var names []string
	for name := range transportsByName() {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// UseTransport makes a configuration use the transport with a name of Transports.
func UseTransport(c *vsync.Config, name string) error {
	use, ok := transportsByName()[name]
	if !ok {
		return fmt.Errorf("transport: %q, want one of %v", name, Transports())
	}
	use(c)
	return nil
}

// waitings returns the waiting strategies by name.
func waitings() map[string]vsync.Waiting {
	return map[string]vsync.Waiting{"adaptive": vsync.Adaptive, "block": vsync.Block, "busy": vsync.BusyPoll}
}

// setTransport chooses the transport, whose name is a valid one, and without multicast the hosts where members are.
func (m *member) setTransport(c *vsync.Config) {
	transportsByName()[m.Options.Transport](c)
	if c.Network.UnicastOnly || c.Network.TCPOnly {
		c.Network.Hosts = m.Hosts
	}
}

// hostInterface returns the interface on which members of this host meet that have no namespaces.
func hostInterface(transport string) (string, error) {
	if transport != byRDMA {
		return "lo", nil
	}
	c, err := vsync.ConfigFromEnv()
	if err != nil {
		return "", err
	}
	if len(c.Interfaces) != 1 {
		return "", fmt.Errorf("transport: rdma takes one interface, and ISIS_NETWORK_INTERFACES names %v", c.Interfaces)
	}
	return c.Interfaces[0], nil
}
