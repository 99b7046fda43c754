package vsync

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/khamsin-io/khamsin/dataplane"
	"github.com/khamsin-io/khamsin/transports/mem"
)

// wiretap is a transport that notes all that it sends.
type wiretap struct {
	dataplane.Transport
	mu  *sync.Mutex
	got *bytes.Buffer
}

func (w *wiretap) Send(batch []dataplane.Packet) (int, error) {
	w.mu.Lock()
	for _, p := range batch {
		w.got.Write(w.Arena().Bytes(p.Frame))
	}
	w.mu.Unlock()
	return w.Transport.Send(batch)
}

// tapped returns options of systems on a hub whose packets are noted, and what asks for those.
func tapped(hub *mem.Hub) (opts []Option, saw func(text string) bool) {
	var mu sync.Mutex
	var got bytes.Buffer
	factory := func(c *Config) (dataplane.Transport, error) {
		t, err := Mem(hub)(c)
		if err != nil {
			return nil, err
		}
		return &wiretap{Transport: t, mu: &mu, got: &got}, nil
	}
	return []Option{WithTransport(factory)}, func(text string) bool {
		mu.Lock()
		defer mu.Unlock()
		return bytes.Contains(got.Bytes(), []byte(text))
	}
}

func keyNamed(b byte) KeySource { return StaticKey(bytes.Repeat([]byte{b}, KeyLen)) }

// secretWords are what nobody else may read: of a multicast, a point-to-point message, a query, its reply, the state.
const secretWords = "attack at dawn"

// talk is a group whose members exchange the secret words in all ways, and returns what the second one got.
func talk(t *testing.T, a, b *System, key KeySource) []string {
	t.Helper()
	var mu sync.Mutex
	var got []string
	note := func(what string) {
		mu.Lock()
		defer mu.Unlock()
		got = append(got, what)
	}
	var groups []*Group
	for i, s := range []*System{a, b} {
		var opts []GroupOption
		if key != nil {
			opts = append(opts, WithGroupKey(key))
		}
		g := s.NewGroup("talk", opts...)
		must(g.Handle(1, func(m *Message) {
			if i == 1 {
				how := m.Flavour.String()
				if m.Peer {
					how = "peer"
				}
				note(how + ": " + string(m.Payload))
			}
		}))
		must(Answer1(g, 2, func(_ *Message, q string) (string, error) { return "answer " + q, nil }))
		must(g.OnMakeState(func(_ context.Context, _ *View, w *StateWriter) error {
			return errors.Join(w.Put("state "+secretWords), w.Put(int64(7)))
		}))
		must(g.OnLoadState(func(text string) { note(text) }))
		must(g.OnLoadState(func(n int64) { note(fmt.Sprint(n)) }))
		must(g.Join(within(t)))
		groups = append(groups, g)
	}
	g, ctx := groups[0], within(t)
	long := strings.Repeat(secretWords+" ", 3000) // compressed, and in fragments
	for _, f := range []Flavour{FIFO, Causal, Ordered, Safe, Unordered} {
		must(g.SendBytes(ctx, f, 1, []byte(secretWords)))
	}
	must(g.SendBytes(ctx, FIFO, 1, []byte(long)))
	must(g.SendBytesTo(ctx, b.Address(), 1, []byte(secretWords)))
	r, err := Query[string](ctx, g, All, 2, "question "+secretWords)
	if err != nil || r.Len() != 2 {
		t.Fatal(r, err)
	}
	for _, v := range r.Values() {
		note(v)
	}
	must(g.Flush(ctx))
	must(groups[1].Flush(ctx))
	must(groups[1].Leave(ctx))
	mu.Lock()
	defer mu.Unlock()
	for i, s := range got {
		if len(s) > 100 {
			got[i] = fmt.Sprintf("%d bytes", len(s))
		}
	}
	slices.Sort(got)
	return got
}

