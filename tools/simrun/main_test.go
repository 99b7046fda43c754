package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/khamsin-io/khamsin/vsync/sim"
)

func TestManySeedsEndInOneLine(t *testing.T) {
	var out, diag bytes.Buffer
	status := run([]string{"-seeds", "4", "-first", "11"}, &out, &diag)
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	last := lines[len(lines)-1]
	if !strings.HasPrefix(last, "sim: ran 4 seeds from 11: ") {
		t.Fatalf("last line %q", last)
	}
	if good := strings.HasSuffix(last, ": 0 failed"); good != (status == 0) {
		t.Fatalf("status %d with last line %q", status, last)
	}
}

func TestOneSeedWithTimeline(t *testing.T) {
	var out, diag bytes.Buffer
	run([]string{"-seed", "11", "-trace"}, &out, &diag)
	for _, want := range []string{"starts as", "attached", "view 1", "sim: ran seed 11: "} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%.3000s", want, out.String())
		}
	}
}

func TestStory(t *testing.T) {
	file := filepath.Join(t.TempDir(), "story.txt")
	script := "nodes 1\njoin 1 g\nrun 10ms\nexpect-view 1 1\n---\nanything\n"
	if err := os.WriteFile(file, []byte(script), 0o600); err != nil {
		t.Fatal(err)
	}
	var out, diag bytes.Buffer
	if status := run([]string{"-story", file}, &out, &diag); status != 0 {
		t.Fatalf("status %d: %s%s", status, &out, &diag)
	}
	if err := os.WriteFile(file, []byte(strings.Replace(script, "view 1 1", "view 1 2", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	if status := run([]string{"-story", file}, &out, &diag); status != 1 {
		t.Fatalf("a story whose expectation fails ended with status %d", status)
	}
}

func TestBugsNeedTheTag(t *testing.T) {
	if len(sim.Canaries()) > 0 {
		t.Skip("built with -tags khamsin_canary")
	}
	var out, diag bytes.Buffer
	status := run([]string{"-canary"}, &out, &diag)
	if status != 1 || !strings.Contains(out.String(), "-tags khamsin_canary") {
		t.Fatalf("status %d: %s", status, &out)
	}
}

func TestBadArguments(t *testing.T) {
	for _, args := range [][]string{{"-seeds", "x"}, {"extra"}, {"-workers", "0"}, {"-story", "/nowhere"},
		{"-world", "leave/x"}, {"-exhaustive", "-every", "0"}} {
		var out, diag bytes.Buffer
		if status := run(args, &out, &diag); status != 2 {
			t.Errorf("%v: status %d, want 2", args, status)
		}
	}
}

func TestExhaustive(t *testing.T) {
	var out, diag bytes.Buffer
	if status := run([]string{"-exhaustive", "-change", "leave", "-every", "997"}, &out, &diag); status != 0 {
		t.Fatalf("status %d: %s%s", status, &out, &diag)
	}
	if !strings.Contains(out.String(), "sim: small worlds: ") || !strings.HasSuffix(out.String(), ": 0 failed\n") {
		t.Fatal(out.String())
	}
	out.Reset()
	if status := run([]string{"-world", "leave/2:9/3:40", "-trace"}, &out, &diag); status != 0 {
		t.Fatalf("status %d: %s%s", status, &out, &diag)
	}
	if !strings.Contains(out.String(), "n2    is over: crashed") {
		t.Fatal(out.String())
	}
}
