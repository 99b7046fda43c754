package perf

import (
	"math/rand/v2"

	"github.com/khamsin-io/khamsin/dataplane"
	"github.com/khamsin-io/khamsin/vsync"
)

// lossy returns a factory of transports that lose a share of the packets that they receive, each on its own.
func lossy(inner vsync.TransportFactory, share float64) vsync.TransportFactory {
	if inner == nil {
		inner = vsync.UDP()
	}
	return func(c *vsync.Config) (dataplane.Transport, error) {
		t, err := inner(c)
		if err != nil {
			return nil, err
		}
		return &loser{Transport: t, share: share}, nil
	}
}

// loser is a transport that loses packets.
type loser struct {
	dataplane.Transport
	share float64
}

// Receive is the transport's, with losses. A batch that is lost as a whole looks like a wait that ran out.
func (l *loser) Receive(batch []dataplane.Packet, wait dataplane.Wait) (int, error) {
	n, err := l.Transport.Receive(batch, wait)
	kept := 0
	for i := range batch[:n] {
		if rand.Float64() < l.share {
			l.Arena().Release(batch[i].Frame)
			continue
		}
		batch[kept] = batch[i]
		kept++
	}
	clear(batch[kept:n])
	return kept, err
}
