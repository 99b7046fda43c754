package main

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestTable checks the committed rows: all there, each well formed.
func TestTable(t *testing.T) {
	table, err := parseTable(rowsTSV)
	if err != nil {
		t.Fatal(err)
	}
	want := map[priority]int{core: 239, full: 479, edge: 137, future: 33}
	for _, p := range priorities() {
		if _, n := table.count(func(r *row) bool { return r.priority == p }); n != want[p] {
			t.Errorf("%d %s rows, want %d", n, p, want[p])
		}
	}
	if len(table.areas) != 40 {
		t.Errorf("%d areas, want 40", len(table.areas))
	}
	if r := table.byID["MC-11"]; r == nil || r.priority != core || table.area("MC").rows[10] != r {
		t.Errorf("row MC-11 is %+v", r)
	}
}

func TestParseTableRefuses(t *testing.T) {
	tests := []struct{ name, text, want string }{
		{"too few fields", "MC-01\tMulticast\tcore", "line 1: 3 fields"},
		{"bad name", "# rows\nmc-1\tMulticast\tcore\tSend", `line 2: "mc-1" is not the name of a row`},
		{"twice", "MC-01\tM\tcore\tSend\nMC-01\tM\tcore\tSend", "row MC-01 stands twice"},
		{"bad priority", "MC-01\tM\tsoon\tSend", `priority "soon"`},
		{"no feature", "MC-01\tM\tcore\t ", `feature " "`},
		{"feature that breaks the page", "MC-01\tM\tcore\ta|b", `feature "a|b"`},
		{"two titles", "MC-01\tM\tcore\tSend\nMC-02\tN\tcore\tSend", `calls its area "N"`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := parseTable(tt.text); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

func TestKindOf(t *testing.T) {
	tests := []struct {
		file string
		want kind
	}{
		{"vsync/group_test.go", goTest},
		{"vsync/group.go", goOther},
		{"dataplane/transporttest/order.go", goTest},
		{"examples/inventory/main.go", goTest},
		{"vsync/testdata/join.txt", story},
		{"vsync/testdata/deep/join.txtar", story},
		{"vsync/testdata/join.sh", story},
		{"vsync/testdata/join.bin", noEvidence},
		{"vsync/testdata/join_test.go", noEvidence},
		{"join.txt", noEvidence},
		{"docs/protocol/cut.md", document},
		{"docs/manual-coverage.md", noEvidence},
		{"README.md", noEvidence},
		{"tools/rows/rows_test.go", noEvidence},
	}
	for _, tt := range tests {
		if got := kindOf(tt.file); got != tt.want {
			t.Errorf("kindOf(%q) = %d, want %d", tt.file, got, tt.want)
		}
	}
}

// The mark is put together so that this file, too, could be read by the tool without harm.
const mark = "ro" + "ws: "

// plant writes files into a fresh directory.
func plant(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		path := filepath.Join(root, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestCollect(t *testing.T) {
	root := plant(t, map[string]string{
		"vsync/a_test.go": "// // " + mark + "MC-29\n\n// " + mark + "MC-01\n\npackage vsync\n\n" +
			"// TestOne shows.\n//\n// " + mark + "MC-02, MC-03\nfunc TestOne() {\n\t// " + mark + "MC-04\n}\n\n" +
			"func TestTwo() { _ = \"// " + mark + "MC-28\" }\n\n//" + mark + "MC-05\ntype x int\n",
		"vsync/a.go":               "package vsync\n\n// " + mark + "of a table\n",
		"vsync/testdata/a.txt":     "# " + mark + "MC-06\nsend\n",
		"docs/a.md":                "text " + mark + "MC-27\n<!-- " + mark + "MC-09 -->\n",
		".hidden/a_test.go":        "broken // " + mark + "MC-26\n",
		"vsync/testdata/fuzz/data": mark + "MC-25\n",
	})
	found, err := collect(root)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, e := range found {
		got[e.row] = e.file + " " + e.function
	}
	want := map[string]string{
		"MC-01": "vsync/a_test.go ", "MC-02": "vsync/a_test.go TestOne", "MC-03": "vsync/a_test.go TestOne",
		"MC-04": "vsync/a_test.go TestOne", "MC-05": "vsync/a_test.go ", "MC-06": "vsync/testdata/a.txt ",
		"MC-09": "docs/a.md ",
	}
	for id, place := range want {
		if got[id] != place {
			t.Errorf("%s is shown by %q, want %q", id, got[id], place)
		}
	}
	if len(got) != len(want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestCollectRefuses(t *testing.T) {
	tests := []struct{ name, file, text, want string }{
		{"no name", "a_test.go", "package a\n\n// " + mark + "MC11\n", `a_test.go:3: "MC11" is not the name`},
		{"comma at the end", "a_test.go", "package a\n\n// " + mark + "MC-11,\n", `a_test.go:3: "" is not the name`},
		{"story", "testdata/a.txt", "\n# " + mark + "all\n", `testdata/a.txt:2: "all" is not the name`},
		{"code that is no test", "a.go", "package a\n\n// " + mark + "MC-11\n", "a.go:3: only tests and examples"},
		{"unknown row", "a_test.go", "package a\n\n// " + mark + "MC-99\n", "a_test.go:3: there is no row MC-99"},
		{"core row in a document", "docs/a.md", "<!-- " + mark + "MC-01 -->\n", "docs/a.md:1: MC-01 is a core row"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			root := plant(t, map[string]string{tt.file: tt.text})
			for _, check := range []bool{false, true} {
				if err := run(root, check, "", &bytes.Buffer{}); err == nil || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("check %v: got %v, want %q", check, err, tt.want)
				}
			}
		})
	}
}

// TestRun writes the page, checks it, and lets it go stale.
func TestRun(t *testing.T) {
	root := plant(t, map[string]string{
		"vsync/a_test.go": "package vsync\n\n// " + mark + "MC-01\nfunc TestOne() {}\n",
	})
	if err := run(root, true, "", &bytes.Buffer{}); !errors.Is(err, errStale) {
		t.Errorf("check without a page: %v, want %v", err, errStale)
	}
	var out bytes.Buffer
	if err := run(root, false, "", &out); err != nil {
		t.Fatal(err)
	}
	if want := "rows: 1 of 888 rows have evidence, see docs/manual-coverage.md\n"; out.String() != want {
		t.Errorf("printed %q, want %q", out.String(), want)
	}
	if err := run(root, true, "", &out); err != nil {
		t.Errorf("check after writing: %v", err)
	}
	path := filepath.Join(root, "docs", "manual-coverage.md")
	page, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"| MC-01 | core | Send: reliable multicast, FIFO for each sender | [TestOne](../vsync/a_test.go) |\n",
		"| MC-02 | core | Send returns before delivery elsewhere |  |\n",
		"| [MC](#area-mc) | Multicast flavours | 1 of 11 | 0 of 13 | 0 of 5 |  | 1 of 29 |\n",
		"| **all** |  | 1 of 239 | 0 of 479 | 0 of 137 | 0 of 33 | 1 of 888 |\n",
		"<details><summary>MC, Multicast flavours: 23</summary>\n\n- MC-02 (core) Send returns",
	} {
		if !strings.Contains(string(page), want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	if err := os.WriteFile(path, append(page, "more\n"...), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := run(root, true, "", &out); !errors.Is(err, errStale) {
		t.Errorf("check of a changed page: %v, want %v", err, errStale)
	}
}

func TestMissing(t *testing.T) {
	root := plant(t, map[string]string{
		"vsync/a_test.go": "package vsync\n\n// " + mark + "INI-01, INI-03\nfunc TestOne() {}\n",
	})
	var out bytes.Buffer
	if err := run(root, false, "INI, CAG", &out); err != nil {
		t.Fatal(err)
	}
	want := "INI-02\tcore\tThe hook is not called when members live\n" +
		"INI-04\tfull\tThe first checkpoint is written with the hook\nCAG-01\t"
	if !strings.HasPrefix(out.String(), want) {
		t.Errorf("got\n%s\nwant at first\n%s", out.String(), want)
	}
	if _, err := os.Stat(filepath.Join(root, "docs")); err == nil {
		t.Error("-missing wrote the page")
	}
	if err := run(root, false, "NOPE", &out); err == nil {
		t.Error("an unknown area was accepted")
	}
	out.Reset()
	if err := run(root, false, "all", &out); err != nil || strings.Count(out.String(), "\n") != 886 {
		t.Errorf("all: %v and %d rows, want 886", err, strings.Count(out.String(), "\n"))
	}
}
