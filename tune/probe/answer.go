package probe

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/khamsin-io/khamsin/dataplane"
	"github.com/khamsin-io/khamsin/transports/udp"
)

// Limits of what an asker may want of an answering process.
const (
	bufferMax = 64 << 20
	batchMax  = 1024
	askersMax = 16
)

// answerer answers one or a few askers through a transport.
type answerer struct {
	t      *udp.Transport
	batch  []dataplane.Packet
	limit  int // packets taken at once
	wait   strategy
	askers []asker
	out    []dataplane.Packet
	refuse uint64 // packets that were none of the probe's, or of one asker too many
}

// asker is what is known of one asking process.
type asker struct {
	from     dataplane.Endpoint
	run      uint32
	received uint64
	highest  uint64
	owed     bool // an ack
}

func newAnswerer(t *udp.Transport) *answerer {
	return &answerer{t: t, batch: make([]dataplane.Packet, batchMax), limit: defaultBatch, wait: strategies()[1]}
}

// serve answers until ctx ends.
func (a *answerer) serve(ctx context.Context) error {
	stop := context.AfterFunc(ctx, a.t.Wake)
	defer stop()
	for ctx.Err() == nil {
		const look = 100 * time.Millisecond
		n, err := a.t.Receive(a.batch[:a.limit], a.wait.wait(look))
		if errors.Is(err, dataplane.ErrClosed) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("probe: receive: %w", err)
		}
		for i := range a.batch[:n] {
			a.take(&a.batch[i])
		}
		a.acknowledge()
		if err := a.flush(); err != nil {
			return err
		}
	}
	return nil
}

// take handles one packet and releases it.
func (a *answerer) take(p *dataplane.Packet) {
	var m message
	ok := m.decode(a.t.Arena().Bytes(p.Frame))
	a.t.Arena().Rx().Release(p.Frame)
	if !ok {
		a.refuse++
		return
	}
	switch m.kind {
	case kindSetup:
		a.setup(&m, p.From)
	case kindData:
		if k := a.find(p.From); k != nil && k.run == m.run {
			k.received++
			k.highest = max(k.highest, m.seq)
			k.owed = true
		}
	case kindPing:
		if k := a.find(p.From); k != nil && k.run == m.run {
			m.kind = kindPong
			a.send(&m, p.From)
		}
	}
}

func (a *answerer) find(from dataplane.Endpoint) *asker {
	for i := range a.askers {
		if a.askers[i].from == from {
			return &a.askers[i]
		}
	}
	return nil
}

// setup begins a measurement.
func (a *answerer) setup(m *message, from dataplane.Endpoint) {
	k := a.find(from)
	if k == nil {
		if len(a.askers) == askersMax {
			a.askers = a.askers[1:] // the oldest is the likeliest to be gone
		}
		a.askers = append(a.askers, asker{from: from})
		k = &a.askers[len(a.askers)-1]
	}
	if k.run != m.run {
		*k = asker{from: from, run: m.run}
		a.limit = max(1, min(int(m.batch), batchMax))
		a.wait = strategies()[m.wait]
	}
	_, send := a.t.Buffers()
	granted, _ := a.t.RequestBuffers(int(min(m.count, bufferMax)), send)
	const kibi = 1 << 10
	a.send(&message{kind: kindReady, run: m.run, detail: uint32(granted / kibi)}, from)
}

// acknowledge tells everybody what came since the last time.
func (a *answerer) acknowledge() {
	for i := range a.askers {
		if k := &a.askers[i]; k.owed {
			k.owed = false
			a.send(&message{kind: kindAck, run: k.run, seq: k.highest, count: k.received}, k.from)
		}
	}
}

// send puts a message into the batch that flush sends. Without a frame it is as good as lost.
func (a *answerer) send(m *message, to dataplane.Endpoint) {
	if p, ok := newPacket(a.t, m, headerLen, to); ok {
		a.out = append(a.out, p)
	}
}

func (a *answerer) flush() error {
	err := sendAll(a.t, a.out)
	clear(a.out)
	a.out = a.out[:0]
	return err
}

// newPacket makes a packet of size bytes with a message in front.
func newPacket(t *udp.Transport, m *message, size int, to dataplane.Endpoint) (dataplane.Packet, bool) {
	f, ok := t.Arena().Tx().Get()
	if !ok {
		return dataplane.Packet{}, false
	}
	f.Len = uint32(size)
	m.encode(t.Arena().Bytes(f))
	return dataplane.Packet{Frame: f, To: to}, true
}

// sendAll sends a batch whole.
func sendAll(t *udp.Transport, batch []dataplane.Packet) error {
	for len(batch) > 0 {
		n, err := t.Send(batch)
		batch = batch[n:]
		if err != nil {
			for i := range batch {
				t.Arena().Tx().Release(batch[i].Frame)
			}
			return fmt.Errorf("probe: send: %w", err)
		}
	}
	return nil
}

// Answer answers askers on an interface and port until ctx ends. Ready, when not nil, gets the address to ask.
func Answer(ctx context.Context, iface string, port uint16, ready func(addr string)) (err error) {
	t, err := open(iface, port)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.Close()) }()
	if ready != nil {
		ready(t.Local().String())
	}
	return newAnswerer(t).serve(ctx)
}
