package probe

import (
	"fmt"
	"html"
	"io"
	"strings"
)

// Geometry of a chart in pixels.
const (
	chartWidth  = 640
	chartHeight = 260
	marginLeft  = 60
	marginRight = 60
	marginTop   = 20
	marginBelow = 46
)

// style is the page's only style sheet; there is nothing to load.
const style = `
body { font: 15px/1.5 system-ui, sans-serif; max-width: 720px; margin: 2em auto; padding: 0 1em; color: #222 }
h1 { font-size: 1.4em } h2 { font-size: 1.1em; margin-top: 2em } svg { width: 100%; height: auto }
text { font-size: 11px; fill: #444 } .grid { stroke: #ddd }
.good { stroke: #1668a8; fill: none; stroke-width: 2 } .goodp { fill: #1668a8 }
.slow { stroke: #c2571a; fill: none; stroke-width: 2; stroke-dasharray: 5 3 } .slowp { fill: #c2571a }
.knee { stroke: #2a8a3a; stroke-width: 2; fill: none } .lost { fill: #b00020 }
table { border-collapse: collapse; font-size: 13px }
td, th { padding: 2px 10px; text-align: right; border-bottom: 1px solid #eee }
tr.best { background: #e8f5ea } pre { background: #f6f6f6; padding: 1em; overflow: auto }
`

// WritePage writes the result as one HTML page that holds everything it needs: curves as SVG, tables, and the
// configuration.
func (r Result) WritePage(w io.Writer) error {
	var b strings.Builder
	title := html.EscapeString(fmt.Sprintf("khamsin tune probe: %s, %s to %s", r.Profile, r.Interface, r.To))
	fmt.Fprintf(&b, `<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"/><title>%s</title><style>%s</style></head><body>
<h1>%s</h1>
<p>The longest packet without IP fragments is %d bytes. The full line is goodput (left), the broken one the median
round trip of single packets (right); red numbers are per cent lost; the ring is the knee.</p>
`, title, style, title, r.Unbroken)
	for _, s := range r.Series {
		fmt.Fprintf(&b, "<h2>by %s</h2>\n", html.EscapeString(s.Setting))
		s.chart(&b)
		s.table(&b)
	}
	fmt.Fprintf(&b, "<h2>khamsin.toml</h2>\n<pre>%s</pre>\n</body></html>\n", html.EscapeString(r.TOML()))
	_, err := io.WriteString(w, b.String())
	return err
}

// scale maps values to heights.
type scale struct{ top float64 }

func (s scale) y(v float64) float64 {
	return marginTop + (chartHeight-marginTop-marginBelow)*(1-v/s.top)
}

func (s Series) chart(b *strings.Builder) {
	goodput, latency := scale{1e-9}, scale{1e-9}
	for _, p := range s.Points {
		goodput.top, latency.top = max(goodput.top, p.Goodput/1e6), max(latency.top, micros(p.P50))
	}
	x := func(i int) float64 {
		return marginLeft + (chartWidth-marginLeft-marginRight)*(float64(i)+0.5)/float64(len(s.Points))
	}
	fmt.Fprintf(b, "<svg viewBox=\"0 0 %d %d\" role=\"img\" aria-label=\"goodput and latency by %s\">\n", chartWidth,
		chartHeight,
		html.EscapeString(s.Setting))
	const lines = 4
	for i := range lines + 1 {
		part := float64(i) / lines
		y := goodput.y(goodput.top * part)
		fmt.Fprintf(b, "<line class=\"grid\" x1=\"%d\" x2=\"%d\" y1=\"%.1f\" y2=\"%.1f\"/>", marginLeft,
			chartWidth-marginRight, y, y)
		fmt.Fprintf(b, "<text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%.4g</text>", marginLeft-6, y+4, goodput.top*part)
		fmt.Fprintf(b, "<text x=\"%d\" y=\"%.1f\">%.4g</text>\n", chartWidth-marginRight+6, y+4, latency.top*part)
	}
	fmt.Fprintf(b, "<text x=\"4\" y=\"12\">MB/s</text><text x=\"%d\" y=\"12\" text-anchor=\"end\">µs</text>\n",
		chartWidth-4)
	s.line(b, "good", x, func(p Point) float64 { return goodput.y(p.Goodput / 1e6) })
	s.line(b, "slow", x, func(p Point) float64 { return latency.y(micros(p.P50)) })
	for i, p := range s.Points {
		const below = chartHeight - marginBelow
		fmt.Fprintf(b, "<text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">%s</text>", x(i), below+16,
			html.EscapeString(s.label(p)))
		if p.Lost > 0 {
			fmt.Fprintf(b, "<text class=\"lost\" x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">%.2g %%</text>", x(i),
				below+32, 100*p.Loss())
		}
		if i == s.Knee {
			fmt.Fprintf(b, "<circle class=\"knee\" cx=\"%.1f\" cy=\"%.1f\" r=\"8\"/>", x(i), goodput.y(p.Goodput/1e6))
		}
	}
	b.WriteString("\n</svg>\n")
}

// line draws one curve with a dot at each point.
func (s Series) line(b *strings.Builder, class string, x func(int) float64, y func(Point) float64) {
	fmt.Fprintf(b, "<polyline class=\"%s\" points=\"", class)
	for i, p := range s.Points {
		fmt.Fprintf(b, "%.1f,%.1f ", x(i), y(p))
	}
	b.WriteString("\"/>")
	for i, p := range s.Points {
		fmt.Fprintf(b, "<circle class=\"%sp\" cx=\"%.1f\" cy=\"%.1f\" r=\"3\"/>", class, x(i), y(p))
	}
	b.WriteString("\n")
}

func (s Series) table(b *strings.Builder) {
	b.WriteString("<table><tr>")
	for _, head := range []string{s.Setting, "MB/s", "lost %", "p50 µs", "p99 µs", "buffer granted"} {
		fmt.Fprintf(b, "<th>%s</th>", html.EscapeString(head))
	}
	b.WriteString("</tr>\n")
	for i, p := range s.Points {
		class := ""
		if i == s.Knee {
			class = ` class="best"`
		}
		fmt.Fprintf(b, "<tr%s><td>%s</td><td>%.1f</td><td>%.3f</td><td>%.1f</td><td>%.1f</td><td>%d</td></tr>\n", class,
			html.EscapeString(s.label(p)), p.Goodput/1e6, 100*p.Loss(), micros(p.P50), micros(p.P99), p.Granted)
	}
	b.WriteString("</table>\n")
}
