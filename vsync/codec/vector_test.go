package codec_test

import (
	"errors"
	"math"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/khamsin-io/khamsin/vsync/codec"
)

// vector encodes and decodes nil, an empty slice and n elements. It returns the length of the last.
func vector[T comparable](t *testing.T, r *codec.Registry, n int, at func(i int) T) int {
	t.Helper()
	return vectorFunc(t, r, n, at, func(a, b []T) bool { return (a == nil) == (b == nil) && slices.Equal(a, b) })
}

// deepVector is vector for elements that == does not compare.
func deepVector[T any](t *testing.T, r *codec.Registry, n int, at func(i int) T) int {
	t.Helper()
	return vectorFunc(t, r, n, at, func(a, b []T) bool { return reflect.DeepEqual(a, b) })
}

func vectorFunc[T any](t *testing.T, r *codec.Registry, n int, at func(i int) T, equal func(a, b []T) bool) int {
	t.Helper()
	full := make([]T, n)
	for i := range full {
		full[i] = at(i)
	}
	length := 0
	for _, v := range [][]T{nil, {}, full[:1], full} {
		b := mustMarshal(t, r, v)
		vals, err := r.UnmarshalAny(b)
		if err != nil || len(vals) != 1 {
			t.Fatalf("%T of %d: %d values, %v", v, len(v), len(vals), err)
		}
		if back, ok := vals[0].([]T); !ok || !equal(back, v) {
			t.Errorf("%T of %d did not come back", v, len(v))
		}
		got, rest, err := codec.DecodeValue[[]T](r, b)
		if err != nil || len(rest) != 0 || !equal(got, v) {
			t.Errorf("%T of %d was not decoded: %v", v, len(v), err)
		}
		if c, err := codec.AppendValue(r, nil, v); err != nil || string(c) != string(b) {
			t.Errorf("%T of %d: AppendValue differs: %v", v, len(v), err)
		}
		length = len(b)
	}
	return length
}

// rows: MSG-10
func TestVectorsOfScalars(t *testing.T) {
	for name, r := range registries(t) {
		n := 1000
		if name == "native" && !testing.Short() {
			n = 1_000_000
		}
		vector(t, r, n, func(i int) bool { return i%3 == 0 })
		vector(t, r, n, func(i int) int8 { return int8(i) })
		vector(t, r, n, func(i int) int16 { return int16(i) })
		vector(t, r, n, func(i int) int32 { return int32(-i) })
		vector(t, r, n, func(i int) int64 { return -int64(i) << 30 })
		vector(t, r, n, func(i int) int { return math.MinInt + i })
		vector(t, r, n, func(i int) byte { return byte(i) })
		vector(t, r, n, func(i int) uint16 { return uint16(i) })
		vector(t, r, n, func(i int) uint32 { return uint32(i) << 8 })
		vector(t, r, n, func(i int) uint64 { return uint64(i) << 40 })
		vector(t, r, n, func(i int) uint { return math.MaxUint - uint(i) })
		vector(t, r, n, func(i int) float32 { return float32(i) / 3 })
		vector(t, r, n, func(i int) float64 { return float64(i) / 3 })
		vector(t, r, n, func(i int) rune { return rune(i) })
		vector(t, r, n, func(i int) string { return "text"[:i%5] })
		vector(t, r, n, func(i int) time.Duration { return time.Duration(i) })
	}
}

// rows: MSG-16
func TestVectorsAreCompact(t *testing.T) {
	r := newRegistry(t)
	const n, header = 1_000_000, 8
	for name, c := range map[string]struct{ got, elements int }{
		"int32":   {vector(t, r, n, func(i int) int32 { return math.MaxInt32 - int32(i) }), 4 * n},
		"byte":    {vector(t, r, n, func(i int) byte { return byte(i) }), n},
		"float64": {vector(t, r, n, func(i int) float64 { return float64(i) }), 8 * n},
		"Line":    {vector(t, r, n, func(int) Line { return Line{"", 1.5, 1} }), 10 * n},
	} {
		if c.got > c.elements+header || c.got < c.elements {
			t.Errorf("10⁶ %s take %d bytes, expected %d and at most %d more", name, c.got, c.elements, header)
		}
	}
}

