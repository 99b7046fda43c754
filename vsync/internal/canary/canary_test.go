package canary

import (
	"slices"
	"testing"
)

// Every bug has a name of its own and a checker that must catch it.
func TestNames(t *testing.T) {
	var seen []string
	for i, b := range All() {
		if b != Bug(i+1) || b.String() == "" || b.Checker() == "" || slices.Contains(seen, b.String()) {
			t.Errorf("bug %d is called %q and caught by %q", b, b, b.Checker())
		}
		seen = append(seen, b.String())
	}
	if len(seen) != int(bugs)-1 || len(names) != int(bugs) || len(checkers) != int(bugs) || None.Checker() != "" {
		t.Errorf("%d bugs, %d names, %d checkers", bugs, len(names), len(checkers))
	}
}
