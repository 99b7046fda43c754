package sim

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/khamsin-io/khamsin/vsync/core"
	"github.com/khamsin-io/khamsin/vsync/internal/engine"
)

// divided returns a story in a world of five nodes with an ORACLE of three, in one group, that is cut in two: 1 and 2,
// and 3 to 5. Node 1 leads the ORACLE, of which 2 and 3 are members too.
func divided(t *testing.T, ignore bool) *story {
	t.Helper()
	timing, limits := engine.Defaults()
	timing.OracleLost = 8 * time.Second
	w := NewWorld(Options{
		Seed: 1, Nodes: 1, Groups: 1, Oracle: 3, Faults: time.Second, Weather: &Weather{Delay: 100 * time.Microsecond},
		Mix: &Mix{Burst: 1, Flavours: [6]int{core.FIFO: 1}, ConsumeBatch: 1}, timing: &timing, limits: &limits,
		ignore: ignore,
	})
	w.history.groups, w.history.safeOf = nil, nil
	s := &story{w: w}
	w.onEntry = s.saw
	t.Cleanup(s.close)
	s.must(t, "nodes 3\nrun 1s\nstart\nrun 100ms\nstart\nrun 100ms\njoin 1 2 3 4 5 g\nrun 1s")
	return s
}

func (s *story) must(t *testing.T, script string) {
	t.Helper()
	if err := s.play(script); err != nil {
		t.Fatal(err)
	}
}

// members returns the nodes in a node's present view; nil when its process is over.
func (s *story) members(number int) []int {
	for _, p := range s.w.live {
		if p.node.number == number && len(p.members) > 0 && p.members[0].view != nil {
			var list []int
			for _, a := range p.members[0].view.Members {
				list = append(list, nodeOf(a))
			}
			return list
		}
	}
	return nil
}

// A member whose handlers stand still slows its senders, and goes on when it is quicker than the threshold; one that
// stands still for longer is accused, and the others go on without it.
//
// rows: FD-03, THR-08, FD-18
func TestStuckHandlersAreAThresholdOfTheirOwn(t *testing.T) {
	timing, limits := engine.Defaults()
	limits.Window, limits.Queue, limits.Pending = 16, 16, 2000
	for stall, stays := range map[string]bool{"15s": true, "60s": false} {
		w := NewWorld(Options{
			Seed: 1, Nodes: 1, Groups: 1, Faults: time.Second, Weather: &Weather{Delay: 100 * time.Microsecond},
			Mix: &Mix{Burst: 1, Flavours: [6]int{core.FIFO: 1}, ConsumeBatch: 1}, timing: &timing, limits: &limits,
		})
		w.history.groups, w.history.safeOf = nil, nil
		s := &story{w: w}
		w.onEntry = s.saw
		s.must(t, "nodes 3\nrun 1s\njoin 1 2 3 g\nrun 1s\nstall 3 "+stall+"\nsend 1 fifo "+
			strings.Repeat("x", 1000)+" 200\nrun 10s")
		if got := s.members(1); !slices.Equal(got, []int{1, 2, 3}) {
			t.Errorf("after 10 s of a stall of %s: %v", stall, got)
		}
		s.must(t, "run 20s")
		want := []int{1, 2, 3}
		if !stays {
			want = want[:2]
		}
		if got := s.members(1); !slices.Equal(got, want) {
			t.Errorf("after 30 s of a stall of %s: %v, want %v", stall, got, want)
		}
		if got := w.history.lives[1]; len(got.log) < 200 {
			t.Errorf("the other receiver was given %d messages after a stall of %s", len(got.log), stall)
		}
		for _, p := range w.history.processes {
			if p.node == 3 && !stays && (p.fate != failed || !errors.Is(p.err, engine.ErrPoisoned)) {
				t.Errorf("the stuck process: %v, %v", p.fate, p.err)
			}
		}
		s.close()
	}
}

// rows: FD-16
func TestMinorityEndsWithThePartition(t *testing.T) {
	s := divided(t, false)
	s.must(t, "partition 1 4 | 2 3 5\nrun 20s")
	for _, n := range []int{2, 3, 5} {
		if got := s.members(n); !slices.Equal(got, []int{2, 3, 5}) {
			t.Errorf("node %d of the majority is in a view of %v", n, got)
		}
	}
	for _, p := range s.w.history.processes {
		if p.node != 1 && p.node != 4 {
			continue
		}
		if p.fate != failed || !errors.Is(p.err, engine.ErrOracleLost) {
			t.Errorf("%v of the minority: %v, %v", p, p.fate, p.err)
		}
	}
	if r := s.w.result(); r.Failed() {
		t.Errorf("%+v", r.Failures)
	}
}

// On the minority's side of a cut an OrderedSend may be delivered, and is forgotten with its members; a SafeSend is not
// delivered there.
//
// rows: SAF-01, SAF-03, SAF-10, MC-09, MC-15
func TestNobodyDeliversSafelyOnTheMinoritysSide(t *testing.T) {
	s := divided(t, false)
	s.must(t, "partition 1 4 | 2 3 5\nsend 1 total amnesia\nsend 1 safe never\nsend 2 safe kept\nrun 20s")
	delivered := func(node int) (list []string) {
		for _, l := range s.w.history.lives {
			for i := range l.log {
				if m := l.log[i].message; m != nil && l.process.node == node {
					list = append(list, m.text)
				}
			}
		}
		return list
	}
	for node, want := range map[int][]string{1: {"amnesia"}, 4: {"amnesia"}, 2: {"kept"}, 3: {"kept"}, 5: {"kept"}} {
		if got := delivered(node); !slices.Equal(got, want) {
			t.Errorf("node %d delivered %q, want %q", node, got, want)
		}
	}
	if r := s.w.result(); r.Failed() {
		t.Errorf("%+v", r.Failures)
	}
}

