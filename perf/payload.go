package perf

import (
	"encoding/binary"
	"math/rand/v2"

	"github.com/khamsin-io/khamsin/vsync"
)

// Codes of the group's messages.
const (
	codeData vsync.Code = 1 // head, then filling
	codeGo   vsync.Code = 2 // the group is complete: begin
	codeDone vsync.Code = 3 // one number: the messages that its sender sent
	codeDie  vsync.Code = 4 // the sender will kill itself in killDelay
	codeBye  vsync.Code = 5 // everybody has what he needs: leave
	codeFile vsync.Code = 6 // to rank 0: the sender's report, JSON
	codeAsk  vsync.Code = 7 // a query: head, then filling; the reply is its number
)

// headBytes is what stands in front of every message: when it was meant to be sent, in nanoseconds of the clock that
// the processes of a host share (0: not measured), and its number in its sender's sequence, from 1.
const headBytes = 16

func putHead(b []byte, stamp int64, number uint64) {
	binary.LittleEndian.PutUint64(b, uint64(stamp))
	binary.LittleEndian.PutUint64(b[8:], number)
}

// head reads what putHead wrote; false when b is too short.
func head(b []byte) (stamp int64, number uint64, ok bool) {
	if len(b) < headBytes {
		return 0, 0, false
	}
	return int64(binary.LittleEndian.Uint64(b)), binary.LittleEndian.Uint64(b[8:]), true
}

// filling returns the bytes of a message. They are random, the same in every run: what can be compressed would not be
// sent whole.
func (m *member) filling() []byte {
	b := make([]byte, m.Size)
	_, _ = rand.NewChaCha8([32]byte{}).Read(b) // never fails
	return b
}
