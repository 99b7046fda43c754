package engine

import "github.com/khamsin-io/khamsin/dataplane/clock"

// Tune bounds what this process sends from now on: packets in one group that are not stable, and bytes of a packet of a
// stream. Neither exceeds what the engine was made with.
func (e *Engine) Tune(now clock.Time, window, packet int) {
	e.now = now
	e.windowLimit = min(window, e.cfg.Limits.Window)
	e.box.SetPacket(packet)
	for _, g := range e.groups {
		if g != nil && g.st != nil {
			g.st.SetLimit(e.windowLimit)
			e.touch(g)
		}
	}
}

// Losses returns how many packets of its own streams this process has sent in its present views, and how many packets
// it has sent again because somebody asked for them. Both begin anew with a view.
func (e *Engine) Losses() (sent, resent uint64) {
	for _, g := range e.groups {
		if g != nil && g.st != nil {
			sent, resent = sent+g.st.Count.Sent, resent+g.st.Count.Resent
		}
	}
	return sent, resent
}
