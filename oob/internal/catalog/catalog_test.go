package catalog

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/khamsin-io/khamsin/vsync/core"
)

func address(n int) core.Address {
	return core.Address{PID: uint32(n), Port: 1, AckPort: 2, Incarnation: uint64(n)}
}

func addresses(numbers ...int) []core.Address {
	var list []core.Address
	for _, n := range numbers {
		list = append(list, address(n))
	}
	return list
}

func hello(cast bool) Command {
	return Command{Kind: KindHello, Hello: Member{
		IP: netip.MustParseAddr("10.0.0.1"), TCP: 6, Unit: 1408, Cast: cast,
	}}
}

// started returns a catalogue of members 1 to n that have said hello.
func started(n, limit int) *Catalog {
	c := New(limit)
	var all []int
	for i := range n {
		all = append(all, i+1)
	}
	c.View(addresses(all...))
	for _, a := range all {
		c.Apply(address(a), []Command{hello(true)})
	}
	return c
}

func register(name string, size uint64) Command {
	return Command{Kind: KindRegister, Name: name, Size: size, Digest: Digest{1}}
}

func replicate(request uint64, name string, to ...int) Command {
	return Command{Kind: KindReplicate, Name: name, Request: request, List: addresses(to...)}
}

func have(transfer uint64) Command { return Command{Kind: KindHave, Transfer: transfer} }

// arrive makes all targets of all running transfers get what they wait for.
func arrive(c *Catalog) {
	type got struct {
		who      core.Address
		transfer uint64
	}
	var all []got
	for _, t := range c.Transfers() {
		for _, a := range t.Targets {
			all = append(all, got{a, t.ID})
		}
	}
	for _, g := range all {
		c.Apply(g.who, []Command{have(g.transfer)})
	}
}

func kinds(list []Outcome) (out []OutcomeKind) {
	for _, o := range list {
		out = append(out, o.Kind)
	}
	return out
}

func wantKinds(t *testing.T, what string, c *Catalog, want ...OutcomeKind) []Outcome {
	t.Helper()
	got := c.Take()
	if !slices.Equal(kinds(got), want) {
		t.Errorf("%s: outcomes %+v, want kinds %v", what, got, want)
	}
	return got
}

// rows: OOB-06, OOB-07, OOB-08, OOB-09, OOB-10, OOB-11, OOB-26
func TestPattern(t *testing.T) {
	c := started(4, 4)
	c.Apply(address(1), []Command{register("f", 100)})
	wantKinds(t, "register", c, Registered)
	if len(c.Transfers()) != 0 {
		t.Error("registering started a transfer")
	}
	c.Apply(address(2), []Command{replicate(7, "f", 1, 2)})
	wantKinds(t, "replicate", c)
	tr := c.Transfers()
	if len(tr) != 1 || tr[0].Source != address(1) || !slices.Equal(tr[0].Targets, addresses(2)) || !tr[0].Cast {
		t.Fatalf("transfers %+v", tr)
	}
	arrive(c)
	if got := wantKinds(t, "arrival", c, Arrived, Reached); got[1].Request != 7 || got[1].Asker != address(2) {
		t.Errorf("outcome %+v", got[1])
	}
	c.Apply(address(1), []Command{replicate(8, "f", 3, 4)})
	wantKinds(t, "a move in one call", c, LastCopy)
	c.Apply(address(1), []Command{replicate(9, "f", 1, 2, 3, 4)})
	arrive(c)
	wantKinds(t, "copy first", c, Arrived, Arrived, Reached)
	c.Apply(address(1), []Command{replicate(10, "f", 3, 4)})
	wantKinds(t, "then delete, at once", c, Dropped, Dropped, Reached)
	if h := c.Object("f").Holders; !slices.Equal(h, addresses(3, 4)) {
		t.Errorf("holders %v", h)
	}
	c.Apply(address(1), []Command{replicate(11, "f", 3, 1)})
	wantKinds(t, "deletion before the copy is complete", c, Dropped)
	arrive(c)
	wantKinds(t, "then the copy", c, Arrived, Reached)
	c.Apply(address(1), []Command{replicate(12, "f")})
	wantKinds(t, "delete", c, Reached, Removed)
	c.Apply(address(1), []Command{replicate(13, "f", 1)})
	wantKinds(t, "unknown", c, Unknown)
}

