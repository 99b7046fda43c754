package perf

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/khamsin-io/khamsin/oob"
	"github.com/khamsin-io/khamsin/vsync"
)

// BulkOptions says which objects are replicated, and how.
type BulkOptions struct {
	Receivers int     `json:"receivers"`
	Size      int64   `json:"size"`      // bytes of all objects together
	Objects   int     `json:"objects"`   // that share them
	Loss      float64 `json:"loss"`      // share of packets that each receiver throws away
	Transport string  `json:"transport"` // a name of Transports
	Netns     bool    `json:"netns"`
	Megabits  int     `json:"mbit"`      // that each member's line carries in a second; 0: no limit. Takes Netns
	Runs      int     `json:"runs"`      // of which the median is reported
	Traffic   bool    `json:"traffic"`   // measure ordered messages beside the transfers
	Dir       string  `json:"dir"`       // directory of objects; empty: memory
	Transfers int     `json:"transfers"` // at once; 0: the library's default
	Spare     int64   `json:"spare"`     // bytes of deleted objects that are kept for the next; 0: the default
	XDPBulk   string  `json:"xdp_bulk"`  // over the transport "xdp": a key of xdpBulks; empty: as the driver has it
}

// BulkResult is what a measurement gave. The run is the median one.
type BulkResult struct {
	BulkOptions
	Seconds   float64   `json:"seconds"`  // from the request until all copies were complete
	Rate      float64   `json:"mb_per_s"` // to each receiver
	WireRatio float64   `json:"wire_ratio"`
	Wire      uint64    `json:"wire_bytes"`    // sent by all members
	Written   uint64    `json:"written_bytes"` // of those, written from memory to memory
	Equal     bool      `json:"digests_equal"`
	Processor float64   `json:"cpu_s"` // of all members together
	Floor     BulkFloor `json:"floor"`
	Each      []float64 `json:"seconds_each"`
	Memory    string    `json:"memory"`    // what the objects are made of
	Resident  int64     `json:"extra_mib"` // of the receiver that takes most, beyond the objects
	Sender    oob.Stats `json:"sender"`
	Receiver  oob.Stats `json:"receiver"` // the first one
	Idle      Latency   `json:"ordered_idle_us"`
	Busy      Latency   `json:"ordered_busy_us"`
}

// BulkFloor is what the machine can: as many copies at once as there are receivers, from file to file in the page
// cache.
type BulkFloor struct {
	Seconds  float64 `json:"seconds"`
	Rate     float64 `json:"mb_per_s"`
	Fraction float64 `json:"fraction"` // of the floor's rate that the transfer reached
}

// Limits of BulkOptions.
const (
	bulkMax    = 64 << 30
	objectsMax = 100_000
	runsMax    = 100
	mbitMax    = 400_000

	transfersMax = 256
)

// Validate reports everything that is wrong.
func (o *BulkOptions) Validate() error {
	var faults []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			faults = append(faults, fmt.Errorf(format, args...))
		}
	}
	check(o.Receivers >= 1 && o.Receivers < MembersMax, "receivers: %d, want 1 to %d", o.Receivers, MembersMax-1)
	check(o.Size >= 1 && o.Size <= bulkMax, "size: %d, want 1 to %d", o.Size, int64(bulkMax))
	check(o.Objects >= 1 && o.Objects <= objectsMax && int64(o.Objects) <= o.Size, "objects: %d, want 1 to %d",
		o.Objects,
		objectsMax)
	check(o.Loss >= 0 && o.Loss <= lossMax, "loss: %v, want 0 to %v", o.Loss, lossMax)
	check(slices.Contains(Transports(), o.Transport), "transport: %q, want one of %v", o.Transport, Transports())
	check(o.Transport != byRDMA || !o.Netns, noDevice)
	check(o.Transport != byRDMA || o.Loss == 0, "loss: what is written into memory passes nothing that could lose it")
	check(o.Megabits >= 0 && o.Megabits <= mbitMax, "mbit: %d, want up to %d", o.Megabits, mbitMax)
	check(o.Megabits == 0 || o.Netns, "mbit: takes members in namespaces (netns), which have lines of their own")
	check(o.Transfers >= 0 && o.Transfers <= transfersMax, "transfers: %d, want 1 to %d, or 0", o.Transfers,
		transfersMax)
	check(o.Spare >= 0 && o.Spare <= bulkMax, "spare: %d, want up to %d bytes", o.Spare, int64(bulkMax))
	_, known := xdpBulks()[o.XDPBulk]
	check(known, "xdp_bulk: %q, want driver, udp or xdp", o.XDPBulk)
	check(o.XDPBulk == "" || o.Transport == "xdp", "xdp_bulk: takes the transport xdp")
	check(o.Runs >= 1 && o.Runs <= runsMax, "runs: %d, want 1 to %d", o.Runs, runsMax)
	return errors.Join(faults...)
}

