package main

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/khamsin-io/khamsin/vsync"
)

// Codes of the group's messages.
const (
	codeProbe vsync.Code = 1 // stamped; count its age
	codePing  vsync.Code = 2 // stamped; the other side sends it back
	codePong  vsync.Code = 3 // a ping that came back
	codeLoad  vsync.Code = 4 // nothing
)

// Ports of the measurement, apart from the defaults and from the demo's.
const (
	groupPort = 18650
	peerPort  = 18660
)

// Under load two goroutines on each side multicast loadBurst messages every millisecond each: 40,000 messages a second
// in all, each delivered at both ends. Flooding them with as many as they take shows the throughput instead.
const (
	loaders   = 2
	loadBurst = 10
)

// end is one process in the group.
type end struct {
	sys   *vsync.System
	group *vsync.Group
	full  chan struct{} // closed when both processes are in

	mu        sync.Mutex
	histogram *hdrhistogram.Histogram // ages of probes and pings at this end
	rtt       *hdrhistogram.Histogram
	answered  chan struct{} // a pong has come
	heard     atomic.Uint64 // probes that were delivered here
	got       atomic.Uint64 // all messages

	stopLoad context.CancelFunc
	load     sync.WaitGroup
}

// join makes this process one of the two. answers says whether it sends pings back.
func join(ctx context.Context, x cell, answers bool) (*end, error) {
	config := vsync.DefaultConfig()
	config.SystemName, config.GroupPort, config.PeerPort = "perf-threading", groupPort, peerPort
	config.Threading, config.Waiting, config.PinReceiver = x.Threading, x.Waiting, x.Pinned
	config.Discovery, config.SuspectAfter, config.Mute = 150*time.Millisecond, 5*time.Second, true
	sys, err := vsync.Start(context.WithoutCancel(ctx), vsync.WithConfig(config))
	if err != nil {
		return nil, err
	}
	var options []vsync.GroupOption
	if x.Inline {
		options = append(options, vsync.WithInlineDelivery())
	}
	e := &end{
		sys: sys, group: sys.NewGroup("threading", options...), full: make(chan struct{}), histogram: newHistogram(),
		rtt: newHistogram(), answered: make(chan struct{}, 1),
	}
	e.declare(answers)
	if err := e.group.Join(ctx); err != nil {
		return nil, err
	}
	return e, nil
}

func (e *end) declare(answers bool) {
	handle := func(c vsync.Code, f func(m *vsync.Message)) {
		if err := e.group.Handle(c, f); err != nil {
			panic(err) // before the join it cannot fail
		}
	}
	handle(codeProbe, func(m *vsync.Message) {
		// the sender measures its own probes, the receiver the sender's
		if mine := m.From == e.sys.Address(); mine != answers {
			e.record(e.histogram, age(m.Payload))
		}
		e.heard.Add(1)
		e.got.Add(1)
	})
	handle(codePing, func(m *vsync.Message) {
		if answers {
			e.record(e.histogram, age(m.Payload))
			// a lost answer ends the run by its timeout
			_ = e.group.SendBytes(m.Context(), vsync.FIFO, codePong, m.Payload)
		}
	})
	handle(codePong, func(m *vsync.Message) {
		if !answers {
			e.record(e.rtt, age(m.Payload))
			e.answered <- struct{}{}
		}
	})
	handle(codeLoad, func(*vsync.Message) { e.got.Add(1) })
	err := e.group.OnView(func(v *vsync.View) {
		if v.Size() == 2 {
			close(e.full)
		}
	})
	if err != nil {
		panic(err) // as above
	}
}

func (e *end) record(h *hdrhistogram.Histogram, ns int64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	_ = h.RecordValue(ns) // ten seconds are never reached
}

// take returns what a histogram holds, and empties it.
func (e *end) take(h *hdrhistogram.Histogram) spread {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := spreadOf(h)
	h.Reset()
	return s
}

