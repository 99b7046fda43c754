package codec_test

import (
	"bytes"
	"errors"
	"reflect"
	"testing"

	"github.com/khamsin-io/khamsin/vsync/codec"
	"pgregory.net/rapid"
)

// Any bytes are an error or a body; a body has one encoding, and all ways to look at it agree.
func FuzzUnmarshalAny(f *testing.F) {
	r := newRegistry(f)
	portable := newRegistry(f)
	codec.ForcePortable(portable)
	for _, v := range golden() {
		f.Add(mustMarshal(f, r, v))
	}
	f.Add(mustMarshal(f, r, golden()...))
	f.Fuzz(func(t *testing.T, b []byte) {
		vals, err := r.UnmarshalAny(b)
		other, otherErr := portable.UnmarshalAny(b)
		if (err == nil) != (otherErr == nil) || len(vals) != len(other) {
			t.Fatalf("machines disagree: %v, %v", err, otherErr)
		}
		n := 0
		var skipErr error
		for raw, err := range r.Values(b) {
			n += len(raw)
			skipErr = err
		}
		if err != nil {
			// Values does not look into what the types encode on their own.
			if skipErr == nil && !errors.Is(err, errPoint) && !errors.Is(err, errDoor) {
				t.Fatalf("Values took what UnmarshalAny refused: %v", err)
			}
			return
		}
		if skipErr != nil || n != len(b) {
			t.Fatalf("Values refused what UnmarshalAny took: %v", skipErr)
		}
		again, err := r.Marshal(vals...)
		if err != nil || !bytes.Equal(again, b) {
			t.Fatalf("two encodings:\n%x\n%x, %v", b, again, err)
		}
		if size, err := r.Size(vals...); err != nil || size != len(b) {
			t.Fatalf("Size says %d of %d, %v", size, len(b), err)
		}
	})
}

// into decodes b as a T. What it takes must encode to the same bytes again.
func into[T any](t *testing.T, r *codec.Registry, b []byte) {
	v, rest, err := codec.DecodeValue[T](r, b)
	if err != nil {
		if len(rest) != len(b) {
			t.Fatalf("%T: an error and %d of %d bytes taken", v, len(b)-len(rest), len(b))
		}
		return
	}
	used := b[:len(b)-len(rest)]
	if again, err := codec.AppendValue(r, nil, v); err != nil || !bytes.Equal(again, used) {
		t.Fatalf("%T: two encodings:\n%x\n%x, %v", v, used, again, err)
	}
	var same T
	if err := r.Unmarshal(used, &same); err != nil {
		t.Fatalf("%T: Unmarshal: %v", v, err)
	}
	for n := range min(len(used), 32) {
		if _, _, err := codec.DecodeValue[T](r, used[:n]); err == nil {
			t.Fatalf("%T: %d of %d bytes were enough", v, n, len(used))
		}
	}
}

// Bytes behind the right type are an error or the one encoding of a value of it, whatever the type.
func FuzzUnmarshalInto(f *testing.F) {
	r := newRegistry(f)
	type byLevel = codec.Pair[Level, []Order]
	targets := []struct {
		zero any
		run  func(*testing.T, *codec.Registry, []byte)
	}{
		{0, into[int]}, {"", into[string]}, {[]byte{}, into[[]byte]}, {[]bool{}, into[[]bool]}, {[]int{}, into[[]int]},
		{[]uint16{}, into[[]uint16]}, {[]string{}, into[[]string]}, {[][]byte{}, into[[][]byte]},
		{[][]float32{}, into[[][]float32]}, {Everything{}, into[Everything]}, {Order{}, into[Order]},
		{[]*Order{}, into[[]*Order]}, {Tree{}, into[Tree]}, {&Link{}, into[*Link]}, {[]Signal{}, into[[]Signal]},
		{Place{}, into[Place]}, {[]Point{}, into[[]Point]}, {[3]bool{}, into[[3]bool]}, {[2]Line{}, into[[2]Line]},
		{byLevel{}, into[byLevel]}, {[]byLevel{}, into[[]byLevel]}, {codec.Raw{0x80, 0}, into[codec.Raw]},
	}
	shapes := make([]codec.Shape, len(targets))
	for i, target := range targets[:len(targets)-1] {
		shape, err := r.ShapeOf(reflect.TypeOf(target.zero))
		if err != nil {
			f.Fatal(err)
		}
		shapes[i] = shape
	}
	for i, target := range targets {
		f.Add(byte(i), mustMarshal(f, r, target.zero)[len(shapes[i]):])
	}
	f.Add(byte(10), mustMarshal(f, r, order())[3:])
	f.Fuzz(func(t *testing.T, which byte, payload []byte) {
		i := int(which) % len(targets)
		targets[i].run(t, r, append([]byte(shapes[i]), payload...))
		targets[i].run(t, r, payload)
	})
}

// Any values come back as they were.
func FuzzRoundTrip(f *testing.F) {
	r := newRegistry(f)
	f.Add([]byte("some bytes to draw from, enough for a few values of several types and their fields"))
	f.Fuzz(rapid.MakeFuzz(func(t *rapid.T) {
		mustRoundTrip(t, r, rapid.SliceOfN(anything(), 0, 4).Draw(t, "values"))
	}))
}

// Any text is no signature, or one that equals itself and differs from others.
func FuzzSignature(f *testing.F) {
	r := newRegistry(f)
	f.Add(mustSign(f, r, func(Everything, Order) {}).Text, mustSign(f, r, func(Order, Everything) {}).Text)
	f.Add("(O#1{L []L#2{P float64}})", "(O#1{L []L#2{P float32}})")
	f.Add("(pair<[3]int,*A#0{}>)", "(")
	f.Fuzz(func(t *testing.T, a, b string) {
		x, errX := codec.ParseSignature(a)
		y, errY := codec.ParseSignature(b)
		if errX == nil && codec.Diff(x, x) != "" {
			t.Fatal("differs from itself")
		}
		if errX == nil && errY == nil && (a != b) != (codec.Diff(x, y) != "") {
			t.Fatalf("%q and %q: %q", a, b, codec.Diff(x, y))
		}
	})
}
