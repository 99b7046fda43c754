package codec

import (
	"encoding/binary"
	"math"
	"slices"
	"unsafe"
)

// hostIsLittle tells whether the machine's numbers lie in memory as the format wants them. Where they do not, and where
// a test asks for it, the portable loops run.
func hostIsLittle() bool { return binary.NativeEndian.Uint16([]byte{1, 0}) == 1 }

// appendWords appends n elements of the given width that lie at p.
func appendWords(b []byte, p unsafe.Pointer, n, width int, portable bool) []byte {
	if !portable || width == 1 {
		return append(b, unsafe.Slice((*byte)(p), n*width)...)
	}
	b = slices.Grow(b, n*width)
	switch width {
	case 2:
		for _, v := range unsafe.Slice((*uint16)(p), n) {
			b = binary.LittleEndian.AppendUint16(b, v)
		}
	case 4:
		for _, v := range unsafe.Slice((*uint32)(p), n) {
			b = binary.LittleEndian.AppendUint32(b, v)
		}
	case 8:
		for _, v := range unsafe.Slice((*uint64)(p), n) {
			b = binary.LittleEndian.AppendUint64(b, v)
		}
	}
	return b
}

// readWords reads n elements of the given width from src, which holds them, to p.
func readWords(p unsafe.Pointer, src []byte, n, width int, portable bool) {
	if !portable || width == 1 {
		copy(unsafe.Slice((*byte)(p), n*width), src)
		return
	}
	switch width {
	case 2:
		for i := range unsafe.Slice((*uint16)(p), n) {
			*(*uint16)(unsafe.Add(p, i*2)) = binary.LittleEndian.Uint16(src[i*2:])
		}
	case 4:
		for i := range unsafe.Slice((*uint32)(p), n) {
			*(*uint32)(unsafe.Add(p, i*4)) = binary.LittleEndian.Uint32(src[i*4:])
		}
	case 8:
		for i := range unsafe.Slice((*uint64)(p), n) {
			*(*uint64)(unsafe.Add(p, i*8)) = binary.LittleEndian.Uint64(src[i*8:])
		}
	}
}

// makeWords allocates n elements of the given width.
func makeWords(n, width int) unsafe.Pointer {
	switch width {
	case 1:
		return unsafe.Pointer(unsafe.SliceData(make([]byte, n)))
	case 2:
		return unsafe.Pointer(unsafe.SliceData(make([]uint16, n)))
	case 4:
		return unsafe.Pointer(unsafe.SliceData(make([]uint32, n)))
	}
	return unsafe.Pointer(unsafe.SliceData(make([]uint64, n)))
}

// cloneWords allocates n elements of the given width and fills them from src, which holds them.
func cloneWords(src []byte, n, width int, portable bool) unsafe.Pointer {
	p := unsafe.Pointer(unsafe.SliceData(src))
	if n > 0 && (!portable || width == 1) && uintptr(p)%uintptr(width) == 0 {
		// As it will be overwritten at once, append does not clear the memory first, which takes half of the time.
		switch width {
		case 1:
			return cloneAs[byte](p, n)
		case 2:
			return cloneAs[uint16](p, n)
		case 4:
			return cloneAs[uint32](p, n)
		case 8:
			return cloneAs[uint64](p, n)
		}
	}
	data := makeWords(n, width)
	readWords(data, src, n, width, portable)
	return data
}

func cloneAs[T any](p unsafe.Pointer, n int) unsafe.Pointer {
	return unsafe.Pointer(unsafe.SliceData(append([]T(nil), unsafe.Slice((*T)(p), n)...)))
}

// appendInts32 appends n 32-bit ints as eight bytes each; for machines whose int has 32 bits.
func appendInts32(b []byte, p unsafe.Pointer, n int, signed bool) []byte {
	b = slices.Grow(b, n*8)
	for _, v := range unsafe.Slice((*uint32)(p), n) {
		wide := uint64(v)
		if signed {
			wide = uint64(int64(int32(v)))
		}
		b = binary.LittleEndian.AppendUint64(b, wide)
	}
	return b
}

// readInts32 reads n ints of eight bytes each from src into 32-bit ints at p, and refuses those that do not fit.
func readInts32(p unsafe.Pointer, src []byte, n int, signed bool) error {
	for i := range n {
		v := binary.LittleEndian.Uint64(src[i*8:])
		if signed && int64(v) != int64(int32(v)) || !signed && v > math.MaxUint32 {
			return ErrRange
		}
		*(*uint32)(unsafe.Add(p, i*4)) = uint32(v)
	}
	return nil
}

// areBools tells whether every byte is 0 or 1.
func areBools(b []byte) bool {
	for ; len(b) >= 8; b = b[8:] {
		if binary.LittleEndian.Uint64(b)&^0x0101010101010101 != 0 {
			return false
		}
	}
	for _, v := range b {
		if v > 1 {
			return false
		}
	}
	return true
}
