package codec_test

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/khamsin-io/khamsin/vsync/codec"
	"pgregory.net/rapid"
)

// Whatever was encoded comes back as the same values of the same types, needs no outside schema to do so, and has one
// encoding whichever way it was made; in either byte order.
//
// rows: MSG-04, MSG-05, MSG-17
func TestRoundTripOfAnything(t *testing.T) {
	all := registries(t)
	rapid.Check(t, func(t *rapid.T) {
		vals := rapid.SliceOfN(anything(), 0, 5).Draw(t, "values")
		want := mustRoundTrip(t, all["native"], vals)
		got := mustRoundTrip(t, all["portable"], vals)
		if string(got) != string(want) {
			t.Fatalf("machines differ:\n%x\n%x", want, got)
		}
	})
}

func mustRoundTrip(t *rapid.T, r *codec.Registry, vals []any) []byte {
	b, err := r.Marshal(vals...)
	if err != nil {
		t.Fatal(err)
	}
	back, err := r.UnmarshalAny(b)
	if err != nil {
		t.Fatalf("%v in %x", err, b)
	}
	if len(back) != len(vals) {
		t.Fatalf("%d values became %d", len(vals), len(back))
	}
	ptrs := make([]any, len(vals))
	for i, v := range vals {
		if !reflect.DeepEqual(back[i], v) {
			t.Fatalf("value %d: %#v became %#v", i, v, back[i])
		}
		ptrs[i] = reflect.New(reflect.TypeOf(v)).Interface()
	}
	if err := r.Unmarshal(b, ptrs...); err != nil {
		t.Fatal(err)
	}
	for i, v := range vals {
		if got := reflect.ValueOf(ptrs[i]).Elem().Interface(); !reflect.DeepEqual(got, v) {
			t.Fatalf("value %d: %#v was decoded as %#v", i, v, got)
		}
	}
	if n, err := r.Size(vals...); err != nil || n != len(b) {
		t.Fatalf("Size %d, %v; the body has %d bytes", n, err, len(b))
	}
	return b
}

// Bodies one after the other are the body of all their values.
func TestBodiesCanBeJoined(t *testing.T) {
	r := newRegistry(t)
	b := mustMarshal(t, r, int32(1), "two")
	b, err := r.Append(b, []byte{3}, order())
	if err != nil {
		t.Fatal(err)
	}
	if want := mustMarshal(t, r, int32(1), "two", []byte{3}, order()); string(b) != string(want) {
		t.Fatalf("%x\n%x", b, want)
	}
}

// A body whose only value is a byte slice is something else than a body received as bytes: the one is made by Marshal,
// the other read by Unmarshal, and bytes that are no body are refused.
//
// rows: MSG-03
func TestBytesAsAValueAndBytesAsABody(t *testing.T) {
	r := newRegistry(t)
	inner := mustMarshal(t, r, 1, 2, 3, 4, 5, 6)
	outer := mustMarshal(t, r, inner)
	var got []byte
	if err := r.Unmarshal(outer, &got); err != nil || string(got) != string(inner) {
		t.Fatalf("%x, %v", got, err)
	}
	var n [6]int
	if err := r.Unmarshal(got, &n[0], &n[1], &n[2], &n[3], &n[4], &n[5]); err != nil || n != [6]int{1, 2, 3, 4, 5, 6} {
		t.Fatalf("%v, %v", n, err)
	}
	err := r.Unmarshal(outer, &n[0], &n[1], &n[2], &n[3], &n[4], &n[5])
	if want := "codec: value 0 is of type []uint8, expected int"; err == nil || err.Error() != want {
		t.Fatalf("%v, want %s", err, want)
	}
	err = r.Unmarshal(inner[:4], &n[0], &n[1], &n[2], &n[3], &n[4], &n[5])
	if want := "codec: expected 6 values, found 2"; err == nil || err.Error() != want {
		t.Fatalf("%v, want %s", err, want)
	}
	if _, err = r.UnmarshalAny([]byte("garbage")); !errors.Is(err, codec.ErrUnregistered) {
		t.Fatalf("%v for garbage", err)
	}
}

// rows: MSG-06
func TestWrongCountAndWrongTypeDiffer(t *testing.T) {
	r := newRegistry(t)
	b := mustMarshal(t, r, int32(1), "two", order())
	var (
		i     int32
		s     string
		o     Order
		wide  int64
		count *codec.CountError
		typ   *codec.TypeError
	)
	if err := r.Unmarshal(b, &i, &s, &o); err != nil || i != 1 || s != "two" || o.Who != "Zoë" {
		t.Fatal(i, s, o, err)
	}
	for _, c := range []struct {
		ptrs []any
		want codec.CountError
	}{
		{[]any{&i, &s}, codec.CountError{Wanted: 2, Found: 3}},
		{[]any{}, codec.CountError{Wanted: 0, Found: 3}},
		{[]any{&i, &s, &o, &i, &i}, codec.CountError{Wanted: 5, Found: 3}},
	} {
		if err := r.Unmarshal(b, c.ptrs...); !errors.As(err, &count) || *count != c.want {
			t.Errorf("%d variables: %v", len(c.ptrs), err)
		}
	}
	for _, c := range []struct {
		ptrs []any
		want codec.TypeError
	}{
		{[]any{&wide, &s, &o}, codec.TypeError{Index: 0, Wanted: "int64", Found: "int32"}},
		{[]any{&i, new([]byte), &o}, codec.TypeError{Index: 1, Wanted: "[]uint8", Found: "string"}},
		{[]any{&i, &s, new(*Order)}, codec.TypeError{Index: 2, Wanted: "*Order#1", Found: "Order#1"}},
		{[]any{&i, &s, new([]codec.Pair[string, *Line])},
			codec.TypeError{Index: 2, Wanted: "[]pair<string,*Line#2>", Found: "Order#1"}},
	} {
		if err := r.Unmarshal(b, c.ptrs...); !errors.As(err, &typ) || *typ != c.want {
			t.Errorf("%v", err)
		}
	}
}

