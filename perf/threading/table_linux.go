package main

import (
	"fmt"
	"io"
	"slices"
	"time"
)

// printTable prints the medians of all runs as a Markdown table, in microseconds.
func printTable(w io.Writer, order []cell, results map[string][]outcome) {
	fmt.Fprintf(w, "64-byte messages, p50 / p99 in µs, medians of %d runs.\n\n", len(results[order[0].String()]))
	fmt.Fprintln(w, "| model, waiting | own, paced | remote, paced | remote, ping-pong | there and back | "+
		"own, load | remote, load | flood, msg/s |")
	fmt.Fprintln(w, "| --- | --- | --- | --- | --- | --- | --- | --- |")
	for _, x := range order {
		runs := results[x.String()]
		fmt.Fprintf(w, "| %v | %s | %s | %s | %s | %s | %s | %s |\n", x,
			median(runs, func(o outcome) spread { return o.Own[phasePaced] }),
			median(runs, func(o outcome) spread { return o.Remote[phasePaced] }),
			median(runs, func(o outcome) spread { return o.Remote[phasePing] }),
			median(runs, func(o outcome) spread { return o.RTT }),
			median(runs, func(o outcome) spread { return o.Own[phaseLoad] }),
			median(runs, func(o outcome) spread { return o.Remote[phaseLoad] }),
			throughput(runs))
	}
}

// median returns the medians of p50 and of p99 over the runs.
func median(runs []outcome, of func(o outcome) spread) string {
	var p50, p99 []time.Duration
	for _, o := range runs {
		if s := of(o); s.Samples > 0 {
			p50, p99 = append(p50, s.P50), append(p99, s.P99)
		}
	}
	if len(p50) == 0 {
		return ""
	}
	slices.Sort(p50)
	slices.Sort(p99)
	return fmt.Sprintf("%.1f / %.0f", micros(p50[len(p50)/2]), micros(p99[len(p99)/2]))
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

func throughput(runs []outcome) string {
	var list []float64
	for _, o := range runs {
		if o.Throughput > 0 {
			list = append(list, o.Throughput)
		}
	}
	if len(list) == 0 {
		return ""
	}
	slices.Sort(list)
	return fmt.Sprintf("%.0fk", list[len(list)/2]/1000)
}