// A later request decides; the one before it is told; what is under way for both goes on.
//
// rows: OOB-32
func TestSupersession(t *testing.T) {
	c := started(4, 4)
	c.Apply(address(1), []Command{register("f", 100), replicate(1, "f", 1, 2, 3)})
	id := c.Transfers()[0].ID
	c.Apply(address(1), []Command{replicate(2, "f", 1, 3, 4)})
	if got := wantKinds(t, "second request", c, Registered, Superseded); got[1].Request != 1 {
		t.Errorf("outcome %+v", got[1])
	}
	tr := c.Transfers()
	if len(tr) != 2 || tr[0].ID != id || !slices.Equal(tr[0].Targets, addresses(3)) ||
		!slices.Equal(tr[1].Targets, addresses(4)) || tr[0].Slot == tr[1].Slot {
		t.Errorf("transfers %+v %+v", tr[0], tr[1])
	}
	c.Apply(address(2), []Command{have(tr[0].ID)})
	wantKinds(t, "a copy that nobody wants any more", c)
	arrive(c)
	wantKinds(t, "arrivals", c, Arrived, Arrived, Reached)
}

// A target says that it has everything; before that has its place in the order it is told to give the copy up, and then
// to get one again. It has none, whatever it said, until the new transfer has brought it.
func TestOldNews(t *testing.T) {
	c := started(3, 4)
	c.Apply(address(1), []Command{register("f", 100), replicate(1, "f", 1, 2)})
	old := c.Transfers()[0].ID
	c.Apply(address(1), []Command{replicate(2, "f", 1, 3)})
	c.Apply(address(1), []Command{replicate(3, "f", 1, 2)})
	c.Take()
	c.Apply(address(2), []Command{have(old), {Kind: KindCannot, Transfer: old}})
	wantKinds(t, "news of the old transfer", c)
	tr := c.Transfers()
	if h := c.Object("f").Holders; len(tr) != 1 || tr[0].ID == old || !slices.Equal(h, addresses(1)) {
		t.Fatalf("transfers %+v, holders %v", tr, h)
	}
	id := tr[0].ID
	arrive(c)
	if got := wantKinds(t, "news of the new one", c, Arrived, Reached); len(got) > 0 && got[0].Transfer != id {
		t.Errorf("outcome %+v", got[0])
	}
}

// rows: OOB-31, OOB-42
func TestSourceDies(t *testing.T) {
	c := started(4, 1)
	c.Apply(address(1), []Command{register("f", 100), replicate(1, "f", 1, 2)})
	arrive(c)
	c.Apply(address(1), []Command{replicate(2, "f", 1, 2, 3, 4)})
	if s := c.Transfers()[0].Source; s != address(1) {
		t.Fatalf("source %v", s)
	}
	c.Take()
	c.View(addresses(2, 3, 4))
	c.Settle()
	tr := c.Transfers()
	if len(tr) != 1 || tr[0].Source != address(2) || !slices.Equal(tr[0].Targets, addresses(3, 4)) {
		t.Fatalf("transfers %+v", tr)
	}
	wantKinds(t, "another holder takes over", c)
	c.View(addresses(3, 4))
	c.Settle()
	if got := wantKinds(t, "no holder is left", c, Lost, Lost); got[0].Request != 2 {
		t.Errorf("outcome %+v", got[0])
	}
	if c.Object("f") != nil || len(c.Transfers()) != 0 {
		t.Error("the object is still there")
	}
}

