package perf

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Result is one run's, as it is printed by --json. Times are microseconds where the name ends so.
type Result struct {
	Options
	Seconds float64   `json:"seconds"` // measured
	Began   time.Time `json:"began"`
	Go      string    `json:"go"`
	Cores   int       `json:"cores"`
	// InterfaceMTU is the least of the members' interfaces; longer packets are cut on their way. 0: not known.
	InterfaceMTU int `json:"interface_mtu"`

	// Rates are at the members that get messages; min is the slowest one's.
	DeliveredMin  float64 `json:"delivered_msgs_per_s_min"`
	DeliveredMean float64 `json:"delivered_msgs_per_s_mean"`
	MegabytesMin  float64 `json:"mb_per_s_min"`

	// Latency is from when a sender was ready to send to the delivery, at all members; Own is that of deliveries at the
	// sender itself, Others of those elsewhere. Flush and join have only Own: the call's.
	Latency Latency `json:"latency_us"`
	Own     Latency `json:"latency_own_us"`
	Others  Latency `json:"latency_others_us"`
	Clocks  bool    `json:"separate_clocks"` // members on several hosts: only Own can be measured

	Lost          uint64  `json:"lost"`       // messages that a member did not get; any is a fault
	Duplicated    uint64  `json:"duplicated"` // likewise
	Retransmitted uint64  `json:"retransmitted"`
	Processor     float64 `json:"cpu_s_per_million_msgs"`   // of all members together, for a million delivered at each
	Cores1        float64 `json:"cpu_cores"`                // used by all members together
	Allocations   float64 `json:"allocs_per_msg"`           // of a member, for each message delivered there
	Collections   uint32  `json:"collections"`              // garbage collections of all members
	Removal       float64 `json:"removal_ms,omitempty"`     // kill: until all survivors had the view without the victim
	First         float64 `json:"first_ready_ms,omitempty"` // rounds: what Start took in the first process
	Suspicions    int     `json:"suspicions"`               // accusations of members by members
	Views         uint64  `json:"views"`                    // most that a member saw

	// Starved says that a member was kept from the processor for more than half of the measured time: the numbers are
	// the machine's, not ours.
	Starved bool `json:"starved"`

	Packets deltas         `json:"packets"` // of all members together
	Each    []MemberResult `json:"each"`
	Floor   *Floor         `json:"floor"`
}

// MemberResult is one member's part of a Result.
type MemberResult struct {
	Rank      int     `json:"rank"`
	Delivered float64 `json:"delivered_msgs_per_s"`
	Sent      uint64  `json:"sent"`
	Processor float64 `json:"cpu_cores"`
}

// Latency is the spread of a latency in microseconds.
type Latency struct {
	P50   float64 `json:"p50"`
	P90   float64 `json:"p90"`
	P99   float64 `json:"p99"`
	P999  float64 `json:"p999"`
	Max   float64 `json:"max"`
	Count int64   `json:"count"`
}

func latencyOf(h *hdrhistogram.Histogram) Latency {
	if h.TotalCount() == 0 {
		return Latency{}
	}
	at := func(q float64) float64 { return float64(h.ValueAtQuantile(q)) / 1e3 }
	return Latency{
		P50: at(50), P90: at(90), P99: at(99), P999: at(99.9), Max: float64(h.Max()) / 1e3, Count: h.TotalCount(),
	}
}

// merge makes a result of the members' reports.
func merge(o Options, began time.Time, reports []*report) (*Result, error) {
	if len(reports) == 0 {
		return nil, errors.New("no member has reported")
	}
	slices.SortFunc(reports, func(a, b *report) int { return a.Rank - b.Rank })
	r := &Result{Options: o, Began: began.UTC(), Go: runtime.Version(), Cores: runtime.NumCPU()}
	own, others := newHistogram(), newHistogram()
	var mallocs, delivered uint64
	processor, receivers := 0.0, 0
	for _, m := range reports {
		if err := errors.Join(unite(own, m.Own), unite(others, m.Others)); err != nil {
			return nil, fmt.Errorf("histograms of rank %d: %w", m.Rank, err)
		}
		r.Starved = r.Starved || m.Seconds < o.Duration.Seconds()/2
		if m.MTU > 0 && (r.InterfaceMTU == 0 || m.MTU < r.InterfaceMTU) {
			r.InterfaceMTU = m.MTU
		}
		r.Clocks = r.Clocks || m.Boot != reports[0].Boot
		rate := float64(m.Delivered) / m.Seconds
		if m.Receives || m.Delivered > 0 {
			if receivers == 0 || rate < r.DeliveredMin {
				r.DeliveredMin = rate
			}
			if mb := float64(m.Bytes) / m.Seconds / 1e6; receivers == 0 || mb < r.MegabytesMin {
				r.MegabytesMin = mb
			}
			receivers++
			r.DeliveredMean += rate
		}
		r.Seconds = max(r.Seconds, m.Seconds)
		r.Lost, r.Duplicated, r.Collections = r.Lost+m.Lost, r.Duplicated+m.Duplicated, r.Collections+m.Collections
		r.Removal, r.Views = max(r.Removal, float64(m.Gone)/1e6), max(r.Views, m.Views)
		mallocs, delivered, processor = mallocs+m.Mallocs, delivered+m.Delivered, processor+m.Processor
		r.Suspicions += m.Suspicions
		r.Cores1 += m.Processor / m.Seconds
		r.Packets.add(m.Stats)
		r.Each = append(r.Each, MemberResult{
			Rank: m.Rank, Delivered: rate, Sent: m.Sent, Processor: m.Processor / m.Seconds,
		})
	}
	r.DeliveredMean /= float64(max(1, receivers))
	r.Retransmitted = r.Packets.Retransmitted
	if delivered > 0 {
		r.Processor = processor / (float64(delivered) / float64(receivers) / 1e6)
		r.Allocations = float64(mallocs) / float64(delivered)
	}
	if r.Clocks {
		others.Reset()
	}
	r.Own, r.Others = latencyOf(own), latencyOf(others)
	own.Merge(others)
	r.Latency = latencyOf(own)
	return r, nil
}

// unite adds an encoded histogram to another one.
func unite(sum *hdrhistogram.Histogram, encoded []byte) error {
	h, err := hdrhistogram.Decode(encoded)
	if err != nil {
		return err
	}
	sum.Merge(h)
	return nil
}
