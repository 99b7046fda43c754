package perf

import (
	"slices"

	"github.com/khamsin-io/khamsin/vsync"
)

// transportOf says how a name of Transports changes a configuration.
func transportsByName() map[string]func(c *vsync.Config) {
	return map[string]func(c *vsync.Config){
		"auto":       func(*vsync.Config) {},
		"udp":        func(c *vsync.Config) { c.Transport = vsync.UDP() },
		"xdp":        func(c *vsync.Config) { c.Transport = vsync.XDP(vsync.XDPOptions{}) },
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

// waitings returns the waiting strategies by name.
func waitings() map[string]vsync.Waiting {
	return map[string]vsync.Waiting{"adaptive": vsync.Adaptive, "block": vsync.Block, "busy": vsync.BusyPoll}
}

// setTransport chooses the transport, and without multicast the hosts where members are.
func (m *member) setTransport(c *vsync.Config) {
	transportsByName()[m.Options.Transport](c)
	if c.Network.UnicastOnly || c.Network.TCPOnly {
		c.Network.Hosts = m.Hosts
	}
}
