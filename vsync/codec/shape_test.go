package codec_test

import (
	"errors"
	"reflect"
	"testing"

	"github.com/khamsin-io/khamsin/vsync/codec"
	"pgregory.net/rapid"
)

// A receiver finds the handler of a message by the types that the message itself records.
//
// rows: MSG-08
func TestHandlerIsFoundByTheTypesInTheBody(t *testing.T) {
	r := newRegistry(t)
	handlers := map[codec.Shape]string{}
	for name, fn := range map[string]any{
		"none":   func() {},
		"number": func(int32) {},
		"named":  func(Level) {},
		"two":    func(int32, string) {},
		"order":  func(Order) {},
		"ref":    func(*Order) {},
		"orders": func([]Order, codec.Pair[string, *Line]) {},
	} {
		var types []reflect.Type
		for i := range reflect.TypeOf(fn).NumIn() {
			types = append(types, reflect.TypeOf(fn).In(i))
		}
		shape, err := r.ShapeOf(types...)
		if err != nil {
			t.Fatal(err)
		}
		if other, ok := handlers[shape]; ok {
			t.Fatalf("%s and %s have one shape", name, other)
		}
		handlers[shape] = name
	}
	o := order()
	for _, c := range []struct {
		want string
		vals []any
	}{
		{"none", nil},
		{"number", []any{int32(1)}},
		{"named", []any{Level(1)}},
		{"two", []any{int32(1), "x"}},
		{"order", []any{o}},
		{"ref", []any{&o}},
		{"orders", []any{[]Order{o, o}, codec.Pair[string, *Line]{}}},
		{"", []any{int64(1)}},
		{"", []any{"x", int32(1)}},
		{"", []any{int32(1), "x", "y"}},
	} {
		shape, err := r.AppendShape(nil, mustMarshal(t, r, c.vals...))
		if err != nil || handlers[codec.Shape(shape)] != c.want {
			t.Errorf("%v went to %q, expected %q, %v", c.vals, handlers[codec.Shape(shape)], c.want, err)
		}
	}
}

// The shape of a body is the shape of the types of its values.
func TestShapeOfBodyIsShapeOfTypes(t *testing.T) {
	r := newRegistry(t)
	rapid.Check(t, func(t *rapid.T) {
		vals := rapid.SliceOfN(anything(), 0, 4).Draw(t, "values")
		var types []reflect.Type
		for _, v := range vals {
			types = append(types, reflect.TypeOf(v))
		}
		b, err := r.Marshal(vals...)
		if err != nil {
			t.Fatal(err)
		}
		want, err := r.ShapeOf(types...)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := r.AppendShape([]byte("x"), b); err != nil || string(got) != "x"+string(want) {
			t.Fatalf("%x, %x, %v", got, want, err)
		}
	})
}

func TestTypesForPeople(t *testing.T) {
	r := newRegistry(t)
	type pair = codec.Pair[string, *Line]
	b := mustMarshal(t, r, 1, []byte{}, [][]byte{}, [][]float64{}, Order{}, []*Order{}, []pair{}, [2]Door{})
	got, err := r.Types(b)
	want := []string{"int", "[]uint8", "[][]uint8", "[][]float64", "Order#1", "[]*Order#1", "[]pair<string,*Line#2>",
		"[2]Door#128"}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Fatal(got, err)
	}
	if _, err := r.Types(b[:len(b)-1]); !errors.Is(err, codec.ErrTruncated) {
		t.Fatal(err)
	}
}

// Values are taken apart without being decoded, and a Raw is as good as the value.
func TestValuesAndRaw(t *testing.T) {
	r := newRegistry(t)
	b := mustMarshal(t, r, 1, order(), "x")
	var raws []any
	for v, err := range r.Values(b) {
		if err != nil {
			t.Fatal(err)
		}
		raws = append(raws, v)
	}
	if len(raws) != 3 {
		t.Fatal(raws)
	}
	if got := mustMarshal(t, r, raws...); string(got) != string(b) {
		t.Fatalf("%x, %x", got, b)
	}
	if n, err := r.Size(raws...); err != nil || n != len(b) {
		t.Fatal(n, err)
	}
	var second codec.Raw
	err := r.Unmarshal(b, new(int), &second, new(string))
	if err != nil || string(second) != string(raws[1].(codec.Raw)) {
		t.Fatal(second, err)
	}
	third, rest, err := codec.DecodeValue[codec.Raw](r, b[len(second)+2:])
	if err != nil || len(rest) != 0 || string(third) != string(raws[2].(codec.Raw)) {
		t.Fatal(third, rest, err)
	}
	if again, err := codec.AppendValue(r, []byte("x"), third); err != nil || string(again) != "x"+string(third) {
		t.Fatal(again, err)
	}
	b[len(b)-2] ^= 0xff
	if o, _, err := codec.DecodeValue[Order](r, second); err != nil || !reflect.DeepEqual(o, order()) {
		t.Fatal("the Raw is no copy", err)
	}
	for _, bad := range []codec.Raw{nil, {}, {0x80}, {0x80, 2}, codec.Raw(mustMarshal(t, r, 1, 2)), {0x7d, 0, 0}} {
		if _, err := r.Marshal(bad); err == nil {
			t.Errorf("%x was taken for a value", []byte(bad))
		}
	}
}
