// Command simrun plays simulated worlds.
//
//	simrun -seeds 500 -first 1  plays so many seeds on all cores, and reports the first that fails
//	simrun -seed 17 -trace      plays one seed and writes its timeline
//	simrun -story file.txt      plays a story and writes its timeline
//	simrun -exhaustive          plays small worlds with up to two crashes, at every step of a change of view
//	simrun -world join/1:9/2:30 plays one of them
//	simrun -canary -max 200     proves that the checkers catch every planted bug
//
// Planting bugs needs a binary built with -tags khamsin_canary. The last line says what came out; the exit status is 1
// when something failed.
package main

import (
	"bufio"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/khamsin-io/khamsin/vsync/sim"
)

// gcPercent makes the collector lazy: worlds are small, short, and many.
const gcPercent = 400

func main() {
	debug.SetGCPercent(gcPercent)
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

// settings are the command line.
type settings struct {
	seeds, first uint64
	seed         uint64
	one          bool // only seed
	trace        bool
	canary       bool
	bug          string
	story        string
	world        string
	change       string
	exhaustive   bool
	every        int
	max          uint64
	nodes        int
	oracle       int
	workers      int
	verbose      bool
}

// run does what the arguments say and returns the exit status.
func run(args []string, out, diag io.Writer) int {
	var s settings
	flags := flag.NewFlagSet("simrun", flag.ContinueOnError)
	flags.SetOutput(diag)
	flags.Uint64Var(&s.seeds, "seeds", 100, "how many seeds to play")
	flags.Uint64Var(&s.first, "first", 1, "the first of them")
	flags.Uint64Var(&s.seed, "seed", 0, "play this seed only")
	flags.BoolVar(&s.trace, "trace", false, "with -seed: write the timeline")
	flags.BoolVar(&s.canary, "canary", false, "look whether every planted bug is caught")
	flags.StringVar(&s.bug, "bug", "", "plant the bug of this name")
	flags.StringVar(&s.story, "story", "", "play the story in this file")
	flags.StringVar(&s.world, "world", "", "play the small world of this name")
	flags.BoolVar(&s.exhaustive, "exhaustive", false, "play small worlds with up to two crashes, each at every step")
	flags.IntVar(&s.every, "every", 1, "with -exhaustive: of the worlds with two crashes play one in so many")
	flags.StringVar(&s.change, "change", "", "with -exhaustive: only this change: "+
		strings.Join(sim.SmallChanges(), ", "))
	flags.Uint64Var(&s.max, "max", 300, "with -canary: seeds to play for one bug at most")
	flags.IntVar(&s.nodes, "nodes", 0, "nodes at the start; 0: drawn from the seed")
	flags.IntVar(&s.oracle, "oracle", 0, "members of the ORACLE; when there are several they may crash")
	flags.IntVar(&s.workers, "workers", runtime.GOMAXPROCS(0), "worlds that are played at the same time")
	flags.BoolVar(&s.verbose, "v", false, "write a line for each seed")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	if flags.NArg() > 0 || s.workers < 1 || s.every < 1 {
		fmt.Fprintln(diag, "simrun: unexpected arguments")
		return 2
	}
	flags.Visit(func(f *flag.Flag) { s.one = s.one || f.Name == "seed" })
	switch {
	case (s.canary || s.bug != "") && len(sim.Canaries()) == 0:
		fmt.Fprintln(out,
			"sim: no bug can be planted in this binary: go run -tags khamsin_canary ./tools/simrun -canary")
		return 1
	case s.story != "":
		return tell(&s, out, diag)
	case s.canary:
		return canaries(&s, out)
	case s.world != "":
		return singleSmall(&s, out, diag)
	case s.exhaustive:
		return exhaustive(&s, out, diag)
	case s.one:
		return single(&s, out)
	}
	return many(&s, out, diag)
}

// options returns the world of a seed.
func (s *settings) options(seed uint64) sim.Options {
	return sim.Options{Seed: seed, Nodes: s.nodes, Oracle: s.oracle, Canary: s.bug}
}

// single plays one seed and reports it.
func single(s *settings, out io.Writer) int {
	o := s.options(s.seed)
	buf := bufio.NewWriterSize(out, 1<<16)
	defer buf.Flush()
	if s.trace {
		o.Trace = buf
	}
	r := sim.Run(o)
	if r.Failed() {
		r.Report(buf)
	}
	fmt.Fprintln(buf, r)
	if r.Failed() {
		fmt.Fprintf(buf, "sim: ran seed %d: failed\n", s.seed)
		return 1
	}
	fmt.Fprintf(buf, "sim: ran seed %d: 0 failed\n", s.seed)
	return 0
}

// tell plays a story and writes its timeline.
func tell(s *settings, out, diag io.Writer) int {
	b, err := os.ReadFile(s.story)
	if err != nil {
		fmt.Fprintln(diag, "simrun:", err)
		return 2
	}
	script, _, _ := strings.Cut(string(b), "---\n")
	buf := bufio.NewWriterSize(out, 1<<16)
	defer buf.Flush()
	_, failures, err := sim.PlayStory(script, buf)
	for _, f := range failures {
		fmt.Fprintf(buf, "%s: %s\n", f.Checker, f.Text)
	}
	if err != nil {
		fmt.Fprintln(buf, "sim:", err)
	}
	fmt.Fprintf(buf, "sim: told %s: %d failed\n", s.story, len(failures))
	if err != nil || len(failures) > 0 {
		return 1
	}
	return 0
}
