package probe

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/khamsin-io/khamsin/dataplane"
	"github.com/khamsin-io/khamsin/dataplane/clock"
	"github.com/khamsin-io/khamsin/dataplane/frame"
	"github.com/khamsin-io/khamsin/transports/udp"
)

// Settings are what one measurement is made with.
type Settings struct {
	Packet  int    `json:"packet"`  // bytes of a packet
	Batch   int    `json:"batch"`   // packets of a system call, both ways
	Window  int    `json:"window"`  // packets under way
	Buffer  int    `json:"buffer"`  // bytes asked for as the receiver's socket buffer
	Waiting string `json:"waiting"` // block, adaptive or busy
}

// Point is one measurement.
type Point struct {
	Settings
	Granted int           `json:"granted"` // bytes of the receiver's socket buffer, to the KiB
	Goodput float64       `json:"goodput"` // bytes per second that arrived
	Sent    uint64        `json:"sent"`    // packets
	Lost    uint64        `json:"lost"`
	P50     time.Duration `json:"p50_ns"` // round trip of one packet on a quiet line
	P99     time.Duration `json:"p99_ns"`
	Pings   int64         `json:"pings"` // that were answered
}

// Loss returns the share of packets that were lost.
func (p Point) Loss() float64 {
	if p.Sent == 0 {
		return 0
	}
	return float64(p.Lost) / float64(p.Sent)
}

// Times of the asking side.
const (
	setupTries = 20
	setupWait  = 50 * time.Millisecond
	stallWait  = 60 * time.Millisecond // without an ack: what is under way is lost
	pingWait   = 50 * time.Millisecond
	pingsMin   = 5 // whatever the time
	pingsMax   = 5000
	pingBytes  = 64
)

// ErrNoAnswer means that nobody answers.
var ErrNoAnswer = errors.New("no answer")

// prober asks.
type prober struct {
	t     *udp.Transport
	to    dataplane.Endpoint
	clock clock.Source
	run   uint32
	in    []dataplane.Packet
	out   []dataplane.Packet
}

// open opens a transport that takes packets of any size, as the library opens its own.
func open(iface string, port uint16) (*udp.Transport, error) {
	const frames = 2 * batchMax
	return udp.Open(udp.Config{
		Interface: iface, Port: port, MTU: udp.MTUMax, DisableGRO: true,
		Arena: frame.Config{TxChunks: frames, RxRuns: frames},
	})
}

// measure makes one measurement of twice the time given, half for goodput and half for latency.
func (p *prober) measure(ctx context.Context, s Settings, each time.Duration) (Point, error) {
	wait, ok := strategyOf(s.Waiting)
	if !ok {
		return Point{}, fmt.Errorf("probe: waiting %q is no strategy", s.Waiting)
	}
	point := Point{Settings: s}
	p.run++
	var err error
	if point.Granted, err = p.setup(ctx, s, wait); err != nil {
		return Point{}, err
	}
	if err := p.stream(ctx, s, strategies()[wait], each, &point); err != nil {
		return Point{}, err
	}
	return point, p.pings(ctx, strategies()[wait], each, &point)
}

// setup tells the answering side what is wanted, and returns the buffer that it got.
func (p *prober) setup(ctx context.Context, s Settings, wait uint8) (granted int, err error) {
	m := message{kind: kindSetup, run: p.run, wait: wait, count: uint64(s.Buffer), batch: uint32(s.Batch)}
	for range setupTries {
		if err := p.sendOne(&m, headerLen); err != nil {
			return 0, err
		}
		end := p.clock.Now().Add(setupWait)
		for granted == 0 && p.clock.Now() < end && ctx.Err() == nil {
			_, err := p.receive(strategies()[0].wait(end.Sub(p.clock.Now())), func(m *message) {
				if m.kind == kindReady {
					granted = int(m.detail) << 10
				}
			})
			if err != nil {
				return 0, err
			}
		}
		if granted > 0 || ctx.Err() != nil {
			return granted, ctx.Err()
		}
	}
	return 0, fmt.Errorf("probe: %w from %v in %v: is khamsin tune probe --answer running there?", ErrNoAnswer, p.to,
		setupTries*setupWait)
}

// flow is the account of one stream of data.
type flow struct {
	sent, highest, received uint64
	lastAck                 clock.Time
}

