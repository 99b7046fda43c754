package vsync

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync/atomic"

	"github.com/khamsin-io/khamsin/vsync/internal/host"
)

// replyKind says what a reply is.
type replyKind uint8

const (
	replyValues replyKind = iota // values
	replyBytes                   // the replier's own bytes
	replyNull                    // declined
	replyAbort                   // the query must fail; the reason follows
	replyKinds
)

// A reply travels on a lane of its own: the number of the call, the kind, and what the kind says.

// onReply passes a reply to the query that waits for it. It is called by the owner of the engine.
func (g *Group) onReply(from Address, msg []byte) {
	call, n := binary.Uvarint(msg)
	if n <= 0 || len(msg) == n || msg[n] >= byte(replyKinds) {
		g.malformed.Add(1)
		return
	}
	body := msg[n+1:]
	if g.secret != nil {
		var ok bool
		if body, ok = g.secret.open(nil, sealedPeer, from.Incarnation, msg[:n+1], body); !ok {
			g.malformed.Add(1)
			return
		}
	}
	g.pending.take(call, reply{from: from, kind: replyKind(msg[n]), body: body})
}

// sendReply sends what body appends as the reply to a call of a member.
func (g *Group) sendReply(to Address, call uint64, kind replyKind, body func(b []byte) ([]byte, error)) error {
	return g.sendReplyBy(false, to, call, kind, body)
}

// sendReplyBy is sendReply, raw or not.
func (g *Group) sendReplyBy(
	raw bool, to Address, call uint64, kind replyKind, body func(b []byte) ([]byte, error),
) error {
	buf := g.sys.newBuffer()
	defer buf.free()
	b := append(binary.AppendUvarint(buf.b[:0], call), byte(kind))
	head := len(b) - 1
	if body != nil {
		var err error
		if b, err = body(b); err != nil {
			return err
		}
	}
	buf.b = b
	if len(b) > g.sys.config.MaxMessage {
		return ErrTooLarge
	}
	if to == g.sys.self {
		if err := g.inner.Err(); err != nil {
			return err
		}
		g.pending.take(call, reply{from: to, kind: kind, body: slices.Clone(b[head+1:])})
		return nil
	}
	if g.secret != nil {
		buf.sealed = append(buf.sealed[:0], b[:head+1]...)
		buf.sealed = g.secret.seal(buf.sealed, sealedPeer, b[:head+1], b[head+1:])
		b = buf.sealed
	}
	if raw {
		return g.inner.AnswerRaw(g.sys.host.Context(), to, host.Head{}, b)
	}
	err := g.inner.Answer(g.sys.host.Context(), to, host.Head{}, b)
	if errors.Is(err, host.ErrWouldBlock) { // an inline handler, which must not wait: somebody else does
		own := slices.Clone(b)
		go func() { g.lost(g.inner.Answer(g.sys.host.Context(), to, host.Head{}, own)) }()
		return nil
	}
	return err
}

// lost notes a reply that could not be sent.
func (g *Group) lost(err error) {
	if err != nil {
		g.repliesLost.Add(1)
		g.sys.log.Debug("reply not sent", "group", g.name, "err", err)
	}
}

// give does one of the ways to reply for a handler that does not learn of faults.
func (m *Message) give(how func() error) { m.group.lost(how()) }

// Reply answers a query with values: as many, and of such types, as the caller expects. A query is answered once; more
// replies, and replies to what is no query, are refused. It must be called inside the handler; for later, see Detach.
func (m *Message) Reply(vals ...any) error {
	return m.checked(func() error { return m.reply(vals) })
}

// RawReply is Reply by a message that may be lost; the caller then takes this member for silent.
func (m *Message) RawReply(vals ...any) error {
	return m.checked(func() error {
		err := m.group.sendReplyBy(true, m.From, m.call, replyValues, m.group.appendValues(vals))
		if err == nil {
			m.duty = dutyDone
		}
		return err
	})
}

// ReplyBytes answers a query with bytes as they are.
func (m *Message) ReplyBytes(payload []byte) error {
	return m.checked(func() error { return m.send(replyBytes, appendBytes(payload)) })
}

// Null declines to answer: the caller neither counts this member nor waits for it. A handler that returns without
// having replied declines, too.
func (m *Message) Null() error { return m.checked(m.null) }

// Abort makes the caller's query fail with an *AbortError that holds the reason.
func (m *Message) Abort(reason string) error {
	return m.checked(func() error { return m.abort(reason) })
}

// Silent answers nothing at all, and keeps the library from answering. A caller that waits for all members then waits
// until its time is over.
func (m *Message) Silent() error {
	return m.checked(func() error { m.duty = dutyDone; return nil })
}

