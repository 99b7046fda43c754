package sim

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/khamsin-io/khamsin/dataplane/clock"
	"github.com/khamsin-io/khamsin/vsync/core"
)

// The names of the checkers. Those that have no file check_*.go of their own watch while the world runs.
const (
	checkViews     = "view-agreement"
	checkPrimary   = "single-primary"
	checkSame      = "same-messages"
	checkSynchrony = "view-synchrony"
	checkSelf      = "self-delivery"
	checkDuplicate = "no-duplicate"
	checkCreation  = "no-creation"
	checkFIFO      = "fifo"
	checkTotal     = "total-order"
	checkCausal    = "causal"
	checkUniform   = "uniform"
	checkState     = "joiner-state"
	checkFlush     = "flush-stable"
	checkAccuracy  = "accuracy"
	checkCreate    = "create-only"
	checkEnd       = "termination"
	checkPeer      = "peer"
	checkLiveness  = "liveness"       // when all has healed, the living agree within a bound, and stop in order
	checkMemory    = "bounded-memory" // a process at rest holds next to no frames
	checkArena     = "whole-arena"    // a process that is over has given back every frame
	checkOne       = "one-system"     // nobody founds a second system beside one that works
	checkContract  = "contract"       // the engine keeps to the order of deliveries and to the results it documents
	checkInvariant = "invariant"      // no assertion fails, nothing panics
)

// checker judges one guarantee over a history.
type checker struct {
	name  string
	judge func(x *index)
}

// checkers returns those that judge after the run.
func checkers() []checker {
	return []checker{
		{checkViews, judgeViews}, {checkPrimary, judgePrimary}, {checkSame, judgeSame}, {checkSynchrony,
			judgeSynchrony},
		{checkSelf, judgeSelf}, {checkDuplicate, judgeDuplicates}, {checkCreation, judgeCreation}, {checkFIFO,
			judgeFIFO},
		{checkTotal, judgeTotal}, {checkCausal, judgeCausal}, {checkUniform, judgeUniform}, {checkState, judgeState},
		{checkFlush, judgeFlush}, {checkAccuracy, judgeAccuracy}, {checkPeer, judgePeer}, {checkCreate, judgeCreate},
		{checkEnd, judgeEnd},
	}
}

// Checkers returns the names of all checkers.
func Checkers() []string {
	names := []string{checkLiveness, checkMemory, checkArena, checkOne, checkContract, checkInvariant}
	for _, c := range checkers() {
		names = append(names, c.name)
	}
	slices.Sort(names)
	return names
}

// failuresMax is how many failures one checker reports of one history; further ones are mostly echoes.
const failuresMax = 3

// judge lets every checker go over a history.
func judge(h *history) []Failure {
	x := newIndex(h)
	for _, c := range checkers() {
		x.name, x.count = c.name, 0
		c.judge(x)
	}
	return x.failures
}

// span is the part of a life between two views.
type span struct {
	life     *life
	view     *core.View
	from, to int         // entries of the log: log[from] is behind the view, log[to-1] the last before the next view
	next     core.ViewID // 0 when the life ends in this view
	survives bool        // it goes on to the next view, the world came to rest in this one, or the group ended with it
}

// viewKey names a view in a history. Groups of different systems have nothing to do with each other.
type viewKey struct {
	system int
	group  int
	id     core.ViewID
}

// key names a view of the life's group.
func (l *life) key(id core.ViewID) viewKey { return viewKey{l.process.system, l.group, id} }

// sameGroup tells whether two lives were lived in the same group.
func (l *life) sameGroup(other *life) bool {
	return l.group == other.group && l.process.system == other.process.system
}

// index is a history arranged for the checkers.
type index struct {
	h        *history
	spans    []*span             // by life, in order
	byView   map[viewKey][]*span // only looked up
	views    []viewKey           // sorted by system, group and id
	failures []Failure
	name     string // of the checker that works
	count    int    // its failures so far
}

// newIndex cuts every life into spans.
func newIndex(h *history) *index {
	x := &index{h: h, byView: map[viewKey][]*span{}}
	for _, l := range h.lives {
		var open *span
		for i := range l.log {
			e := &l.log[i]
			if e.kind != entryView || e.view == nil {
				continue
			}
			if open != nil {
				open.to, open.next, open.survives = i, e.view.ID, true
			}
			open = &span{life: l, view: e.view, from: i + 1, to: len(l.log)}
			x.add(open)
		}
		if open != nil && open.next == 0 {
			open.survives = l.rest >= open.from && l.rest > 0 || l.fate == ended
		}
	}
	slices.SortFunc(x.views, func(a, b viewKey) int {
		return cmp.Or(cmp.Compare(a.system, b.system), cmp.Compare(a.group, b.group), cmp.Compare(a.id, b.id))
	})
	return x
}

func (x *index) add(s *span) {
	key := s.life.key(s.view.ID)
	if x.byView[key] == nil {
		x.views = append(x.views, key)
	}
	x.byView[key] = append(x.byView[key], s)
	x.spans = append(x.spans, s)
}

// fail records a failure of the checker that works, with what the given lives saw around a time.
func (x *index) fail(at clock.Time, lives []*life, format string, args ...any) {
	if x.count++; x.count > failuresMax {
		return
	}
	f := Failure{Checker: x.name, At: at, Text: fmt.Sprintf(format, args...)}
	var done []*life
	for _, l := range lives {
		if l != nil && !slices.Contains(done, l) {
			f.Log = append(f.Log, l.excerpt(at)...)
			done = append(done, l)
		}
	}
	x.failures = append(x.failures, f)
}

// excerpt prints the last views of a life before a time, and what lies close around it.
func (l *life) excerpt(at clock.Time) []string {
	const before, after = 6, 4
	lines := []string{fmt.Sprintf("%v (%v at %s):", l, l.fate, stamp(l.endedAt))}
	if l.fate == alive {
		lines[0] = fmt.Sprintf("%v (alive):", l)
	}
	i, _ := slices.BinarySearchFunc(l.log, at, func(e entry, at clock.Time) int {
		if e.at < at {
			return -1
		}
		return 1
	})
	from, to := max(0, i-before), min(len(l.log), i+after)
	views := 0
	for j := from - 1; j >= 0 && views < 2; j-- {
		if l.log[j].kind == entryView {
			views++
			lines = slices.Insert(lines, 1, "  "+l.log[j].String())
		}
	}
	if from > 0 {
		lines = append(lines, "  …")
	}
	for j := from; j < to; j++ {
		lines = append(lines, "  "+l.log[j].String())
	}
	return lines
}
