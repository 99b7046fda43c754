package frame

import (
	"bytes"
	"slices"

	"github.com/khamsin-io/khamsin/dataplane/invariant"
)

// poisonByte fills free chunks when invariant.Costly is set.
const poisonByte = 0xDB

// poisonBlock is what chunks are filled from and compared with.
//
// immutable: filled here once
var poisonBlock = [1024]byte(bytes.Repeat([]byte{poisonByte}, 1024))

// poison marks the bytes of a chunk or run that has just become free.
func (a *Arena) poison(chunk uint32) {
	if !invariant.Costly {
		return
	}
	a.poisoned[chunk] = true
	for b := a.whole(chunk); len(b) > 0; {
		b = b[copy(b, poisonBlock[:]):]
	}
}

// checkPoison fails when somebody wrote to a chunk or run while it was free.
func (a *Arena) checkPoison(chunk uint32) {
	if !invariant.Costly || !a.poisoned[chunk] {
		return
	}
	whole := a.whole(chunk)
	for b := whole; len(b) > 0; {
		n := min(len(b), len(poisonBlock))
		if !bytes.Equal(b[:n], poisonBlock[:n]) {
			at := slices.IndexFunc(whole, func(c byte) bool { return c != poisonByte })
			invariant.Fail("frame: chunk %d was written after its release: byte %d is %#x", chunk, at, whole[at])
		}
		b = b[n:]
	}
}

// whole returns all bytes of a chunk or run; none when the arena is closed.
func (a *Arena) whole(chunk uint32) []byte {
	if a.mem == nil {
		return nil
	}
	from := uint64(chunk) << a.shift
	return a.mem[from : from+uint64(a.span(chunk))]
}