// A holder that changed its bytes is the only source of copies; what others have stays.
//
// rows: OOB-21
func TestUpdate(t *testing.T) {
	c := started(4, 4)
	c.Apply(address(1), []Command{register("f", 100), replicate(1, "f", 1, 2)})
	arrive(c)
	c.Take()
	c.Apply(address(2), []Command{{Kind: KindUpdate, Name: "f", Digest: Digest{9}}, replicate(2, "f", 1, 2, 3)})
	tr := c.Transfers()
	if len(tr) != 1 || tr[0].Source != address(2) || !slices.Equal(tr[0].Targets, addresses(3)) {
		t.Fatalf("transfers %+v", tr)
	}
	wantKinds(t, "update", c, Changed)
	c.Apply(address(1), []Command{{Kind: KindUpdate, Name: "f", Digest: Digest{9}}, replicate(3, "f", 1, 2, 3, 4)})
	if s := c.Object("f").Stale; len(s) != 0 {
		t.Errorf("the same change at two holders leaves %v behind", s)
	}
	c.Apply(address(1), []Command{{Kind: KindUpdate, Name: "f", Digest: Digest{8}}})
	c.Take()
	c.View(addresses(2, 3, 4))
	c.Settle()
	if got := wantKinds(t, "nobody has the bytes any more", c, Reached); len(got) == 1 && len(got[0].Failed) != 2 {
		t.Errorf("outcome %+v", got)
	}
	if o := c.Object("f"); !slices.Equal(o.Holders, addresses(2)) || len(c.Transfers()) != 0 {
		t.Errorf("object %+v", o)
	}
	c.Apply(address(3), []Command{replicate(4, "f", 2, 3)})
	if got := wantKinds(t, "copies of bytes that are lost", c, Lost); got[0].Request != 4 {
		t.Errorf("outcome %+v", got)
	}
	c.Apply(address(2), []Command{{Kind: KindUpdate, Name: "f", Digest: Digest{7}}, replicate(5, "f", 2, 3)})
	arrive(c)
	wantKinds(t, "new bytes", c, Changed, Arrived, Reached)
	c.Apply(address(2), []Command{{Kind: KindUpdate, Name: "f", Digest: Digest{6}}, replicate(6, "f", 3, 4)})
	wantKinds(t, "the only holder of the latest bytes is left out", c, Changed, LastCopy)
}

// Small objects that go the same way share a transfer, and no more transfers run than may.
//
// rows: OOB-14
func TestLimitAndBundles(t *testing.T) {
	c := started(3, 2)
	var commands []Command
	for i := range 20 {
		commands = append(commands, register(fmt.Sprint("big", i), 4<<20), register(fmt.Sprint("small", i), 1000))
	}
	for i := range 20 {
		commands = append(commands, replicate(uint64(i+1), fmt.Sprint("big", i), 1, 2, 3))
	}
	for i := range 20 {
		commands = append(commands, replicate(uint64(i+21), fmt.Sprint("small", i), 1, 2, 3))
	}
	c.Apply(address(1), commands)
	rounds := 0
	for ; len(c.Transfers()) > 0; rounds++ {
		if n := len(c.Transfers()); n > 2 {
			t.Fatalf("%d transfers at once", n)
		}
		arrive(c)
	}
	if rounds > 11 {
		t.Errorf("%d rounds for 20 big objects, two at a time, and one bundle", rounds)
	}
	for _, o := range c.Objects() {
		if len(o.Holders) != 3 || !o.Settled {
			t.Errorf("%+v", o)
		}
	}
}

// The same content may be registered twice, another one not.
func TestRegisterTwice(t *testing.T) {
	c := started(2, 1)
	c.Apply(address(1), []Command{register("f", 100)})
	c.Apply(address(2), []Command{register("f", 100)})
	wantKinds(t, "the same content", c, Registered, Registered)
	c.Apply(address(2), []Command{register("f", 101)})
	wantKinds(t, "another content", c, Refused)
}

// A target that cannot take its copy is named, and does not hold up the others.
func TestTargetCannot(t *testing.T) {
	c := started(3, 1)
	c.Apply(address(1), []Command{register("f", 100), replicate(1, "f", 1, 2, 3)})
	c.Take()
	id := c.Transfers()[0].ID
	c.Apply(address(3), []Command{{Kind: KindCannot, Transfer: id}})
	got := wantKinds(t, "cannot", c, Reached)
	if len(got) != 1 || !slices.Equal(got[0].Failed, addresses(3)) {
		t.Errorf("outcomes %+v", got)
	}
	if tr := c.Transfers(); len(tr) != 1 || !slices.Equal(tr[0].Targets, addresses(2)) {
		t.Errorf("transfers %+v", tr)
	}
}

func TestUpstream(t *testing.T) {
	c := started(4, 1)
	c.Apply(address(1), []Command{register("f", 100), replicate(1, "f", 1, 2, 3, 4)})
	tr := c.Transfers()[0]
	for i := 2; i <= 4; i++ {
		if up := c.Upstream(tr, address(i)); up != address(i-1) {
			t.Errorf("%d gets it from %v", i, up)
		}
	}
	c.Apply(address(2), []Command{have(tr.ID)})
	if up := c.Upstream(tr, address(3)); up != address(2) {
		t.Errorf("a complete link is left out: %v", up)
	}
	c.View(addresses(1, 3, 4))
	c.Settle()
	tr = c.Transfers()[0]
	if up := c.Upstream(tr, address(3)); up != address(1) {
		t.Errorf("past a dead link: %v", up)
	}
}

