package perf

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime/pprof"
	"strings"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/khamsin-io/khamsin/vsync"
)

// look is what a member's counters say at one moment.
type look struct {
	at          int64
	delivered   uint64
	bytes       uint64
	processor   float64
	mallocs     uint64
	collections uint32
	stats       vsync.Stats
}

// recorder takes a look at the begin and at the end of the measured time.
type recorder struct {
	first, last look
	profile     *os.File
}

func (m *member) look() look {
	l := look{stats: m.sys.Stats(), processor: processorTime()}
	l.mallocs, l.collections = allocations()
	l.delivered = m.casts.delivered.Load() + m.peers.delivered.Load()
	l.bytes = m.casts.bytes.Load() + m.peers.bytes.Load()
	l.at = m.clock.now()
	return l
}

func (r *recorder) start(m *member, begin int64) {
	m.clock.sleepUntil(begin)
	if m.part.Profile != "" {
		f, err := os.Create(m.part.Profile)
		if err == nil {
			r.profile, err = f, pprof.StartCPUProfile(f)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "perf: no profile:", err)
		}
	}
	r.first = m.look()
}

func (r *recorder) stop(m *member, end int64) {
	m.clock.sleepUntil(end)
	r.last = m.look()
	if r.profile != nil {
		pprof.StopCPUProfile()
		if err := errors.Join(r.profile.Close(), writeAllocations(m.part.Profile)); err != nil {
			fmt.Fprintln(os.Stderr, "perf: profile:", err)
		}
	}
}

// writeAllocations writes what the process allocated since its start beside a processor profile.
func writeAllocations(profile string) error {
	f, err := os.Create(strings.TrimSuffix(profile, filepath.Ext(profile)) + ".allocs.pprof")
	if err != nil {
		return err
	}
	return errors.Join(pprof.Lookup("allocs").WriteTo(f, 0), f.Close())
}

// report is what one member measured, on its way to whoever makes the result.
type report struct {
	Index       int     `json:"index"`
	Rank        int     `json:"rank"`
	Boot        string  `json:"boot"` // of the host
	MTU         int     `json:"mtu"`  // of the interface
	Seconds     float64 `json:"seconds"`
	Sender      bool    `json:"sender"`
	Receives    bool    `json:"receives"` // something was sent to it
	Sent        uint64  `json:"sent"`     // in the whole run
	Expected    uint64  `json:"expected"` // likewise
	Lost        uint64  `json:"lost"`
	Duplicated  uint64  `json:"duplicated"`
	Delivered   uint64  `json:"delivered"` // in the measured time, as what follows
	Bytes       uint64  `json:"bytes"`
	Processor   float64 `json:"processor_s"`
	Mallocs     uint64  `json:"mallocs"`
	Collections uint32  `json:"collections"`
	Views       uint64  `json:"views"`
	Suspicions  int     `json:"suspicions"` // other members that this one accused
	Gone        int64   `json:"gone_ns"`    // from the victim's death to the view without it
	Stats       deltas  `json:"stats"`
	Own         []byte  `json:"own"`    // encoded histograms
	Others      []byte  `json:"others"` //
}

// deltas is what the transport and the protocols counted in the measured time.
type deltas struct {
	PacketsSent     uint64 `json:"packets_sent"`
	PacketsReceived uint64 `json:"packets_received"`
	SendCalls       uint64 `json:"send_calls"`
	ReceiveCalls    uint64 `json:"receive_calls"`
	SendDropped     uint64 `json:"send_dropped"`
	ReceiveDropped  uint64 `json:"receive_dropped"`
	Retransmitted   uint64 `json:"retransmitted"`
	Duplicates      uint64 `json:"duplicates"`
	Naks            uint64 `json:"naks"`
	Acks            uint64 `json:"acks"`
	Starved         uint64 `json:"starved"`
	Stalled         uint64 `json:"stalled"`
}

func (d *deltas) add(x deltas) {
	d.PacketsSent += x.PacketsSent
	d.PacketsReceived += x.PacketsReceived
	d.SendCalls += x.SendCalls
	d.ReceiveCalls += x.ReceiveCalls
	d.SendDropped += x.SendDropped
	d.ReceiveDropped += x.ReceiveDropped
	d.Retransmitted += x.Retransmitted
	d.Duplicates += x.Duplicates
	d.Naks += x.Naks
	d.Acks += x.Acks
	d.Starved += x.Starved
	d.Stalled += x.Stalled
}

// deltaOf returns what was counted between two looks. A group that was joined anew counts from zero again.
func deltaOf(a, b vsync.Stats) deltas {
	minus := func(b, a uint64) uint64 { return b - min(a, b) }
	return deltas{
		PacketsSent:     minus(b.Transport.SentPackets, a.Transport.SentPackets),
		PacketsReceived: minus(b.Transport.ReceivedPackets, a.Transport.ReceivedPackets),
		SendCalls:       minus(b.Transport.SendCalls, a.Transport.SendCalls),
		ReceiveCalls:    minus(b.Transport.ReceiveCalls, a.Transport.ReceiveCalls),
		SendDropped:     minus(b.Transport.SendDropped, a.Transport.SendDropped),
		ReceiveDropped:  minus(b.Transport.ReceiveDropped, a.Transport.ReceiveDropped),
		Retransmitted:   minus(b.Retransmissions, a.Retransmissions),
		Duplicates:      minus(b.Duplicates, a.Duplicates),
		Naks:            minus(b.NaksSent, a.NaksSent),
		Acks:            minus(b.AcksSent, a.AcksSent),
		Starved:         minus(b.Starved, a.Starved),
		Stalled:         minus(b.Transport.ReceiveStalled, a.Transport.ReceiveStalled),
	}
}

// report returns what this member measured.
func (m *member) report() (*report, error) {
	a, b := &m.recorder.first, &m.recorder.last
	r := &report{
		Index: m.Index, Rank: int(m.view.MyRank()), Boot: bootID(), Seconds: float64(b.at-a.at) / 1e9,
		Sender: m.sends(m.view.MyRank()), Sent: m.sent, Delivered: b.delivered - a.delivered, Bytes: b.bytes - a.bytes,
		Processor: b.processor - a.processor, Mallocs: b.mallocs - a.mallocs,
		Collections: b.collections - a.collections, Stats: deltaOf(a.stats, b.stats),
	}
	if itf, err := net.InterfaceByName(m.Interface); err == nil {
		r.MTU = itf.MTU
	}
	for _, t := range []*tally{m.casts, m.peers} {
		expected, lost, duplicated := t.sums()
		r.Expected, r.Lost, r.Duplicated = r.Expected+expected, r.Lost+lost, r.Duplicated+duplicated
	}
	r.Receives = r.Expected > 0
	r.Suspicions = m.sys.State().Suspects
	m.churn.mu.Lock()
	r.Views, r.Gone = m.churn.views, m.churn.took
	m.churn.mu.Unlock()
	own, others := newHistogram(), newHistogram()
	for _, t := range []*tally{m.casts, m.peers} {
		t.mu.Lock()
		own.Merge(t.own)
		others.Merge(t.others)
		t.mu.Unlock()
	}
	var err error
	if r.Own, err = own.Encode(hdrhistogram.V2CompressedEncodingCookieBase); err != nil {
		return nil, fmt.Errorf("encode histogram: %w", err)
	}
	if r.Others, err = others.Encode(hdrhistogram.V2CompressedEncodingCookieBase); err != nil {
		return nil, fmt.Errorf("encode histogram: %w", err)
	}
	return r, nil
}
