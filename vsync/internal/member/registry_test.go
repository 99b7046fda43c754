package member

import (
	"bytes"
	"fmt"
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/khamsin-io/khamsin/vsync/core"
	"github.com/khamsin-io/khamsin/vsync/internal/pdu"
)

func addr(i int) core.Address {
	return core.Address{PID: uint32(i), Port: uint16(100 + i), Incarnation: uint64(i)<<40 | uint64(i)}
}

func addrs(list ...int) (out []core.Address) {
	for _, i := range list {
		out = append(out, addr(i))
	}
	return out
}

// tester is what *testing.T and *rapid.T have in common.
type tester interface {
	Fatalf(string, ...any)
	Helper()
}

// twins are two replicas that apply the same commands. One of them is now and then replaced by what its snapshot says.
type twins struct {
	t       tester
	a, b    *Registry
	numbers map[core.Address]uint64
	log     []string
}

func newTwins(t tester) *twins {
	return &twins{t: t, a: NewRegistry(5000, 25), b: NewRegistry(5000, 25), numbers: map[core.Address]uint64{}}
}

// do applies a request of a process, under its next number, at both replicas.
func (w *twins) do(c Command) []Effect {
	w.t.Helper()
	w.numbers[c.By]++
	c.Number = w.numbers[c.By]
	return w.apply(c)
}

func (w *twins) apply(c Command) []Effect {
	w.t.Helper()
	sent, err := DecodeCommand(c.Encode())
	if err != nil {
		w.t.Fatalf("command %+v: %v", c, err)
	}
	w.log = append(w.log, fmt.Sprintf("op %d by %d who %d group %q", c.Op, c.By.PID, c.Who.PID, c.Group))
	one, two := w.a.Apply(&c), w.b.Apply(sent)
	if !bytes.Equal(encode(one), encode(two)) {
		w.t.Fatalf("%v:\none replica says %+v\nthe other %+v", w.log, one, two)
	}
	if !bytes.Equal(w.a.Encode(), w.b.Encode()) {
		w.t.Fatalf("%v: the replicas differ", w.log)
	}
	return one
}

// encode returns effects as bytes: what a process would be told of them.
func encode(list []Effect) []byte {
	var w pdu.Writer
	for _, e := range list {
		w.Byte(byte(e.Kind))
		w.Addresses(append([]core.Address{e.Who, e.By}, e.Members...))
		w.Bool(e.Orderly)
		w.String(e.Reason)
		w.String(e.Group)
		w.Byte(byte(e.Refusal))
		w.Uint(e.Number)
		if e.Propose != nil {
			e.Propose.Append(&w)
		}
		if e.Decision != nil {
			e.Decision.Append(&w)
		}
	}
	return w.B
}

// restore replaces the second replica by what a snapshot of the first says.
func (w *twins) restore() {
	w.t.Helper()
	r, err := DecodeRegistry(w.a.Encode())
	if err != nil {
		w.t.Fatalf("%v: snapshot: %v", w.log, err)
	}
	w.b = r
}

// add takes processes into the system.
func (w *twins) add(list ...int) {
	w.t.Helper()
	for _, i := range list {
		w.do(Command{Op: opAdd, By: addr(i), Who: addr(i), Eligible: i%2 == 0})
	}
}

// form makes a group of these processes in one view.
func (w *twins) form(name string, list ...int) {
	w.t.Helper()
	w.add(list...)
	for _, i := range list {
		w.do(Command{Op: opJoin, By: addr(i), Group: name})
	}
	w.apply(Command{Op: opGather, Group: name})
	if got := w.a.byName[name].current.View.Members; !slices.Equal(got, addrs(list...)) {
		w.t.Fatalf("formed %v of %v", got, list)
	}
}

// commit has the pending proposal of a group committed by its coordinator.
func (w *twins) commit(name string) []Effect {
	w.t.Helper()
	p := w.a.byName[name].pending
	if p == nil {
		w.t.Fatalf("%v: nothing is proposed", w.log)
	}
	return w.do(Command{Op: opCommit, By: p.Coordinator, Decision: decisionFor(p)})
}

func decisionFor(p *pdu.Propose) *pdu.Decision {
	d := &pdu.Decision{Name: p.Base.Name, View: p.Next, Cut: make([]core.Seq, p.Base.View.Size())}
	if p.Next.Size() > 0 {
		d.Source, d.Stateless = p.Next.Members[0], p.Next.Joined
	}
	return d
}

// said returns the effects of one kind.
func said(list []Effect, k EffectKind) (out []Effect) {
	for _, e := range list {
		if e.Kind == k {
			out = append(out, e)
		}
	}
	return out
}

