package vsync

import (
	"fmt"
	"log/slog"
	"time"
)

// TraceEvent is one delivery, or one view, as a group's tracer gets it, just before the handlers.
type TraceEvent struct {
	Time     time.Time
	Group    *Group
	View     *View // the new one, or that of the message
	Change   bool  // a view
	Code     Code
	From     Address
	Flavour  Flavour
	Peer     bool // point-to-point
	Query    bool
	Bytes    int // of the payload
	Handlers int // that will run
}

// String returns one line.
func (e TraceEvent) String() string {
	if e.Change {
		return fmt.Sprintf("%s: %v", e.Group.name, e.View)
	}
	how := e.Flavour.String()
	if e.Peer {
		how = "point-to-point"
	}
	if e.Query {
		how += ", a query"
	}
	id := ViewID(0)
	if e.View != nil {
		id = e.View.ID
	}
	return fmt.Sprintf("%s: view %d: code %d from %v, %d bytes, %s, %d handlers", e.Group.name, id, e.Code, e.From,
		e.Bytes, how, e.Handlers)
}

// Trace writes each delivery and each view of the group to the system's log, from now on, or no more.
func (g *Group) Trace(on bool) {
	if !on {
		g.SetTracer(nil)
		return
	}
	g.SetTracer(func(e TraceEvent) {
		g.sys.log.Info("delivery", slog.String("trace", e.String()))
	})
}

// SetTracer makes f get each delivery and each view of the group, from now on, on the goroutine of the handlers that it
// is for. Nil ends that. Tracing costs nothing while it is off.
func (g *Group) SetTracer(f func(e TraceEvent)) {
	if f == nil {
		g.tracer.Store(nil)
		return
	}
	g.tracer.Store(&f)
}

// event describes the message that is about to be handled.
func (m *Message) event(handlers int) TraceEvent {
	return TraceEvent{
		Time: time.Now(), Group: m.group, View: m.View, Code: m.Code, From: m.From, Flavour: m.Flavour, Peer: m.Peer,
		Query: m.Query, Bytes: len(m.Payload), Handlers: handlers,
	}
}

func viewEvent(g *Group, v *View) TraceEvent {
	return TraceEvent{Time: time.Now(), Group: g, View: v, Change: true, Handlers: len(g.onView)}
}
