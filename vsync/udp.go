package vsync

import (
	"errors"
	"fmt"

	"github.com/khamsin-io/khamsin/dataplane"
	"github.com/khamsin-io/khamsin/dataplane/frame"
	"github.com/khamsin-io/khamsin/transports/udp"
)

// errOneInterface refuses what the transports cannot do.
var errOneInterface = errors.New("interfaces: this transport talks on one interface only") // immutable: an error

// UDP returns the transport over UDP with IP multicast on the interfaces of the configuration.
func UDP() TransportFactory {
	return func(c *Config) (dataplane.Transport, error) {
		cfg, err := c.udpConfig()
		if err != nil {
			return nil, err
		}
		t, err := udp.Open(cfg)
		if err != nil {
			return nil, fmt.Errorf("open transport: %w", err)
		}
		return t, nil
	}
}

// portTries is how many ports are tried from PeerPort on: a host may run hundreds of processes of a system.
const portTries = 512

// udpConfig returns the configuration of the UDP transport.
func (c *Config) udpConfig() (udp.Config, error) {
	names, err := c.interfaces()
	if err != nil {
		return udp.Config{}, err
	}
	ttl := c.ttl(names)
	if ttl == 0 {
		ttl = -1 // not even on an interface where the transport would allow one hop
	}
	_, _, most := c.Network.channels()
	receive, send := c.Buffers()
	return udp.Config{
		Interface: names[0], Also: names[1:], IPv6: c.Network.IPv6, Port: c.PeerPort, GroupPort: c.GroupPort, TTL: ttl,
		PortTries: min(portTries, 65535-int(c.PeerPort)), MTU: c.MaxPacket, Channels: most,
		RecvBuffer: receive, SendBuffer: send,
		Arena: frame.Config{TxChunks: max(txFrames, 2*c.MaxUnstable), RxRuns: rxFrames}, Log: c.logger(),
	}, nil
}
