package vsync

import (
	"errors"
	"fmt"

	"github.com/khamsin-io/khamsin/dataplane"
	"github.com/khamsin-io/khamsin/dataplane/frame"
	"github.com/khamsin-io/khamsin/transports/rdma"
)

// Sizes of an RDMA system's arena, all of which is pinned in memory.
const (
	rdmaTxFrames = 2048
	rdmaRxFrames = 6144 // more than the queue of one group, so that the transport is heard behind a full one
)

// errStaysOnHost refuses a scope that RDMA does not have. immutable: an error
var errStaysOnHost = errors.New("a TTL of 0: RDMA cannot keep packets on this host; use UDP, or a TTL of 1")

// RDMA returns the transport over RDMA verbs, on the device of the one interface of the configuration; see
// docs/rdma.md. It is there in binaries built with the tag rdma; in others the start fails and says so. Ports of the
// configuration separate systems, as with UDP, but none needs to be free.
func RDMA() TransportFactory {
	return func(c *Config) (dataplane.Transport, error) {
		if len(c.Interfaces) != 1 {
			return nil, errOneInterface
		}
		if c.TTL == 0 {
			return nil, errStaysOnHost
		}
		t, err := rdma.Open(rdma.Config{
			Interface: c.Interfaces[0], GroupPort: c.GroupPort, TTL: max(1, c.TTL), MTU: c.MaxPacket,
			Arena: frame.Config{TxChunks: max(rdmaTxFrames, 2*c.MaxUnstable), RxRuns: max(rdmaRxFrames, 3*c.MaxQueue)},
			Log:   c.logger(),
		})
		if err != nil {
			return nil, fmt.Errorf("open transport: %w", err)
		}
		return t, nil
	}
}
