package vsync

import (
	"fmt"

	"github.com/khamsin-io/khamsin/dataplane"
	"github.com/khamsin-io/khamsin/dataplane/frame"
	"github.com/khamsin-io/khamsin/transports/mem"
)

// TransportFactory opens the transport of a system. The system closes it.
type TransportFactory func(c *Config) (dataplane.Transport, error)

// Sizes of a system's arena. Memory is used when it is first touched.
const (
	txFrames   = 8192  // packets of our own that are not stable everywhere
	rxFrames   = 16384 // packets of others that are queued for handlers or not stable everywhere
	queuedMax  = 8192  // packets that a mem transport holds for its receiver
	chunkBytes = 2048
)

// Mem returns a transport between the systems of one process that share hub. For tests and demonstrations.
func Mem(hub *mem.Hub) TransportFactory {
	return func(c *Config) (dataplane.Transport, error) {
		cfg := mem.Config{
			Queue: queuedMax,
			Arena: frame.Config{ChunkSize: chunkBytes, TxChunks: max(txFrames, 2*c.MaxUnstable),
				RxRuns: rxFrames + queuedMax},
		}
		if c.MaxPacket > 0 {
			cfg.MTU = min(c.MaxPacket, mem.DefaultMTU)
		}
		t, err := hub.Open(cfg)
		if err != nil {
			return nil, fmt.Errorf("open transport: %w", err)
		}
		return t, nil
	}
}
