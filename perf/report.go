package perf

import (
	"cmp"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"io"
	"math"
	"slices"
	"time"
)

// ParseResult reads what --json printed.
func ParseResult(text []byte) (*Result, error) {
	r := new(Result)
	if err := json.Unmarshal(text, r); err != nil {
		return nil, fmt.Errorf("no result: %w", err)
	}
	if r.Primitive == "" || r.Members == 0 {
		return nil, errors.New("no result: it names no primitive and no members")
	}
	return r, nil
}

// page is the report's template. immutable: embedded
//
//go:embed report.html.tmpl
var page string

// WriteReport writes one HTML page that needs nothing else, with plots of results, and their change against base when
// there are any. Results of equal options are runs of one case; their spread is shown.
func WriteReport(w io.Writer, results, base []*Result) error {
	if len(results) == 0 {
		return errors.New("no results")
	}
	t, err := template.New("report").Funcs(template.FuncMap{
		"short": short, "percent": func(x float64) string { return fmt.Sprintf("%.4g", x) },
	}).Parse(page)
	if err != nil {
		return err
	}
	cases := casesOf(results, base)
	return t.Execute(w, map[string]any{
		"Cases": cases, "Compared": len(base) > 0, "Throughput": throughputPlot(cases), "Latency": latencyPlot(cases),
		"Floor": lastFloor(results), "Made": time.Now().UTC().Format("2006-01-02 15:04 MST"),
		"First": results[0],
	})
}

// spread is the median of a number over runs, and its ends.
type spread struct{ Min, Median, Max float64 }

// String returns the median and the ends.
func (s spread) String() string {
	if s.Min == s.Max {
		return short(s.Median)
	}
	return fmt.Sprintf("%s [%s..%s]", short(s.Median), short(s.Min), short(s.Max))
}

func spreadOf(results []*Result, value func(r *Result) float64) spread {
	if len(results) == 0 {
		return spread{}
	}
	var v []float64
	for _, r := range results {
		v = append(v, value(r))
	}
	slices.Sort(v)
	return spread{Min: v[0], Median: (v[(len(v)-1)/2] + v[len(v)/2]) / 2, Max: v[len(v)-1]}
}

// reportCase is what one row of the report shows.
type reportCase struct {
	Name                           string
	Runs                           int
	Rate, Megabytes, P50, P99, Max spread
	Processor, Allocations         spread
	Lost, Retransmitted            uint64
	Base                           spread // rate, of the runs to compare with
	Change                         string // of the rate
	size                           int
}

// casesOf groups results by their options.
func casesOf(results, base []*Result) []reportCase {
	var names []string
	now, before := map[string][]*Result{}, map[string][]*Result{}
	for _, r := range results {
		name := caseName(&r.Options)
		if now[name] == nil {
			names = append(names, name)
		}
		now[name] = append(now[name], r)
	}
	for _, r := range base {
		name := caseName(&r.Options)
		before[name] = append(before[name], r)
	}
	rate := func(r *Result) float64 { return r.DeliveredMin }
	var list []reportCase
	for _, name := range names {
		runs := now[name]
		c := reportCase{
			Name: name, Runs: len(runs), Rate: spreadOf(runs, rate), size: runs[0].Size,
			Megabytes:   spreadOf(runs, func(r *Result) float64 { return r.MegabytesMin }),
			P50:         spreadOf(runs, func(r *Result) float64 { return r.Latency.P50 }),
			P99:         spreadOf(runs, func(r *Result) float64 { return r.Latency.P99 }),
			Max:         spreadOf(runs, func(r *Result) float64 { return r.Latency.Max }),
			Processor:   spreadOf(runs, func(r *Result) float64 { return r.Processor }),
			Allocations: spreadOf(runs, func(r *Result) float64 { return r.Allocations }),
			Base:        spreadOf(before[name], rate),
		}
		for _, r := range runs {
			c.Lost, c.Retransmitted = c.Lost+r.Lost, c.Retransmitted+r.Retransmitted
		}
		c.Change = change(c.Base, c.Rate)
		list = append(list, c)
	}
	slices.SortStableFunc(list, func(a, b reportCase) int { return cmp.Compare(a.size, b.size) })
	return list
}

// change compares two spreads. Those that overlap are not told apart.
func change(before, now spread) string {
	switch {
	case before.Median == 0:
		return ""
	case before.Min <= now.Max && now.Min <= before.Max:
		return fmt.Sprintf("×%.2f, within the spread", now.Median/before.Median)
	}
	return fmt.Sprintf("×%.2f", now.Median/before.Median)
}

// caseName says what was measured.
func caseName(o *Options) string {
	name := fmt.Sprintf("%s %s, %d members, %s sending, %s, %s", o.Primitive, bytesName(o.Size), o.Members, o.Senders,
		o.Transport, o.Waiting)
	if o.Rate > 0 {
		name += fmt.Sprintf(", %v/s", o.Rate)
	}
	if o.Loss > 0 {
		name += fmt.Sprintf(", %v %% lost", 100*o.Loss)
	}
	if o.Window > 0 {
		name += fmt.Sprintf(", window %d", o.Window)
	}
	if o.Packet > 0 {
		name += fmt.Sprintf(", packets of %d", o.Packet)
	}
	if !o.Netns {
		name += ", loopback or hosts"
	}
	return name
}

func bytesName(n int) string {
	if n >= 1024 && n%1024 == 0 {
		return fmt.Sprintf("%d KB", n/1024)
	}
	return fmt.Sprintf("%d B", n)
}

// short prints a number with three digits and a unit of thousands.
func short(x float64) string {
	for _, u := range []struct {
		above float64
		name  string
	}{{1e9, "G"}, {1e6, "M"}, {1e3, "k"}} {
		if math.Abs(x) >= u.above {
			return fmt.Sprintf("%.3g%s", x/u.above, u.name)
		}
	}
	return fmt.Sprintf("%.3g", x)
}

func lastFloor(results []*Result) *Floor {
	for _, r := range slices.Backward(results) {
		if r.Floor != nil {
			return r.Floor
		}
	}
	return nil
}
