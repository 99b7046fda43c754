package sim

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var rewrite = flag.Bool("rewrite", false, "write what the stories give into their files")

// separator stands between a story's script and what it gives.
const separator = "---\n"

func TestStories(t *testing.T) {
	files, err := filepath.Glob("testdata/stories/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no stories: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			script, want, _ := strings.Cut(string(b), separator)
			got, failures, err := PlayStory(script, nil)
			if err != nil {
				t.Errorf("%s: %v", file, err)
			}
			for _, f := range failures {
				t.Errorf("%s: %s at %s: %s\n%s", file, f.Checker, stamp(f.At), f.Text, strings.Join(f.Log, "\n"))
			}
			if *rewrite {
				if err := os.WriteFile(file, []byte(script+separator+got), 0o644); err != nil {
					t.Fatal(err)
				}
			} else if got != want {
				t.Errorf("%s gives\n%s\nand should give\n%s", file, got, want)
			}
		})
	}
}

func TestStoryRefusesNonsense(t *testing.T) {
	for _, script := range []string{
		"dance", "nodes", "nodes x", "join 1 g", "nodes 1\njoin 1", "nodes 1\nsend 1 total x",
		"nodes 1\njoin 1 g\nsend 1 loudly x", "nodes 1\ncrash 2", "nodes 2\ndrop 1-2 data 1",
		"nodes 2\ndrop 1->2 dust 1",
		"oracle 3\nnodes 1\noracle 1", "nodes 1\ncreate 1", "nodes 1\ncrash-before 1 lunch", "nodes 1\nexpect-over 1",
		"run fast", "nodes 1\njoin 1 g\nrun 10ms\nexpect-view 1 2", "nodes 1\nrestart 1",
	} {
		if _, _, err := PlayStory(script, nil); err == nil {
			t.Errorf("script %q was not refused", script)
		}
	}
}