// stream sends as fast as the window allows and counts what arrives.
func (p *prober) stream(ctx context.Context, s Settings, w strategy, each time.Duration, point *Point) error {
	start := p.clock.Now()
	f := flow{lastAck: start}
	end := start.Add(each)
	for now := start; now < end && ctx.Err() == nil; now = p.clock.Now() {
		room := min(s.Batch, s.Window-int(f.sent-f.highest))
		if err := p.burst(&f, s.Packet, room); err != nil {
			return err
		}
		limit := time.Duration(0)
		if room <= 0 {
			limit = stallWait
		}
		n, err := p.acks(&f, w.wait(limit))
		if err != nil {
			return err
		}
		if n == 0 && room <= 0 {
			f.highest = f.sent // nothing came for long: what was under way is lost
		}
	}
	for f.highest < f.sent && ctx.Err() == nil { // what is still under way counts too
		n, err := p.acks(&f, w.wait(stallWait))
		if err != nil {
			return err
		}
		if n == 0 {
			f.highest = f.sent
		}
	}
	point.Sent, point.Lost = f.highest, f.highest-min(f.received, f.highest)
	took := max(f.lastAck.Sub(start), time.Microsecond)
	point.Goodput = float64(f.received) * float64(s.Packet) / took.Seconds()
	return ctx.Err()
}

// burst sends up to n packets of data.
func (p *prober) burst(f *flow, size, n int) error {
	for range max(0, n) {
		m := message{kind: kindData, run: p.run, seq: f.sent + 1}
		packet, ok := newPacket(p.t, &m, size, p.to)
		if !ok {
			break
		}
		f.sent++
		p.out = append(p.out, packet)
	}
	return p.flush()
}

// acks takes in what the other side says it got, and returns how many packets came.
func (p *prober) acks(f *flow, wait dataplane.Wait) (int, error) {
	return p.receive(wait, func(m *message) {
		if m.kind == kindAck && m.seq <= f.sent && m.count <= m.seq {
			f.highest, f.received = max(f.highest, m.seq), max(f.received, m.count)
			f.lastAck = p.clock.Now()
		}
	})
}

// pings measures the round trip of single packets.
func (p *prober) pings(ctx context.Context, w strategy, each time.Duration, point *Point) error {
	h := hdrhistogram.New(1, int64(pingWait), 3)
	size := min(max(pingBytes, headerLen), point.Packet)
	end := p.clock.Now().Add(each)
	for i := uint64(1); i <= pingsMax && (i <= pingsMin || p.clock.Now() < end) && ctx.Err() == nil; i++ {
		sent := p.clock.Now()
		if err := p.sendOne(&message{kind: kindPing, run: p.run, seq: i, stamp: int64(sent)}, size); err != nil {
			return err
		}
		back := false
		for until := sent.Add(pingWait); !back && p.clock.Now() < until; {
			_, err := p.receive(w.wait(until.Sub(p.clock.Now())), func(m *message) {
				if m.kind == kindPong && m.seq == i {
					back = true
				}
			})
			if err != nil {
				return err
			}
		}
		if back {
			_ = h.RecordValue(max(1, int64(p.clock.Now().Sub(sent)))) // refuses only what is beyond pingWait
		}
	}
	point.Pings = h.TotalCount()
	point.P50, point.P99 = time.Duration(h.ValueAtQuantile(50)), time.Duration(h.ValueAtQuantile(99))
	return ctx.Err()
}

// receive takes what waits and shows each message of this run to f.
func (p *prober) receive(wait dataplane.Wait, f func(m *message)) (int, error) {
	n, err := p.t.Receive(p.in, wait)
	if err != nil {
		return 0, fmt.Errorf("probe: receive: %w", err)
	}
	for i := range p.in[:n] {
		var m message
		if m.decode(p.t.Arena().Bytes(p.in[i].Frame)) && p.in[i].From == p.to && m.run == p.run {
			f(&m)
		}
		p.t.Arena().Rx().Release(p.in[i].Frame)
	}
	return n, nil
}

func (p *prober) sendOne(m *message, size int) error {
	packet, ok := newPacket(p.t, m, size, p.to)
	if !ok {
		return nil // as good as lost
	}
	p.out = append(p.out, packet)
	return p.flush()
}

func (p *prober) flush() error {
	err := sendAll(p.t, p.out)
	clear(p.out)
	p.out = p.out[:0]
	return err
}
