package main

import (
	"strings"
	"testing"

	"github.com/khamsin-io/khamsin/perf"
)

func TestPrintSweep(t *testing.T) {
	var b strings.Builder
	err := printSweep(&b, []perf.SweepPoint{
		{Transport: "udp", Packet: 8900, Result: &perf.Result{MegabytesMin: 488.7, DeliveredMin: 7457}},
		{Transport: "tcp", Result: &perf.Result{MegabytesMin: 200}},
		{Transport: "xdp", Packet: 32000, Error: "MTU 32000 is not from 1 to 16000"},
	})
	lines := strings.Split(strings.TrimSpace(b.String()), "\n")
	if err != nil || len(lines) != 4 {
		t.Fatalf("%v:\n%s", err, b.String())
	}
	for i, want := range []string{"BEST FIRST", "8900 bytes", "the default length", "cannot: MTU 32000"} {
		if !strings.Contains(lines[i], want) {
			t.Errorf("line %d is %q, want %q in it", i, lines[i], want)
		}
	}
	if !strings.Contains(lines[1], "488.7") || !strings.Contains(lines[1], "7457") {
		t.Errorf("the numbers are missing in %q", lines[1])
	}
}
