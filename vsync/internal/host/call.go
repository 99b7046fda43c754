package host

import (
	"runtime"

	"github.com/khamsin-io/khamsin/dataplane/clock"
	"github.com/khamsin-io/khamsin/vsync/core"
	"github.com/khamsin-io/khamsin/vsync/internal/engine"
)

// callKind says what a call does with the engine.
type callKind uint8

const (
	callFunc     callKind = iota // fn
	callCast                     // group, flavour, head, body
	callPeer                     // group, to, head, body
	callReply                    // likewise
	callRaw                      // likewise: to one member
	callRawReply                 // likewise
	callChunk                    // transfer, body, last
)

// call is a command whose caller waits for the result. The caller's slices are read where they are.
type call struct {
	kind     callKind
	fn       func(now clock.Time)
	group    *Group
	flavour  core.Flavour
	to       core.Address
	head     Head
	body     []byte
	transfer uint64
	last     bool
	result   engine.Result
	done     chan struct{} // capacity 1
}

// newCall returns an empty call.
func (h *Host) newCall() *call {
	if c, ok := h.calls.Get().(*call); ok {
		return c
	}
	return &call{done: make(chan struct{}, 1)}
}

// freeCall takes back a call that do has carried out.
func (h *Host) freeCall(c *call) {
	*c = call{done: c.done}
	h.calls.Put(c)
}

// run carries out the call. Owner only.
func (c *call) run(h *Host, now clock.Time) {
	switch c.kind {
	case callFunc:
		c.fn(now)
	case callCast:
		c.result = c.group.submitOwned(now, c.flavour, c.head, c.body)
	case callPeer, callReply, callRaw, callRawReply:
		c.result = c.group.submitToOwned(now, c)
	case callChunk:
		c.result = h.engine.StateChunk(now, c.transfer, c.body, c.last)
		if r := h.own.rooms[c.transfer]; c.result == engine.Full && r != nil {
			r.close()
		}
	}
}

// finish tells the caller that the call has run.
func (c *call) finish() { c.done <- struct{}{} }

// do carries out a call in a turn, in the caller's goroutine when the engine is free. It returns false when the host
// ended before: then the call did not run, and must not be used again.
func (h *Host) do(c *call) bool {
	if now, ok := h.enter(); ok {
		c.run(h, now)
		h.finish(now)
		return true
	}
	s, at := h.reserve()
	if s == nil {
		return false
	}
	s.command.kind, s.command.call = cmdCall, c
	h.inbox.publish(s, at)
	h.kick()
	select {
	case <-c.done:
		return true
	case <-h.dead:
	}
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

// doFunc runs fn in a turn.
func (h *Host) doFunc(fn func(now clock.Time)) bool {
	c := h.newCall()
	c.fn = fn
	ok := h.do(c)
	if ok {
		h.freeCall(c)
	}
	return ok
}

// reserve takes a slot of the inbox, waiting while it is full: somebody is draining it, or the caller does. It returns
// nil when the host has ended.
func (h *Host) reserve() (*inboxSlot, uint64) {
	for {
		s, at := h.inbox.reserve()
		if s != nil {
			return s, at
		}
		select {
		case <-h.dead:
			return nil, 0
		default:
		}
		h.kick()
		runtime.Gosched()
	}
}
