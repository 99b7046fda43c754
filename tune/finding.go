package tune

import (
	"cmp"
	"slices"
)

// Severity says how much a finding matters.
type Severity string

// The severities. High loses packets or keeps a transport from working; Medium costs a good part of throughput or
// latency; Low costs little or seldom. Note is worth knowing and nothing wrong.
const (
	OK      Severity = "ok"
	Note    Severity = "note"
	Low     Severity = "low"
	Medium  Severity = "medium"
	High    Severity = "high"
	Unknown Severity = "unknown"
)

// Wrong tells whether something should be mended.
func (s Severity) Wrong() bool { return s == Low || s == Medium || s == High }

// order returns the place of a severity in a report.
func (s Severity) order() int {
	return slices.Index([]Severity{High, Medium, Low, Unknown, Note, OK}, s)
}

// Cause is what a wrong setting does to traffic, in the manual's ranking of what makes a system slow.
type Cause uint8

// The causes, worst first.
const (
	Loss       Cause = iota // packets are lost and must be sent again
	Packets                 // too many small packets, or too much work for each
	Scheduling              // the processor is late
)

// String names the cause as a heading does.
func (c Cause) String() string {
	return [...]string{"loss", "work per packet", "scheduling"}[min(c, Scheduling)]
}

// Finding is what is to be said of one setting.
type Finding struct {
	Setting  string   `json:"setting"`
	Found    string   `json:"found"`
	Wanted   string   `json:"wanted"`
	Severity Severity `json:"severity"`
	Why      string   `json:"why"`
	Fix      string   `json:"fix"` // a command, or what to do; empty when nothing is to be mended

	Cause   Cause    `json:"-"`
	Changes []Change `json:"-"` // what Fix does, when package apply can do it
}

// sortFindings puts what is wrong first, by cause and then severity, then what is unknown, then the rest.
func sortFindings(all []Finding) {
	slices.SortStableFunc(all, func(a, b Finding) int {
		if wrong := a.Severity.Wrong(); wrong != b.Severity.Wrong() {
			if wrong {
				return -1
			}
			return 1
		} else if wrong {
			return cmp.Or(cmp.Compare(a.Cause, b.Cause), cmp.Compare(a.Severity.order(), b.Severity.order()))
		}
		return cmp.Compare(a.Severity.order(), b.Severity.order())
	})
}
