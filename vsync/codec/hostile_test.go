package codec_test

import (
	"encoding/binary"
	"errors"
	"math"
	"runtime"
	"strings"
	"testing"

	"github.com/khamsin-io/khamsin/vsync/codec"
	"pgregory.net/rapid"
)

// allocatesTooMuch returns how many bytes f allocates if they are more than decoding n bytes may, else 0. Since others
// allocate too, now and then, f must exceed the limit three times.
func allocatesTooMuch(n int, f func()) uint64 {
	const forTheError = 4096
	least := uint64(math.MaxUint64)
	for range 3 {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		f()
		runtime.ReadMemStats(&after)
		least = min(least, after.TotalAlloc-before.TotalAlloc)
		if least <= uint64(64*n)+forTheError {
			return 0
		}
	}
	return least
}

// counts are claims that the bytes behind them do not keep.
func counts() [][]byte {
	var list [][]byte
	for _, n := range []uint64{2, 100, 1 << 20, 1 << 31, 1<<31 + 1, 1 << 32, 1 << 62, 1<<63 - 1, 1 << 63, 1<<64 - 1} {
		list = append(list, binary.AppendUvarint(nil, n))
	}
	return list
}

// No length is believed: a body that claims more than it holds is refused at once, and costs next to no memory.
func TestClaimsAreNotBelieved(t *testing.T) {
	heads := make(map[string]bool)
	for _, v := range golden() {
		b := mustMarshal(t, newRegistry(t), v)
		for n := range min(len(b), 40) {
			heads[string(b[:n])] = true
		}
	}
	for name, r := range registries(t) {
		for head := range heads {
			for _, claim := range counts() {
				for _, tail := range []string{"\x02", strings.Repeat("\xff", 20)} {
					b := []byte(head + string(claim) + tail)
					if got := allocatesTooMuch(len(b), func() { _, _ = r.UnmarshalAny(b) }); got > 0 {
						t.Fatalf("%s: %x allocates %d bytes", name, b, got)
					}
				}
			}
		}
	}
}

func TestTruncatedVectorsAreRefused(t *testing.T) {
	r := newRegistry(t)
	for _, v := range golden() {
		b := mustMarshal(t, r, v)
		for n := 1; n < len(b); n++ {
			if vals, err := r.UnmarshalAny(b[:n]); err == nil {
				t.Errorf("%d of %d bytes of %T were taken for %v", n, len(b), v, vals)
			}
		}
	}
}

// Bytes of a body that someone changed end in an error or in other values, never in a panic or in a flood of memory.
func TestCorruptBodies(t *testing.T) {
	all := registries(t)
	rapid.Check(t, func(t *rapid.T) {
		b, err := all["native"].Marshal(rapid.SliceOfN(anything(), 1, 3).Draw(t, "values")...)
		if err != nil {
			t.Fatal(err)
		}
		for range rapid.IntRange(1, 3).Draw(t, "changes") {
			b[rapid.IntRange(0, len(b)-1).Draw(t, "at")] = rapid.Byte().Draw(t, "byte")
		}
		for name, r := range all {
			var vals []any
			var err error
			if got := allocatesTooMuch(len(b), func() { vals, err = r.UnmarshalAny(b) }); got > 0 {
				t.Fatalf("%s: %d bytes allocate %d", name, len(b), got)
			}
			if err != nil {
				continue
			}
			if again, err := r.Marshal(vals...); err != nil || string(again) != string(b) {
				t.Fatalf("%s: two encodings of one value:\n%x\n%x, %v", name, b, again, err)
			}
		}
	})
}

