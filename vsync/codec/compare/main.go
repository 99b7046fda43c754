// Command compare measures vsync/codec against encoding/gob, MessagePack and CBOR, and prints a table in Markdown. It is
// a module of its own, so that the libraries it compares with are no dependencies of Khamsin.
//
//	go run . [-time 1s] [-update ../../../docs/codec.md]
//
// With -update the table replaces what is between the lines that begin and end it in that file. Every library encodes
// into a buffer that is used again, and decodes into a fresh variable of the right type; every message stands alone, as
// multicasts do, so that gob has to describe its types in each of them. Each cell is the fastest of three runs.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"testing"
)

// result is what was measured of one library with one kind of value.
type result struct {
	library string
	size    int // bytes
	encode  testing.BenchmarkResult
	decode  testing.BenchmarkResult
}

func main() {
	testing.Init()
	benchTime := flag.String("time", "1s", "how long to measure each cell")
	update := flag.String("update", "", "file whose table is replaced")
	flag.Parse()
	if err := flag.Set("test.benchtime", *benchTime); err != nil {
		fail(err)
	}
	table := new(strings.Builder)
	fmt.Fprintf(table, "%s, %s/%s, %d cores\n\n", runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.NumCPU())
	for _, c := range cases() {
		printCase(table, c.name, c.measure())
	}
	if *update == "" {
		_, _ = io.WriteString(os.Stdout, table.String())
		return
	}
	if err := replace(*update, table.String()); err != nil {
		fail(err)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "compare:", err)
	os.Exit(1)
}

func printCase(w io.Writer, name string, results []result) {
	fmt.Fprintf(w, "**%s**\n\n", name)
	fmt.Fprintln(w, "| library | bytes | encode ns | allocs | decode ns | allocs |")
	fmt.Fprintln(w, "|---|---:|---:|---:|---:|---:|")
	for _, r := range results {
		fmt.Fprintf(w, "| %s | %d | %s | %d | %s | %d |\n", r.library, r.size,
			nanoseconds(r.encode), r.encode.AllocsPerOp(), nanoseconds(r.decode), r.decode.AllocsPerOp())
	}
	fmt.Fprintln(w)
}

func nanoseconds(r testing.BenchmarkResult) string {
	ns := float64(r.T.Nanoseconds()) / float64(r.N)
	if ns < 100 {
		return fmt.Sprintf("%.1f", ns)
	}
	return fmt.Sprintf("%.0f", ns)
}

// The lines around the table.
const (
	begin = "<!-- compare: begin -->\n"
	end   = "<!-- compare: end -->\n"
)

// replace puts the table between the two lines in a file.
func replace(file, table string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	head, rest, ok := strings.Cut(string(text), begin)
	_, tail, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		return fmt.Errorf("%s has no lines %q and %q", file, begin, end)
	}
	return os.WriteFile(file, []byte(head+begin+"\n"+table+end+tail), 0o644)
}
