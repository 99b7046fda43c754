// Package xfer moves a group's state from the member that makes it to those that join.
//
// The sender takes its state at the point of its delivery sequence where the new view begins, and sends it in pieces
// over a lane of its own; each joiner holds back what is delivered in the new view until the last piece is there, so
// that its first view starts from exactly that state. A joiner goes on waiting over later views while its sender lives;
// when the sender is gone before the end, what came is forgotten and the next sender starts anew. Guarded by the
// checker joiner-state.
package xfer

import (
	"github.com/khamsin-io/khamsin/vsync/core"
	"github.com/khamsin-io/khamsin/vsync/internal/pdu"
)

// Mark says what a piece of state is.
type Mark uint8

// The marks.
const (
	More    Mark = iota // a piece; more follow
	Last                // nothing more follows; the piece may be empty
	Aborted             // the sender could not make its state
)

// Encode returns the message for a piece of the state taken at the start of a view.
func Encode(view core.ViewID, m Mark, data []byte) []byte {
	w := pdu.Writer{B: make([]byte, 0, len(data)+12)}
	w.Uint(uint64(view))
	w.Byte(byte(m))
	w.B = append(w.B, data...)
	return w.B
}

// Decode reads what Encode wrote; data aliases the message.
func Decode(msg []byte) (view core.ViewID, m Mark, data []byte, err error) {
	r := pdu.NewReader(msg)
	view, m = core.ViewID(r.Uint()), Mark(r.Byte())
	if m > Aborted {
		return 0, 0, nil, pdu.ErrMalformed
	}
	return view, m, r.Rest(), r.Err()
}

// Outgoing is a transfer at its sender.
type Outgoing struct {
	ID      uint64
	Lid     uint32
	View    core.ViewID
	Targets []core.Address
	Full    bool // the application was told to wait
}

// Incoming is a transfer at a joiner.
type Incoming struct {
	Source core.Address
	View   core.ViewID // where the state is taken
}

// Accepts tells whether a piece belongs to this transfer.
func (i *Incoming) Accepts(from uint64, view core.ViewID) bool {
	return i != nil && i.Source.Incarnation == from && i.View == view
}