// A client is answered when an ordered update was flushed: then no crash of some members forgets it. Without the Flush
// it may be forgotten with those who alone had it.
//
// rows: FLU-11, CAP-04, CAP-07, MC-15
func TestFlushBeforeTheAnswer(t *testing.T) {
	timing, limits := engine.Defaults()
	for _, flush := range []bool{false, true} {
		w := NewWorld(Options{
			Seed: 1, Nodes: 1, Groups: 1, Oracle: 3, Faults: time.Second,
			Weather: &Weather{Delay: 100 * time.Microsecond},
			Mix:     &Mix{Burst: 1, Flavours: [6]int{core.FIFO: 1}, ConsumeBatch: 1}, timing: &timing, limits: &limits,
		})
		w.history.groups, w.history.safeOf = nil, nil
		s := &story{w: w}
		w.onEntry = s.saw
		s.must(t, "nodes 5\nrun 1s\njoin 1 2 3 4 5 g\nrun 1s\ndrop 5->1 data 1\ndrop 5->2 data 1\ndrop 5->3 data 1")
		s.must(t, "drop 1->2 any 20\ndrop 1->3 any 20\nsend 5 total update")
		if flush {
			s.must(t, "heal\nflush 5\nrun 100ms")
			for _, l := range w.history.lives {
				if !l.has("update") {
					t.Errorf("%v lacks the update after the flush", l)
				}
			}
		} else {
			s.must(t, "run 150us")
		}
		s.must(t, "crash 5\ncrash 4\nrun 10s")
		for _, l := range w.history.lives {
			if n := l.process.node; n <= 3 && l.has("update") != flush {
				t.Errorf("flush %v: node %d has the update: %v", flush, n, l.has("update"))
			}
		}
		if got := s.members(1); !slices.Equal(got, []int{1, 2, 3}) {
			t.Errorf("survivors %v", got)
		}
		s.close()
	}
}

// has tells whether a life delivered a message of a story.
func (l *life) has(text string) bool {
	return slices.ContainsFunc(l.log, func(e entry) bool { return e.message != nil && e.message.text == text })
}

// One sender that sends as fast as it can, to a large group some of which is slow, costs nobody the membership.
//
// rows: FLC-09
func TestOneSenderFlatOut(t *testing.T) {
	timing, limits := engine.Defaults()
	limits.Window, limits.Queue = 64, 64
	w := NewWorld(Options{
		Seed: 1, Nodes: 1, Groups: 1, Faults: time.Second,
		Weather: &Weather{Delay: 100 * time.Microsecond, Loss: 0.01},
		Mix:     &Mix{Burst: 1, Flavours: [6]int{core.FIFO: 1}, ConsumeBatch: 1}, timing: &timing, limits: &limits,
	})
	w.history.groups, w.history.safeOf = nil, nil
	s := &story{w: w}
	w.onEntry = s.saw
	t.Cleanup(s.close)
	s.must(t, "nodes 20\nrun 1s\njoin 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 g\nrun 1s")
	for _, m := range []int{7, 13} {
		w.nodes[m-1].proc.members[0].slow = 2 * time.Millisecond
	}
	const each = 100
	rounds := 60
	if testing.Short() {
		rounds = 6
	}
	for range rounds {
		s.must(t, fmt.Sprintf("send 2 fifo %s %d\nrun 500ms", strings.Repeat("x", 700), each))
	}
	s.must(t, "run 30s")
	for _, l := range w.history.lives {
		n := 0
		for i := range l.log {
			n += btoi(l.log[i].kind == entryMessage)
		}
		if l.fate != alive || n != rounds*each {
			t.Errorf("%v is %v and was given %d messages, want %d", l, l.fate, n, rounds*each)
		}
	}
}

// rows: FD-17
func TestPartsGoOnWhenPartitionsAreIgnored(t *testing.T) {
	s := divided(t, true)
	s.must(t, "partition 1 4 | 2 3 5\nrun 30s\nsend 1 total left\nsend 2 safe right\nrun 1s")
	check := func(when string) {
		t.Helper()
		for n, want := range map[int][]int{1: {1, 4}, 4: {1, 4}, 2: {2, 3, 5}, 3: {2, 3, 5}, 5: {2, 3, 5}} {
			if got := s.members(n); !slices.Equal(got, want) {
				t.Errorf("%s node %d is in a view of %v, want %v", when, n, got, want)
			}
		}
	}
	check("while the network is cut")
	s.must(t, "heal\nrun 5s\nsend 4 total left\nsend 5 total right\nrun 5s")
	check("when it is whole again")
	for _, l := range s.w.history.lives {
		var texts []string
		for i := range l.log {
			if m := l.log[i].message; m != nil {
				texts = append(texts, m.text)
			}
		}
		side := map[bool]string{true: "left", false: "right"}[l.process.node == 1 || l.process.node == 4]
		if !slices.Equal(texts, []string{side, side}) {
			t.Errorf("%v delivered %q, want two of %q", l, texts, side)
		}
	}
	for _, f := range s.w.result().Failures {
		if f.Checker != checkPrimary { // two chains of views are what was asked for
			t.Errorf("%s: %s", f.Checker, f.Text)
		}
	}
}
