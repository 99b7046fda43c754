package engine

import (
	"fmt"
	"strings"

	"github.com/khamsin-io/khamsin/vsync/core"
	"github.com/khamsin-io/khamsin/vsync/internal/link"
)

// Dump describes the state of every group in a few lines each, for a person who looks for what is stuck.
func (e *Engine) Dump() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%v over=%v stopping=%v active=%v leader=%v oracle=%v %s\n", e.cfg.Self, e.over, e.stopping,
		e.member.Active(), e.member.Leader(), e.member.Oracle(), e.member.Dump())
	for _, g := range e.groups {
		if g != nil {
			g.dump(&b)
		}
	}
	b.WriteString(e.links.Dump())
	return b.String()
}

func (g *group) dump(b *strings.Builder) {
	fmt.Fprintf(b, "group %q handle=%d lid=%d leaving=%v asked=%v full=%v queued=%d waiting=%d units, %d bytes",
		g.name, g.handle, g.lid, g.leaving, g.asked, g.full, g.queued, g.pack.Len(), g.pack.Bytes())
	fmt.Fprintf(b, " state=%v loading=%v held=%d sending=%d flushes=%d early=%d\n", g.hasState, g.loading, len(g.held),
		g.sending, len(g.flushes), len(g.early))
	if g.member != nil {
		fmt.Fprintf(b, "  changing to view %d, coordinator %v\n", g.member.Proposal().Next.ID,
			g.member.Proposal().Coordinator)
	}
	if g.co != nil {
		fmt.Fprintf(b, "  coordinates view %d, late: %v\n", g.co.Proposal().Next.ID, g.co.Late())
	}
	for id := uint64(1); id <= g.e.nextXfer; id++ {
		if t := g.e.transfers[id]; t != nil && t.Lid == g.lid {
			fmt.Fprintf(b, "  transfer %d of view %d, full %v:", id, t.View, t.Full)
			for _, a := range t.Targets {
				fmt.Fprintf(b, " %v %d bytes queued;", a, g.e.links.Queued(a, link.State, t.Lid))
			}
			b.WriteByte('\n')
		}
	}
	if g.st == nil {
		return
	}
	fmt.Fprintf(b, "  view %d, rank %d of %d; %s\n", g.view.ID, g.self, g.view.Size(), g.st.Dump())
	for r := range g.view.Size() {
		fmt.Fprintf(b, "  rank %d: delivered to %d, received to %d, stable to %d\n", r, g.st.DeliveredTo(core.Rank(r)),
			g.st.ReceivedTo(core.Rank(r)), g.st.StableAt(core.Rank(r)))
	}
	if r, q, by, waits := g.gate.SafeWait(); waits {
		fmt.Fprintf(b, "  waits for the acceptors of rank %d's %d, placed by %d\n", r, q, by)
	}
}

// System returns the number of the system that the process is part of, 0 while it is of none.
func (e *Engine) System() uint32 { return e.box.System }

// Quorums returns, for a member of the ORACLE, the sets of incarnations of each of which the ORACLE needs a majority;
// nil for everyone else.
func (e *Engine) Quorums() [][]uint64 { return e.member.Quorums() }
