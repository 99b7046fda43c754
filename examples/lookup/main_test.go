package main

import (
	"strings"
	"testing"

	"github.com/khamsin-io/khamsin/examples/internal/play"
	"github.com/khamsin-io/khamsin/vsync"
)

func TestMain(m *testing.M) { play.Main(m, main) }

// The program works as a user starts it.
func TestProgram(t *testing.T) { play.Started(t, "Got 3 replies and they are") }

// rows: EXA-01, QRY-05
func TestLookup(t *testing.T) {
	for name, opts := range map[string][]vsync.Option{
		"memory": nil, "loopback": {vsync.WithTransport(vsync.UDP()), vsync.WithPorts(27410, 27420)},
	} {
		text := play.Run(t, run, opts...)
		if strings.Count(text, "My LOOKUP handler was asked to look up John Smith\n") != members {
			t.Errorf("%s: not every member was asked:\n%s", name, text)
		}
		last := strings.Fields(text[strings.LastIndex(strings.TrimSpace(text), "\n")+1:])
		ranks := map[string]bool{}
		for _, rank := range last[len(last)-members:] {
			ranks[rank] = true
		}
		if !strings.Contains(text, "Got 3 replies and they are") || !ranks["0"] || !ranks["1"] || !ranks["2"] {
			t.Errorf("%s: %s", name, text)
		}
	}
}
