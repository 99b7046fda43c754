package engine

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/khamsin-io/khamsin/vsync/core"
)

// ended returns why a group is over at a node, and whether it is.
func (x *node) ended(h Handle) (error, bool) {
	for _, e := range x.events {
		if e.Kind == EventEnded && e.Group == h {
			return e.Err, true
		}
	}
	return nil, false
}

// event returns the first event of a kind.
func (x *node) event(k EventKind) (Event, bool) {
	i := slices.IndexFunc(x.events, func(e Event) bool { return e.Kind == k })
	if i < 0 {
		return Event{}, false
	}
	return x.events[i], true
}

func (x *node) join(req JoinRequest) Handle {
	h := x.e.Join(x.net.now, req)
	x.collect()
	return h
}

func (x *node) submit(h Handle, f core.Flavour, msg string) Result {
	r := x.e.Submit(x.net.now, h, f, nil, []byte(msg))
	x.collect()
	return r
}

func TestJoinsThatFail(t *testing.T) {
	// rows: GRP-11, GRP-14
	w, _ := form(t, 2)
	x := w.nodes[1]
	for _, c := range []struct {
		name string
		req  JoinRequest
		want error
	}{
		{"joined already", JoinRequest{Name: "inventory"}, ErrGroupExists},
		{"its own group again", JoinRequest{Name: "orders"}, nil},
		{"created by another", JoinRequest{Name: "sales", Mode: CreateOnly}, ErrGroupExists},
		{"other handlers", JoinRequest{Name: "sales", Signature: 8}, ErrSignature},
		{"too long a name", JoinRequest{Name: strings.Repeat("n", 65<<10)}, ErrSystemFull},
	} {
		if c.req.Name == "sales" && w.nodes[0].e.byName["sales"] == nil {
			w.nodes[0].join(JoinRequest{Name: "sales", Mode: CreateOnly, Signature: 7})
			w.run(100 * time.Millisecond)
		}
		h := x.join(c.req)
		w.run(200 * time.Millisecond)
		err, over := x.ended(h)
		if over != (c.want != nil) || !errors.Is(err, c.want) {
			t.Errorf("%s: over %v, error %v, want %v", c.name, over, err, c.want)
		}
		if (x.e.View(h) == nil) != over {
			t.Errorf("%s: view %v", c.name, x.e.View(h))
		}
	}
	if w.nodes[0].e.View(1).Size() != 2 {
		t.Errorf("the group became %v", w.nodes[0].e.View(1))
	}
}

// Commands for a group that is not joined, or over, are refused, and change nothing.
func TestNoSuchGroup(t *testing.T) {
	// rows: GRP-14, GRP-18, P2P-11, FD-08
	w, hs := form(t, 2)
	x, other := w.nodes[0], w.nodes[1]
	x.e.Leave(w.now, hs[0])
	x.collect()
	w.run(300 * time.Millisecond)
	if err, over := x.ended(hs[0]); !over || !errors.Is(err, ErrLeft) {
		t.Fatalf("left: over %v, error %v", over, err)
	}
	for _, h := range []Handle{0, hs[0], 99} {
		x.events = nil
		if r := x.submit(h, core.FIFO, "m"); r != NotMember {
			t.Errorf("group %d: Submit returns %d", h, r)
		}
		if r := x.e.SubmitTo(w.now, h, other.e.cfg.Self, []byte("m")); r != NotMember {
			t.Errorf("group %d: SubmitTo returns %d", h, r)
		}
		if err := x.e.Report(w.now, h, other.e.cfg.Self, "why"); !errors.Is(err, ErrNotMember) {
			t.Errorf("group %d: Report returns %v", h, err)
		}
		x.e.Leave(w.now, h)
		x.e.Terminate(w.now, h)
		x.e.Consumed(w.now, h, 1)
		x.e.ConsumedPeers(w.now, h, 1, 1)
		x.e.Flush(w.now, h, 0, 5)
		x.collect()
		e, ok := x.event(EventFlushed)
		if !ok || e.Token != 5 || !errors.Is(e.Err, ErrNotMember) || x.e.View(h) != nil {
			t.Errorf("group %d: events %+v", h, x.events)
		}
	}
	if r := x.e.StateChunk(w.now, 77, nil, true); r != NotMember {
		t.Errorf("StateChunk of no transfer returns %d", r)
	}
	x.e.StateAbort(w.now, 77)
	if r := other.e.SubmitTo(w.now, hs[1], x.e.cfg.Self, []byte("m")); r != NotMember {
		t.Errorf("a message to who has left returns %d", r)
	}
	if err := other.e.Report(w.now, hs[1], x.e.cfg.Self, "why"); !errors.Is(err, ErrNotMember) {
		t.Errorf("accusing who has left returns %v", err)
	}
	if v := other.e.View(hs[1]); v.Size() != 1 || !slices.Equal(v.Left, []core.Address{x.e.cfg.Self}) {
		t.Errorf("the other's view is %v", v)
	}
}