// xdpBulks returns the values of BulkOptions.XDPBulk.
func xdpBulks() map[string]vsync.XDPBulk {
	return map[string]vsync.XDPBulk{
		"": vsync.BulkByDriver, "driver": vsync.BulkByDriver, "udp": vsync.BulkByUDP, "xdp": vsync.BulkByXDP,
	}
}

// bulkOrder is one step of a member.
type bulkOrder struct {
	Part    *part        // join
	Bulk    *BulkOptions // likewise
	Prepare int          // make and register the objects of a run; counts from 1
	Begin   bool         // note the counters
	Go      bool         // replicate, and wait
	Digest  bool         // of the objects
	Clear   bool         // delete those of the runs before
	Take    bool         // away from all but the sender
	Floor   bool         // measure it
	Traffic time.Duration
}

// bulkReport is what a step gave.
type bulkReport struct {
	Seconds   float64   `json:",omitempty"`
	Digests   []string  `json:",omitempty"`
	Processor float64   `json:",omitempty"`
	Wire      uint64    `json:",omitempty"`
	Resident  int64     `json:",omitempty"`
	Stats     oob.Stats `json:",omitzero"`
	Latency   Latency   `json:",omitzero"`
}

// Bulk measures how objects are replicated between processes of this host. Progress is told what happens, when it is
// not nil.
func Bulk(ctx context.Context, o BulkOptions, command []string, progress func(what string)) (*BulkResult, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	l := &local{
		options: Options{Members: o.Receivers + 1, Primitive: "ordered", Netns: o.Netns, Transport: o.Transport,
			Waiting: "adaptive"},
		command: command, began: time.Now(),
	}
	defer l.end()
	if err := l.start(); err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, l.kill)
	defer stop()
	if progress == nil {
		progress = func(string) {}
	}
	b := &bulkRun{l: l, o: o, progress: progress}
	result, err := b.measure()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return result, err
}

// bulkRun is a measurement.
type bulkRun struct {
	l        *local
	o        BulkOptions
	progress func(string)
}

// all gives an order to all members.
func (b *bulkRun) all(o bulkOrder) ([]*bulkReport, error) {
	reports := make([]*bulkReport, len(b.l.kids))
	faults := make([]error, len(b.l.kids))
	var all sync.WaitGroup
	for i, k := range b.l.kids {
		all.Go(func() {
			mine := o
			if o.Bulk != nil {
				mine.Part = b.l.part(i)
			}
			var a answer
			if a, faults[i] = k.do(order{Bulk: &mine}); a.Bulk != nil {
				reports[i] = a.Bulk
			} else {
				reports[i] = &bulkReport{}
			}
		})
	}
	all.Wait()
	return reports, errors.Join(faults...)
}

// one gives an order to one member.
func (b *bulkRun) one(i int, o bulkOrder) (*bulkReport, error) {
	a, err := b.l.kids[i].do(order{Bulk: &o})
	if err == nil && a.Bulk == nil {
		err = fmt.Errorf("member %d reports nothing", i)
	}
	return a.Bulk, err
}

