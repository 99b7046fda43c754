package member

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/khamsin-io/khamsin/vsync/core"
	"github.com/khamsin-io/khamsin/vsync/internal/pdu"
)

func TestFounding(t *testing.T) {
	for _, c := range []struct {
		name   string
		start  []func(*Config) // started at once
		system int             // how many systems there are in the end
		oracle []int
	}{
		{"alone", []func(*Config){nil}, 1, []int{0}},
		{"two at once", []func(*Config){nil, nil}, 1, []int{0}},
		{"five at once", []func(*Config){nil, nil, nil, nil, nil}, 1, []int{0, 1, 2}},
		{"one may not found", []func(*Config){ineligible, nil}, 1, []int{1}},
		{"one founds at once", []func(*Config){nil, func(c *Config) { c.FastStart = true }}, 1, []int{1}},
		{"of another name", []func(*Config){nil, func(c *Config) { c.System = "other" }}, 2, []int{0}},
		{"nobody may", []func(*Config){ineligible, ineligible}, 0, nil},
	} {
		w := newNet(t)
		for _, edit := range c.start {
			w.start(edit)
		}
		w.run(5 * time.Second)
		systems := map[uint32]bool{}
		for _, x := range w.sites {
			if x.m.Active() {
				systems[x.out.System] = true
			}
			if x.m.Active() != (c.system > 0) {
				t.Errorf("%s: %s", c.name, x.m.Dump())
			}
		}
		if len(systems) != c.system || len(w.leaders()) != c.system {
			t.Errorf("%s: %d systems with the leaders %v", c.name, len(systems), w.leaders())
		}
		if got := w.sites[0].oracle(); !slices.Equal(got, c.oracle) {
			t.Errorf("%s: ORACLE %v, want %v", c.name, got, c.oracle)
		}
	}
}

func ineligible(c *Config) { c.Eligible = false }

// The ORACLE grows to its size, an odd number, and no further.
func TestOracleSize(t *testing.T) {
	for n, want := range []int{1, 1, 3, 3, 3} {
		w := form(t, n+1, nil)
		for _, x := range w.sites {
			if len(x.m.Oracle()) != want {
				t.Errorf("of %d processes: %d in the ORACLE", n+1, len(x.m.Oracle()))
			}
		}
		for _, x := range w.sites {
			q, member := x.m.Quorums(), slices.Contains(x.m.Oracle(), x.self)
			if (q != nil) != member || q != nil && len(q[0]) != want {
				t.Errorf("of %d processes: needs %v", n+1, q)
			}
		}
	}
}

// Two founders that could not hear each other become one system when one of them is alone; else they stay apart and say
// so.
func TestTwoSystemsMeet(t *testing.T) {
	for _, c := range []struct {
		name  string
		sizes [2]int
		join  bool
		want  int
	}{
		{"both alone", [2]int{1, 1}, false, 1}, {"one alone", [2]int{1, 3}, false, 1},
		{"none alone", [2]int{2, 2}, false, 2},
		{"alone with a group", [2]int{1, 2}, true, 2},
	} {
		w := newNet(t)
		var one, other []int
		for i := range c.sizes[0] + c.sizes[1] {
			if i < c.sizes[0] {
				one = append(one, i)
			} else {
				other = append(other, i)
			}
		}
		w.divide(one, other, true)
		for range c.sizes[0] + c.sizes[1] {
			w.start(nil)
			w.run(500 * time.Millisecond)
		}
		if c.join {
			w.sites[0].m.Join(w.now, Command{Group: "g"})
		}
		w.run(2 * time.Second)
		if n := len(w.leaders()); n != 2 {
			t.Fatalf("%s: %d systems before they meet", c.name, n)
		}
		w.divide(one, other, false)
		w.run(10 * time.Second)
		warned := slices.ContainsFunc(w.sites, func(x *site) bool { return x.heard("warning: another system") })
		if n := len(w.leaders()); n != c.want || (c.want == 2) != warned {
			t.Errorf("%s: led by %v in the end, warned %v", c.name, w.leaders(), warned)
		}
	}
}

