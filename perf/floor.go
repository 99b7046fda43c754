package perf

import (
	"context"
	"time"

	"github.com/khamsin-io/khamsin/dataplane/ring"
)

// Floor is what the machine itself does on the path that the members use, without our code, in the same minute.
type Floor struct {
	RTTBlock    Latency `json:"rtt_block_us"`     // raw UDP, 64 bytes, there and back, asleep in between
	RTTSpin     Latency `json:"rtt_spin_us"`      // the same, polling
	OneWayBlock Latency `json:"one_way_block_us"` // of the way there
	OneWaySpin  Latency `json:"one_way_spin_us"`

	// The same asleep with a rest of two milliseconds between datagrams: processors that sleep wake up more slowly.
	RTTRested    Latency `json:"rtt_block_rested_us"`
	OneWayRested Latency `json:"one_way_block_rested_us"`

	// Multicast from one member to all others with UDP GSO and GRO, no flow control: what arrives at the slowest one.
	Multicast64  Flow `json:"multicast_64"`   // in datagrams of 64 bytes
	MulticastBig Flow `json:"multicast_1400"` // in datagrams of 1400 bytes

	Memcpy float64 `json:"memcpy_gb_per_s"`     // in pieces of 1400 bytes, in memory that is not in a cache
	Ring   float64 `json:"ring_round_trip_ns"`  // between two goroutines that poll
	Clock  float64 `json:"clock_read_ns"`       // of the clock that stamps messages
	System float64 `json:"null_system_call_ns"` // the cheapest call of the system

	XDP []XDPWay `json:"xdp_baseline,omitempty"` // see MeasureXDP
}

// Flow is a stream of datagrams as its slowest receiver got it.
type Flow struct {
	Sent      float64 `json:"sent_per_s"`
	Messages  float64 `json:"msgs_per_s"`
	Megabytes float64 `json:"mb_per_s"`
	Receivers int     `json:"receivers"`
}

// Sizes and times of the floor's measurements.
const (
	floorPingBytes   = 64
	floorSmall       = 64
	floorBig         = 1400
	floorPhase       = 400 * time.Millisecond
	floorRest        = 2 * time.Millisecond
	floorPort        = 21990
	floorGroup       = "239.0.31.77"
	memcpyBytes      = 64 << 20
	memcpyPiece      = 1400
	ringRounds       = 200000
	clockRounds      = 200000
	floorGroupTTLNet = 1
)

// floorOrder is one step of a floor's measurement.
type floorOrder struct {
	Interface string
	Address   string // of the member itself
	Loopback  bool

	Echo  bool   // send every datagram back until Stop
	Sink  int    // count multicast datagrams of so many bytes until Stop
	Stop  bool   // end Echo or Sink, and report
	Ping  string // send datagrams to an Echo at this address
	Blast int    // multicast datagrams of so many bytes
	Spin  bool   // poll instead of sleeping
	Rest  bool   // between datagrams of Ping
	Alone bool   // what needs no other member
	Way   string // of the comparison of AF_XDP: Sink and Blast by that
}

// floorReport is a step's result.
type floorReport struct {
	Latency Latency
	Count   uint64
	Seconds float64
	Memcpy  float64
	Ring    float64
	Clock   float64
	System  float64

	Processor float64 // seconds that a way's receiver took
	Missing   string  // why a way is not to be had
}

// alone measures what needs no other member.
func (f *floorServer) alone() *floorReport {
	return &floorReport{
		Memcpy: measureMemcpy(), Ring: measureRing(), Clock: measureClock(), System: measureSystemCall(),
	}
}

// measureMemcpy returns gigabytes a second.
func measureMemcpy() float64 {
	from, to := make([]byte, memcpyBytes), make([]byte, memcpyBytes)
	for i := 0; i < len(from); i += 4096 {
		from[i], to[i] = 1, 1
	}
	began := time.Now()
	for at := 0; at+memcpyPiece <= len(from); at += memcpyPiece {
		copy(to[at:at+memcpyPiece], from[at:at+memcpyPiece])
	}
	return float64(memcpyBytes) / 1e9 / time.Since(began).Seconds()
}

