package seal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"

	"pgregory.net/rapid"

	"github.com/khamsin-io/khamsin/dataplane/wire"
)

func keyFor(b byte) []byte { return bytes.Repeat([]byte{b}, KeyLen) }

func ringFor(tb testing.TB, key byte, incarnation uint64) *Ring {
	tb.Helper()
	r, err := NewRing(keyFor(key), incarnation)
	if err != nil {
		tb.Fatal(err)
	}
	return r
}

// packet returns a packet that a ring sealed.
func packet(r *Ring, payload string) []byte {
	b := make([]byte, wire.HeaderLen+Overhead+len(payload))
	(&wire.Header{Kind: wire.KindData, Seq: 7}).Encode(b)
	copy(b[wire.HeaderLen+Overhead:], payload)
	r.Seal(b)
	wire.Seal(b)
	return b
}

// open reads a packet as the engine does.
func open(r *Ring, b []byte, again bool) error {
	var h wire.Header
	if err := h.Decode(b); err != nil {
		return err
	}
	return r.Open(b, h.Signed, again)
}

// Who has the key opens a packet, which is as it was afterwards; nobody else does.
//
// rows: SEC-11, SEC-12
func TestOnlyTheKeyOpens(t *testing.T) {
	a, b, stranger := ringFor(t, 1, 10), ringFor(t, 1, 11), ringFor(t, 2, 10)
	rapid.Check(t, func(r *rapid.T) {
		p := packet(a, rapid.String().Draw(r, "payload"))
		before := bytes.Clone(p)
		if err := open(stranger, p, false); !errors.Is(err, ErrForged) {
			r.Fatalf("another key: %v", err)
		}
		if err := open(b, p, false); err != nil {
			r.Fatal(err)
		}
		if !bytes.Equal(before, p) {
			r.Fatal("opening changed the packet")
		}
	})
	if !bytes.Contains(packet(a, "can be read by all"), []byte("can be read by all")) {
		t.Error("the payload is not in the clear")
	}
}

// Each flipped bit is noticed, even when the checksum is made right again.
//
// rows: SEC-12, SEC-15
func TestEveryBitIsSigned(t *testing.T) {
	a, b := ringFor(t, 1, 10), ringFor(t, 1, 11)
	good := packet(a, "payload")
	for bit := range len(good) * 8 {
		p := bytes.Clone(good)
		p[bit/8] ^= 1 << (bit % 8)
		if bit/8 >= wire.CRCOffset && bit/8 < wire.CRCOffset+4 {
			continue // not signed: it is there for damage alone
		}
		wire.Seal(p)
		if err := open(b, p, true); err == nil {
			t.Fatalf("bit %d flipped: opened", bit)
		}
	}
	if err := open(b, good, false); err != nil {
		t.Error(err)
	}
}

// A packet without a tag, or too short for one, is none of this system.
func TestUnsigned(t *testing.T) {
	r := ringFor(t, 1, 10)
	plain := make([]byte, wire.HeaderLen+Overhead)
	(&wire.Header{Kind: wire.KindData}).Encode(plain)
	wire.Seal(plain)
	if err := open(r, plain, true); !errors.Is(err, ErrUnsigned) {
		t.Errorf("without a tag: %v", err)
	}
	short := packet(r, "")[:wire.HeaderLen+Overhead-1]
	wire.Seal(short)
	if err := open(r, short, true); !errors.Is(err, ErrUnsigned) {
		t.Errorf("too short: %v", err)
	}
}

// A packet passes once, wherever it is within the window; behind the window it does not pass at all. Packets whose
// numbers the protocols know may come again.
func TestWindow(t *testing.T) {
	a := ringFor(t, 1, 10)
	var sent [][]byte
	for range 3 * windowLen {
		sent = append(sent, packet(a, "x"))
	}
	rapid.Check(t, func(r *rapid.T) {
		b := ringFor(t, 1, 11)
		came := map[int]bool{}
		highest := -1
		for range 200 {
			i := rapid.IntRange(0, len(sent)-1).Draw(r, "which")
			if rapid.Bool().Draw(r, "near") && highest >= 0 {
				i = min(len(sent)-1, max(0, highest-rapid.IntRange(-70, windowLen+1).Draw(r, "by")))
			}
			want := error(nil)
			if came[i] || i <= highest-windowLen {
				want = ErrReplayed
			}
			if err := open(b, sent[i], false); !errors.Is(err, want) {
				r.Fatalf("packet %d, the highest is %d, came before %v: %v", i, highest, came[i], err)
			}
			if err := open(b, sent[i], true); err != nil {
				r.Fatalf("packet %d again: %v", i, err)
			}
			came[i] = true
			highest = max(highest, i)
		}
	})
}

