package perf

import (
	"context"
	"encoding/binary"
	"sync"
	"time"

	"github.com/khamsin-io/khamsin/vsync"
)

// killDelay is how long after its announcement a member kills itself.
const killDelay = 100 * time.Millisecond

// churnRecord is what a member saw of others coming and going.
type churnRecord struct {
	mu     sync.Mutex
	views  uint64
	dieAt  int64 // when the victim was to kill itself; 0: nobody is dying
	victim vsync.Address
	took   int64 // from there to the view without it
	gone   chan struct{}
}

func (c *churnRecord) onView(v *vsync.View, now int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.views++
	if c.dieAt != 0 && c.took == 0 && !v.Contains(c.victim) {
		c.took = now - c.dieAt
		close(c.gone)
	}
}

// onDie notes that a member will kill itself. Each member reads its own clock, so that hosts need not agree on the
// time.
func (m *member) onDie(msg *vsync.Message) {
	now := m.clock.now()
	if len(msg.Payload) != 8 {
		return
	}
	delay := int64(binary.LittleEndian.Uint64(msg.Payload))
	m.churn.mu.Lock()
	m.churn.dieAt, m.churn.victim, m.churn.gone = now+delay, msg.From, make(chan struct{})
	m.churn.mu.Unlock()
	if msg.From == m.sys.Address() {
		go func() {
			m.clock.sleepUntil(now + delay)
			killProcess()
		}()
	}
}

// killSelf announces the end of this process, which then comes without any further notice.
func (m *member) killSelf(ctx context.Context) error {
	m.clock.sleepUntil(m.casts.from.Load())
	payload := binary.LittleEndian.AppendUint64(nil, uint64(killDelay))
	if err := m.group.SendBytes(ctx, vsync.FIFO, codeDie, payload); err != nil {
		return err
	}
	<-ctx.Done()
	return context.Cause(ctx)
}

// joinLoop leaves the group and joins it again, over and over. The latency is that of Join.
func (m *member) joinLoop(ctx context.Context) error {
	p := m.newPacer()
	defer p.close()
	p.interval = max(p.interval, 1)
	for {
		_, _, ok := p.next()
		if !ok {
			return nil
		}
		if err := m.group.Leave(ctx); err != nil {
			return err
		}
		stamp := m.clock.now()
		g, err := m.join(ctx)
		if err != nil {
			return err
		}
		m.group = g
		m.own(stamp)
	}
}
