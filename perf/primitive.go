package perf

import (
	"context"

	"github.com/khamsin-io/khamsin/vsync"
)

// primitive is one row of the table of what can be measured: what a sender does from the start to the end of a run.
type primitive struct {
	name       string
	flavour    vsync.Flavour
	membersMin int
	last       bool // the last member is the only sender, whatever Options.Senders says
	peer       bool // each message has one receiver, the next member by rank
	churn      bool // members come and go
	work       func(m *member, ctx context.Context) error
}

// primitives returns the table. A new primitive needs its line here and, if no loop fits, a method in a file of its
// own.
func primitives() []primitive {
	return []primitive{
		{name: "send", flavour: vsync.FIFO, membersMin: 1, work: (*member).castLoop},
		{name: "causal", flavour: vsync.Causal, membersMin: 1, work: (*member).castLoop},
		{name: "ordered", flavour: vsync.Ordered, membersMin: 1, work: (*member).castLoop},
		{name: "safe", flavour: vsync.Safe, membersMin: 1, work: (*member).castLoop},
		{name: "query", membersMin: 1, work: (*member).queryLoop},
		{name: "p2p", membersMin: 2, peer: true, work: (*member).peerLoop},
		{name: "flush", flavour: vsync.FIFO, membersMin: 1, work: (*member).flushLoop},
		{name: "join", flavour: vsync.FIFO, membersMin: 2, last: true, churn: true, work: (*member).joinLoop},
		{name: "cut", flavour: vsync.FIFO, membersMin: 3, last: true, churn: true, work: (*member).killSelf},
		{name: "kill", flavour: vsync.FIFO, membersMin: 3, last: true, churn: true, work: (*member).killSelf},
	}
}

func primitiveNamed(name string) (primitive, bool) {
	for _, p := range primitives() {
		if p.name == name {
			return p, true
		}
	}
	return primitive{}, false
}

// Primitives returns the names of what can be measured.
func Primitives() []string {
	var names []string
	for _, p := range primitives() {
		names = append(names, p.name)
	}
	return names
}
