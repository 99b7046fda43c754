// Cover prints how many statements of each package a coverage profile shows as run, and fails when a package, or all of
// them together, stays below the limit. A statement that several test binaries report counts once, as run when any of
// them ran it.
//
//	go test -coverprofile=cover.out -coverpkg=./vsync/internal/... ./vsync/...
//	go run ./tools/cover -least 90 -not vsync/internal/host cover.out
package main

import (
	"bufio"
	"flag"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
)

func main() {
	least := flag.Float64("least", 0, "the least share of statements, in percent")
	not := flag.String("not", "", "packages to leave out, separated by commas: the ends of their import paths")
	flag.Parse()
	if flag.NArg() != 1 {
		fmt.Fprintln(os.Stderr, "usage: cover [-least percent] [-not packages] profile")
		os.Exit(2)
	}
	f, err := os.Open(flag.Arg(0))
	if err == nil {
		err = run(f, os.Stdout, *least, strings.Split(*not, ","))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "cover:", err)
		os.Exit(1)
	}
}

// share counts the statements of a package.
type share struct{ run, all int }

func (s share) percent() float64 { return 100 * float64(s.run) / float64(max(1, s.all)) }

// run prints the shares and returns an error when one is below the limit.
func run(profile io.Reader, out io.Writer, least float64, not []string) error {
	packages, err := read(profile)
	if err != nil {
		return err
	}
	total, low := share{}, []string{}
	for _, name := range sorted(packages) {
		if slices.ContainsFunc(not, func(n string) bool { return n != "" && strings.HasSuffix(name, "/"+n) }) {
			continue
		}
		s := packages[name]
		total.run, total.all = total.run+s.run, total.all+s.all
		fmt.Fprintf(out, "%5.1f %% of %5d  %s\n", s.percent(), s.all, name)
		if s.percent() < least {
			low = append(low, name)
		}
	}
	fmt.Fprintf(out, "%5.1f %% of %5d  all\n", total.percent(), total.all)
	if total.percent() < least {
		low = append(low, "all")
	}
	switch {
	case total.all == 0:
		return fmt.Errorf("the profile shows no statement")
	case len(low) > 0:
		return fmt.Errorf("below %g %% of statements: %s", least, strings.Join(low, ", "))
	}
	return nil
}

func sorted(packages map[string]share) []string {
	names := make([]string, 0, len(packages))
	for name := range packages {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// block is a run of statements; a profile has it once for each test binary.
type block struct {
	statements int
	ran        bool
}

// read takes a profile apart: lines like "path/file.go:1.2,3.4 statements count" behind a line with the mode.
func read(profile io.Reader) (map[string]share, error) {
	blocks := map[string]block{}
	in := bufio.NewScanner(profile)
	for n := 1; in.Scan(); n++ {
		fields := strings.Fields(in.Text())
		if n == 1 && len(fields) == 2 && fields[0] == "mode:" {
			continue
		}
		if len(fields) != 3 {
			return nil, fmt.Errorf("line %d is no line of a profile: %q", n, in.Text())
		}
		statements, err1 := strconv.Atoi(fields[1])
		count, err2 := strconv.ParseUint(fields[2], 10, 64)
		if err1 != nil || err2 != nil || statements < 0 || !strings.Contains(fields[0], ":") {
			return nil, fmt.Errorf("line %d is no line of a profile: %q", n, in.Text())
		}
		blocks[fields[0]] = block{statements, blocks[fields[0]].ran || count > 0}
	}
	packages := map[string]share{}
	for at, b := range blocks {
		file, _, _ := strings.Cut(at, ":")
		s := packages[path.Dir(file)]
		s.all += b.statements
		if b.ran {
			s.run += b.statements
		}
		packages[path.Dir(file)] = s
	}
	return packages, in.Err()
}
