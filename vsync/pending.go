package vsync

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/khamsin-io/khamsin/vsync/core"
)

// pending holds a group's queries that wait for replies. The owner of the engine brings replies and views, in their
// order; the group's first executor says in which view a query was delivered.
type pending struct {
	mu     sync.Mutex
	open   map[uint64]*collector
	newest *core.View
	late   atomic.Uint64 // replies to queries that had ended
}

// reply is one reply as it arrived.
type reply struct {
	from Address
	kind replyKind
	body []byte
}

// collector gathers the replies to one query. Its pending guards it, but for wake.
type collector struct {
	call    uint64
	want    int // replies, All or Majority
	view    *View
	members []Address            // who was to reply; known once the query was delivered here
	waiting map[Address]struct{} // those of them who may yet
	early   map[Address]struct{} // who replied before that was known
	replies []reply              // with a value, in the order of arrival
	nulls   []Address
	gone    []Address // left or failed without a reply
	abort   *reply
	over    bool
	wake    chan struct{} // capacity 1
}

// start enters a query.
func (p *pending) start(c *collector) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.open == nil {
		p.open = make(map[uint64]*collector)
	}
	p.open[c.call] = c
}

// stop forgets a query.
func (p *pending) stop(c *collector) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.open, c.call)
}

// take adds a reply.
func (p *pending) take(call uint64, r reply) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.open[call]
	if c == nil || c.over {
		p.late.Add(1)
		return
	}
	if c.members == nil {
		c.early[r.from] = struct{}{}
	}
	delete(c.waiting, r.from)
	switch r.kind {
	case replyAbort:
		c.abort = &r
	case replyNull:
		c.nulls = append(c.nulls, r.from)
	default:
		c.replies = append(c.replies, r)
	}
	c.look()
}

// delivered says in which view a query was delivered, and to whom.
func (p *pending) delivered(call uint64, v *View, to []Address) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.open[call]
	if c == nil || c.members != nil {
		return
	}
	c.expect(v, to)
	c.drop(p.newest)
	c.look()
}

// expect says who is to reply.
func (c *collector) expect(v *View, to []Address) {
	c.view, c.members = v, to
	if c.members == nil {
		c.members = []Address{}
	}
	for _, a := range to {
		if _, ok := c.early[a]; !ok {
			c.waiting[a] = struct{}{}
		}
	}
}

// changed says that the group has a new view.
func (p *pending) changed(v *core.View) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.newest = v
	for _, c := range p.open {
		c.drop(v)
		c.look()
	}
}

// drop gives up on members that are not in a view.
func (c *collector) drop(v *core.View) {
	if v == nil || len(c.waiting) == 0 {
		return
	}
	for _, a := range c.members {
		if _, ok := c.waiting[a]; ok && !v.Contains(a) {
			delete(c.waiting, a)
			c.gone = append(c.gone, a)
		}
	}
}

// look sees whether the query is over, and wakes the one who waits.
func (c *collector) look() {
	switch known := c.members != nil; {
	case c.abort != nil, known && len(c.waiting) == 0:
		c.over = true
	case c.want > 0:
		c.over = len(c.replies) >= c.want
	case c.want == Majority:
		c.over = known && len(c.replies) > len(c.members)/2
	}
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// silent returns who has not replied, in rank order.
func (c *collector) silent() []Address {
	var list []Address
	for _, a := range c.members {
		if _, ok := c.waiting[a]; ok {
			list = append(list, a)
		}
	}
	return list
}

// outcome says why a query ended.
type outcome uint8

const (
	outcomeMore    outcome = iota // it did not: something arrived
	outcomeOver                   // all that was wanted is there, or can come no more, or a member aborted
	outcomeTimeout                // the time is over
	outcomeContext                // the context was cancelled
	outcomeEnded                  // the group or the system ended
)

// wait sleeps until something arrives for the query or it ends.
func (c *collector) wait(ctx context.Context, g *Group, timeout <-chan struct{}) outcome {
	for {
		g.pending.mu.Lock()
		over := c.over
		g.pending.mu.Unlock()
		if over {
			return outcomeOver
		}
		select {
		case <-c.wake:
			return outcomeMore
		case <-timeout:
			return outcomeTimeout
		case <-ctx.Done():
			if ctx.Err() == context.DeadlineExceeded {
				return outcomeTimeout
			}
			return outcomeContext
		case <-g.inner.Ending():
			return outcomeEnded
		}
	}
}
