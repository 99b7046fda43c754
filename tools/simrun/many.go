package main

import (
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/khamsin-io/khamsin/vsync/sim"
)

// progressAfter is how long a run may be silent.
const progressAfter = 2 * time.Second

// many plays the seeds on all workers.
func many(s *settings, out, diag io.Writer) int {
	var failed []*sim.Result
	started, said := time.Now(), time.Now()
	done := uint64(0)
	play(s, s.seeds, func(r *sim.Result) bool {
		done++
		if s.verbose {
			fmt.Fprintln(diag, r)
			for i := range r.Failures {
				fmt.Fprintf(diag, "seed %d: %s: %s\n", r.Seed, r.Failures[i].Checker, r.Failures[i].Text)
			}
		}
		if r.Failed() {
			failed = append(failed, r)
		}
		if time.Since(said) > progressAfter {
			said = time.Now()
			fmt.Fprintf(diag, "sim: %d of %d seeds in %v, %d failed\n", done, s.seeds,
				time.Since(started).Round(time.Second), len(failed))
		}
		return true
	})
	slices.SortFunc(failed, func(a, b *sim.Result) int { return int(a.Seed) - int(b.Seed) })
	line := fmt.Sprintf("sim: ran %d seeds from %d: %d failed", s.seeds, s.first, len(failed))
	if len(failed) == 0 {
		fmt.Fprintln(out, line)
		return 0
	}
	failed[0].Report(out)
	const named = 50
	for i, r := range failed {
		if i == 0 {
			line += ":"
		}
		if i == named {
			line += " …"
			break
		}
		line += fmt.Sprintf(" %d", r.Seed)
	}
	fmt.Fprintln(out, line)
	return 1
}

// play plays seeds from the first on, one world per worker, and hands each result to take, one at a time, in the
// order in which they come. It ends early when take returns false.
func play(s *settings, count uint64, take func(r *sim.Result) bool) {
	var next atomic.Uint64
	var stop atomic.Bool
	results := make(chan *sim.Result)
	var workers sync.WaitGroup
	for range s.workers {
		workers.Go(func() {
			for !stop.Load() {
				i := next.Add(1) - 1
				if i >= count {
					return
				}
				results <- sim.Run(s.options(s.first + i))
			}
		})
	}
	go func() {
		workers.Wait()
		close(results)
	}()
	for r := range results {
		if !stop.Load() && !take(r) {
			stop.Store(true)
		}
	}
}