// Every value has one encoding only.
func TestOtherEncodingsAreRefused(t *testing.T) {
	r := newRegistry(t)
	line := mustMarshal(t, r, Line{})[:3]
	longType := "\xb1" + strings.Repeat("\xb1"+strings.Repeat("\xb1\x80", 8)+"\x80", 9)
	for name, c := range map[string]struct {
		b    string
		want error
	}{
		"bool of 2":                     {"\x80\x02", codec.ErrCanonical},
		"bools with a 2":                {"\x90\x03\x01\x02", codec.ErrCanonical},
		"many bools with a 2":           {"\x90\x0a\x01\x01\x01\x01\x01\x01\x01\x02\x01", codec.ErrCanonical},
		"int in two bytes for one":      {"\x85\x80\x00", codec.ErrCanonical},
		"uint in three bytes":           {"\x8a\xff\x80\x00", codec.ErrCanonical},
		"uint beyond 64 bits":           {"\x8a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", codec.ErrRange},
		"uint without end":              {"\x8a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", codec.ErrRange},
		"length of a string":            {"\x8d\x81\x00a", codec.ErrCanonical},
		"count of a slice":              {"\x93\x81\x00", codec.ErrCanonical},
		"grid without columns":          {"\xa3\x02\x00\x01\x00\x00\x00", codec.ErrCanonical},
		"presence of 2":                 {"\xb2" + string(line) + "\x02", codec.ErrCanonical},
		"empty struct with something":   {string(mustMarshal(t, r, Signal{})[:3]) + "\x01", codec.ErrCanonical},
		"slice of scalars in two bytes": {"\xb0\x83\x01", codec.ErrCode},
		"slice of slices":               {"\xb0\x94\x01", codec.ErrCode},
		"slice of grids":                {"\xb0\xa3\x01", codec.ErrCode},
		"pointer to pointer":            {"\xb2\xb2\x83\x00", codec.ErrCode},
		"pointer to slice":              {"\xb2\x93\x00", codec.ErrCode},
		"grid of bytes":                 {"\xa6\x01", codec.ErrCode},
		"array of nothing":              {"\xb3\x00\x83", codec.ErrCode},
		"array of too much":             {"\xb3\xff\xff\xff\xff\xff\x01\x83", codec.ErrCode},
		"scalar that is none":           {"\x8f", codec.ErrCode},
		"unused code":                   {"\xff", codec.ErrCode},
		"library's type of low id":      {"\xc0\x01\x00", codec.ErrCode},
		"wide id that is not":           {"\xc1\x02\x00" + string(line[1:]) + "\x00", codec.ErrCode},
		"deep type":                     {strings.Repeat("\xb1\x80", 20) + "\x80", codec.ErrCode},
		"long type":                     {longType, codec.ErrCode},
		"type that ends":                {"\xb1\x80", codec.ErrTruncated},
		"id that ends":                  {"\x02", codec.ErrTruncated},
	} {
		if vals, err := r.UnmarshalAny([]byte(c.b)); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, %v; expected %v", name, vals, err, c.want)
		}
	}
}

// A value that does not fit its type is an error that names the value, the type and its id; nothing else happens.
//
// rows: TYP-16
func TestMismatchingValueIsAnErrorThatNamesIt(t *testing.T) {
	ours := newRegistry(t)
	type Line struct{ Item, Price string } // the sender's idea of id 2
	theirs := codec.NewRegistry()
	if err := errors.Join(codec.Register[Line](theirs, 2), codec.Register[First](theirs, 99)); err != nil {
		t.Fatal(err)
	}
	body := mustMarshal(t, theirs, "first", Line{"nut", "cheap"})
	var layout *codec.LayoutError
	_, err := ours.UnmarshalAny(body)
	if !errors.As(err, &layout) || layout.Index != 1 || layout.Type != "Line#2" {
		t.Error(err)
	}
	err = ours.Unmarshal(body, new(string), new([]Order))
	if !errors.As(err, &layout) || layout.Index != 1 {
		t.Error(err)
	}
	var unknown *codec.UnknownIDError
	_, err = ours.UnmarshalAny(mustMarshal(t, theirs, 1, []First{{1}}))
	if !errors.As(err, &unknown) || unknown.Index != 1 || unknown.ID != 99 || !errors.Is(err, codec.ErrUnregistered) {
		t.Error(err)
	}
	var typ *codec.TypeError
	err = ours.Unmarshal(mustMarshal(t, theirs, First{1}), new(int))
	if !errors.As(err, &typ) || typ.Wanted != "int" || !strings.Contains(typ.Found, "#99") {
		t.Error(err)
	}
	// Forged: the right type, but what follows is no such value.
	forged := mustMarshal(t, ours, "first", order())
	forged[len(forged)-5] = 0x7f // length of the last text
	var decode *codec.DecodeError
	err = ours.Unmarshal(forged, new(string), new(Order))
	if !errors.As(err, &decode) || decode.Index != 1 || decode.Type != "Order#1" || decode.Err != codec.ErrTruncated {
		t.Error(err)
	}
	err = ours.Unmarshal(forged, new(string)) // the fault is among the values too many
	if !errors.As(err, &decode) || decode.Index != 1 || decode.Offset < len(forged)-8 {
		t.Error(err)
	}
}
