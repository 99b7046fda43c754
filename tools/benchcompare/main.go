// Benchcompare prints two files of benchmark results side by side: the median of each unit, the change, and whether it
// stands out from the noise. "Stands out" means that the two ranges of values do not overlap; with fewer than four
// values on a side nothing does.
//
//	go test -run '^$' -bench . -count 6 ./... > old.txt
//	go run ./tools/benchcompare old.txt new.txt
package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: benchcompare old.txt new.txt")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "benchcompare:", err)
		os.Exit(1)
	}
}

// run compares two files.
func run(oldFile, newFile string, out io.Writer) error {
	before, err := readFile(oldFile)
	if err != nil {
		return err
	}
	after, err := readFile(newFile)
	if err != nil {
		return err
	}
	return compare(before, after, out)
}

func readFile(path string) (results, error) {
	file, err := os.Open(path)
	if err != nil {
		return results{}, err
	}
	defer file.Close()
	return parse(file)
}

// measure is one unit of one benchmark.
type measure struct {
	benchmark string // with its package in front
	unit      string
}

// results holds all values of each measure, and the measures in the order they first came.
type results struct {
	order  []measure
	values map[measure][]float64
}

// parse reads the output of go test -bench. Lines that are no results are passed over.
func parse(in io.Reader) (results, error) {
	r := results{values: map[measure][]float64{}}
	pkg := ""
	scan := bufio.NewScanner(in)
	for scan.Scan() {
		line := scan.Text()
		if name, ok := strings.CutPrefix(line, "pkg: "); ok {
			pkg = name[strings.LastIndexByte(name, '/')+1:]
			continue
		}
		fields := strings.Fields(line)
		if len(fields) < 4 || !strings.HasPrefix(fields[0], "Benchmark") {
			continue
		}
		if _, err := strconv.Atoi(fields[1]); err != nil {
			continue
		}
		for i := 2; i+1 < len(fields); i += 2 {
			value, err := strconv.ParseFloat(fields[i], 64)
			if err != nil {
				return r, fmt.Errorf("%q: %w", line, err)
			}
			r.add(measure{pkg + "." + strings.TrimPrefix(fields[0], "Benchmark"), fields[i+1]}, value)
		}
	}
	return r, scan.Err()
}

func (r *results) add(m measure, value float64) {
	if r.values[m] == nil {
		r.order = append(r.order, m)
	}
	r.values[m] = append(r.values[m], value)
}

// compare prints a line for each measure of either side.
func compare(before, after results, out io.Writer) error {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "benchmark\tunit\tbefore\tafter\tchange\t")
	for _, m := range before.order {
		b, a := before.values[m], after.values[m]
		to, moved := "-", "gone"
		if a != nil {
			to, moved = number(median(a)), change(b, a)
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t\n", m.benchmark, m.unit, number(median(b)), to, moved)
	}
	for _, m := range after.order {
		if before.values[m] == nil {
			fmt.Fprintf(table, "%s\t%s\t-\t%s\tnew\t\n", m.benchmark, m.unit, number(median(after.values[m])))
		}
	}
	return table.Flush()
}

// change says by how much the median moved, or "~" when the values before and after overlap or are too few.
func change(before, after []float64) string {
	const valuesMin = 4
	b, a := median(before), median(after)
	overlap := slices.Min(before) <= slices.Max(after) && slices.Min(after) <= slices.Max(before)
	if len(before) < valuesMin || len(after) < valuesMin || overlap {
		return "~"
	}
	if b == 0 {
		return "from 0"
	}
	return fmt.Sprintf("%+.1f%%", 100*(a-b)/b)
}

// median returns the middle value, or the mean of the two in the middle.
func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// number writes four digits, or more when the whole part has more.
func number(v float64) string {
	if v >= 1000 {
		return strconv.FormatFloat(v, 'f', 0, 64)
	}
	return strconv.FormatFloat(v, 'g', 4, 64)
}
