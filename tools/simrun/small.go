package main

import (
	"bufio"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/khamsin-io/khamsin/vsync/sim"
)

// tally is what an exhaustive search has found.
type tally struct {
	mu      sync.Mutex
	seen    map[uint64]bool // worlds with one crash that were played, by the hash of all that happened
	out     io.Writer
	bug     string
	played  [3]atomic.Int64 // worlds by the number of their crashes
	left    atomic.Int64    // worlds with two crashes that were not played
	failed  []string
	said    time.Time
	started time.Time
}

// exhaustive plays the small worlds: every change without a crash, with one crash at every step, and with a second one
// at every step behind it. Of the last it plays one in s.every.
func exhaustive(s *settings, out, diag io.Writer) int {
	t := &tally{seen: map[uint64]bool{}, out: out, bug: s.bug, started: time.Now(), said: time.Now()}
	var ones []sim.SmallWorld
	for _, change := range sim.SmallChanges() {
		if s.change != "" && s.change != change {
			continue
		}
		before := len(ones)
		ones = append(ones, t.play(sim.SmallWorld{Change: change}).Next()...)
		fmt.Fprintf(out, "sim: %s: %d places for a first crash\n", change, len(ones)-before)
	}
	var next atomic.Int64
	var workers sync.WaitGroup
	for range s.workers {
		workers.Go(func() {
			for i := next.Add(1) - 1; i < int64(len(ones)); i = next.Add(1) - 1 {
				t.family(ones[i], int(i), s.every)
				t.progress(diag, i, len(ones))
			}
		})
	}
	workers.Wait()
	slices.Sort(t.failed)
	for i, name := range t.failed {
		if i == 20 {
			fmt.Fprintln(out, "sim: and more")
			break
		}
		fmt.Fprintf(out, "sim: failed: simrun -world %s\n", name)
	}
	fmt.Fprintf(out, "sim: small worlds: %d played in %v, with no crash %d, one %d, two %d (not played: %d): "+
		"%d failed\n",
		t.played[0].Load()+t.played[1].Load()+t.played[2].Load(), time.Since(t.started).Round(time.Second),
		t.played[0].Load(), t.played[1].Load(), t.played[2].Load(), t.left.Load(), len(t.failed))
	return min(1, len(t.failed))
}

// family plays a world with one crash, and of those with a second one behind it each of a number.
func (t *tally) family(one sim.SmallWorld, number, every int) {
	r := t.play(one)
	if t.known(r) {
		return // no packet was lost: another name of the same run
	}
	for i, two := range r.Next() {
		if (i+number)%every == 0 {
			t.play(two)
		} else {
			t.left.Add(1)
		}
	}
}

// known tells whether a world was the same run as one before.
func (t *tally) known(r *sim.SmallResult) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	old := t.seen[r.TraceHash]
	t.seen[r.TraceHash] = true
	return old
}

// play plays a world and reports it when it failed.
func (t *tally) play(w sim.SmallWorld) *sim.SmallResult {
	r := sim.PlaySmallWorld(w, t.bug, nil)
	t.played[len(w.Crashes)].Add(1)
	if r.Failed() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if len(t.failed) == 0 {
			r.Report(t.out)
		}
		t.failed = append(t.failed, w.String())
	}
	return r
}

// progress says how far the search is, from time to time.
func (t *tally) progress(diag io.Writer, done int64, of int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if time.Since(t.said) > progressAfter {
		t.said = time.Now()
		fmt.Fprintf(diag, "sim: %d of %d first crashes, %d worlds in %v, %d failed\n", done+1, of,
			t.played[1].Load()+t.played[2].Load(), time.Since(t.started).Round(time.Second), len(t.failed))
	}
}

// singleSmall plays one small world and reports it.
func singleSmall(s *settings, out, diag io.Writer) int {
	w, err := sim.ParseSmallWorld(s.world)
	if err != nil {
		fmt.Fprintln(diag, "simrun: -world:", err)
		return 2
	}
	buf := bufio.NewWriterSize(out, 1<<16)
	defer buf.Flush()
	var trace io.Writer
	if s.trace {
		trace = buf
	}
	r := sim.PlaySmallWorld(w, s.bug, trace)
	r.Report(buf)
	fmt.Fprintf(buf, "sim: played %s: %d failed\n", w, min(1, len(r.Failures)))
	return min(1, len(r.Failures))
}
