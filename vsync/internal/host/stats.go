package host

import (
	"github.com/khamsin-io/khamsin/dataplane"
	"github.com/khamsin-io/khamsin/dataplane/clock"
	"github.com/khamsin-io/khamsin/vsync/internal/engine"
)

// counting is an engine that counts.
type counting interface{ Counters() engine.Counters }

// Stats returns what the transport and the engine counted so far. When the host has ended, the engine's part is zero.
func (h *Host) Stats() (dataplane.Stats, engine.Counters) {
	var c engine.Counters
	h.doFunc(func(clock.Time) {
		if e, ok := h.engine.(counting); ok {
			c = e.Counters()
		}
	})
	return h.transport.Stats(), c
}
