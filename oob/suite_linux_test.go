package oob

import (
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// The tests of this package pass over AF_XDP as well, and bytes do go past the stack in them.
//
// rows: OOB-07, OOB-18, OOB-31
func TestSuiteOverXDP(t *testing.T) {
	requireXDP(t)
	if testing.Short() {
		t.Skip("the tests again: the long run has them")
	}
	if os.Getenv(suiteOverXDP) != "" {
		t.Skip("this is the suite")
	}
	// The others move small objects alone, which go by UDP.
	names := []string{"TestReplicate/^multicast", "TestHolderDies", "TestTogetherOrOneByOne", "TestRandomFaults"}
	line := regexp.MustCompile(`past the stack: (\d+) sent, (\d+) received`)
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			pattern, sub, split := strings.Cut(name, "/")
			pattern = "^" + pattern + "$"
			if split {
				pattern += "/" + sub
			}
			args := []string{"-test.run=" + pattern, "-test.v", "-test.timeout=5m"}
			cmd := exec.CommandContext(t.Context(), os.Args[0], args...)
			cmd.Env = append(os.Environ(), suiteOverXDP+"=1")
			if os.Getenv("KHAMSIN_FAULTS") == "" {
				cmd.Env = append(cmd.Env, "KHAMSIN_FAULTS=3")
			}
			out, err := cmd.CombinedOutput()
			if err != nil || !strings.Contains(string(out), "--- PASS") || strings.Contains(string(out), "--- SKIP") {
				t.Fatalf("%v\n%s", err, out)
			}
			sums := [2]int{}
			for _, m := range line.FindAllStringSubmatch(string(out), -1) {
				for i := range sums {
					n, _ := strconv.Atoi(m[i+1]) // it is a number: see line
					sums[i] += n
				}
			}
			t.Logf("%d packets left and %d came past the stack", sums[0], sums[1])
			if sums[0] == 0 || sums[1] == 0 {
				t.Errorf("nothing went past the stack:\n%s", out)
			}
		})
	}
}
