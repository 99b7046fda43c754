package probe

import (
	"cmp"
	"context"
	"slices"

	"github.com/khamsin-io/khamsin/tune"
)

// sweep measures along one setting after the other.
type sweep struct {
	Config
	prober   *prober
	unbroken int        // longest payload without fragments, by what is known so far
	path     func() int // what the kernel knows of it; nil: nothing
	series   []Series
	best     Point
	done     int
	total    int
}

// bufferMin is the smallest buffer tried.
const bufferMin = 16 << 10

// packets returns the sizes tried: up to what fits the interface, and some beyond, to show what fragments cost.
func (s *sweep) packets() []int {
	sizes := []int{64, 256, 512, 1024, 1372, 1472, 4096, 8192, 16384, 32768, 65507}
	if s.unbroken > 0 && s.unbroken < sizes[len(sizes)-1] && !slices.Contains(sizes, s.unbroken) {
		sizes = append(sizes, s.unbroken)
		slices.Sort(sizes)
	}
	return sizes
}

// buffers returns the sizes tried, doubling up to the largest.
func (s *sweep) buffers() []int {
	var sizes []int
	for b := bufferMin; b < s.Buffer; b *= 4 {
		sizes = append(sizes, b)
	}
	return append(sizes, s.Buffer)
}

// axis is one setting with the values it is tried at.
type axis struct {
	name   string
	values []func(x *Settings)
}

func axisOf[T any](name string, values []T, set func(x *Settings, v T)) axis {
	a := axis{name: name}
	for _, v := range values {
		a.values = append(a.values, func(x *Settings) { set(x, v) })
	}
	return a
}

// axes lists what is measured, in order.
func (s *sweep) axes() []axis {
	waits := strategies()
	return []axis{
		axisOf("packet", s.packets(), setPacket),
		axisOf("batch", []int{1, 4, 16, 64, 256}, func(x *Settings, v int) { x.Batch = v }),
		axisOf("window", []int{windowMin, 64, 256, windowMax}, func(x *Settings, v int) { x.Window = v }),
		axisOf("buffer", s.buffers(), func(x *Settings, v int) { x.Buffer = v }),
		axisOf("waiting", waits[:], func(x *Settings, v strategy) { x.Waiting = v.name }),
	}
}

// all measures everything.
func (s *sweep) all(ctx context.Context) error {
	now := Settings{Packet: 1472, Batch: defaultBatch, Window: windowMax, Buffer: s.Buffer, Waiting: "adaptive"}
	axes := s.axes()
	for _, a := range axes {
		s.total += s.Rounds * len(a.values)
	}
	for _, a := range axes {
		if err := s.along(ctx, &now, a); err != nil {
			return err
		}
	}
	s.report()
	return nil
}

func (s *sweep) report() {
	if s.Progress != nil {
		s.Progress(s.done, s.total)
	}
}

// setPacket sets the size, and the window to what fits a buffer of packets of that size.
func setPacket(x *Settings, bytes int) {
	const overhead = 832 // of the kernel for each packet, roughly
	x.Packet, x.Window = bytes, max(windowMin, min(windowMax, x.Buffer/(bytes+overhead)))
}

// along measures one setting at several values and keeps the best. It goes round the values several times, so that a
// disturbance of the machine does not hit one of them alone, and takes the median of each.
func (s *sweep) along(ctx context.Context, now *Settings, a axis) error {
	runs := make([][]Point, len(a.values))
	for range s.Rounds {
		for i, set := range a.values {
			s.report()
			x := *now
			set(&x)
			point, err := s.prober.measure(ctx, x, s.Each)
			if err != nil {
				return err
			}
			s.done++
			runs[i] = append(runs[i], point)
		}
	}
	s.learnPath()
	series := Series{Setting: a.name}
	for _, points := range runs {
		series.Points = append(series.Points, median(points))
	}
	series.Knee = s.knee(series)
	s.series = append(s.series, series)
	s.best = series.Points[series.Knee]
	*now = s.best.Settings
	return nil
}

// learnPath takes in what the kernel learnt about the path from the packets sent so far.
func (s *sweep) learnPath() {
	if s.path == nil {
		return
	}
	if known := s.path(); known > 0 {
		s.unbroken = min(s.unbroken, known)
	}
}

// median returns the measurement whose goodput is in the middle, with the round trips that are in the middle.
func median(points []Point) Point {
	middle := len(points) / 2
	slices.SortFunc(points, func(a, b Point) int { return cmp.Compare(a.P99, b.P99) })
	p99 := points[middle].P99
	slices.SortFunc(points, func(a, b Point) int { return cmp.Compare(a.P50, b.P50) })
	p50 := points[middle].P50
	slices.SortFunc(points, func(a, b Point) int { return cmp.Compare(a.Goodput, b.Goodput) })
	p := points[middle]
	p.P50, p.P99 = p50, max(p50, p99)
	return p
}

// What counts as as good as the best: measurements differ by more than this from run to run.
const (
	goodputNear = 0.9
	latencyNear = 1.15
	lossMax     = 0.001
	packetMin   = 512 // vsync makes no shorter ones
)

// knee returns the index of the point where a curve bends: the first, of those in the order of what they cost, that is
// about as good as the best. Points that lose packets count only when all do.
func (s *sweep) knee(series Series) int {
	eligible := func(p Point) bool {
		if series.Setting != "packet" {
			return true
		}
		return p.Packet >= packetMin && (s.unbroken == 0 || p.Packet <= s.unbroken)
	}
	if !slices.ContainsFunc(series.Points, eligible) { // an interface of a tiny MTU
		eligible = func(Point) bool { return true }
	}
	sound := func(p Point) bool { return eligible(p) && p.Loss() <= lossMax }
	if !slices.ContainsFunc(series.Points, sound) {
		sound = eligible
	}
	best := -1
	for i, p := range series.Points {
		if sound(p) && (best < 0 || s.better(p, series.Points[best])) {
			best = i
		}
	}
	for i, p := range series.Points {
		if sound(p) && s.near(p, series.Points[best]) {
			return i
		}
	}
	return best
}

// better tells whether a serves the profile better than b.
func (s *sweep) better(a, b Point) bool {
	if s.Profile == tune.Latency {
		return a.P50 > 0 && (b.P50 == 0 || a.P50 < b.P50)
	}
	return a.Goodput > b.Goodput
}

// near tells whether p is about as good as best.
func (s *sweep) near(p, best Point) bool {
	if s.Profile == tune.Latency {
		return p.P50 > 0 && float64(p.P50) <= latencyNear*float64(best.P50)
	}
	return p.Goodput >= goodputNear*best.Goodput
}
