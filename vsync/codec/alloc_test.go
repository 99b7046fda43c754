package codec_test

import (
	"testing"

	"github.com/khamsin-io/khamsin/vsync/codec"
)

// gate fails if f allocates more than max times.
func gate(t *testing.T, name string, max float64, f func()) {
	t.Helper()
	if got := testing.AllocsPerRun(100, f); got > max {
		t.Errorf("%s allocates %v times, expected at most %v", name, got, max)
	}
}

func gateAppend[T any](t *testing.T, r *codec.Registry, name string, v T) {
	t.Helper()
	b := make([]byte, 0, 4096)
	gate(t, "AppendValue of "+name, 0, func() { b, _ = codec.AppendValue(r, b[:0], v) })
	if len(b) == 0 {
		t.Errorf("%s: nothing was encoded", name)
	}
	c, err := codec.CoderOf[T](r)
	if err != nil {
		t.Fatal(err)
	}
	gate(t, "Coder.Append of "+name, 0, func() { b, _ = c.Append(b[:0], v) })
}

func gateDecode[T any](t *testing.T, r *codec.Registry, name string, v T, max float64) {
	t.Helper()
	b := mustMarshal(t, r, v)
	c, err := codec.CoderOf[T](r)
	if err != nil {
		t.Fatal(err)
	}
	gate(t, "DecodeValue of "+name, max, func() {
		if _, rest, err := codec.DecodeValue[T](r, b); err != nil || len(rest) != 0 {
			t.Error(err)
		}
	})
	gate(t, "Coder.Decode of "+name, max, func() {
		if _, _, err := c.Decode(b); err != nil {
			t.Error(err)
		}
	})
}

func TestEncodingDoesNotAllocate(t *testing.T) {
	r := newRegistry(t)
	gateAppend(t, r, "bool", true)
	gateAppend(t, r, "int8", int8(1))
	gateAppend(t, r, "int16", int16(1000))
	gateAppend(t, r, "int32", int32(100_000))
	gateAppend(t, r, "int64", int64(1)<<40)
	gateAppend(t, r, "int", -1<<30)
	gateAppend(t, r, "uint8", uint8(1))
	gateAppend(t, r, "uint64", uint64(1)<<40)
	gateAppend(t, r, "float32", float32(1.5))
	gateAppend(t, r, "float64", 1e300)
	gateAppend(t, r, "string", "a text of some length that is not constant")
	gateAppend(t, r, "[]byte", []byte("bytes"))
	gateAppend(t, r, "[]int32", []int32{1, 2, 3})
	gateAppend(t, r, "[]string", []string{"a", "b"})
	gateAppend(t, r, "[][]byte", [][]byte{{1}, nil})
	gateAppend(t, r, "[][]float64", [][]float64{{1, 2}, {3, 4}})
	gateAppend(t, r, "Pair", codec.Pair[string, int32]{Key: "a", Value: 1})
	gateAppend(t, r, "[]Pair", []codec.Pair[string, int32]{{Key: "a", Value: 1}})
	gateAppend(t, r, "Level", Level(-1))
	gateAppend(t, r, "struct", order())
	gateAppend(t, r, "pointer to struct", &Link{1, &Link{2, nil}})
	gateAppend(t, r, "[]struct", []Line{{"a", 1, 2}, {"b", 3, 4}})
}

// A decoder allocates what the value holds, and nothing else.
func TestDecodingAllocatesOnlyTheValue(t *testing.T) {
	r := newRegistry(t)
	gateDecode(t, r, "int32", int32(7), 0)
	gateDecode(t, r, "int", -1<<30, 0)
	gateDecode(t, r, "float64", 1.5, 0)
	gateDecode(t, r, "bool", true, 0)
	gateDecode(t, r, "Level", Level(7), 0)
	gateDecode(t, r, "string", "a text of some length", 1)
	gateDecode(t, r, "[]byte", make([]byte, 100), 1)
	gateDecode(t, r, "[]int32", make([]int32, 100), 1)
	gateDecode(t, r, "[][]float64", [][]float64{{1, 2}, {3, 4}}, 2)
	gateDecode(t, r, "Line", Line{"item", 1, 2}, 1)
	gateDecode(t, r, "[]Line", []Line{{"item", 1, 2}, {"other", 1, 2}}, 3)
	gateDecode(t, r, "*Link", &Link{1, &Link{2, nil}}, 2)
}

func TestBorrowingDoesNotAllocate(t *testing.T) {
	b := mustMarshal(t, nil, []byte("a slice"))
	s := mustMarshal(t, nil, "a text")
	gate(t, "BorrowBytes", 0, func() {
		if v, _, err := codec.BorrowBytes(b); err != nil || &v[0] != &b[2] {
			t.Error("not borrowed")
		}
	})
	gate(t, "BorrowString", 0, func() {
		if v, _, err := codec.BorrowString(s); err != nil || v != "a text" {
			t.Error("not borrowed")
		}
	})
}

// Variables that exist already are filled without another allocation.
func TestUnmarshalOfScalarsDoesNotAllocate(t *testing.T) {
	r := newRegistry(t)
	b := mustMarshal(t, r, int32(1), 2.5, Line{"", 1, 2})
	ptrs := []any{new(int32), new(float64), new(Line)}
	gate(t, "Unmarshal", 0, func() {
		if err := r.Unmarshal(b, ptrs...); err != nil {
			t.Error(err)
		}
	})
	vals := []any{int32(1), 2.5, order(), &Link{}, []Line{{}}}
	dst := make([]byte, 0, 4096)
	gate(t, "Append", 0, func() { dst, _ = r.Append(dst[:0], vals...) })
}

func TestShapeDoesNotAllocate(t *testing.T) {
	r := newRegistry(t)
	b := mustMarshal(t, r, int32(1), "two", []Order{order()}, codec.Pair[string, int32]{})
	buf := make([]byte, 0, 100)
	known := map[codec.Shape]int{}
	gate(t, "AppendShape", 0, func() {
		shape, err := r.AppendShape(buf[:0], b)
		if err != nil || known[codec.Shape(shape)] != 0 {
			t.Error(err)
		}
	})
}
