package host

import (
	"context"

	"github.com/khamsin-io/khamsin/dataplane/clock"
	"github.com/khamsin-io/khamsin/vsync/internal/engine"
)

// StateWriter passes a group's state, piece by piece, to the members that join. It belongs to the handler that got it.
type StateWriter struct {
	host     *Host
	group    *Group
	ctx      context.Context
	transfer uint64
	room     room
	err      error // the transfer is over
}

// newStateWriter opens the writer of one transfer.
func (h *Host) newStateWriter(ctx context.Context, g *Group, transfer uint64) *StateWriter {
	w := &StateWriter{host: h, group: g, ctx: ctx, transfer: transfer}
	if !h.doFunc(func(clock.Time) { h.own.rooms[transfer] = &w.room }) {
		w.err = ErrEnded
	}
	return w
}

// Put sends one piece, which each joiner gets in one call of its loader. It waits while the transfer has no room and
// returns engine.ErrTransferAborted when there is nobody left to send to. The slice is the caller's again afterwards.
func (w *StateWriter) Put(piece []byte) error { return w.put(piece, false) }

func (w *StateWriter) put(piece []byte, last bool) error {
	for w.err == nil {
		c := w.host.newCall()
		c.kind, c.transfer, c.body, c.last = callChunk, w.transfer, piece, last
		switch w.host.doResult(c) {
		case engine.Accepted:
			return nil
		case engine.TooLarge:
			return ErrTooLarge
		case engine.NotMember:
			w.err = engine.ErrTransferAborted
			continue
		}
		w.err = w.room.wait(w.ctx, w.group.ending)
	}
	return w.err
}

// finish sends the end of the state when the maker made all of it, else word that there is none: then the joiners do
// not get in. It returns the first error.
func (w *StateWriter) finish(err error) error {
	if err == nil {
		err = w.put(nil, true)
	}
	failed := err != nil
	w.err = engine.ErrTransferAborted // for a handler that kept it
	w.host.doFunc(func(now clock.Time) {
		delete(w.host.own.rooms, w.transfer)
		if failed {
			w.host.engine.StateAbort(now, w.transfer)
		}
	})
	return err
}
