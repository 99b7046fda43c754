package codec_test

import (
	"math"
	"testing"
	"time"

	"github.com/khamsin-io/khamsin/vsync/codec"
)

// same tells whether two values are the same bit for bit, not-a-numbers included.
func same(a, b any) bool {
	switch a := a.(type) {
	case float32:
		b, ok := b.(float32)
		return ok && math.Float32bits(a) == math.Float32bits(b)
	case float64:
		b, ok := b.(float64)
		return ok && math.Float64bits(a) == math.Float64bits(b)
	}
	return a == b
}

// scalars are extremes of every built-in scalar.
func scalars() []any {
	return []any{
		false, true,
		int8(0), int8(math.MinInt8), int8(math.MaxInt8),
		int16(0), int16(math.MinInt16), int16(math.MaxInt16),
		int32(0), int32(math.MinInt32), int32(math.MaxInt32),
		int64(0), int64(math.MinInt64), int64(math.MaxInt64),
		0, math.MinInt, math.MaxInt, 63, 64, -64, -65,
		uint8(0), uint8(math.MaxUint8),
		uint16(0), uint16(math.MaxUint16),
		uint32(0), uint32(math.MaxUint32),
		uint64(0), uint64(math.MaxUint64),
		uint(0), uint(math.MaxUint), uint(127), uint(128),
		float32(0), float32(math.Copysign(0, -1)), float32(math.MaxFloat32), float32(math.SmallestNonzeroFloat32),
		float32(math.Inf(1)), float32(math.Inf(-1)), math.Float32frombits(0x7fc00001), math.Float32frombits(0xffc12345),
		0.0, math.Copysign(0, -1), math.MaxFloat64, math.SmallestNonzeroFloat64,
		math.Inf(1), math.Inf(-1), math.NaN(), math.Float64frombits(0xfff8000000012345),
		byte('b'), 'r', '\U0010FFFF',
		"", "a", "Grüße, 世界 \U0001F42B", "\x00", "not UTF-8: \xff\xfe",
		time.Duration(math.MinInt64), time.Hour,
	}
}

// rows: MSG-09
func TestScalars(t *testing.T) {
	for name, r := range registries(t) {
		for _, v := range scalars() {
			back, err := r.UnmarshalAny(mustMarshal(t, r, v))
			if err != nil || len(back) != 1 || !same(back[0], v) {
				t.Errorf("%s: %T(%v) became %v, %v", name, v, v, back, err)
			}
		}
		b := mustMarshal(t, r, scalars()...)
		back, err := r.UnmarshalAny(b)
		if err != nil || len(back) != len(scalars()) {
			t.Fatalf("%d values, %v", len(back), err)
		}
	}
}

// The typed functions read and write what the others do.
func TestScalarsTyped(t *testing.T) {
	for _, r := range registries(t) {
		for _, v := range scalars() {
			switch v := v.(type) {
			case bool:
				typed(t, r, v)
			case int8:
				typed(t, r, v)
			case int16:
				typed(t, r, v)
			case int32:
				typed(t, r, v)
			case int64:
				typed(t, r, v)
			case int:
				typed(t, r, v)
			case uint8:
				typed(t, r, v)
			case uint16:
				typed(t, r, v)
			case uint32:
				typed(t, r, v)
			case uint64:
				typed(t, r, v)
			case uint:
				typed(t, r, v)
			case float32:
				typed(t, r, v)
			case float64:
				typed(t, r, v)
			case string:
				typed(t, r, v)
			case time.Duration:
				typed(t, r, v)
			default:
				t.Errorf("%T is not tested", v)
			}
		}
	}
}

func typed[T any](t *testing.T, r *codec.Registry, v T) {
	t.Helper()
	want := mustMarshal(t, r, v)
	c, err := codec.CoderOf[T](r)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := codec.AppendValue(r, []byte("x"), v); err != nil || string(b) != "x"+string(want) {
		t.Errorf("AppendValue(%T %v): %x, %v", v, v, b, err)
	}
	if b, err := c.Append([]byte("x"), v); err != nil || string(b) != "x"+string(want) {
		t.Errorf("Coder.Append(%T %v): %x, %v", v, v, b, err)
	}
	behind := append(want[:len(want):len(want)], "rest"...)
	got, rest, err := codec.DecodeValue[T](r, behind)
	if err != nil || !same(any(got), any(v)) || string(rest) != "rest" {
		t.Errorf("DecodeValue(%T %v): %v, %q, %v", v, v, got, rest, err)
	}
	if got, rest, err := c.Decode(behind); err != nil || !same(any(got), any(v)) || string(rest) != "rest" {
		t.Errorf("Coder.Decode(%T %v): %v, %q, %v", v, v, got, rest, err)
	}
	for n := range want {
		if _, rest, err := codec.DecodeValue[T](r, want[:n]); err == nil || len(rest) != n {
			t.Errorf("DecodeValue(%T) took %d of %d bytes", v, n, len(want))
		}
	}
}