// When the leader fails another member of the ORACLE leads, the next process is let in, and requests go on.
func TestLeaderFails(t *testing.T) {
	w := form(t, 5, nil)
	lead := w.leaders()[0]
	w.sites[4].m.Join(w.now, Command{Group: "g"})
	w.run(time.Second)
	w.sites[lead].dead = true
	w.sites[3].m.Join(w.now, Command{Group: "g"}) // under way when nobody leads
	w.sites[4].m.Accuse(w.now, addr(lead+1), "silent")
	for _, i := range []int{1, 2} {
		w.sites[i].m.Accuse(w.now, addr(lead+1), "silent")
	}
	w.run(5 * time.Second)
	if got := w.leaders(); len(got) != 1 || got[0] == lead {
		t.Fatalf("led by %v", got)
	}
	for _, x := range w.sites[1:] {
		if got := x.oracle(); len(got) != 3 || slices.Contains(got, lead) {
			t.Errorf("%d was told of the ORACLE %v", x.self.PID, got)
		}
	}
	coordinator := w.sites[4]
	if n := len(coordinator.prop); n == 0 || !coordinator.prop[n-1].Next.Contains(addr(4)) {
		t.Fatalf("the join of %v was not proposed: %+v", addr(4), coordinator.prop)
	}
	coordinator.m.Commit(w.now, decisionFor(coordinator.prop[len(coordinator.prop)-1]))
	w.run(2 * time.Second)
	if d := coordinator.view["g"]; d == nil || d.View.Size() != 2 {
		t.Errorf("decided %+v", d)
	}
}

// A leader that is cut off gives up, and what is left on its side; the majority goes on without them.
func TestMajorityLost(t *testing.T) {
	// rows: FD-16
	w := form(t, 5, nil)
	lead := w.leaders()[0]
	var rest []int
	for i := range 4 {
		if i != lead {
			rest = append(rest, i)
		}
	}
	w.divide([]int{lead, 4}, rest, true)
	w.sites[lead].m.Join(w.now, Command{Group: "g"}) // nothing is decided on the small side
	for _, i := range rest {
		w.sites[i].m.Accuse(w.now, addr(lead+1), "silent")
	}
	w.run(15 * time.Second)
	if got := w.leaders(); len(got) != 1 || got[0] == lead {
		t.Errorf("led by %v", got)
	}
	for _, i := range []int{lead, 4} {
		if x := w.sites[i]; !x.heard("lost") || x.m.Active() || x.view["g"] != nil {
			t.Errorf("%d goes on: %v", i, x.said)
		}
	}
	for _, i := range rest {
		if !w.sites[i].m.Active() {
			t.Errorf("%d on the large side: %v", i, w.sites[i].said)
		}
	}
}

// When partitions are ignored each side goes on, says so, and the sides stay apart when they meet again.
func TestPartitionsIgnored(t *testing.T) {
	// rows: FD-17
	w := form(t, 5, func(c *Config) { c.IgnoreCut = true })
	lead := w.leaders()[0]
	var rest []int
	for i := range 5 {
		if i != lead {
			rest = append(rest, i)
		}
	}
	w.divide([]int{lead}, rest, true)
	for _, i := range rest {
		w.sites[i].m.Accuse(w.now, addr(lead+1), "silent")
	}
	w.run(20 * time.Second)
	for _, i := range rest {
		w.sites[lead].m.Accuse(w.now, addr(i+1), "silent")
	}
	w.run(10 * time.Second)
	if got := w.leaders(); len(got) != 2 || !w.sites[lead].m.Active() || !w.sites[lead].heard("warning: no majority") {
		t.Fatalf("led by %v; the cut-off leader said %v", got, w.sites[lead].said)
	}
	if w.sites[lead].m.Part() == w.sites[rest[0]].m.Part() {
		t.Errorf("both sides are part %d", w.sites[lead].m.Part())
	}
	w.divide([]int{lead}, rest, false)
	w.run(10 * time.Second)
	if got := w.leaders(); len(got) != 2 {
		t.Errorf("led by %v when whole again", got)
	}
}