// measureRing returns nanoseconds of a round trip.
func measureRing() float64 {
	there, back := ring.NewSPSC[uint64](64), ring.NewSPSC[uint64](64)
	go func() {
		for n := 0; n < ringRounds; {
			if v, ok := there.Pop(); ok {
				back.Push(v)
				n++
			}
		}
	}()
	began := time.Now()
	for n := range uint64(ringRounds) {
		there.Push(n)
		for {
			if _, ok := back.Pop(); ok {
				break
			}
		}
	}
	return float64(time.Since(began)) / ringRounds
}

func measureClock() float64 {
	c := newHostClock()
	began := time.Now()
	sum := int64(0)
	for range clockRounds {
		sum += c.now()
	}
	if sum == 0 {
		return 0
	}
	return float64(time.Since(began)) / clockRounds
}

// floor measures the machine with the member processes.
func (l *local) floor(int) (*Floor, error) {
	f := &Floor{}
	target := func(i int) *floorOrder {
		if l.lan == nil {
			return &floorOrder{Interface: "lo", Address: "127.0.0.1", Loopback: true}
		}
		return &floorOrder{Interface: lanInterface, Address: lanAddress(i).String()}
	}
	step := func(i int, change func(o *floorOrder)) (*floorReport, error) {
		o := target(i)
		change(o)
		a, err := l.kids[i].do(order{Floor: o})
		return a.Floor, err
	}
	alone, err := step(0, func(o *floorOrder) { o.Alone = true })
	if err != nil {
		return nil, err
	}
	f.Memcpy, f.Ring, f.Clock, f.System = alone.Memcpy, alone.Ring, alone.Clock, alone.System
	if len(l.kids) < 2 {
		return f, nil
	}
	for _, x := range []struct {
		spin, rest  bool
		rtt, oneWay *Latency
	}{
		{false, false, &f.RTTBlock, &f.OneWayBlock}, {true, false, &f.RTTSpin, &f.OneWaySpin},
		{false, true, &f.RTTRested, &f.OneWayRested},
	} {
		if _, err := step(1, func(o *floorOrder) { o.Echo, o.Spin = true, x.spin }); err != nil {
			return nil, err
		}
		ping, err := step(0, func(o *floorOrder) { o.Ping, o.Spin, o.Rest = target(1).Address, x.spin, x.rest })
		if err != nil {
			return nil, err
		}
		echo, err := step(1, func(o *floorOrder) { o.Stop = true })
		if err != nil {
			return nil, err
		}
		*x.rtt, *x.oneWay = ping.Latency, echo.Latency
	}
	for _, x := range []struct {
		size int
		flow *Flow
	}{{floorSmall, &f.Multicast64}, {floorBig, &f.MulticastBig}} {
		if *x.flow, err = l.blast(x.size, step); err != nil {
			return nil, err
		}
	}
	return f, nil
}

// blast multicasts from member 0 to all others and returns what the slowest of them got.
func (l *local) blast(size int, step func(int, func(*floorOrder)) (*floorReport, error)) (Flow, error) {
	var f Flow
	for i := 1; i < len(l.kids); i++ {
		if _, err := step(i, func(o *floorOrder) { o.Sink = size }); err != nil {
			return f, err
		}
	}
	sent, err := step(0, func(o *floorOrder) { o.Blast = size })
	if err != nil {
		return f, err
	}
	f.Sent = float64(sent.Count) / sent.Seconds
	for i := 1; i < len(l.kids); i++ {
		got, err := step(i, func(o *floorOrder) { o.Stop = true })
		if err != nil {
			return f, err
		}
		if rate := float64(got.Count) / sent.Seconds; f.Receivers == 0 || rate < f.Messages {
			f.Messages = rate
		}
		f.Receivers++
	}
	f.Megabytes = f.Messages * float64(size) / 1e6
	return f, nil
}

// MeasureFloor measures the machine with fresh member processes.
func MeasureFloor(ctx context.Context, members int, netns bool, command []string) (*Floor, error) {
	l := &local{options: Options{Members: members, Netns: netns}, command: command, began: time.Now()}
	defer l.end()
	if err := l.start(); err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, l.kill)
	defer stop()
	f, err := l.floor(0)
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return f, err
}
