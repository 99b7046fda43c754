package main

import (
	"strings"
	"testing"

	"github.com/khamsin-io/khamsin/examples/internal/play"
)

func TestMain(m *testing.M) { play.Main(m, main) }

// The program works as a user starts it.
func TestProgram(t *testing.T) { play.Started(t, "first two: 2") }

// rows: QRY-17, QRY-32
func TestStyles(t *testing.T) {
	want := "lists: 30\nencoded: 30\npairs: 30\nstream: 30\nfirst two: 2\n"
	if text := play.Run(t, run); !strings.EqualFold(text, want) {
		t.Errorf("got\n%s", text)
	}
}
