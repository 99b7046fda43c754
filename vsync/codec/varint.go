package codec

import (
	"encoding/binary"
	"math"
)

// uvarintMax is the greatest length of a varint in bytes.
const uvarintMax = binary.MaxVarintLen64

// readUvarint reads a varint in its shortest form.
func readUvarint(b []byte) (uint64, []byte, error) {
	if len(b) > 0 && b[0] < 0x80 {
		return uint64(b[0]), b[1:], nil
	}
	v, n := binary.Uvarint(b)
	switch {
	case n == 0:
		return 0, b, ErrTruncated
	case n < 0:
		return 0, b, ErrRange
	case b[n-1] == 0:
		return 0, b, ErrCanonical
	}
	return v, b[n:], nil
}

// readVarint reads a zigzag varint in its shortest form.
func readVarint(b []byte) (int64, []byte, error) {
	u, rest, err := readUvarint(b)
	return int64(u>>1) ^ -int64(u&1), rest, err
}

// readLength reads the length of a byte string, which the rest must hold.
func readLength(b []byte) (int, []byte, error) {
	v, rest, err := readUvarint(b)
	if err != nil {
		return 0, rest, err
	}
	if v > uint64(len(rest)) {
		return 0, rest, ErrTruncated
	}
	return int(v), rest, nil
}

// readCount reads the count+1 in front of a slice whose elements take at least size bytes each. The count is -1 for a
// nil slice. A count that the rest cannot hold is refused.
func readCount(b []byte, size int) (int, []byte, error) {
	v, rest, err := readUvarint(b)
	if err != nil {
		return 0, rest, err
	}
	if v > 0 && v-1 > uint64(len(rest)/size) {
		return 0, rest, ErrTruncated
	}
	return int(v) - 1, rest, nil
}

// appendCount appends count+1, or 0 for a nil slice.
func appendCount(b []byte, n int, isNil bool) []byte {
	if isNil {
		return append(b, 0)
	}
	return binary.AppendUvarint(b, uint64(n)+1)
}

// uvarintLen returns the length of a varint in bytes.
func uvarintLen(v uint64) int {
	n := 1
	for ; v >= 0x80; v >>= 7 {
		n++
	}
	return n
}

// zigzag is the unsigned form of a signed number.
func zigzag(v int64) uint64 { return uint64(v<<1) ^ uint64(v>>63) }

// fitsInt tells whether v fits the machine's int.
func fitsInt(v int64) bool { return v >= math.MinInt && v <= math.MaxInt }