// Members of a group with a key hear what they would hear without one, and who listens on the wire reads nothing of it:
// no multicast of any flavour, no point-to-point message, no query, no reply, no state. Without a key he reads all.
//
// rows: SEC-01, SEC-02, SEC-04, SEC-05, SEC-18
func TestGroupKeyHides(t *testing.T) {
	var want []string
	for _, c := range []struct {
		name   string
		key    KeySource
		system KeySource
	}{
		{"no key", nil, nil},
		{"static", keyNamed(1), nil},
		{"static, and the system has one", keyNamed(1), keyNamed(2)},
		{"random", RandomKey(), keyNamed(2)},
	} {
		t.Run(c.name, func(t *testing.T) {
			hub := mem.NewHub()
			opts, saw := tapped(hub)
			if c.system != nil {
				opts = append(opts, WithSystemKey(c.system))
			}
			got := talk(t, startOn(t, hub, opts...), startOn(t, hub, opts...), c.key)
			if want == nil {
				want = got
			}
			if !slices.Equal(got, want) || len(got) < 10 {
				t.Errorf("got %q, want %q", got, want)
			}
			if saw(secretWords) != (c.key == nil) {
				t.Errorf("the words are on the wire: %v", saw(secretWords))
			}
		})
	}
}

// Who has another key than a group, or none, is refused by an error that says so, and the group goes on. The same holds
// when the group has no key and the newcomer has.
//
// rows: SEC-09
func TestGroupKeyIsNeeded(t *testing.T) {
	hub := mem.NewHub()
	a, b := startOn(t, hub), startOn(t, hub)
	for i, c := range []struct{ ours, theirs KeySource }{
		{keyNamed(1), keyNamed(2)}, {keyNamed(1), nil}, {nil, keyNamed(2)},
	} {
		name := fmt.Sprint("needed", i)
		g := newMember(a, name, keyOption(c.ours)...)
		must(g.group.Join(within(t)))
		other := newMember(b, name, keyOption(c.theirs)...)
		if err := other.group.Join(within(t)); !errors.Is(err, ErrGroupKey) {
			t.Errorf("case %d: %v", i, err)
		}
		g.send(t, Ordered, 5)
		g.untilCount(t, 1)
		if v := g.group.View(); v.Size() != 1 {
			t.Errorf("case %d: the view has %d members", i, v.Size())
		}
	}
	wantErr(t, "a random key without a system key", newMember(a, "r", WithGroupKey(RandomKey())).group.Join(within(t)),
		ErrGroupKey)
	wantErr(t, "a short key", newMember(a, "s", WithGroupKey(StaticKey([]byte("short")))).group.Join(within(t)),
		ErrGroupKey)
}

func keyOption(key KeySource) []GroupOption {
	if key == nil {
		return nil
	}
	return []GroupOption{WithGroupKey(key)}
}

// All members derive the same keys for their own purposes; a group without a key derives none.
func TestDeriveKey(t *testing.T) {
	hub := mem.NewHub()
	opts := WithSystemKey(keyNamed(3))
	a, b := joined(t, startOn(t, hub, opts), "d", WithGroupKey(RandomKey())), (*member)(nil)
	b = joined(t, startOn(t, hub, opts), "d", WithGroupKey(RandomKey()))
	x, err := a.group.DeriveKey("files")
	y, err2 := b.group.DeriveKey("files")
	z, err3 := b.group.DeriveKey("other files")
	if err != nil || err2 != nil || err3 != nil || !bytes.Equal(x, y) || bytes.Equal(x, z) || len(x) != KeyLen {
		t.Errorf("%x, %x, %x, %v", x, y, z, errors.Join(err, err2, err3))
	}
	_, err = joined(t, a.sys, "plain").group.DeriveKey("files")
	wantErr(t, "without a key", err, ErrGroupKey)
}

// A process seals nothing twice with one number: it goes on counting when it leaves a group and joins it again, and
// through all views. Another start of the process has another incarnation, and so another key.
//
// rows: SEC-04
func TestSealsCountOn(t *testing.T) {
	hub := mem.NewHub()
	s := startOn(t, hub)
	var last uint64
	for round := range 3 {
		m := joined(t, s, "again", WithGroupKey(keyNamed(1)))
		for n := range uint64(5) {
			m.send(t, Ordered, n)
		}
		m.untilCount(t, 5)
		now := s.counterOf("again").Load()
		if now < last+5 {
			t.Errorf("round %d: counter %d after %d", round, now, last)
		}
		last = now
		must(m.group.Leave(within(t)))
	}
	other := newSecret("again", s.self.Incarnation+1, s.counterOf("again"), false)
	mine := newSecret("again", s.self.Incarnation, s.counterOf("again"), false)
	key, _ := keyNamed(1)()
	must(errors.Join(other.set(key), mine.set(key)))
	nonce := make([]byte, nonceLen)
	if bytes.Equal(mine.own.Seal(nil, nonce, key, nil), other.own.Seal(nil, nonce, key, nil)) {
		t.Error("two incarnations have one key")
	}
}