func (b *bulkRun) measure() (*BulkResult, error) {
	b.progress("starting members")
	if _, err := b.all(bulkOrder{Bulk: &b.o}); err != nil {
		return nil, err
	}
	r := &BulkResult{BulkOptions: b.o, Equal: true}
	if b.o.Traffic {
		b.progress("ordered messages at idle")
		idle, err := b.one(1, bulkOrder{Traffic: trafficTime})
		if err != nil {
			return nil, err
		}
		r.Idle = idle.Latency
	}
	var runs []*BulkResult
	for i := range b.o.Runs {
		b.progress(fmt.Sprintf("run %d of %d", i+1, b.o.Runs))
		one, err := b.run(i + 1)
		if err != nil {
			return nil, err
		}
		r.Equal = r.Equal && one.Equal
		r.Each = append(r.Each, one.Seconds)
		runs = append(runs, one)
	}
	slices.SortFunc(runs, func(x, y *BulkResult) int { return int((x.Seconds - y.Seconds) * 1e9) })
	median := runs[len(runs)/2]
	b.progress("the floor")
	if err := b.floor(&median.Floor); err != nil {
		return nil, err
	}
	median.Floor.Fraction = median.Rate / median.Floor.Rate
	median.Equal, median.Each, median.Idle = r.Equal, r.Each, r.Idle
	if b.o.Traffic {
		b.progress("ordered messages beside transfers")
		busy, err := b.busy()
		if err != nil {
			return nil, err
		}
		median.Busy = busy
	}
	return median, nil
}

// floorTries is how often the floor is measured, of which the best counts.
const floorTries = 3

// floor measures what the machine can. It comes last: what it leaves behind makes fresh memory slower.
func (b *bulkRun) floor(f *BulkFloor) error {
	for range floorTries {
		r, err := b.one(0, bulkOrder{Floor: true})
		if err != nil {
			return err
		}
		if f.Seconds == 0 || r.Seconds < f.Seconds {
			f.Seconds, f.Rate = r.Seconds, float64(b.o.Size)/1e6/r.Seconds
		}
	}
	return nil
}

// trafficTime is how long ordered messages are measured.
const trafficTime = 2 * time.Second

// busy measures ordered messages while objects are replicated over and over.
func (b *bulkRun) busy() (Latency, error) {
	var latency Latency
	var fault error
	done := make(chan struct{})
	for _, o := range []bulkOrder{{Prepare: busyRun}, {Clear: true}} {
		if _, err := b.one(0, o); err != nil {
			return latency, err
		}
	}
	go func() {
		defer close(done)
		var r *bulkReport
		if r, fault = b.one(1, bulkOrder{Traffic: trafficTime}); fault == nil {
			latency = r.Latency
		}
	}()
	for {
		select {
		case <-done:
			return latency, fault
		default:
		}
		for _, o := range []bulkOrder{{Go: true}, {Take: true}} {
			if _, err := b.one(0, o); err != nil {
				return latency, err
			}
		}
	}
}

// busyRun is the number of the run whose objects go out again and again.
const busyRun = 1000

// run measures one replication. The copies of the run before are deleted just in front of it. So receivers get memory
// that was in use a moment ago, like programs that write over a file: a virtual machine's host takes free memory back
// after a second or so, and then the first use of a mebibyte takes it two milliseconds, whoever uses it. That is what
// the first run shows.
func (b *bulkRun) run(number int) (*BulkResult, error) {
	r := &BulkResult{BulkOptions: b.o, Equal: true}
	for _, o := range []bulkOrder{{Prepare: number}, {Clear: true}} {
		if _, err := b.one(0, o); err != nil {
			return nil, err
		}
	}
	before, err := b.all(bulkOrder{Begin: true})
	if err != nil {
		return nil, err
	}
	took, err := b.one(0, bulkOrder{Go: true})
	if err != nil {
		return nil, err
	}
	after, err := b.all(bulkOrder{Begin: true})
	if err != nil {
		return nil, err
	}
	digests, err := b.all(bulkOrder{Digest: true})
	if err != nil {
		return nil, err
	}
	for i := range after {
		r.Processor += after[i].Processor - before[i].Processor
		r.Wire += after[i].Wire - before[i].Wire
		r.Written += after[i].Stats.WrittenBytes - before[i].Stats.WrittenBytes
		r.Equal = r.Equal && len(digests[i].Digests) == b.o.Objects && slices.Equal(digests[i].Digests,
			digests[0].Digests)
		if i > 0 {
			r.Resident = max(r.Resident, (after[i].Resident-b.o.Size)>>20)
		}
	}
	r.Seconds = took.Seconds
	r.Rate = float64(b.o.Size) / 1e6 / r.Seconds
	r.WireRatio = float64(r.Wire) / float64(b.o.Size)
	r.Memory, r.Sender, r.Receiver = after[0].Stats.Memory, after[0].Stats, after[1].Stats
	return r, nil
}
