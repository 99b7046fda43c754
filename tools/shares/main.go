// Command shares says where the processors' time of a program went, by kinds of work, as the table of
// docs/performance.md has it. It reads what perf says of a recording:
//
//	perf record -a -F 999 -o perf.data sleep 2      # while khamsin perf local runs
//	perf report -i perf.data --no-children -g none --comm khamsin --sort dso,sym -F overhead,dso,sym |
//		go run ./tools/shares
package main

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"maps"
	"os"
	"regexp"
	"slices"
	"strconv"
)

// kind is a kind of work, and the symbols that do it.
type kind struct {
	name    string
	kernel  bool
	symbols *regexp.Regexp
}

// kinds returns the kinds; the first one that matches a symbol counts.
func kinds() []kind {
	k := func(kernel bool, name, symbols string) kind { return kind{name, kernel, regexp.MustCompile(symbols)} }
	return []kind{
		k(true, "kernel: copies", `copy|iter`),
		k(true, "kernel: sleeping and waking", `spin|sched|wake|switch|futex|halt|idle|irqentry|apic|ipi|poll`),
		k(true, "kernel: network and system calls", ``),
		k(false, "CRC32C", `crc32`),
		k(false, "copies in Khamsin", `memmove|memclr`),
		k(false, "compression", `s2\.`),
		k(false, "protocols", `internal/(stream|order|engine|flow|safe)`),
		k(false, "transport", `transports/`),
		k(false, "frames and rings", `dataplane/`),
		k(false, "messages, handlers, host, benchmark", `khamsin/(vsync|perf)`),
		k(false, "Go's runtime and the rest", ``),
	}
}

func main() {
	if err := run(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "shares:", err)
		os.Exit(1)
	}
}

// run sums the samples of the report by kinds.
func run(in io.Reader, out io.Writer) error {
	line := regexp.MustCompile(`^\s*([\d.]+)%\s+\S+\s+\[(.)\]\s+(.+)$`)
	sums, total := map[string]float64{}, 0.0
	all := kinds()
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		m := line.FindStringSubmatch(lines.Text())
		if m == nil {
			continue
		}
		share, err := strconv.ParseFloat(m[1], 64)
		if err != nil {
			return fmt.Errorf("%q: %w", lines.Text(), err)
		}
		for _, k := range all {
			if k.kernel == (m[2] == "k") && k.symbols.MatchString(m[3]) {
				sums[k.name] += share
				break
			}
		}
		total += share
	}
	if err := lines.Err(); err != nil {
		return err
	}
	if total == 0 {
		return fmt.Errorf("no samples in what was read: it takes the output of perf report, see go doc ./tools/shares")
	}
	names := slices.SortedFunc(maps.Keys(sums), func(a, b string) int { return cmp.Compare(sums[b], sums[a]) })
	for _, name := range names {
		fmt.Fprintf(out, "%5.1f %%  %s\n", 100*sums[name]/total, name)
	}
	return nil
}
