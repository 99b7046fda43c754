// Rows keeps the account of what is shown to work. The file rows.tsv lists everything the system is to do, one row for
// each thing that can be tested apart. Evidence names the rows it shows, in a comment of its own line:
//
//	// rows: MC-11, MC-12
//
// in tests, in packages of tests (directories called ...test) and in examples; the same behind "#" in stories and
// scripts below testdata; and, for edge rows only, <!-- rows: CAP-05 --> in documents, since a document can say what is
// not promised. From both it writes docs/manual-coverage.md.
//
//	go run ./tools/rows                  write the page
//	go run ./tools/rows -check           exit with status 1 when the page is stale
//	go run ./tools/rows -missing MC,QRY  print the rows of these areas without evidence ("all" for every area)
//
// A name of a row that does not exist is an error.
package main

import (
	"bytes"
	_ "embed"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

//go:embed rows.tsv
var rowsTSV string

// pagePath is where the page stands, below the module's root.
const pagePath = "docs/manual-coverage.md"

func main() {
	root := flag.String("root", ".", "directory of the module's go.mod")
	check := flag.Bool("check", false, "only tell whether the page is up to date")
	missing := flag.String("missing", "", "print the rows of these areas, comma-separated, that have no evidence")
	flag.Parse()
	if err := run(*root, *check, *missing, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "rows:", err)
		os.Exit(1)
	}
}

// run does what the flags say.
func run(root string, check bool, missing string, out io.Writer) error {
	table, err := parseTable(rowsTSV)
	if err != nil {
		return fmt.Errorf("rows.tsv: %w", err)
	}
	found, err := collect(root)
	if err != nil {
		return err
	}
	if err := table.addEvidence(found); err != nil {
		return err
	}
	if missing != "" {
		return printMissing(table, missing, out)
	}
	path := filepath.Join(root, filepath.FromSlash(pagePath))
	page := renderPage(table)
	if check {
		return compare(path, page)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(path, page, 0o644); err != nil {
		return err
	}
	shown, all := table.count(func(*row) bool { return true })
	fmt.Fprintf(out, "rows: %d of %d rows have evidence, see %s\n", shown, all, pagePath)
	return nil
}

// errStale is the error of a page that does not say what the tree says.
var errStale = errors.New(pagePath + " is stale: run `go run ./tools/rows`")

// compare tells where the page on disk first differs from what it should be.
func compare(path string, want []byte) error {
	got, err := os.ReadFile(path)
	if err != nil && !os.IsNotExist(err) {
		return err
	}
	if bytes.Equal(got, want) {
		return nil
	}
	gotLines, wantLines := strings.Split(string(got), "\n"), strings.Split(string(want), "\n")
	for i, line := range wantLines {
		if i >= len(gotLines) || gotLines[i] != line {
			return fmt.Errorf("%w\nline %d should read\n%s", errStale, i+1, line)
		}
	}
	return fmt.Errorf("%w\nit has %d lines too many", errStale, len(gotLines)-len(wantLines))
}

// printMissing prints the rows of the given areas that have no evidence, tab-separated.
func printMissing(t *table, areas string, out io.Writer) error {
	wanted := strings.Split(areas, ",")
	if areas == "all" {
		wanted = nil
		for _, a := range t.areas {
			wanted = append(wanted, a.name)
		}
	}
	for _, name := range wanted {
		a := t.area(strings.TrimSpace(name))
		if a == nil {
			return fmt.Errorf("no area %q", name)
		}
		for _, r := range a.rows {
			if len(r.evidence) == 0 {
				fmt.Fprintf(out, "%s\t%s\t%s\n", r.id, r.priority, r.feature)
			}
		}
	}
	return nil
}