// rows: MSG-11
func TestGrids(t *testing.T) {
	for _, r := range registries(t) {
		for _, v := range []any{
			[][]int32(nil), [][]int32{}, [][]int32{{1}}, [][]int32{{1, -2, 3}, {4, 5, math.MinInt32}},
			[][]float32(nil), [][]float32{}, [][]float32{{1, 2}, {3, 4}, {5, 6}},
			[][]float64(nil), [][]float64{}, [][]float64{{1.5}, {math.Inf(1)}},
		} {
			vals, err := r.UnmarshalAny(mustMarshal(t, r, v))
			if err != nil || len(vals) != 1 || !reflect.DeepEqual(vals[0], v) {
				t.Errorf("%#v became %#v, %v", v, vals, err)
			}
		}
		for _, bad := range []any{
			[][]int{{1}}, [][]int64{{1}}, [][]bool{{true}}, [][]string{{"a"}}, [][]Line{{{}}},
			[][][]int32{{{1}}}, [][][]byte{},
			[][]int16{}, [][]uint32(nil), [][]codec.Pair[string, int]{},
		} {
			if _, err := r.Marshal(bad); !errors.Is(err, codec.ErrUncodable) {
				t.Errorf("%T: %v", bad, err)
			}
		}
		for _, bad := range []any{
			[][]int32{{1}, {2, 3}}, [][]int32{{1, 2}, {3}}, [][]float32{{}}, [][]float64{{1}, nil}, [][]int32{nil, {1}},
		} {
			if _, err := r.Marshal(bad); !errors.Is(err, codec.ErrRagged) {
				t.Errorf("%v: %v", bad, err)
			}
			if _, err := r.Size(bad); !errors.Is(err, codec.ErrRagged) {
				t.Errorf("%v: %v", bad, err)
			}
		}
	}
}

// A row can grow without running into the next.
func TestRowsOfAGridAreApart(t *testing.T) {
	var got [][]int32
	if err := newRegistry(t).Unmarshal(mustMarshal(t, nil, [][]int32{{1, 2}, {3, 4}}), &got); err != nil {
		t.Fatal(err)
	}
	_ = append(got[0], 99)
	if got[1][0] != 3 {
		t.Fatal("appending to row 0 changed row 1")
	}
}

// rows: MSG-12
func TestListsOfRegisteredTypes(t *testing.T) {
	for _, r := range registries(t) {
		vector(t, r, 100, func(i int) Line { return Line{"item", float64(i), i} })
		deepVector(t, r, 100, func(int) Order { return order() })
		vector(t, r, 100, func(i int) Level { return Level(i) })
		vector(t, r, 100, func(int) Signal { return Signal{} })
		vector(t, r, 100, func(i int) Point { return Point{byte(i) & 15, 1} })
		vector(t, r, 100, func(i int) Door { return Door{uint32(i), 1} })
		deepVector(t, r, 100, func(i int) *Link {
			if i%2 == 0 {
				return nil
			}
			return &Link{i, nil}
		})
	}
}

// rows: MSG-13
func TestPairs(t *testing.T) {
	type byLevel = codec.Pair[Level, Order]
	for _, r := range registries(t) {
		one := codec.Pair[string, int32]{Key: "k", Value: -1}
		deep := byLevel{Key: 4, Value: order()}
		other := codec.Pair[int64, []string]{Key: 1, Value: []string{"a"}}
		b := mustMarshal(t, r, one, []codec.Pair[string, int32]{one, {}}, deep, other)
		vals, err := r.UnmarshalAny(b)
		if err != nil {
			t.Fatal(err)
		}
		raw, ok := vals[3].(codec.Raw)
		if !ok {
			t.Fatalf("%T", vals[3])
		}
		want := []any{one, []codec.Pair[string, int32]{one, {}}, deep, raw}
		if !reflect.DeepEqual(vals, want) {
			t.Fatalf("%#v", vals)
		}
		// A pair that the registry was not told of is there as a Raw, and nothing is lost.
		v, _, err := codec.DecodeValue[codec.Pair[int64, []string]](r, raw)
		if err != nil || !reflect.DeepEqual(v, other) {
			t.Fatalf("%#v, %v", v, err)
		}
		if again := mustMarshal(t, r, vals...); string(again) != string(b) {
			t.Fatalf("%x\n%x", b, again)
		}
		vector(t, r, 50, func(i int) codec.Pair[string, int32] {
			return codec.Pair[string, int32]{Key: "k", Value: int32(i)}
		})
	}
}

// Byte slices in a slice keep their lengths and their nils.
func TestListOfByteSlices(t *testing.T) {
	for _, r := range registries(t) {
		deepVector(t, r, 100, func(i int) []byte {
			if i%4 == 0 {
				return nil
			}
			return make([]byte, i%4-1)
		})
	}
}