// check is what holds of a registry after every command.
func (w *twins) check() {
	w.t.Helper()
	r := w.a
	for _, g := range r.groups {
		for _, a := range g.joining {
			if !r.Alive(a) {
				w.t.Fatalf("%v: %d, who is gone, waits to join", w.log, a.PID)
			}
		}
		if g.current == nil {
			if g.pending != nil || len(g.leaving) > 0 || len(g.debts) > 0 {
				w.t.Fatalf("%v: a group without members has %+v", w.log, g)
			}
			continue
		}
		v := g.current.View
		if v.Size() == 0 || v.ID > g.lastView {
			w.t.Fatalf("%v: %v is current, the last number was %d", w.log, v, g.lastView)
		}
		dead := slices.ContainsFunc(v.Members, func(a core.Address) bool { return !r.Alive(a) })
		if dead && g.pending == nil {
			w.t.Fatalf("%v: %v has members that are gone, and nothing is proposed", w.log, v)
		}
		if p := g.pending; p != nil {
			w.checkProposal(g, p)
		}
	}
}

func (w *twins) checkProposal(g *group, p *pdu.Propose) {
	w.t.Helper()
	switch {
	case p.Base.View.ID != g.current.View.ID || !slices.Equal(p.Base.View.Members, g.current.View.Members):
		w.t.Fatalf("%v: proposed behind %v, current is %v", w.log, p.Base.View, g.current.View)
	case p.Next.ID != g.lastView || p.Next.ID <= p.Base.View.ID:
		w.t.Fatalf("%v: proposed %v behind %v, last number %d", w.log, p.Next, p.Base.View, g.lastView)
	case !slices.Contains(p.Flushers, p.Coordinator):
		w.t.Fatalf("%v: the coordinator %v is no flusher of %v", w.log, p.Coordinator, p.Flushers)
	}
	at := -1
	for _, a := range p.Flushers {
		if i := slices.Index(p.Base.View.Members, a); i <= at || !w.a.Alive(a) {
			w.t.Fatalf("%v: flushers %v of %v", w.log, p.Flushers, p.Base.View)
		} else {
			at = i
		}
	}
	for _, a := range p.Base.View.Members {
		if w.a.Alive(a) != slices.Contains(p.Flushers, a) || !w.a.Alive(a) && p.Next.Contains(a) {
			w.t.Fatalf("%v: %d is alive: %v; flushers %v, next %v", w.log, a.PID, w.a.Alive(a), p.Flushers, p.Next)
		}
	}
}

// step applies one command made of a few bytes, most of which mean something.
func (w *twins) step(op, who, other, group byte) {
	w.t.Helper()
	name := string('a' + rune(group%2))
	by := addr(int(who%5) + 1)
	switch op % 12 {
	case 0, 1:
		w.do(Command{Op: opAdd, By: by, Who: by, Eligible: other%2 == 0})
	case 2:
		w.do(Command{Op: opRemove, By: by, Who: addr(int(other%5) + 1), Orderly: other%2 == 0, Reason: "silent"})
	case 3, 4:
		w.do(Command{Op: opJoin, By: by, Group: name, Create: other%4 == 0, Signature: uint64(other % 8 / 7),
			Own: other%3 == 0})
	case 5:
		w.do(Command{Op: opLeave, By: by, Group: name, Through: core.ViewID(other)})
	case 6:
		if other%4 == 0 {
			w.do(Command{Op: opTerminate, By: by, Group: name})
		}
	case 7:
		w.apply(Command{Op: opGather, By: by, Group: name})
	case 8:
		w.restore()
	case 9:
		if n := w.numbers[by]; n > 0 { // asks again
			w.apply(Command{Op: opJoin, By: by, Group: name, Number: n - uint64(other)%n})
		}
	default:
		g := w.a.byName[name]
		if g == nil || g.pending == nil {
			return
		}
		p := g.pending
		if leaving := g.leaving; op%12 == 11 && len(leaving) > 0 && other%2 == 0 {
			late := core.ViewID(other % 8 / 7)
			w.do(Command{Op: opKeep, By: p.Coordinator, Group: name, Who: leaving[0], Through: p.Next.ID - late})
			return
		}
		before, lived := g.current, w.a.Alive(p.Coordinator)
		out := w.commit(name)
		if d := said(out, EffectDecided); lived && (len(d) == 0 || d[0].Decision.Prev != before.View.ID ||
			d[0].Decision.View.ID <= before.View.ID) {
			w.t.Fatalf("%v: committed behind %v: %+v", w.log, before.View, out)
		}
	}
}

// Replicas that apply the same commands stay equal, say the same, and equal what their snapshots say; and the chain of
// views is sound, whatever comes.
func TestReplicasStayEqual(t *testing.T) {
	// rows: VIEW-03, VIEW-13, VIEW-24, GRP-02, FD-14
	rapid.Check(t, func(t *rapid.T) {
		w := newTwins(t)
		for range rapid.IntRange(0, 80).Draw(t, "steps") {
			b := rapid.SliceOfN(rapid.Byte(), 4, 4).Draw(t, "step")
			w.step(b[0], b[1], b[2], b[3])
			w.check()
		}
		w.restore()
	})
}

