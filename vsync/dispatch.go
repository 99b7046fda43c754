package vsync

import (
	"context"
	"errors"
	"runtime/pprof"
	"strconv"

	"github.com/khamsin-io/khamsin/vsync/codec"
)

// lane is what one of a group's executors needs for passing messages on. It belongs to that executor.
type lane struct {
	message Message
	scratch []byte
	one     [1]*handler
	labels  Code // the code whose pprof labels the goroutine carries
	labeled bool
	running running
}

// dispatch passes a message, without its first bytes taken apart yet, to its handlers.
func (g *Group) dispatch(n int, msg []byte) {
	l := &g.lanes[n]
	m := &l.message
	o := origin{secret: g.secret, kind: sealedCast, from: m.From.Incarnation}
	if m.Peer {
		o.kind = sealedPeer
	}
	if !m.env.open(msg, g.sys.config.MaxMessage, o) || m.env.code < 0 && !g.serve(l, m) {
		g.refuse(m, "malformed message dropped", nil)
		return
	}
	if m.env.code < 0 {
		return // a service had it
	}
	if m.env.flags&flagQuery != 0 && !m.Peer && m.From == g.sys.self {
		g.pending.delivered(m.env.call, m.View, m.env.listed(m.View))
	}
	if !m.isFor(g.sys.self) {
		return
	}
	m.load()
	e := g.table.get(m.Code)
	g.label(l, n, e, m)
	handlers := g.find(l, e, m)
	if t := g.tracer.Load(); t != nil {
		(*t)(m.event(len(handlers)))
	}
	ran := 0
	for _, h := range handlers {
		l.running.begin(h)
		err := h.run(m, n)
		l.running.end()
		if err == nil {
			ran++
		} else if !mismatch(err) {
			g.refuse(m, "message dropped: its values cannot be read", err)
		}
	}
	if ran == 0 && m.duty == dutyOpen && g.unhandled.Add(1) == 1 {
		g.sys.log.Warn("message without a handler for its values; further ones are not logged", "group", g.name,
			"code", m.Code, "from", m.From)
	}
	if m.Query && m.duty == dutyOpen {
		m.give(m.null)
	}
	m.unload()
}

// find returns the handlers for a message.
func (g *Group) find(l *lane, e *codeEntry, m *Message) []*handler {
	switch {
	case e == nil:
		return nil
	case e.only != nil:
		if !m.Typed && !e.only.any {
			return nil
		}
		l.one[0] = e.only
		return l.one[:]
	case !m.Typed:
		return e.others
	}
	var err error
	if l.scratch, err = g.sys.types.AppendShape(l.scratch[:0], m.Payload); err != nil {
		g.refuse(m, "message dropped: its values cannot be read", err)
		return nil
	}
	if list, ok := e.byShape[codec.Shape(l.scratch)]; ok {
		return list
	}
	return e.others
}

// mismatch tells whether a handler refused a message because it carries other types.
func mismatch(err error) bool {
	var t *codec.TypeError
	var c *codec.CountError
	return errors.As(err, &t) || errors.As(err, &c)
}

// refuse counts a message that cannot be read, and logs the first.
func (g *Group) refuse(m *Message, what string, err error) {
	if g.malformed.Add(1) == 1 {
		g.sys.log.Error(what+"; further ones are not logged", "group", g.name, "code", m.env.code, "from", m.From,
			"err", err)
	}
}

// label gives the goroutine the pprof labels of the message's code. That is done again only for another code.
func (g *Group) label(l *lane, n int, e *codeEntry, m *Message) {
	if l.labeled && l.labels == m.Code || e == nil || g.settings.inline {
		return
	}
	if e.labels[n] == nil {
		e.labels[n] = pprof.WithLabels(m.ctx, pprof.Labels("code", strconv.Itoa(int(m.Code))))
	}
	l.labels, l.labeled = m.Code, true
	pprof.SetGoroutineLabels(e.labels[n])
}

// unlabel goes back to the labels of the group alone, for what has no code.
func (l *lane) unlabel(ctx context.Context) {
	if l.labeled {
		l.labeled = false
		pprof.SetGoroutineLabels(ctx)
	}
}
