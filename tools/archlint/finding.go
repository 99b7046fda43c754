package main

import (
	"cmp"
	"fmt"
	"slices"
)

// The rules, as they are named in the output.
const (
	ruleArrows = "arrows"
	rulePurity = "purity"
	ruleSizes  = "sizes"
	ruleState  = "state"
	ruleWords  = "words"
)

// finding is one thing that breaks a rule.
type finding struct {
	file string // path below the module's root
	line int
	rule string
	text string // what is wrong and what would be right
}

// String returns "file:line: text [rule]".
func (f finding) String() string {
	return fmt.Sprintf("%s:%d: %s [%s]", f.file, f.line, f.text, f.rule)
}

// sortFindings orders findings by place.
func sortFindings(all []finding) {
	slices.SortFunc(all, func(a, b finding) int {
		return cmp.Or(cmp.Compare(a.file, b.file), cmp.Compare(a.line, b.line), cmp.Compare(a.rule, b.rule),
			cmp.Compare(a.text, b.text))
	})
}
