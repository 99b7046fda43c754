package main

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// priority says how much a row matters.
type priority string

// The priorities, from what everything else rests on to what the authors of the manual wished for.
const (
	core   priority = "core"
	full   priority = "full"
	edge   priority = "edge"
	future priority = "future"
)

// priorities lists all of them in the order of the page.
func priorities() []priority { return []priority{core, full, edge, future} }

// row is one thing that the system is to do.
type row struct {
	id       string // area and number, such as MC-11
	priority priority
	feature  string
	evidence []evidence // sorted, each once
}

// area is a group of rows whose identifiers begin alike.
type area struct {
	name  string // MC
	title string // Multicast flavours
	rows  []*row
}

// table is all rows in the order of rows.tsv.
type table struct {
	areas []*area
	byID  map[string]*row
}

// rowID matches the identifier of a row; its group is the area.
var rowID = regexp.MustCompile(`^([A-Z][A-Z0-9]*)-[0-9]{2}$`)

// parseTable reads tab-separated lines of id, area title, priority and feature. Lines that begin with # are comments.
func parseTable(text string) (*table, error) {
	t := &table{byID: map[string]*row{}}
	for i, line := range strings.Split(text, "\n") {
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if err := t.addLine(line); err != nil {
			return nil, fmt.Errorf("line %d: %w", i+1, err)
		}
	}
	return t, nil
}

func (t *table) addLine(line string) error {
	fields := strings.Split(line, "\t")
	if len(fields) != 4 {
		return fmt.Errorf("%d fields, want id, area, priority, feature", len(fields))
	}
	id, title, feature := fields[0], fields[1], fields[3]
	match := rowID.FindStringSubmatch(id)
	if match == nil {
		return fmt.Errorf("%q is not the name of a row", id)
	}
	if t.byID[id] != nil {
		return fmt.Errorf("row %s stands twice", id)
	}
	p := priority(fields[2])
	if !slices.Contains(priorities(), p) {
		return fmt.Errorf("row %s has priority %q", id, p)
	}
	if strings.TrimSpace(feature) == "" || strings.Contains(feature, "|") {
		return fmt.Errorf("row %s has feature %q", id, feature)
	}
	a := t.area(match[1])
	if a == nil {
		a = &area{name: match[1], title: title}
		t.areas = append(t.areas, a)
	}
	if a.title != title {
		return fmt.Errorf("row %s calls its area %q, others %q", id, title, a.title)
	}
	r := &row{id: id, priority: p, feature: feature}
	a.rows = append(a.rows, r)
	t.byID[id] = r
	return nil
}

// area returns the area of a name, or nil.
func (t *table) area(name string) *area {
	for _, a := range t.areas {
		if a.name == name {
			return a
		}
	}
	return nil
}

// addEvidence gives each row its evidence, and reports all evidence for rows that do not exist or may not be shown so.
func (t *table) addEvidence(found []evidence) error {
	var errs []error
	for _, e := range found {
		r := t.byID[e.row]
		switch {
		case r == nil:
			errs = append(errs, fmt.Errorf("%s:%d: there is no row %s", e.file, e.line, e.row))
		case e.document && r.priority != edge:
			errs = append(errs, fmt.Errorf("%s:%d: %s is a %s row: a test must show it",
				e.file, e.line, e.row, r.priority))
		default:
			r.evidence = append(r.evidence, e)
		}
	}
	for _, r := range t.byID {
		slices.SortFunc(r.evidence, func(a, b evidence) int {
			return cmp.Or(cmp.Compare(a.file, b.file), cmp.Compare(a.function, b.function))
		})
		r.evidence = slices.CompactFunc(r.evidence, func(a, b evidence) bool {
			return a.file == b.file && a.function == b.function
		})
	}
	return errors.Join(errs...)
}

// count returns how many of the rows that pass have evidence, and how many pass.
func (t *table) count(pass func(*row) bool) (shown, all int) {
	for _, a := range t.areas {
		s, n := a.count(pass)
		shown, all = shown+s, all+n
	}
	return shown, all
}

func (a *area) count(pass func(*row) bool) (shown, all int) {
	for _, r := range a.rows {
		if !pass(r) {
			continue
		}
		all++
		if len(r.evidence) > 0 {
			shown++
		}
	}
	return shown, all
}