func TestAccusations(t *testing.T) {
	// rows: FD-10
	t.Run("a member of the ORACLE reads it in the log", func(t *testing.T) {
		w := form(t, 5, nil)
		victim := (w.leaders()[0] + 1) % 3
		w.sites[4].m.Accuse(w.now, addr(victim+1), "for fun")
		w.sites[4].m.Accuse(w.now, addr(victim+1), "twice")
		w.run(5 * time.Second)
		if x := w.sites[victim]; !x.heard("removed by 5: for fun") || x.m.Active() {
			t.Errorf("the accused was told %v", x.said)
		}
		for i, x := range w.sites[:3] { // the ORACLE before
			if i != victim && !slices.Contains(x.gone, addr(victim+1)) {
				t.Errorf("%d keeps its lanes with the accused", i)
			}
		}
	})
	t.Run("the only member of the ORACLE is not removed", func(t *testing.T) {
		w := form(t, 2, nil)
		lead := w.leaders()[0]
		w.sites[1-lead].m.Accuse(w.now, addr(lead+1), "slow")
		w.run(3 * time.Second)
		if !w.sites[lead].heard("warning: ") || !w.sites[lead].m.Active() || len(w.sites[1-lead].m.pending) != 0 {
			t.Errorf("the accused said %v; %s", w.sites[lead].said, w.sites[1-lead].m.Dump())
		}
	})
	t.Run("the leader, accused by one of the ORACLE, is replaced before the others miss it", func(t *testing.T) {
		w := form(t, 6, func(c *Config) { c.Size = 5 })
		lead := w.leaders()[0]
		w.sites[lead].dead = true
		w.sites[(lead+1)%5].m.Accuse(w.now, addr(lead+1), "closed")
		w.run(w.config(0).Heartbeat)
		if got := w.leaders(); len(got) != 1 || got[0] == lead {
			t.Fatalf("led by %v after %d", got, lead)
		}
		reg := w.sites[w.leaders()[0]].m.cons.Registry
		why := reg.charge(addr(lead + 1))
		if reg.Alive(addr(lead+1)) || !strings.HasPrefix(why.Reason, "closed") {
			t.Errorf("the former leader is charged with %+v", why)
		}
	})
	t.Run("a hint of a process that was removed counts for nothing", func(t *testing.T) {
		w := form(t, 5, nil)
		w.sites[0].m.Accuse(w.now, addr(5), "gone")
		w.run(time.Second)
		lead := w.leaders()[0]
		hint := Command{Op: opRemove, By: addr(5), Who: addr(lead + 1), Reason: "revenge"}
		for _, x := range w.sites[:4] {
			x.m.OnMessage(w.now, 5, pdu.TypeRequest, hint.Encode())
		}
		w.run(3 * time.Second)
		if got := w.leaders(); !slices.Equal(got, []int{lead}) {
			t.Errorf("led by %v, was led by %d", got, lead)
		}
	})
	t.Run("nobody accuses itself", func(t *testing.T) {
		w := form(t, 1, nil)
		w.sites[0].m.Accuse(w.now, addr(1), "me")
		w.run(time.Second)
		if len(w.sites[0].m.accused) != 0 {
			t.Error("accused")
		}
	})
}

// Refusals, and the end of a membership, reach who asked.
func TestRefusals(t *testing.T) {
	// rows: GRP-11
	w := form(t, 2, nil)
	a, b := w.sites[0], w.sites[1]
	a.m.Join(w.now, Command{Group: "g", Signature: 1})
	w.run(time.Second)
	b.m.Join(w.now, Command{Group: "g", Create: true, Handle: 7})
	b.m.Join(w.now, Command{Group: "g", Signature: 2, Handle: 8})
	b.m.Join(w.now, Command{Group: "g", Signature: 1, Handle: 9})
	b.m.Leave(w.now, Command{Group: "g", Handle: 9})
	b.m.Leave(w.now, Command{Group: "never joined", Handle: 10})
	w.run(time.Second)
	for _, want := range []string{"refused 7 1", "refused 8 2", "refused 9 0", "refused 10 0"} {
		if !b.heard(want) {
			t.Errorf("was told %v, not %q", b.said, want)
		}
	}
	a.m.Terminate(w.now, "g")
	w.run(time.Second)
	if n := len(a.prop); n == 0 || a.prop[n-1].Next.Size() != 0 {
		t.Errorf("proposed %+v", a.prop)
	}
}

// A process that leaves in order is missed by nobody, also the ORACLE's leader; the last one just goes.
func TestDepart(t *testing.T) {
	w := form(t, 4, nil)
	for n := 4; n > 0; n-- {
		leaver := w.leaders()[0]
		x := w.sites[leaver]
		x.m.Depart(w.now)
		w.run(10 * time.Second)
		if !x.heard("stopped") || x.m.Active() {
			t.Fatalf("leader %d of %d does not get away: %s %v", leaver, n, x.m.Dump(), x.said)
		}
		x.dead = true
		if got := w.leaders(); n > 1 && len(got) != 1 {
			t.Fatalf("led by %v when %d are left", got, n-1)
		}
		for _, y := range w.sites {
			if !y.dead && (!y.m.Active() || y.heard("lost") || y.heard("removed")) {
				t.Fatalf("%d when %d are left: %v", y.self.PID, n-1, y.said)
			}
		}
	}
	fresh := newNet(t)
	x := fresh.start(nil)
	x.m.Depart(fresh.now)
	if !x.heard("stopped") {
		t.Error("a process without a system does not stop at once")
	}
}

// Everyone watches two others and is watched by two, in a ring.
func TestWatchers(t *testing.T) {
	// rows: FD-01
	w := form(t, 5, nil)
	for _, x := range w.sites {
		if !x.heard("watches 2, watched by 2") {
			t.Errorf("%d was told %v", x.self.PID, x.said)
		}
	}
}