func TestUnmarshalNeedsPointersToVariables(t *testing.T) {
	r := newRegistry(t)
	b := mustMarshal(t, r, int32(1))
	for _, p := range []any{nil, int32(0), (*int32)(nil), (*Order)(nil), (*codec.Raw)(nil), new(chan int), new(any)} {
		var e *codec.EncodeError
		if err := r.Unmarshal(b, p); !errors.As(err, &e) || !errors.Is(err, codec.ErrUncodable) {
			t.Errorf("%T: %v", p, err)
		}
	}
}

// What was in a variable before does not shine through.
func TestUnmarshalStartsFromZero(t *testing.T) {
	r := newRegistry(t)
	o := order()
	o.hidden, o.Local = 7, "here"
	texts, grid := []string{"old"}, [][]int32{{1}}
	b := mustMarshal(t, r, Order{}, []string(nil), [][]int32(nil))
	if err := r.Unmarshal(b, &o, &texts, &grid); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(o, Order{}) || texts != nil || grid != nil {
		t.Fatalf("%+v %v %v", o, texts, grid)
	}
}

// The caller gets back what it had, and learns which value was at fault.
func TestAppendLeavesTheBodyAloneOnError(t *testing.T) {
	r := newRegistry(t)
	body := mustMarshal(t, r, "before")
	type Stranger struct{ A int }
	strangers := []any{Stranger{}, &Stranger{}, []Stranger{}, nil, map[string]int{}, struct{}{}, make(chan int)}
	for _, bad := range strangers {
		out, err := r.Append(body, int32(1), bad)
		var e *codec.EncodeError
		if !errors.As(err, &e) || e.Index != 1 || string(out) != string(body) {
			t.Errorf("%T: %x, %v", bad, out, err)
		}
	}
	_, err := r.Marshal(Stranger{})
	if !errors.Is(err, codec.ErrUnregistered) || !strings.Contains(err.Error(), "codec_test.Stranger") {
		t.Error(err)
	}
}

// Without a registry the built-in types work, also inside pairs; registered ones do not.
func TestNilRegistry(t *testing.T) {
	var r *codec.Registry
	type pair = codec.Pair[string, time.Duration]
	b := mustMarshal(t, r, 1, []string{"a"}, []pair{{"b", time.Second}})
	var n int
	var texts []string
	var list []pair
	err := r.Unmarshal(b, &n, &texts, &list)
	if err != nil || n != 1 || texts[0] != "a" || list[0].Value != time.Second {
		t.Fatal(n, texts, list, err)
	}
	if _, err := r.Marshal(order()); !errors.Is(err, codec.ErrUnregistered) {
		t.Fatal(err)
	}
}

// alias encodes v as a value of the named type N and expects the bytes and the value of the type B.
func alias[N, B comparable](t *testing.T, n N, b B) {
	t.Helper()
	r := newRegistry(t)
	body := mustMarshal(t, r, n, []N{n, n}, [2]N{n, n}, &n)
	if want := mustMarshal(t, r, b, []B{b, b}, [2]B{b, b}, &b); string(body) != string(want) {
		t.Errorf("%T: %x, want %x", n, body, want)
	}
	var one N
	var list []N
	var array [2]N
	var pointer *N
	if err := r.Unmarshal(body, &one, &list, &array, &pointer); err != nil {
		t.Fatal(err)
	}
	if one != n || list[1] != n || array[1] != n || *pointer != n {
		t.Errorf("%T: %v %v %v %v", n, one, list, array, *pointer)
	}
}

func TestNamesOfScalarsDoNotTravel(t *testing.T) {
	type (
		B   bool
		I8  int8
		I16 int16
		I32 int32
		I64 int64
		I   int
		U8  uint8
		U16 uint16
		U32 uint32
		U64 uint64
		U   uint
		F32 float32
		F64 float64
		S   string
	)
	alias(t, B(true), true)
	alias(t, I8(-1), int8(-1))
	alias(t, I16(-1), int16(-1))
	alias(t, I32(-1), int32(-1))
	alias(t, I64(-1), int64(-1))
	alias(t, I(-1), -1)
	alias(t, U8(1), uint8(1))
	alias(t, U16(1), uint16(1))
	alias(t, U32(1), uint32(1))
	alias(t, U64(1), uint64(1))
	alias(t, U(1), uint(1))
	alias(t, F32(1.5), float32(1.5))
	alias(t, F64(1.5), 1.5)
	alias(t, S("s"), "s")
}

// Named types that are not registered travel as what they are made of.
func TestUnregisteredNamesDoNotTravel(t *testing.T) {
	type Name string
	type IDs []int32
	r := newRegistry(t)
	b := mustMarshal(t, r, Name("n"), IDs{1, 2}, []Name{"x"})
	if want := mustMarshal(t, r, "n", []int32{1, 2}, []string{"x"}); string(b) != string(want) {
		t.Fatalf("%x, want %x", b, want)
	}
	var n Name
	var ids IDs
	var names []Name
	if err := r.Unmarshal(b, &n, &ids, &names); err != nil || n != "n" || ids[1] != 2 || names[0] != "x" {
		t.Fatal(n, ids, names, err)
	}
}