// What is sealed for one purpose, by one sender, with one head, opens as nothing else, and not when a bit is flipped.
func TestSealedIsBound(t *testing.T) {
	hub := mem.NewHub()
	s := startOn(t, hub)
	key, _ := keyNamed(1)()
	m := newSecret("bound", 9, s.counterOf("bound"), false)
	must(m.set(key))
	sealed := m.seal(nil, sealedCast, []byte("head"), []byte("plain"))
	if plain, ok := m.open(nil, sealedCast, 9, []byte("head"), sealed); !ok || string(plain) != "plain" {
		t.Fatalf("%q, %v", plain, ok)
	}
	for name, open := range map[string]func() ([]byte, bool){
		"kind":  func() ([]byte, bool) { return m.open(nil, sealedPeer, 9, []byte("head"), sealed) },
		"from":  func() ([]byte, bool) { return m.open(nil, sealedCast, 8, []byte("head"), sealed) },
		"head":  func() ([]byte, bool) { return m.open(nil, sealedCast, 9, []byte("Head"), sealed) },
		"short": func() ([]byte, bool) { return m.open(nil, sealedCast, 9, []byte("head"), sealed[:sealedMore-1]) },
	} {
		if _, ok := open(); ok {
			t.Errorf("opens with another %s", name)
		}
	}
	for bit := range len(sealed) * 8 {
		b := bytes.Clone(sealed)
		b[bit/8] ^= 1 << (bit % 8)
		if _, ok := m.open(nil, sealedCast, 9, []byte("head"), b); ok {
			t.Fatalf("bit %d flipped: opens", bit)
		}
	}
	elsewhere := newSecret("other name", 9, s.counterOf("bound"), false)
	must(elsewhere.set(key))
	if _, ok := elsewhere.open(nil, sealedCast, 9, []byte("head"), sealed); ok {
		t.Error("opens in a group of another name")
	}
}

// Systems with different keys on one network, as their users see it.
//
// rows: SEC-11, SEC-13
func TestSystemKey(t *testing.T) {
	hub := mem.NewHub()
	a := startOn(t, hub, WithSystemKey(HexKey(hexKey)))
	b := startOn(t, hub, WithSystemKey(HexKey(hexKey)))
	for _, key := range []KeySource{keyNamed(9), nil} {
		opts := quick(hub)
		if key != nil {
			opts = append(opts, WithSystemKey(key))
		}
		_, err := Start(within(t), opts...)
		wantErr(t, "another key", err, ErrSystemKey)
	}
	for _, key := range []KeySource{HexKey("zz"), StaticKey(nil), KeyFile("/no/such/file")} {
		if s, err := Start(within(t), quick(hub, WithSystemKey(key))...); err == nil {
			t.Error("started with a bad key")
			must(s.Close())
		}
	}
	x, y := joined(t, a, "g"), joined(t, b, "g")
	x.untilSize(t, 2)
	x.send(t, Ordered, 4)
	y.untilCount(t, 1)
	if r := a.IOStats().Refused; r.Forged == 0 || r.Unsigned == 0 {
		t.Errorf("refused %+v, want forged and unsigned packets", r)
	}
}

// Sealing and opening allocate nothing in the long run.
func TestSealingDoesNotAllocate(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector makes pools forget at random")
	}
	s := startOn(t, mem.NewHub())
	m := newSecret("a", 9, s.counterOf("a"), false)
	key, _ := keyNamed(1)()
	must(m.set(key))
	head, plain := []byte("head"), make([]byte, 1000)
	sealed, opened := make([]byte, 0, 2000), make([]byte, 0, 2000)
	if n := testing.AllocsPerRun(100, func() {
		sealed = m.seal(sealed[:0], sealedCast, head, plain)
		if _, ok := m.open(opened, sealedCast, 9, head, sealed); !ok {
			t.Fatal("not opened")
		}
	}); n != 0 {
		t.Errorf("%v allocations for a message", n)
	}
}

func BenchmarkGroupKey(b *testing.B) {
	s := startOn(b, mem.NewHub())
	m := newSecret("a", 9, s.counterOf("a"), false)
	key, _ := keyNamed(1)()
	must(m.set(key))
	for _, size := range []int{64, 1400} {
		plain, sealed, opened := make([]byte, size), make([]byte, 0, 2000), make([]byte, 0, 2000)
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				sealed = m.seal(sealed[:0], sealedCast, nil, plain)
				m.open(opened, sealedCast, 9, nil, sealed)
			}
		})
	}
}