// What no process sends changes nothing.
func TestMalformedMessages(t *testing.T) {
	w := form(t, 3, nil)
	x := w.sites[0]
	before := x.m.Dump()
	for kind := pdu.TypeNone; kind < 20; kind++ {
		for _, body := range [][]byte{nil, {0xff}, {1, 2, 3}, bytes.Repeat([]byte{0x81}, 40)} {
			x.m.OnMessage(w.now, addr(2).Incarnation, kind, body)
		}
	}
	for _, body := range [][]byte{nil, {9}, bytes.Repeat([]byte{1}, 60)} {
		x.m.OnBeacon(w.now, x.out.System, body)
	}
	x.m.handle(w.now, pdu.TypeWelcome, &pdu.Welcome{System: x.out.System})
	x.m.handle(w.now, pdu.TypeWelcome, &pdu.Welcome{System: 1, Oracle: addrs(9)})
	x.m.handle(w.now, pdu.TypeDone, &pdu.Done{Number: 99})
	w.run(time.Second)
	if after := x.m.Dump(); after != before || len(x.said) == 0 {
		t.Errorf("%s became %s", before, after)
	}
}

// Nobody speaks in the name of an ORACLE member to another.
func TestForgedConsensus(t *testing.T) {
	w := form(t, 4, nil)
	lead := w.leaders()[0]
	victim := w.sites[(lead+1)%3]
	far, before := uint64(1<<40), victim.m.Dump()
	forged := &raftpb.Message{
		Type: raftpb.MsgHeartbeat.Enum(), From: &w.sites[lead].self.Incarnation, To: &victim.self.Incarnation,
		Term: &far, Commit: &far,
	}
	data, err := proto.Marshal(forged)
	if err != nil {
		t.Fatal(err)
	}
	victim.m.OnMessage(w.now, w.sites[3].self.Incarnation, pdu.TypeConsensus, data)
	w.run(time.Second)
	if after := victim.m.Dump(); after != before || len(w.leaders()) != 1 || w.leaders()[0] != lead {
		t.Errorf("%s became %s", before, after)
	}
}

// A replica that gets a snapshot instead of the log knows what the others know.
func TestSnapshotForAReplica(t *testing.T) {
	w := form(t, 5, nil)
	lead := w.sites[w.leaders()[0]]
	for i := range compactAfter + 10 {
		c := Command{Op: opGather, By: addr(1), Group: "none"}
		if i%1000 == 0 {
			c = Command{Op: opAdd, By: addr(1), Who: core.Address{PID: 7, Incarnation: uint64(i)<<40 | 7}}
		}
		lead.m.cons.Propose(&c)
		lead.m.settle(w.now)
		if i%100 == 0 {
			w.pump()
		}
	}
	w.run(time.Second)
	gone := (w.leaders()[0] + 1) % 3
	w.sites[gone].dead = true
	lead.m.Accuse(w.now, addr(gone+1), "silent")
	w.run(10 * time.Second)
	want := lead.m.cons.Registry.Encode()
	replicas := 0
	for _, x := range w.sites {
		if x.m.cons != nil && !x.dead {
			replicas++
			if !bytes.Equal(x.m.cons.Registry.Encode(), want) {
				t.Errorf("%d has another registry: %s", x.self.PID, x.m.Dump())
			}
		}
	}
	if replicas < 3 || len(lead.m.Oracle()) != 3 {
		t.Errorf("%d replicas, ORACLE %v", replicas, lead.oracle())
	}
}

// FuzzMachine lets anything arrive at a member of the ORACLE, its leader or another, and checks that the system still
// works. What members of the ORACLE say in the log's own language is left out: they are believed.
func FuzzMachine(f *testing.F) {
	welcome := pdu.Encode(pdu.TypeWelcome, &pdu.Welcome{System: 1, Oracle: addrs(9)})
	join := Command{Op: opJoin, By: addr(3), Number: 7, Group: "g"}
	f.Add(byte(0), welcome)
	f.Add(byte(1), append([]byte{byte(pdu.TypeRequest)}, join.Encode()...))
	f.Add(byte(2), []byte{byte(pdu.TypeConsensus), 1, 2, 3})
	f.Add(byte(3), []byte{0, 1, 4, 't', 'e', 's', 't'})
	f.Fuzz(func(t *testing.T, which byte, b []byte) {
		w := form(t, 4, nil)
		x := w.sites[which%4]
		if len(b) == 0 {
			return
		}
		if b[0]%16 == 0 {
			x.m.OnBeacon(w.now, x.out.System, b[1:])
		} else if kind := pdu.Type(b[0] % 16); kind == pdu.TypeConsensus {
			x.m.OnMessage(w.now, 99, kind, b[1:])
		} else {
			x.m.OnMessage(w.now, addr(2).Incarnation, kind, b[1:])
		}
		x.drain()
		w.run(100 * time.Millisecond)
		if got := w.leaders(); len(got) > 1 {
			t.Fatalf("led by %v", got)
		}
	})
}