// Detach takes the duty to reply out of the handler: the Call can be answered by any goroutine, after the handler has
// returned. When the Call is lost unanswered, the library declines in its place.
func (m *Message) Detach() (*Call, error) {
	var c *Call
	err := m.checked(func() error {
		m.duty = dutyDetached
		c = newCall(m.group, CallID{Caller: m.From, Number: m.call})
		return nil
	})
	return c, err
}

// CallID returns the number of the query that the message is, the zero CallID when it is none. See Group.StandIn.
func (m *Message) CallID() CallID {
	if !m.Query {
		return CallID{}
	}
	return CallID{Caller: m.From, Number: m.call}
}

// checked does one of the ways to reply when that is possible.
func (m *Message) checked(how func() error) error {
	g := m.group
	if g == nil || !g.inner.OnHandler() {
		return fmt.Errorf("vsync: reply: %w", ErrNotInHandler)
	}
	var err error
	switch {
	case !m.Query:
		err = ErrNoQuery
	case m.duty != dutyOpen:
		err = ErrReplied
	default:
		err = how()
	}
	return g.fail("reply", err)
}

func (m *Message) send(kind replyKind, body func([]byte) ([]byte, error)) error {
	err := m.group.sendReply(m.From, m.call, kind, body)
	if err == nil {
		m.duty = dutyDone
	}
	return err
}

func (m *Message) reply(vals []any) error { return m.send(replyValues, m.group.appendValues(vals)) }

func (m *Message) null() error { return m.send(replyNull, nil) }

func (m *Message) abort(reason string) error { return m.send(replyAbort, appendBytes([]byte(reason))) }

func (g *Group) appendValues(vals []any) func([]byte) ([]byte, error) {
	return func(b []byte) ([]byte, error) { return g.sys.types.Append(b, vals...) }
}

func appendBytes(payload []byte) func([]byte) ([]byte, error) {
	return func(b []byte) ([]byte, error) { return append(b, payload...), nil }
}

// CallID names one query of one process. It can be sent to others as two arguments, and stand for the duty to reply.
type CallID struct {
	Caller Address
	Number uint64
}

// Call is the duty to reply to one query, outside of the handler that got it. Its methods may be called by any
// goroutine; the first one that replies counts.
type Call struct{ state *callState }

type callState struct {
	group *Group
	id    CallID
	done  atomic.Bool
}

func newCall(g *Group, id CallID) *Call {
	c := &Call{&callState{group: g, id: id}}
	runtime.AddCleanup(c, (*callState).abandoned, c.state)
	return c
}

// abandoned declines in the place of a Call that nobody can reach any more.
func (s *callState) abandoned() {
	if s.done.Swap(true) {
		return
	}
	s.group.sys.log.Warn("a detached query was dropped without a reply; declined", "group", s.group.name, "caller",
		s.id.Caller)
	go func() { s.group.lost(s.group.sendReply(s.id.Caller, s.id.Number, replyNull, nil)) }()
}

// StandIn returns the duty to reply to a query that another member was to answer, and perhaps cannot any more. The
// caller counts the reply as it counts those of other members.
func (g *Group) StandIn(id CallID) *Call {
	c := &Call{&callState{group: g, id: id}}
	return c
}

// ID returns the query's name.
func (c *Call) ID() CallID { return c.state.id }

// Context ends when the system is over. It does not mark calls as made inside a handler.
func (c *Call) Context() context.Context { return c.state.group.sys.host.Context() }

// Reply answers with values, as Message.Reply does.
func (c *Call) Reply(vals ...any) error {
	return c.send(replyValues, c.state.group.appendValues(vals))
}

// ReplyBytes answers with bytes as they are.
func (c *Call) ReplyBytes(payload []byte) error { return c.send(replyBytes, appendBytes(payload)) }

// Null declines to answer.
func (c *Call) Null() error { return c.send(replyNull, nil) }

// Abort makes the caller's query fail with an *AbortError that holds the reason.
func (c *Call) Abort(reason string) error { return c.send(replyAbort, appendBytes([]byte(reason))) }

func (c *Call) send(kind replyKind, body func([]byte) ([]byte, error)) error {
	s := c.state
	if s.group.inner == nil {
		return s.group.fail("reply", ErrNotRunning)
	}
	if s.done.Swap(true) {
		return s.group.fail("reply", ErrReplied)
	}
	err := s.group.sendReply(s.id.Caller, s.id.Number, kind, body)
	runtime.KeepAlive(c)
	return s.group.fail("reply", err)
}
