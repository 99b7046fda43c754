package host

import (
	"bytes"
	"context"
	"encoding/binary"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/khamsin-io/khamsin/dataplane/clock"
	"github.com/khamsin-io/khamsin/vsync/core"
	"github.com/khamsin-io/khamsin/vsync/internal/engine"
)

// Limits of staging.
const (
	stageMax   = 4096     // bytes of a message that is copied into the inbox; a longer one waits for its turn
	batchBytes = 16 << 10 // a batch ends before it grows beyond this,
	batchMost  = 64       // and with so many messages
	batchesMax = 16       // batches that wait for the owner: more would only wait longer
	stagedHead = 3        // bytes in front of a message in a batch: its flavour and its length
)

// stager packs messages that follow each other in the inbox into batches, so that the lines of memory that go from the
// senders' processor to the owner's are full. The newest batch is open: messages of the same group join it until the
// owner takes it, or until something else is behind it in the inbox, which they must not overtake.
type stager struct {
	inbox  *inbox
	mu     sync.Mutex // senders only try it; the owner, who takes it once for each batch, waits
	newest *command   // nil when it cannot grow
	at     uint64     // its position in the inbox
	n      int        // its messages

	// Memory for batches, the last used on top: as few lines as possible are to be known to both processors.
	spare [][]byte
	used  [][]byte // the owner's: goes back with the next batch
	_     [40]byte
	out   atomic.Int32 // batches in the inbox
	room  room         // shut while there are too many
	_     [64]byte
}

// stage leaves a message in the inbox for the engine's owner.
func (g *Group) stage(f core.Flavour, head Head, body []byte) engine.Result {
	h := g.host
	if h.stager.join(g, f, head, body) {
		return engine.Accepted // whoever takes the batch is on his way
	}
	if !h.awaitBatches() {
		return engine.NotMember
	}
	s, at := h.reserve()
	if s == nil {
		return engine.NotMember
	}
	s.command.kind, s.command.group = cmdSubmit, g
	if !h.stager.open(s, at, f, head, body) {
		c := &s.command
		c.room = appendStaged(c.room[:0], f, head, body)
		c.buf = c.room
		h.inbox.publish(s, at)
	}
	if h.streams.on.Load() {
		h.streams.kick()
	} else {
		h.kick()
	}
	return engine.Accepted
}

// awaitBatches waits while too many batches are in the inbox. False means that the host has ended.
func (h *Host) awaitBatches() bool {
	b := &h.stager
	for b.out.Load() >= batchesMax {
		select {
		case <-h.dead:
			return false
		default:
		}
		b.room.close()
		h.kick()
		switch {
		case b.out.Load() <= batchesMax/2: // Dekker with take
			b.room.open()
		case h.receiver.Load() == goroutineNumber():
			runtime.Gosched() // an inline handler: if it slept, nobody might be left to drain the inbox
		default:
			_ = b.room.wait(context.Background(), h.dead) // not for long: whoever owns the engine drains the inbox
		}
	}
	return true
}

// join adds a message to the open batch, if there is one that it may join.
func (b *stager) join(g *Group, f core.Flavour, head Head, body []byte) bool {
	if !b.mu.TryLock() {
		return false
	}
	c := b.newest
	ok := c != nil && c.group == g && len(c.buf)+stagedHead+head.Len()+len(body) <= batchBytes &&
		b.n < batchMost && b.inbox.tail.Load() == b.at+1
	if ok {
		c.buf = appendStaged(c.buf, f, head, body)
		b.n++
	}
	b.mu.Unlock()
	return ok
}

// open shows the owner a new batch that others may join. False means that somebody else is busy with one.
func (b *stager) open(s *inboxSlot, at uint64, f core.Flavour, head Head, body []byte) bool {
	b.out.Add(1)
	if !b.mu.TryLock() {
		return false
	}
	c := &s.command
	if n := len(b.spare); n > 0 {
		c.buf, b.spare = b.spare[n-1], b.spare[:n-1]
	} else {
		c.buf = make([]byte, 0, batchBytes+headMax) // a head is written as a whole register
	}
	c.buf, c.lent = appendStaged(c.buf, f, head, body), true
	b.newest, b.at, b.n = c, at, 1
	b.inbox.publish(s, at)
	b.mu.Unlock()
	return true
}

// take closes a batch that the owner is about to carry out. Owner only.
func (b *stager) take(c *command) {
	b.mu.Lock()
	if b.newest == c {
		b.newest = nil
	}
	b.spare = append(b.spare, b.used[:min(len(b.used), batchesMax-len(b.spare))]...) // the others are garbage
	b.mu.Unlock()
	clear(b.used)
	b.used = b.used[:0]
	if b.out.Add(-1) <= batchesMax/2 && b.room.shut.Load() {
		b.room.open()
	}
}

// giveBack takes back a batch's memory. Owner only.
func (b *stager) giveBack(lent []byte) {
	if lent != nil {
		b.used = append(b.used, lent[:0])
	}
}

// appendStaged appends a message of at most stageMax bytes.
func appendStaged(b []byte, f core.Flavour, head Head, body []byte) []byte {
	size := head.Len() + len(body)
	b = append(b, byte(f), byte(size), byte(size>>8))
	return append(head.Append(b), body...)
}

// nextStaged takes the first message off a batch that is not empty.
func nextStaged(b []byte) (f core.Flavour, msg, rest []byte) {
	end := stagedHead + int(binary.LittleEndian.Uint16(b[1:]))
	return core.Flavour(b[0]), b[stagedHead:end], b[end:]
}

// leftover is what a batch had left when its group had no room for more.
type leftover struct {
	rest []byte
	lent []byte // the stager's memory in which rest is; nil for memory of its own
}

// submitStaged passes the engine the messages of a batch. Their senders were told that they are accepted, so what finds
// no room waits in the backlog, which the inbox bounds: senders look at the room before they stage. Owner only.
func (g *Group) submitStaged(now clock.Time, c *command) {
	g.host.stager.take(c)
	left := leftover{rest: c.buf}
	if c.lent {
		left.lent = c.buf
	}
	c.buf, c.lent = nil, false
	switch {
	case g.life.Load() != groupActive:
		left.rest = nil // the group ended before they were sent
	case !g.full:
		left.rest = g.submitBatch(now, left.rest)
	}
	if len(left.rest) == 0 {
		g.host.stager.giveBack(left.lent)
		return
	}
	g.full = true
	g.room.close()
	if left.lent == nil {
		left.rest = bytes.Clone(left.rest)
	}
	g.backlog = append(g.backlog, left)
}

// resubmit passes the engine the backlog, and lets senders go on when all of it is taken. Owner only.
func (g *Group) resubmit(now clock.Time) {
	for i := range g.backlog {
		left := &g.backlog[i]
		if left.rest = g.submitBatch(now, left.rest); len(left.rest) > 0 {
			g.backlog = slices.Delete(g.backlog, 0, i)
			return
		}
		g.host.stager.giveBack(left.lent)
	}
	clear(g.backlog)
	g.backlog = g.backlog[:0]
	g.full = false
	g.room.open()
}

// submitBatch passes the engine messages until it has no room, and returns the others. Owner only.
func (g *Group) submitBatch(now clock.Time, batch []byte) (rest []byte) {
	e := g.host.engine
	for len(batch) > 0 {
		f, msg, rest := nextStaged(batch)
		if e.Submit(now, g.handle, f, nil, msg) == engine.Full {
			break
		}
		batch = rest
	}
	return batch
}