// No two packets of a system have one nonce under one key: counters of a process rise, and each start of a process,
// which draws a new incarnation, has a key of its own.
func TestNoNonceComesTwice(t *testing.T) {
	type nonce struct{ origin, counter uint64 }
	seen := map[nonce]bool{}
	tags := map[string]bool{}
	for start := range uint64(20) { // of the same process, and of others
		r := ringFor(t, 1, 1000+start)
		for range 500 {
			p := packet(r, "always the same")
			n := nonce{binary.LittleEndian.Uint64(p[originAt:]), binary.LittleEndian.Uint64(p[countAt:])}
			tag := string(p[tagAt : tagAt+tagLen])
			if seen[n] || tags[tag] || n.counter == 0 {
				t.Fatalf("nonce %+v, tag %x: not for the first time", n, tag)
			}
			seen[n], tags[tag] = true, true
		}
	}
	sealed := map[string]bool{} // the same bytes under the same number, by each origin's key and another system's
	for _, r := range []*Ring{ringFor(t, 1, 1000), ringFor(t, 1, 1001), ringFor(t, 2, 1000)} {
		sealed[string(r.own.Seal(nil, r.nonceOf(1), []byte("the same"), nil))] = true
	}
	if len(sealed) != 3 {
		t.Error("two origins, or two systems, have one key")
	}
}

// A ring remembers so many origins, and forgets the one that was heard longest ago. Those that only pretend to be
// somebody cost no memory.
func TestOriginsAreBounded(t *testing.T) {
	b, stranger := ringFor(t, 1, 1), ringFor(t, 2, 5)
	for i := range uint64(1000) {
		stranger.self = 1_000_000 + i
		if err := open(b, packet(stranger, "x"), false); !errors.Is(err, ErrForged) {
			t.Fatal(err)
		}
	}
	if len(b.origins) != 0 {
		t.Errorf("%d strangers are remembered", len(b.origins))
	}
	for i := range uint64(originsMax + 10) {
		if err := open(b, packet(ringFor(t, 1, 100+i), "x"), false); err != nil {
			t.Fatal(err)
		}
	}
	if len(b.origins) != originsMax || b.origins[100] != nil || b.origins[100+originsMax+9] == nil {
		t.Errorf("%d origins are remembered", len(b.origins))
	}
}

func TestBadKey(t *testing.T) {
	for _, n := range []int{0, 16, KeyLen - 1, KeyLen + 1} {
		if _, err := NewRing(make([]byte, n), 1); err == nil {
			t.Errorf("a key of %d bytes is taken", n)
		}
	}
}

func TestNoAllocation(t *testing.T) {
	a, b := ringFor(t, 1, 10), ringFor(t, 1, 11)
	p := packet(a, string(make([]byte, 1300)))
	if err := open(b, p, true); err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(100, func() {
		a.Seal(p)
		if b.Open(p, true, false) != nil {
			t.Fatal("not opened")
		}
	}); n != 0 {
		t.Errorf("%v allocations for a packet sealed and opened", n)
	}
}

// FuzzOpen: whatever comes, nothing panics, and what was not sealed is not opened.
func FuzzOpen(f *testing.F) {
	good := packet(ringFor(f, 1, 10), "payload")
	f.Add(good, true)
	f.Add(good[:60], true)
	f.Add([]byte{}, false)
	f.Fuzz(func(t *testing.T, b []byte, signed bool) {
		r := ringFor(t, 1, 11)
		genuine := bytes.Equal(b[min(len(b), 8):], good[8:]) && len(b) == len(good) &&
			bytes.Equal(b[:wire.CRCOffset], good[:wire.CRCOffset])
		if err := r.Open(bytes.Clone(b), signed, true); err == nil && !genuine {
			t.Errorf("%x was opened", b)
		}
	})
}

func BenchmarkSeal1400(b *testing.B) {
	r := ringFor(b, 1, 10)
	p := packet(r, string(make([]byte, 1400-wire.HeaderLen-Overhead)))
	for _, c := range []struct {
		name string
		work func()
	}{
		{"checksum", func() { wire.Seal(p) }},
		{"tag", func() { r.Seal(p) }},
		{"tag, opened", func() { _ = r.Open(p, true, true) }},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.SetBytes(int64(len(p)))
			b.ReportAllocs()
			for b.Loop() {
				c.work()
			}
		})
	}
}
