package vsync

import (
	"sync/atomic"

	"github.com/klauspost/compress/s2"
)

// compressMin is the shortest message that is compressed: below it the network saves less than the processor pays.
const compressMin = 16 << 10

// compressGain is the least share of a message, one in compressGain, that compression must save.
const compressGain = 8

// trials says which messages of a group are worth a trial: after some that could not be compressed, few are tried until
// one can be. Several goroutines may send at once; then it is about right.
type trials struct{ misses, skip atomic.Int32 }

// skipMax is the greatest number of messages between two trials, as a power of two.
const skipMax = 5

// worth tells whether a message should be tried.
func (t *trials) worth() bool { return t.skip.Load() <= 0 || t.skip.Add(-1) < 0 }

// note says what became of a trial.
func (t *trials) note(smaller bool) {
	if smaller {
		t.misses.Store(0)
		return
	}
	n := min(t.misses.Add(1), skipMax)
	t.misses.Store(n)
	t.skip.Store(1<<n - 1)
}

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
