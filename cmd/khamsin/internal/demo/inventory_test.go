package demo

import (
	"bytes"
	"maps"
	"testing"

	"pgregory.net/rapid"
)

func TestSharesCoverTheInputOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		members := rapid.IntRange(MembersMin, MembersMax).Draw(t, "members")
		input := make([]Movement, rapid.IntRange(1, 300).Draw(t, "rows"))
		for i := range input {
			input[i] = Movement{Item: "item", Delta: int64(i)}
		}
		o := Options{Members: members}
		p := &parent{o: o, input: input, step: members, nursery: noNursery{}, shares: map[int]share{}}
		if err := p.o.validate(); err == nil {
			t.Fatal("options without a transport are valid")
		}
		seen := make(map[int64]int)
		for range members {
			k, err := p.birth()
			if err != nil {
				t.Fatal(err)
			}
			for n := range uint64(k.share.Rows) {
				seen[k.share.row(input, n).Delta]++
			}
		}
		if len(seen) != len(input) {
			t.Fatalf("%d of %d rows are in a share", len(seen), len(input))
		}
		for row, n := range seen {
			if n != 1 || input[row].Delta != row {
				t.Fatalf("row %d is in %d shares", row, n)
			}
		}
	})
}

// noNursery launches nobody.
type noNursery struct{}

func (noNursery) launch(conf) (peer, error) { return nil, nil }
func (noNursery) close()                    {}

func encoded(share int, row uint64, item string, delta int64) []byte {
	m := movement{share: share, row: row, Movement: Movement{Item: item, Delta: delta}}
	return m.append(nil)
}

func TestInventoryGoesThroughATransfer(t *testing.T) {
	a := newInventory()
	for n := range uint64(3000) {
		if _, err := a.apply(encoded(int(n%3), n/3, string(rune('a'+n%26)), int64(n)-1500)); err != nil {
			t.Fatal(err)
		}
	}
	var pieces bytes.Buffer
	count := 0
	must(t, a.save(func(piece []byte) error { count++; pieces.Write(piece); return nil }))
	b := newInventory()
	must(t, b.load(&pieces))
	same := b.Order == a.Order && b.stock() == a.stock() && maps.Equal(a.Applied, b.Applied)
	if b.Count != 3000 || !same || count == 0 {
		t.Fatalf("after the transfer: %d messages, order %s, want %s", b.Count, b.Order.short(), a.Order.short())
	}
	_, erra := a.apply(encoded(0, 1000, "z", 1))
	_, errb := b.apply(encoded(0, 1000, "z", 1))
	if erra != nil || errb != nil || a.Order != b.Order || a.stock() != b.stock() {
		t.Fatal("the joiner does not continue the sequence")
	}
}

func TestInventoryNoticesBrokenPromises(t *testing.T) {
	v := newInventory()
	_, err := v.apply(encoded(1, 0, "a", 1))
	must(t, err)
	for name, payload := range map[string][]byte{
		"a duplicate":  encoded(1, 0, "a", 1),
		"a gap":        encoded(1, 2, "a", 1),
		"half a row":   {1},
		"an empty row": {},
		"no item":      encoded(1, 1, "", 1),
	} {
		if _, err := v.apply(payload); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
	if v.Applied[1] != 1 || v.Totals["a"] != 1 {
		t.Errorf("broken rows changed the totals: %+v", v)
	}
}

func TestOrderCounts(t *testing.T) {
	a, b := newInventory(), newInventory()
	one, two := encoded(1, 0, "a", 1), encoded(2, 0, "b", 2)
	_, _ = a.apply(one)
	_, _ = a.apply(two)
	_, _ = b.apply(two)
	_, _ = b.apply(one)
	if a.stock() != b.stock() || a.Order == b.Order {
		t.Error("the totals must not tell the order, the order hash must")
	}
}

func FuzzMovement(f *testing.F) {
	f.Add(encoded(3, 1000, "bolt", -7))
	f.Fuzz(func(t *testing.T, b []byte) {
		var m movement
		if m.decode(b) != nil {
			return
		}
		var again movement
		if err := again.decode(m.append(nil)); err != nil || again != m {
			t.Fatalf("%+v became %+v, %v", m, again, err)
		}
	})
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
