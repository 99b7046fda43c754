package main

import (
	"strings"
	"testing"

	"github.com/khamsin-io/khamsin/examples/internal/play"
)

func TestMain(m *testing.M) { play.Main(m, main) }

// The program works as a user starts it.
func TestProgram(t *testing.T) { play.Started(t, "new value 900") }

// rows: EXA-02, GRP-06
func TestUpdates(t *testing.T) {
	text := play.Run(t, run)
	for member := range members {
		for _, kind := range []string{"update", "id-based update"} {
			if n := strings.Count(text, "member "+string(rune('0'+member))+": "+kind+" "); n != 10 {
				t.Errorf("member %d: %d times %q, want 10:\n%s", member, n, kind, text)
			}
		}
	}
	if !strings.Contains(text, "update User number 9, new value 900\n") ||
		!strings.Contains(text, "id-based update 19, new value 900\n") {
		t.Errorf("the last updates are missing:\n%s", text)
	}
}
