package safe

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/khamsin-io/khamsin/vsync/core"
	"github.com/khamsin-io/khamsin/vsync/internal/canary"
)

// stable is what is known of stability.
type stable []core.Seq

func (s stable) StableAt(r core.Rank) core.Seq { return s[r] }

func TestAcceptors(t *testing.T) {
	// rows: SAF-04, SAF-05, SAF-06, SAF-08, SAF-09
	for _, c := range []struct {
		name      string
		n, copies int
		sender    core.Rank
		want      []core.Rank
	}{
		{"all by default", 4, 0, 2, []core.Rank{2, 0, 1, 3}},
		{"a majority of five", 5, -1, 0, []core.Rank{0, 1, 2}},
		{"a majority of four", 4, -1, 3, []core.Rank{3, 0, 1}},
		{"the sender alone", 4, 1, 3, []core.Rank{3}},
		{"the sender and the lowest", 4, 2, 3, []core.Rank{3, 0}},
		{"the sender is the lowest", 4, 2, 0, []core.Rank{0, 1}},
		{"the sender is between", 5, 3, 1, []core.Rank{1, 0, 2}},
		{"more than there are", 2, 9, 1, []core.Rank{1, 0}},
		{"a view of one", 1, -1, 0, []core.Rank{0}},
	} {
		tracker := New(0, c.n, c.copies, make(stable, c.n), canary.None)
		if got := slices.Collect(tracker.Acceptors(c.sender)); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
		for range tracker.Acceptors(c.sender) {
			break
		}
	}
}

// The tracker is judged by a slow reference that keeps every acknowledgement and every cause.
func TestHeld(t *testing.T) {
	// rows: SAF-02, SAF-11
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 4).Draw(t, "n")
		self := core.Rank(rapid.IntRange(0, n-1).Draw(t, "self"))
		known := make(stable, n)
		w := New(self, n, rapid.IntRange(-1, n+1).Draw(t, "copies"), known, canary.None)
		ref := newReference(w, self, n, known)
		rank := func(what string) core.Rank { return core.Rank(rapid.IntRange(0, n-1).Draw(t, what)) }
		seq := func(what string) core.Seq { return core.Seq(rapid.IntRange(0, 6).Draw(t, what)) }
		for range rapid.IntRange(0, 40).Draw(t, "steps") {
			switch rapid.IntRange(0, 3).Draw(t, "step") {
			case 0:
				m, owner, to := rank("member"), rank("owner"), seq("to")
				w.OnAck(m, owner, to)
				ref.held[m][owner] = max(ref.held[m][owner], to)
			case 1:
				r, of, q := rank("stream"), rank("cause's"), seq("cause")
				w.OnCause(r, of, q)
				ref.cause(r, of, q)
			case 2:
				r := rank("stable")
				known[r] = max(known[r], seq("stable to"))
			}
			sender, q, by := rank("sender"), seq("packet"), seq("by")
			if got, want := w.Held(sender, q, by), ref.isHeld(sender, q, by); got != want {
				t.Fatalf("packet %d of %d, placed by %d: held %v, want %v", q, sender, by, got, want)
			}
			for m := range core.Rank(n) {
				if got, want := w.Lacks(m, sender, q, by), !ref.holdsAll(m, sender, q, by); got != want {
					t.Fatalf("member %d lacks packet %d of %d: %v, want %v", m, q, sender, got, want)
				}
			}
		}
	})
}

// reference knows everything that was told, and derives the rest anew each time.
type reference struct {
	w      *Tracker
	self   core.Rank
	stable stable
	held   [][]core.Seq
	needs  [][]core.Seq // by stream
}

func newReference(w *Tracker, self core.Rank, n int, known stable) *reference {
	ref := &reference{w: w, self: self, stable: known}
	for range n {
		ref.held, ref.needs = append(ref.held, make([]core.Seq, n)), append(ref.needs, make([]core.Seq, n))
	}
	return ref
}

// cause notes a cause, and all that was known to be needed by its stream by then.
func (f *reference) cause(r, of core.Rank, q core.Seq) {
	inherited := slices.Clone(f.needs[of])
	inherited[of] = max(inherited[of], q)
	for k, x := range inherited {
		f.needs[r][k] = max(f.needs[r][k], x)
	}
}

func (f *reference) has(m, owner core.Rank, q core.Seq) bool {
	return m == f.self || m == owner || q <= f.stable[owner] || q <= f.held[m][owner]
}

func (f *reference) holdsAll(m, sender core.Rank, q, by core.Seq) bool {
	for k, x := range f.needs[sender] {
		if !f.has(m, core.Rank(k), x) {
			return false
		}
	}
	return f.has(m, sender, q) && f.has(m, 0, by)
}

func (f *reference) isHeld(sender core.Rank, q, by core.Seq) bool {
	for m := range f.w.Acceptors(sender) {
		if !f.holdsAll(m, sender, q, by) {
			return false
		}
	}
	return true
}

func TestHeldDoesNotAllocate(t *testing.T) {
	w := New(0, 5, 3, make(stable, 5), canary.None)
	w.OnAck(1, 2, 1)
	if n := testing.AllocsPerRun(100, func() {
		w.OnAck(1, 2, 7)
		w.Held(2, 7, 1)
	}); n != 0 {
		t.Errorf("%v allocations for a question", n)
	}
}