// FuzzRegistry is the same under arbitrary sequences of commands.
func FuzzRegistry(f *testing.F) {
	f.Add([]byte{0, 1, 0, 0, 0, 2, 0, 0, 3, 1, 1, 0, 3, 2, 1, 0, 7, 0, 0, 0, 2, 1, 1, 0, 10, 0, 0, 0, 8, 0, 0, 0})
	f.Add([]byte{0, 1, 0, 0, 3, 1, 1, 0, 7, 0, 0, 0, 5, 1, 0, 0, 3, 2, 1, 0, 0, 2, 0, 0, 3, 2, 1, 0, 11, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		w := newTwins(t)
		for ; len(b) >= 4; b = b[4:] {
			w.step(b[0], b[1], b[2], b[3])
			w.check()
		}
		w.restore()
	})
}

// FuzzDecodeRegistry reads anything as a snapshot.
func FuzzDecodeRegistry(f *testing.F) {
	w := newTwins(f)
	f.Add(w.a.Encode())
	w.form("g", 1, 2, 3)
	f.Add(w.a.Encode())
	w.do(Command{Op: opRemove, By: addr(1), Who: addr(2), Reason: "silent"})
	f.Add(w.a.Encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := DecodeRegistry(b)
		if err != nil {
			return
		}
		again, err := DecodeRegistry(r.Encode())
		if err != nil || !bytes.Equal(again.Encode(), r.Encode()) {
			t.Fatalf("%x became %x, error %v", r.Encode(), again.Encode(), err)
		}
		r.Outstanding()
		r.Apply(&Command{Op: opRemove, Who: core.Address{}})
	})
}

func drawCommand(t *rapid.T) Command {
	c := Command{
		Op: Op(rapid.IntRange(int(opAdd), int(ops)-1).Draw(t, "op")), By: addr(rapid.IntRange(0, 9).Draw(t, "by")),
		Number: rapid.Uint64().Draw(t, "number"),
	}
	switch c.Op {
	case opAdd, opRemove:
		c.Who, c.Reason = addr(rapid.IntRange(0, 9).Draw(t, "who")), rapid.String().Draw(t, "reason")
		c.Eligible, c.Orderly = rapid.Bool().Draw(t, "eligible"), rapid.Bool().Draw(t, "orderly")
	case opKeep:
		c.Group, c.Who = rapid.String().Draw(t, "group"), addr(3)
		c.Through = core.ViewID(rapid.Uint64().Draw(t, "view"))
	case opCommit:
		c.Decision = &pdu.Decision{Name: rapid.String().Draw(t, "group"), Cut: []core.Seq{1, 2},
			View: &core.View{ID: 3, Members: addrs(1, 2)}}
	default:
		c.Group, c.Create = rapid.String().Draw(t, "group"), rapid.Bool().Draw(t, "create")
		c.Handlers = rapid.String().Draw(t, "handlers")
		c.Signature, c.SafeCopies = rapid.Uint64().Draw(t, "signature"), rapid.IntRange(-1, 9).Draw(t, "copies")
		c.Through, c.Own = core.ViewID(rapid.Uint64().Draw(t, "through")), rapid.Bool().Draw(t, "own")
	}
	return c
}

func TestCommandRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := drawCommand(t)
		b := want.Encode()
		got, err := DecodeCommand(b)
		if err != nil || !reflect.DeepEqual(*got, want) {
			t.Fatalf("%+v became %+v, error %v", want, got, err)
		}
		for n := range b {
			if _, err := DecodeCommand(b[:n]); err == nil {
				t.Fatalf("%+v cut off after %d of %d bytes is accepted", want, n, len(b))
			}
		}
		b[0] = 0
		if _, err := DecodeCommand(b); err == nil {
			t.Fatal("a command without an operation is accepted")
		}
	})
}

// FuzzCommand reads anything as a command.
func FuzzCommand(f *testing.F) {
	for op := opNone; op <= ops; op++ {
		c := Command{Op: op, By: addr(1), Group: "g", Decision: &pdu.Decision{View: &core.View{}}}
		f.Add(c.Encode())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := DecodeCommand(b)
		if err != nil {
			return
		}
		again, err := DecodeCommand(c.Encode())
		if err != nil || !reflect.DeepEqual(c, again) {
			t.Fatalf("%+v became %+v, error %v", c, again, err)
		}
		w := newTwins(t)
		w.form("g", 1, 2)
		w.apply(*c)
	})
}
