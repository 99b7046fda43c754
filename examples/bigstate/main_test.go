package main

import (
	"fmt"
	"testing"

	"github.com/khamsin-io/khamsin/examples/internal/play"
)

func TestMain(m *testing.M) { play.Main(m, main) }

// The program works as a user starts it.
func TestProgram(t *testing.T) { play.Started(t, "more with the join") }

// rows: XFR-14
func TestBigState(t *testing.T) {
	out := play.Run(t, run)
	var fetched, loaded int
	if _, err := fmt.Sscanf(out, "fetched %d blocks beforehand, %d more with the join", &fetched, &loaded); err != nil {
		t.Fatalf("%v: %q", err, out)
	}
	if fetched != blocks || loaded > hot {
		t.Errorf("%d blocks fetched, %d with the join; want %d, and at most the %d that are written", fetched, loaded,
			blocks, hot)
	}
}
