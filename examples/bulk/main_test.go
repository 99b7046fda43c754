package main

import (
	"strings"
	"testing"

	"github.com/khamsin-io/khamsin/examples/internal/play"
)

func TestMain(m *testing.M) { play.Main(m, main) }

// The program works as a user starts it.
func TestProgram(t *testing.T) { play.Started(t, "32 MiB are at all 3 members") }

// rows: OOB-47
func TestBulk(t *testing.T) {
	text := play.Run(t, run)
	for _, want := range []string{
		"32 MiB are at all 3 members", "ann adds up 4194304 numbers: 2097152.0",
		"ben adds up 4194304 numbers: 2097152.0",
		"cat adds up 4194304 numbers: 2097152.0", "model-1: 33554432 bytes, 3 holders",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing:\n%s", want, text)
		}
	}
}
