package perf

import "math"

// plot is a plot of bars, one row for each case, in units of the drawing.
type plot struct {
	Width, Height int
	Rows          []row
	Ticks         []tick
	Unit          string
}

// row is one case: a bar, and a line for its spread.
type row struct {
	Y                  int
	Name, Text         string
	From, To, Low, End float64 // of the bar, and of the line
}

// tick is a line across the plot.
type tick struct {
	X    float64
	Text string
}

// Sizes of a drawing.
const (
	plotLeft   = 470 // room for names
	plotRight  = 150 // room for numbers
	plotBars   = 520
	rowHeight  = 22
	plotTop    = 24
	ticksWant  = 5
	decadesMax = 9
)

func newPlot(cases []reportCase, unit string) plot {
	return plot{
		Width: plotLeft + plotBars + plotRight, Height: plotTop + rowHeight*len(cases) + rowHeight, Unit: unit,
	}
}

// throughputPlot draws messages a second, from zero, since ratios are what is compared.
func throughputPlot(cases []reportCase) plot {
	p := newPlot(cases, "MB/s at the slowest member")
	most := 0.0
	for _, c := range cases {
		most = max(most, c.Megabytes.Max)
	}
	if most == 0 {
		most = 1
	}
	at := func(x float64) float64 { return plotLeft + x/most*plotBars }
	step := niceStep(most / ticksWant)
	for x := 0.0; x <= most; x += step {
		p.Ticks = append(p.Ticks, tick{at(x), short(x)})
	}
	for i, c := range cases {
		p.Rows = append(p.Rows, row{
			Y: plotTop + i*rowHeight, Name: c.Name,
			Text: short(c.Megabytes.Median) + " MB/s, " + short(c.Rate.Median) + "/s",
			From: plotLeft, To: at(c.Megabytes.Median), Low: at(c.Megabytes.Min), End: at(c.Megabytes.Max),
		})
	}
	return p
}

// latencyPlot draws from p50 to p99, with a line to the maximum, in decades.
func latencyPlot(cases []reportCase) plot {
	p := newPlot(cases, "µs, p50 to p99, and the longest")
	low, high := math.Inf(1), 1.0
	for _, c := range cases {
		if c.P50.Median > 0 {
			low, high = min(low, c.P50.Median), max(high, c.Max.Median)
		}
	}
	if math.IsInf(low, 1) {
		low = 1
	}
	from := math.Floor(math.Log10(low))
	decades := min(max(math.Ceil(math.Log10(high))-from, 1), decadesMax)
	at := func(x float64) float64 {
		return plotLeft + min(max(math.Log10(max(x, 1e-3))-from, 0)/decades, 1)*plotBars
	}
	for d := 0.0; d <= decades; d++ {
		x := math.Pow(10, from+d)
		p.Ticks = append(p.Ticks, tick{at(x), short(x)})
	}
	for i, c := range cases {
		p.Rows = append(p.Rows, row{
			Y: plotTop + i*rowHeight, Name: c.Name, Text: short(c.P50.Median) + " / " + short(c.P99.Median),
			From: at(c.P50.Median), To: at(c.P99.Median), Low: at(c.P99.Median), End: at(c.Max.Median),
		})
	}
	return p
}

// niceStep rounds up to 1, 2 or 5 times a power of ten.
func niceStep(x float64) float64 {
	power := math.Pow(10, math.Floor(math.Log10(x)))
	for _, m := range []float64{1, 2, 5} {
		if m*power >= x {
			return m * power
		}
	}
	return 10 * power
}

// Bar returns the width of the row's bar, at least a hair.
func (r row) Bar() float64 { return max(r.To-r.From, 1) }

// Middle returns the row's middle.
func (r row) Middle() int { return r.Y + rowHeight/2 - 2 }

// Base returns where the row's text stands.
func (r row) Base() int { return r.Y + rowHeight/2 + 2 }

// Text returns where the numbers of a row stand.
func (p plot) Text() int { return plotLeft + plotBars + 6 }

// Names returns where the names of the rows end.
func (p plot) Names() int { return plotLeft - 8 }

// Bottom returns where the ticks end.
func (p plot) Bottom() int { return p.Height - rowHeight }
