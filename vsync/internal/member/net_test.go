package member

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/khamsin-io/khamsin/dataplane/clock"
	"github.com/khamsin-io/khamsin/dataplane/frame"
	"github.com/khamsin-io/khamsin/dataplane/wire"
	"github.com/khamsin-io/khamsin/vsync/core"
	"github.com/khamsin-io/khamsin/vsync/internal/pdu"
)

// net is a few processes, each a Machine, with perfect lanes between those that can reach each other.
type net struct {
	t     testing.TB
	now   clock.Time
	sites []*site
	queue []letter
	apart map[[2]int]bool // pairs that cannot reach each other
}

type letter struct {
	from, to int // sites
	msg      []byte
}

// site is one process: it is its machine's Lane and Hooks.
type site struct {
	moved int // how often the ORACLE changed
	net   *net
	m     *Machine
	out   *pdu.Outbox
	self  core.Address
	dead  bool
	said  []string // what the machine told the engine
	gone  []core.Address
	view  map[string]*pdu.Decision
	prop  []*pdu.Propose
}

func newNet(t testing.TB) *net { return &net{t: t, now: 1, apart: map[[2]int]bool{}} }

func (w *net) config(i int) Config {
	return Config{
		Self: addr(i + 1), System: "test", Size: 3, Eligible: true, Seed: uint64(i + 1), Channel: 4999, Low: 5000,
		Count: 25, Discovery: 300 * time.Millisecond, Beacon: 20 * time.Millisecond, Gather: time.Millisecond,
		Request: 500 * time.Millisecond, Heartbeat: 200 * time.Millisecond, Suspect: 1200 * time.Millisecond,
		OracleLost: 5 * time.Second,
	}
}

// start starts a process, its configuration changed by edit, and returns it.
func (w *net) start(edit func(*Config)) *site {
	w.t.Helper()
	arena, err := frame.New(frame.Config{TxChunks: 64})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		if err := arena.Close(); err != nil {
			w.t.Error(err)
		}
	})
	cfg := w.config(len(w.sites))
	if edit != nil {
		edit(&cfg)
	}
	x := &site{net: w, out: pdu.NewOutbox(arena, 1400), self: cfg.Self, view: map[string]*pdu.Decision{}}
	x.m = New(cfg, x.out, x, x)
	w.sites = append(w.sites, x)
	x.m.Start(w.now)
	x.drain()
	return x
}

// form starts n processes one after another and lets the ORACLE become complete.
func form(t testing.TB, n int, edit func(*Config)) *net {
	t.Helper()
	w := newNet(t)
	for range n {
		w.start(edit)
		w.run(500 * time.Millisecond)
	}
	w.run(2 * time.Second)
	for _, x := range w.sites {
		if !x.m.Active() {
			t.Fatalf("%s is not attached: %v", x.m.Dump(), x.said)
		}
	}
	return w
}

func (w *net) index(a core.Address) int {
	return slices.IndexFunc(w.sites, func(x *site) bool { return x.self == a })
}

func (w *net) reach(a, b int) bool {
	return a >= 0 && b >= 0 && !w.sites[a].dead && !w.sites[b].dead && !w.apart[[2]int{min(a, b), max(a, b)}]
}

// divide keeps two sets of sites apart, or joins them again.
func (w *net) divide(one, other []int, apart bool) {
	for _, a := range one {
		for _, b := range other {
			w.apart[[2]int{min(a, b), max(a, b)}] = apart
		}
	}
}

// drain carries the packets of discovery.
func (x *site) drain() {
	w, me := x.net, x.net.index(x.self)
	packets := slices.Clone(x.out.Packets)
	x.out.Packets = x.out.Packets[:0]
	for _, p := range packets {
		var h wire.Header
		b := slices.Clone(x.out.Arena().Bytes(p.Frame))
		x.out.Arena().Tx().Release(p.Frame)
		if err := h.Decode(b); err != nil || h.Kind != wire.KindBeacon {
			w.t.Fatalf("packet %+v, error %v", h, err)
		}
		for i, y := range w.sites {
			if (p.Channel != 0 || p.To == y.self.Endpoint()) && i != me && w.reach(me, i) {
				y.m.OnBeacon(w.now, h.System, b[wire.HeaderLen:])
				y.drain()
			}
		}
	}
}

