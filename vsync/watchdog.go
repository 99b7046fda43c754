package vsync

import (
	"fmt"
	"sync/atomic"
	"time"

	"github.com/khamsin-io/khamsin/dataplane/counters"
)

// running says which handler an executor is in. The executor writes it, the watchdog reads it. Locked instructions
// would be a good part of what a short message costs here, so there is one only when the handler changes.
type running struct {
	count   counters.Counter // odd: in a handler; no two handlers that follow each other have the same number
	handler atomic.Pointer[handler]
	last    *handler // what is in handler; the executor's
}

var (
	viewHandler  = &handler{code: codeView, name: "view handler"}   // immutable: a name
	stateHandler = &handler{code: codeState, name: "state handler"} // immutable: a name

	serviceHandler = &handler{code: serviceFirst, name: "handler of a service"} // immutable: a name
)

func (r *running) begin(h *handler) {
	if r.last != h {
		r.last = h
		r.handler.Store(h)
	}
	r.count.Add(1 + r.count.Load()&1)
}

func (r *running) end() { r.count.Add(r.count.Load() & 1) }

// StuckError means that a handler ran longer than Config.HandlerLimit, for which the process gave itself up.
type StuckError struct {
	Group   string
	Code    Code
	Handler string // the function's name
	After   time.Duration
}

// Error names the handler.
func (e *StuckError) Error() string {
	return fmt.Sprintf("%v: group %q, code %d, handler %s ran for more than %v", ErrHandlerStuck, e.Group, e.Code,
		e.Handler, e.After)
}

// Is makes errors.Is(err, ErrHandlerStuck) and errors.Is(err, ErrNotRunning) true.
func (e *StuckError) Is(target error) bool {
	return target == ErrHandlerStuck || target == ErrNotRunning
}

// sighting is what the watchdog saw of one executor the last time.
type sighting struct {
	count  uint64
	since  time.Time // when it first saw that handler
	logged bool
}

// samples is how often the watchdog looks within the time that a handler may take: it finds a stuck handler after at
// most one sample more than that.
const samples = 4

// watch looks after the handlers until the system is over. Handlers cost no clock: it sees by a counter whether an
// executor is still in the handler that it was in before.
func (s *System) watch() {
	defer close(s.watching)
	limit := s.config.HandlerDeadline
	if s.config.HandlerLimit > 0 {
		limit = min(limit, s.config.HandlerLimit)
	}
	ticker := time.NewTicker(limit / samples)
	defer ticker.Stop()
	seen := make(map[*Group]*[lanes]sighting)
	for {
		select {
		case <-s.host.Over():
			return
		case now := <-ticker.C:
			s.inspect(now, seen)
		}
	}
}

// inspect looks at every executor once.
func (s *System) inspect(now time.Time, seen map[*Group]*[lanes]sighting) {
	groups := s.Groups()
	alive := make(map[*Group]bool, len(groups))
	for _, g := range groups {
		alive[g] = true
		if seen[g] == nil {
			seen[g] = new([lanes]sighting)
		}
		for i := range g.lanes {
			g.lanes[i].running.inspect(now, g, &seen[g][i])
		}
	}
	for g := range seen {
		if !alive[g] {
			delete(seen, g)
		}
	}
}

func (r *running) inspect(now time.Time, g *Group, x *sighting) {
	count, h := r.count.Load(), r.handler.Load()
	if count&1 == 0 || count != x.count {
		*x = sighting{count: count, since: now}
		return
	}
	c, took := &g.sys.config, now.Sub(x.since)
	if took >= c.HandlerDeadline && !x.logged {
		x.logged = true
		g.slow.Add(1)
		g.sys.log.Warn("a handler has not returned: its group waits for it", "group", g.name, "code", h.code, "handler",
			h.name, "for", took.Round(time.Millisecond))
	}
	if c.HandlerLimit > 0 && took >= c.HandlerLimit {
		err := &StuckError{Group: g.name, Code: h.code, Handler: h.name, After: c.HandlerLimit}
		g.sys.log.Error("a handler is stuck: this process gives itself up", "err", err)
		g.sys.host.GiveUp(err)
	}
}
