package codec

import (
	"bytes"
	"errors"
	"math"
	"testing"
	"unsafe"
)

// The loops for machines with 32-bit ints, on any machine.
func TestIntsOf32Bits(t *testing.T) {
	ints := []int32{0, 1, -1, math.MinInt32, math.MaxInt32}
	wide := appendWords(nil, unsafe.Pointer(&[]int64{0, 1, -1, math.MinInt32, math.MaxInt32}[0]), 5, 8, true)
	b := appendInts32(nil, unsafe.Pointer(&ints[0]), 5, true)
	if !bytes.Equal(b, wide) {
		t.Fatalf("%x, %x", b, wide)
	}
	got := make([]int32, 5)
	if err := readInts32(unsafe.Pointer(&got[0]), b, 5, true); err != nil || got[3] != ints[3] || got[4] != ints[4] {
		t.Fatal(got, err)
	}
	uints := []uint32{0, 1, math.MaxUint32}
	b = appendInts32(nil, unsafe.Pointer(&uints[0]), 3, false)
	if wide := appendWords(nil, unsafe.Pointer(&[]uint64{0, 1, math.MaxUint32}[0]), 3, 8, true); !bytes.Equal(b, wide) {
		t.Fatalf("%x, %x", b, wide)
	}
	if err := readInts32(unsafe.Pointer(&got[0]), b, 3, false); err != nil || got[2] != -1 {
		t.Fatal(got, err)
	}
	for v, signed := range map[int64]bool{
		math.MaxInt32 + 1: true, math.MinInt32 - 1: true, math.MaxUint32 + 1: false, -1: false,
	} {
		b := appendWords(nil, unsafe.Pointer(&v), 1, 8, true)
		if err := readInts32(unsafe.Pointer(&got[0]), b, 1, signed); !errors.Is(err, ErrRange) {
			t.Errorf("%d: %v", v, err)
		}
	}
}

// A copy in one piece and the portable loops agree, from any alignment, also on what they leave alone.
func TestCopyAndLoopsAgree(t *testing.T) {
	src := make([]byte, 100)
	for i := range src {
		src[i] = byte(i*7 + 1)
	}
	for _, width := range []int{1, 2, 4, 8} {
		for shift := range 9 {
			for n := range 6 {
				fast := cloneWords(src[shift:], n, width, !hostIsLittle())
				slow := cloneWords(src[shift:], n, width, true)
				a, b := unsafe.Slice((*byte)(fast), n*width), unsafe.Slice((*byte)(slow), n*width)
				if !bytes.Equal(a, b) || hostIsLittle() && !bytes.Equal(a, src[shift:shift+n*width]) {
					t.Fatalf("width %d, %d elements from %d: %x, %x", width, n, shift, a, b)
				}
				out := appendWords([]byte("x"), slow, n, width, true)
				if string(out) != "x"+string(src[shift:shift+n*width]) {
					t.Fatalf("width %d: %x", width, out)
				}
			}
		}
	}
}

func TestAreBools(t *testing.T) {
	b := make([]byte, 19)
	if !areBools(b) || !areBools(nil) {
		t.Fatal("zeros are bools")
	}
	for i := range b {
		for v := range 256 {
			b[i] = byte(v)
			if areBools(b) != (v < 2) {
				t.Fatalf("byte %d of %d", i, v)
			}
		}
		b[i] = 0
	}
}