// pump delivers everything that is under way on lanes.
func (w *net) pump() {
	for n := 0; len(w.queue) > 0; n++ {
		if n > 100_000 {
			w.t.Fatal("letters without end")
		}
		l := w.queue[0]
		w.queue = w.queue[1:]
		if !w.reach(l.from, l.to) {
			continue
		}
		if y := w.sites[l.to]; !slices.Contains(y.gone, w.sites[l.from].self) { // its lanes are closed
			y.m.OnMessage(w.now, w.sites[l.from].self.Incarnation, pdu.Type(l.msg[0]), l.msg[1:])
			y.drain()
		}
	}
}

// run lets time pass.
func (w *net) run(d time.Duration) {
	end := w.now.Add(d)
	for {
		w.pump()
		next := end
		for _, x := range w.sites {
			if !x.dead {
				next = min(next, x.m.Deadline())
			}
		}
		w.now = max(w.now, next)
		if next >= end {
			return
		}
		for _, x := range w.sites {
			if !x.dead && x.m.Deadline() <= w.now {
				x.m.Tick(w.now)
				x.drain()
			}
		}
	}
}

// Send is Lane's.
func (x *site) Send(_ clock.Time, to core.Address, msg []byte) {
	x.net.queue = append(x.net.queue, letter{x.net.index(x.self), x.net.index(to), msg})
}

// Idle is Lane's.
func (x *site) Idle() bool { return len(x.net.queue) == 0 }

func (x *site) say(format string, args ...any) { x.said = append(x.said, fmt.Sprintf(format, args...)) }

// What follows is Hooks'.

func (x *site) Attached(clock.Time, uint32)           { x.say("attached") }
func (x *site) Proposed(_ clock.Time, p *pdu.Propose) { x.prop = append(x.prop, p) }
func (x *site) Decided(_ clock.Time, d *pdu.Decision) { x.view[d.Name] = d }
func (x *site) Refused(_ clock.Time, handle uint32, why Refusal, _ string) {
	x.say("refused %d %d", handle, why)
}
func (x *site) Moved(clock.Time) { x.moved++ }
func (x *site) Watch(_ clock.Time, w *pdu.Watch) {
	x.say("watches %d, watched by %d", len(w.Targets), len(w.Watchers))
}
func (x *site) Gone(_ clock.Time, a core.Address, _ pdu.Charge) { x.gone = append(x.gone, a) }
func (x *site) OracleChanged(text string)                       { x.say("%s", text) }
func (x *site) Warn(text string)                                { x.say("warning: %s", text) }
func (x *site) Lost(clock.Time)                                 { x.say("lost") }
func (x *site) Stopped(clock.Time)                              { x.say("stopped") }
func (x *site) Removed(_ clock.Time, by core.Address, reason string) {
	x.say("removed by %d: %s", by.PID, reason)
}

func (x *site) heard(what string) bool {
	return slices.ContainsFunc(x.said, func(s string) bool { return strings.HasPrefix(s, what) })
}

// leaders returns the live processes that lead the ORACLE.
func (w *net) leaders() (list []int) {
	for i, x := range w.sites {
		if !x.dead && x.m.Active() && x.m.Leader() {
			list = append(list, i)
		}
	}
	return list
}

// oracle returns the ORACLE's members as a process was told, by site.
func (x *site) oracle() (list []int) {
	for _, a := range x.m.Oracle() {
		list = append(list, x.net.index(a))
	}
	slices.Sort(list)
	return list
}
