package order

import (
	"encoding/binary"

	"github.com/khamsin-io/khamsin/vsync/core"
)

// Run is a place in the total order: the next Count ordered packets of a member.
type Run struct {
	Rank  core.Rank
	Count uint32
}

// AppendRun appends a run to the payload of an order record.
func AppendRun(b []byte, r Run) []byte {
	b = binary.AppendUvarint(b, uint64(r.Rank))
	return binary.AppendUvarint(b, uint64(r.Count))
}

// DecodeRun takes one run from the front of an order record.
func DecodeRun(b []byte, n int) (Run, []byte, bool) {
	rank, i := binary.Uvarint(b)
	if i <= 0 || rank >= uint64(n) {
		return Run{}, nil, false
	}
	count, j := binary.Uvarint(b[i:])
	if j <= 0 || count == 0 || count > 1<<30 {
		return Run{}, nil, false
	}
	return Run{core.Rank(rank), uint32(count)}, b[i+j:], true
}

// Cause is one entry of a causal record: everything of a member's stream up to Seq comes first.
type Cause struct {
	Rank core.Rank
	Seq  core.Seq
}

// AppendCause appends an entry to the payload of a causal record.
func AppendCause(b []byte, c Cause) []byte {
	b = binary.AppendUvarint(b, uint64(c.Rank))
	return binary.AppendUvarint(b, uint64(c.Seq))
}

// DecodeCause takes one entry from the front of a causal record.
func DecodeCause(b []byte, n int) (Cause, []byte, bool) {
	rank, i := binary.Uvarint(b)
	if i <= 0 || rank >= uint64(n) {
		return Cause{}, nil, false
	}
	seq, j := binary.Uvarint(b[i:])
	if j <= 0 {
		return Cause{}, nil, false
	}
	return Cause{core.Rank(rank), core.Seq(seq)}, b[i+j:], true
}
