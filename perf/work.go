package perf

import (
	"context"
	"fmt"
	"time"

	"github.com/khamsin-io/khamsin/vsync"
)

// sampleEvery is how many messages lie between two that carry a time when they go out as fast as they can: reading the
// clock at both ends would be a good part of their cost.
const sampleEvery = 32

// pacer tells a sender when to send, and what to say about it.
type pacer struct {
	clock    hostClock
	end      int64
	interval float64 // nanoseconds; 0: as fast as it goes
	first    int64
	sleeper  *sleeper
	woke     int64 // when it last slept until
	count    uint64
}

func (m *member) newPacer() *pacer {
	p := &pacer{clock: m.clock, sleeper: newSleeper(), end: m.casts.to.Load(), first: m.clock.now()}
	if m.Rate > 0 {
		p.interval = 1e9 / m.Rate
	}
	return p
}

func (p *pacer) close() { p.sleeper.close() }

// next waits for the time of the next message and returns its number and its stamp; false at the end. The stamp is the
// time at which the message was due if the sender was held up until then by the one before, so that a stall is charged
// to all messages that it delays; what came due while the sender was asleep counts from when it woke up, since a late
// timer is no property of what is measured.
func (p *pacer) next() (number uint64, stamp int64, ok bool) {
	p.count++
	if p.interval == 0 {
		if p.count%sampleEvery != 0 {
			return p.count, 0, true
		}
		now := p.clock.now()
		return p.count, now, now < p.end
	}
	due := p.first + int64(float64(p.count)*p.interval)
	now := p.clock.now()
	if due >= p.end || now >= p.end {
		return 0, 0, false
	}
	if now >= due {
		return p.count, max(due, p.woke), true
	}
	for ; now < due; now = p.clock.now() {
		p.sleeper.sleep(time.Duration(due - now))
	}
	p.woke = now
	return p.count, now, true
}

// castLoop multicasts.
func (m *member) castLoop(ctx context.Context) error {
	payload := m.filling()
	p := m.newPacer()
	defer p.close()
	for {
		number, stamp, ok := p.next()
		if !ok {
			return nil
		}
		putHead(payload, stamp, number)
		if err := m.group.SendBytes(ctx, m.how.flavour, codeData, payload); err != nil {
			return err
		}
		m.sent = number
	}
}

// peerLoop sends to the next member.
func (m *member) peerLoop(ctx context.Context) error {
	payload := m.filling()
	p := m.newPacer()
	defer p.close()
	to := m.view.Members[m.next(m.view.MyRank())]
	for {
		number, stamp, ok := p.next()
		if !ok {
			return nil
		}
		putHead(payload, stamp, number)
		if err := m.group.SendBytesTo(ctx, to, codeData, payload); err != nil {
			return err
		}
		m.sent = number
	}
}

// flushLoop multicasts a message and waits until all members hold it. The latency is that of both calls together.
func (m *member) flushLoop(ctx context.Context) error {
	payload := m.filling()
	p := m.newPacer()
	defer p.close()
	for {
		number, stamp, ok := p.next()
		if !ok {
			return nil
		}
		if stamp == 0 {
			if stamp = p.clock.now(); stamp >= p.end {
				return nil
			}
		}
		putHead(payload, 0, number)
		if err := m.group.SendBytes(ctx, vsync.FIFO, codeData, payload); err != nil {
			return err
		}
		m.sent = number
		if err := m.group.Flush(ctx); err != nil {
			return err
		}
		m.own(stamp)
	}
}

// queryLoop asks all members and waits for all replies. The latency is that of the query.
func (m *member) queryLoop(ctx context.Context) error {
	payload := m.filling()
	p := m.newPacer()
	defer p.close()
	for {
		number, stamp, ok := p.next()
		if !ok {
			return nil
		}
		if stamp == 0 {
			if stamp = p.clock.now(); stamp >= p.end {
				return nil
			}
		}
		putHead(payload, 0, number)
		r, err := vsync.Query[uint64](ctx, m.group, vsync.All, codeAsk, payload)
		if err != nil {
			return err
		}
		for _, n := range r.Values() {
			if n != number {
				return fmt.Errorf("query %d was answered with %d", number, n)
			}
		}
		if r.Len() != m.Members {
			return fmt.Errorf("query %d got %d replies of %d", number, r.Len(), m.Members)
		}
		m.sent = number
		m.own(stamp)
	}
}

// onAsk answers a query with its number.
func (m *member) onAsk(msg *vsync.Message, payload []byte) (uint64, error) {
	m.casts.note(msg.From, payload)
	_, number, _ := head(payload)
	return number, nil
}

// own records how long ago something began that this member did, if it began in the measured time.
func (m *member) own(stamp int64) {
	if t := m.casts; stamp >= t.from.Load() && stamp < t.to.Load() {
		t.mu.Lock()
		record(t.own, m.clock.now()-stamp)
		t.mu.Unlock()
	}
}