func check(t *testing.T, seed uint64, c *Catalog, limit int) {
	t.Helper()
	if len(c.transfers) > limit {
		t.Fatalf("seed %d: %d transfers", seed, len(c.transfers))
	}
	slots := map[int]bool{}
	for _, tr := range c.transfers {
		if slots[tr.Slot] || tr.Slot >= limit || len(tr.Targets) == 0 {
			t.Fatalf("seed %d: transfer %+v", seed, tr)
		}
		slots[tr.Slot] = true
		for _, a := range tr.Targets {
			if c.Member(a) == nil {
				t.Fatalf("seed %d: transfer to a process that is gone", seed)
			}
		}
	}
	for _, o := range c.objects {
		if len(o.Holders) == 0 {
			t.Fatalf("seed %d: nobody holds %+v", seed, o)
		}
		for _, a := range o.Wanted {
			n := 0
			for _, tr := range o.carriers {
				if slices.Contains(tr.Targets, a) && !slices.Contains(o.Holders, a) {
					n++
				}
			}
			if n > 1 {
				t.Fatalf("seed %d: two transfers bring %s to %v", seed, o.Name, a)
			}
		}
	}
}

func TestCommandsTravel(t *testing.T) {
	all := []Command{
		hello(false), register("a name", 1<<40), replicate(9, "x", 1, 2), replicate(10, "y"),
		have(1 << 40), {Kind: KindCannot, Transfer: 3},
	}
	var b []byte
	for i := range all {
		b = all[i].Append(b)
	}
	got, err := Decode(b)
	if err != nil || fmt.Sprint(got) != fmt.Sprint(all) {
		t.Errorf("%v %v", got, err)
	}
	for n := range len(b) {
		if _, err := Decode(b[:n]); err != nil && !errors.Is(err, ErrMalformed) {
			t.Errorf("cut at %d: %v", n, err)
		}
	}
}

// Where everybody's memory can be written into, big objects go along the chain; small ones, and those that reach a
// member whose memory cannot, go by multicast as before.
func TestSided(t *testing.T) {
	greet := func(sided bool) Command {
		k := hello(true)
		k.Hello.Sided = sided
		return k
	}
	for _, tc := range []struct {
		size uint64
		last bool // the last member can
		cast bool
	}{{bundleObject + 1, true, false}, {bundleObject, true, true}, {bundleObject + 1, false, true}} {
		c := New(4)
		c.View(addresses(1, 2, 3))
		for i := 1; i <= 3; i++ {
			c.Apply(address(i), []Command{greet(i < 3 || tc.last)})
		}
		c.Apply(address(1), []Command{register("f", tc.size), replicate(1, "f", 1, 2, 3)})
		if tr := c.Transfers(); len(tr) != 1 || tr[0].Cast != tc.cast {
			t.Errorf("%+v: %+v", tc, tr)
		}
	}
}

// What a member says of its memory takes the place of a number that was always zero: what was written before is read as
// it was meant, and is as long.
func TestSidedTravels(t *testing.T) {
	with, without := hello(false), hello(false)
	with.Hello.Sided = true
	a, b := with.Append(nil), without.Append(nil)
	if at := 1 + 16; len(a) != len(b) || a[at] != 1 || b[at] != 0 {
		t.Errorf("%x and %x", a, b)
	}
	for _, k := range []Command{with, without} {
		list, err := Decode(k.Append(nil))
		if err != nil || len(list) != 1 || list[0].Hello != k.Hello {
			t.Errorf("%+v, %v, want %+v", list, err, k)
		}
		c, joiner := New(4), New(1)
		c.View(addresses(1))
		c.Apply(address(1), []Command{k})
		if err := joiner.Load(c.AppendState(nil)); err != nil || joiner.Member(address(1)).Sided != k.Hello.Sided {
			t.Errorf("a joiner has %+v, %v", joiner.Member(address(1)), err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	c := started(3, 2)
	c.Apply(address(1), []Command{register("f", 100), replicate(1, "f", 1, 2, 3)})
	f.Add(c.AppendState(nil))
	k := replicate(1, "f", 1)
	f.Add(k.Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		if list, err := Decode(b); err == nil {
			started(3, 2).Apply(address(1), list)
		}
		c := New(1)
		if c.Load(b) == nil {
			c.Settle()
		}
	})
}