// setLoad starts or stops the goroutines that multicast in the background; with a burst of 0, as fast as they can.
func (e *end) setLoad(on bool, burst int) {
	if e.stopLoad != nil {
		e.stopLoad()
		e.load.Wait()
		e.stopLoad = nil
	}
	if !on {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	e.stopLoad = cancel
	for range loaders {
		e.load.Go(func() {
			payload := make([]byte, payloadBytes)
			ticker := time.NewTicker(pacedEvery)
			defer ticker.Stop()
			for n := 1; ctx.Err() == nil; n++ {
				if e.group.SendBytes(ctx, vsync.FIFO, codeLoad, payload) != nil {
					return
				}
				if burst > 0 && n%burst == 0 {
					<-ticker.C
				}
			}
		})
	}
}

// leave ends the system.
func (e *end) leave() {
	e.setLoad(false, 0)
	_ = e.sys.Close()
}

// groupReceiver is the receiving process's end.
type groupReceiver struct{ e *end }

func newGroupReceiver(ctx context.Context, x cell) (receiver, error) {
	e, err := join(ctx, x, true)
	if err != nil {
		return nil, err
	}
	return groupReceiver{e}, nil
}

func (r groupReceiver) load(on bool, burst int) { r.e.setLoad(on, burst) }
func (r groupReceiver) report() spread          { return r.e.take(r.e.histogram) }
func (r groupReceiver) close()                  { r.e.leave() }

// group measures one cell over vsync.
func (c *cli) group(ctx context.Context, x cell, other *partner) (outcome, error) {
	o := outcome{Own: map[string]spread{}, Remote: map[string]spread{}}
	e, err := join(ctx, x, false)
	if err != nil {
		return o, err
	}
	defer e.leave()
	select {
	case <-e.full:
	case <-ctx.Done():
		return o, ctx.Err()
	}
	if err := e.paced(ctx, c.Phase/4); err != nil { // warm up
		return o, err
	}
	e.take(e.histogram)
	if _, err := other.report(); err != nil {
		return o, err
	}
	phase := func(name string, run func() error) error {
		if err := run(); err != nil {
			return err
		}
		o.Own[name] = e.take(e.histogram)
		var err error
		o.Remote[name], err = other.report()
		return err
	}
	if err := phase(phasePaced, func() error { return e.paced(ctx, c.Phase) }); err != nil {
		return o, err
	}
	if err := phase(phasePing, func() error { return e.pingPong(ctx, c.Phase) }); err != nil {
		return o, err
	}
	o.RTT = e.take(e.rtt)
	err = phase(phaseLoad, func() error {
		return e.loaded(other, loadBurst, func() error { return e.paced(ctx, c.Phase) })
	})
	if err != nil {
		return o, err
	}
	err = e.loaded(other, 0, func() error {
		before, began := e.got.Load(), time.Now()
		time.Sleep(c.Phase)
		o.Throughput = float64(e.got.Load()-before) / time.Since(began).Seconds()
		return nil
	})
	return o, err
}

// loaded runs f while both ends multicast in the background.
func (e *end) loaded(other *partner, burst int, f func() error) error {
	if err := other.do(order{Load: "on", Burst: burst}); err != nil {
		return err
	}
	e.setLoad(true, burst)
	err := f()
	e.setLoad(false, 0)
	return errors.Join(err, other.do(order{Load: "off"}))
}

// paced sends a probe every millisecond.
func (e *end) paced(ctx context.Context, d time.Duration) error {
	payload := make([]byte, payloadBytes)
	ticker := time.NewTicker(pacedEvery)
	defer ticker.Stop()
	sent := e.heard.Load()
	for end := time.Now().Add(d); time.Now().Before(end); {
		stamp(payload)
		if err := e.group.SendBytes(ctx, vsync.FIFO, codeProbe, payload); err != nil {
			return err
		}
		sent++
		<-ticker.C
	}
	for e.heard.Load() < sent { // until the last one is here
		if ctx.Err() != nil {
			return ctx.Err()
		}
		<-ticker.C
	}
	return nil
}

// pingPong sends a ping, waits for its answer, and so on.
func (e *end) pingPong(ctx context.Context, d time.Duration) error {
	payload := make([]byte, payloadBytes)
	for end := time.Now().Add(d); time.Now().Before(end); {
		stamp(payload)
		if err := e.group.SendBytes(ctx, vsync.FIFO, codePing, payload); err != nil {
			return err
		}
		select {
		case <-e.answered:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}
