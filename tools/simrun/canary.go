package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/khamsin-io/khamsin/vsync/sim"
)

// singlePrimary is the checker whose bugs need several ORACLE members to show.
const singlePrimary = "single-primary"

// canaries plays seeds with each planted bug until the checker that must catch it reports, and prints what came out.
func canaries(s *settings, out io.Writer) int {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "bug\tchecker\tcaught at seed\tseeds played\tother checkers that reported")
	escaped := 0
	for _, c := range sim.Canaries() {
		if s.bug != "" && s.bug != c.Name {
			continue
		}
		one := *s
		one.bug = c.Name
		if c.Checker == singlePrimary {
			one.oracle = 3 // one ORACLE member cannot disagree with itself
		}
		var caught *sim.Result
		played := 0
		others := map[string]bool{}
		play(&one, s.max, func(r *sim.Result) bool {
			played++
			for _, f := range r.Failures {
				others[f.Checker] = true
			}
			if r.Caught(c.Checker) {
				caught = r
			}
			return caught == nil
		})
		delete(others, c.Checker)
		at := "ESCAPED"
		if caught != nil {
			at = fmt.Sprint(caught.Seed)
		} else {
			escaped++
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%d\t%s\n", c.Name, c.Checker, at, played,
			strings.Join(slices.Sorted(maps.Keys(others)), " "))
	}
	table.Flush()
	fmt.Fprintf(out, "sim: planted bugs: %d escaped\n", escaped)
	return min(1, escaped)
}
