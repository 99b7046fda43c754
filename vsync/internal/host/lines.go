package host

import (
	"github.com/khamsin-io/khamsin/dataplane/clock"
	"github.com/khamsin-io/khamsin/vsync/internal/engine"
)

// keepLines opens and ends lines as the engine wants. Owner only.
func (h *Host) keepLines(changes []engine.Line) {
	if h.cfg.Lines == nil {
		return
	}
	for _, l := range changes {
		if l.Port == 0 {
			h.cfg.Lines.Drop(l.To.Incarnation)
		} else {
			h.cfg.Lines.Want(l.To, l.Port)
		}
	}
}

// onLine tells the engine what became of a line. It is called by a goroutine of the lines.
func (h *Host) onLine(incarnation uint64, alive bool) {
	h.doFunc(func(now clock.Time) {
		if alive {
			h.engine.LineOpen(now, incarnation)
		} else {
			h.engine.LineClosed(now, incarnation)
		}
	})
}
