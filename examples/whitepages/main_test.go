package main

import (
	"strings"
	"testing"

	"github.com/khamsin-io/khamsin/examples/internal/play"
)

func TestMain(m *testing.M) { play.Main(m, main) }

// The program works as a user starts it.
func TestProgram(t *testing.T) { play.Started(t, "1 is []; 4 members looked at 1000 lines") }

// rows: EXA-08
func TestWhitePages(t *testing.T) {
	text := play.Run(t, run)
	for _, want := range []string{
		`5000000 is ["Subscriber 0"]; 4 members looked at 1000 lines`,
		`5000037 is ["Subscriber 1"]; 4 members looked at 1000 lines`,
		`1 is []; 4 members looked at 1000 lines`,
	} {
		if !strings.Contains(text, want+"\n") {
			t.Errorf("%q is missing:\n%s", want, text)
		}
	}
}
