package main

import (
	"strings"
	"testing"
)

func TestShares(t *testing.T) {
	const report = `# Overhead  Shared Object  Symbol
    30.00%  khamsin  [.] github.com/khamsin-io/khamsin/vsync/internal/engine.(*Engine).receive
    10.00%  [kernel.kallsyms]  [k] _copy_to_iter
     5.00%  khamsin  [.] github.com/khamsin-io/khamsin/vsync.(*Group).dispatch
     5.00%  [kernel.kallsyms]  [k] udp_recvmsg
`
	var out strings.Builder
	if err := run(strings.NewReader(report), &out); err != nil {
		t.Fatal(err)
	}
	want := " 60.0 %  protocols\n 20.0 %  kernel: copies\n"
	if got := out.String(); !strings.HasPrefix(got, want) || strings.Count(got, " 10.0 %") != 2 {
		t.Errorf("got\n%s", got)
	}
	if err := run(strings.NewReader("nothing\n"), &out); err == nil {
		t.Error("a report without samples is accepted")
	}
}
