package probe

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// label returns the value of a point along its series.
func (s Series) label(p Point) string {
	switch s.Setting {
	case "packet":
		return fmt.Sprint(p.Packet)
	case "batch":
		return fmt.Sprint(p.Batch)
	case "window":
		return fmt.Sprint(p.Window)
	case "buffer":
		return fmt.Sprintf("%d KiB", p.Buffer>>10)
	}
	return p.Waiting
}

// highest returns the largest goodput of all series, and at least 1.
func (r Result) highest() float64 {
	top := 1.0
	for _, s := range r.Series {
		for _, p := range s.Points {
			top = max(top, p.Goodput)
		}
	}
	return top
}

// WriteText draws the curves for a terminal: one bar of goodput for each measurement, the knee marked.
func (r Result) WriteText(w io.Writer) error {
	const barMax = 32
	var b strings.Builder
	fmt.Fprintf(&b, "khamsin tune probe: profile %s, %s to %s, longest packet without fragments %d\n", r.Profile,
		r.Interface,
		r.To, r.Unbroken)
	top := r.highest()
	for _, s := range r.Series {
		fmt.Fprintf(&b, "\n%-10s %-*s %9s %8s %9s %9s\n", strings.ToUpper(s.Setting), barMax+2, "", "MB/s", "LOST %",
			"P50 µs",
			"P99 µs")
		for i, p := range s.Points {
			bar := strings.Repeat("█", int(barMax*p.Goodput/top+0.5))
			mark := " "
			if i == s.Knee {
				mark = "◄"
			}
			fmt.Fprintf(&b, "%10s %-*s%s %9.1f %8.3f %9.1f %9.1f\n", s.label(p), barMax+1, bar, mark, p.Goodput/1e6,
				100*p.Loss(),
				micros(p.P50), micros(p.P99))
		}
	}
	best := r.Best
	fmt.Fprintf(&b, "\nbest: packets of %d, batches of %d, %d under way, a receive buffer of %d KiB, waiting %s\n",
		best.Packet,
		best.Batch, best.Window, best.Buffer>>10, best.Waiting)
	_, err := io.WriteString(w, b.String())
	return err
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
