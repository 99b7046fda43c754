package vsync

import "github.com/klauspost/compress/s2"

// compressMin is the shortest message that is compressed: below it the network saves less than the processor pays.
const compressMin = 16 << 10

// compressGain is the least share of a message, one in compressGain, that compression must save.
const compressGain = 8

// deflate compresses the bytes behind a head into dst, and tells whether that was worth it.
func deflate(dst, b []byte) ([]byte, bool) {
	if most := s2.MaxEncodedLen(len(b)); most > 0 && cap(dst) < most {
		dst = make([]byte, 0, most)
	}
	out := s2.Encode(dst[:cap(dst)], b)
	return out, len(out) < len(b)-len(b)/compressGain
}

// inflate returns the bytes that deflate had, in dst when its capacity is enough; nil when they are malformed or longer
// than limit. What the bytes claim is believed only within the limit.
func inflate(dst, b []byte, limit int) []byte {
	n, err := s2.DecodedLen(b)
	if err != nil || n > limit || n == 0 {
		return nil
	}
	out, err := s2.Decode(dst[:cap(dst)], b)
	if err != nil {
		return nil
	}
	return out
}