func TestTerminateEndsIt(t *testing.T) {
	// rows: GRP-13
	w, hs := form(t, 3)
	for i, x := range w.nodes {
		x.submit(hs[i], core.FIFO, "last")
	}
	w.nodes[1].e.Terminate(w.now, hs[1])
	w.nodes[1].collect()
	w.run(time.Second)
	for i, x := range w.nodes {
		if err, over := x.ended(hs[i]); !over || !errors.Is(err, ErrTerminated) {
			t.Errorf("node %d: over %v, error %v", x.id, over, err)
		}
		if got := onlyMessages(x.msgs); len(got) != 3 {
			t.Errorf("node %d delivered %v before the end", x.id, got)
		}
		if last := x.deliveries[len(x.deliveries)-1]; last.Kind != DeliverEnd || !errors.Is(last.Err, ErrTerminated) {
			t.Errorf("node %d: the last delivery is %+v", x.id, last)
		}
	}
}

// A report is believed: the accused goes, is told when it speaks again, and can do nothing any more.
func TestReportedMemberIsPoisoned(t *testing.T) {
	// rows: FD-07, FD-10, FD-11, FD-12, FD-13, FD-23
	w, hs := form(t, 5)
	victim := w.nodes[4] // no member of the ORACLE
	if err := w.nodes[0].e.Report(w.now, hs[0], victim.e.cfg.Self, "acts strangely"); err != nil {
		t.Fatal(err)
	}
	w.nodes[0].collect()
	w.run(3 * time.Second)
	e, over := victim.event(EventOver)
	if !over || !errors.Is(e.Err, ErrPoisoned) || !victim.e.Over() {
		t.Fatalf("the accused is over %v: %v", over, e.Err)
	}
	if s, ok := w.nodes[0].event(EventSuspect); !ok || s.Peer != victim.e.cfg.Self || s.Text != "acts strangely" {
		t.Errorf("the accuser says %+v", s)
	}
	if err, ended := victim.ended(hs[4]); !ended || !errors.Is(err, ErrPoisoned) {
		t.Errorf("its group: over %v, error %v", ended, err)
	}
	if r := victim.submit(hs[4], core.FIFO, "still here"); r != NotMember {
		t.Errorf("Submit after poison returns %d", r)
	}
	h := victim.join(JoinRequest{Name: "another"})
	if err, ended := victim.ended(h); !ended || !errors.Is(err, ErrStopped) {
		t.Errorf("Join after poison: over %v, error %v", ended, err)
	}
	for _, x := range w.nodes[:4] {
		if v := x.e.View(1); v.Size() != 4 || v.Contains(victim.e.cfg.Self) {
			t.Errorf("node %d: %v", x.id, v)
		}
	}
}

func TestNewRefusesBadConfigurations(t *testing.T) {
	w := newNet(t, 1)
	good := w.nodes[0].e.cfg
	for _, edit := range []func(*Config){
		func(c *Config) { c.Arena = nil }, func(c *Config) { c.Self.Incarnation = 0 }, func(c *Config) { c.MTU = 255 },
	} {
		cfg := good
		edit(&cfg)
		if e, err := New(cfg); err == nil || e != nil {
			t.Errorf("%+v is accepted", cfg)
		}
	}
	timing, limits := Defaults()
	if e, err := New(Config{Self: good.Self, Arena: good.Arena, MTU: 256}); err != nil || e.cfg.Timing != timing ||
		e.cfg.Limits != limits || e.cfg.Oracle.Size != 3 {
		t.Errorf("defaults are not filled in: %+v, error %v", e.cfg, err)
	}
}

func TestStop(t *testing.T) {
	// rows: GRP-12
	w, hs := form(t, 3)
	x := w.nodes[2]
	x.e.Stop(w.now)
	x.e.Stop(w.now)
	x.collect()
	h := x.join(JoinRequest{Name: "late"})
	if err, over := x.ended(h); !over || !errors.Is(err, ErrStopped) {
		t.Errorf("Join while stopping: over %v, error %v", over, err)
	}
	w.run(3 * time.Second)
	if e, over := x.event(EventOver); !over || !errors.Is(e.Err, ErrStopped) {
		t.Fatalf("stopped: %v, error %v", over, e.Err)
	}
	if v := w.nodes[0].e.View(hs[0]); v.Size() != 2 {
		t.Errorf("the others' view is %v", v)
	}
	alone := w.add()
	alone.dead = true // nobody hears it
	alone.e.Stop(w.now)
	alone.collect()
	if e, over := alone.event(EventOver); !over || !errors.Is(e.Err, ErrStopped) {
		t.Errorf("a process without a system: over %v, error %v", over, e.Err)
	}
}

// A process that cannot reach the ORACLE any more stops in the end, also in the middle of leaving.
func TestStopWithoutTheOracle(t *testing.T) {
	w, _ := form(t, 3)
	w.drop = func(int, int, []byte) bool { return true }
	x := w.nodes[2]
	x.e.Stop(w.now)
	x.collect()
	w.run(stopFactor*500*time.Millisecond + time.Second)
	if e, over := x.event(EventOver); !over || !errors.Is(e.Err, ErrStopped) {
		t.Errorf("over %v, error %v", over, e.Err)
	}
}
