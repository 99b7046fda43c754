package engine

import (
	"github.com/khamsin-io/khamsin/dataplane/clock"
	"github.com/khamsin-io/khamsin/vsync/core"
	"github.com/khamsin-io/khamsin/vsync/internal/canary"
)

// checkFlushes ends the flushes whose messages are stable.
func (g *group) checkFlushes() {
	keep := g.flushes[:0]
	for _, w := range g.flushes {
		if w.seq == 0 && g.pack.Taken() >= w.units {
			w.seq = g.st.NumberedTo()
			w.all = g.causesOfAll()
			g.hurry = true
		}
		done := g.pack.Taken() >= w.units && g.stable(w)
		if canary.Enabled && g.e.cfg.Canary == canary.FlushEarly {
			done = true
		}
		if done {
			g.e.out.Events = append(g.e.out.Events, Event{Kind: EventFlushed, Group: g.handle, Token: w.token})
		} else {
			keep = append(keep, w)
		}
	}
	g.flushes = keep
	if g.hurry && !g.st.Frozen() && g.pack.Len() == 0 && len(keep) > 0 {
		g.hurry = false
		g.st.AskNow(g.e.now)
	}
}

// causesOfAll returns how far every stream was delivered here, if this member sent causal messages in the view: were
// one of those deliveries lost, so would be what it caused.
func (g *group) causesOfAll() []core.Seq {
	if !g.sentCausal {
		return nil
	}
	list := make([]core.Seq, g.view.Size())
	for r := range list {
		list[r] = g.st.DeliveredTo(core.Rank(r))
	}
	return list
}

func (g *group) stable(w flushWait) bool {
	for r, q := range w.all {
		if core.Rank(r) != g.self && g.st.StableAt(core.Rank(r)) < q {
			return false
		}
	}
	if w.k <= 0 || w.k >= g.view.Size() {
		return g.st.StableTo() >= w.seq
	}
	return g.st.HeldBy(w.seq) >= w.k
}

// watch sets the time to ask others what they hold, when something waits for acknowledgements that may have been lost.
func (g *group) watch(now clock.Time) {
	if g.st.Frozen() || !g.waitsForOthers() {
		g.askAt, g.asks = clock.Never, 0
	} else if g.askAt == clock.Never {
		g.askAt = now.Add(g.e.cfg.Timing.Sync << min(g.asks, 6))
	}
}

// waitsForOthers tells whether a SafeSend waits for its acceptors, or a Flush for the stability of others' streams.
func (g *group) waitsForOthers() bool {
	if g.usesSafe {
		if _, _, _, waits := g.gate.SafeWait(); waits {
			return true
		}
	}
	for i := range g.flushes {
		if g.flushes[i].all != nil {
			return true
		}
	}
	return false
}

// ask asks the members that hold something up.
func (g *group) ask() {
	g.askAt = clock.Never
	g.asks++
	if r, q, by, waits := g.gate.SafeWait(); waits {
		for a := range g.safe.Acceptors(r) {
			if a != g.self && g.safe.Lacks(a, r, q, by) {
				g.st.Inquire(a)
			}
		}
	}
	for i := range g.flushes {
		for r, q := range g.flushes[i].all {
			if core.Rank(r) != g.self && g.st.StableAt(core.Rank(r)) < q {
				g.st.Inquire(core.Rank(r))
			}
		}
	}
}
