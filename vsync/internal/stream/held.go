package stream

import (
	"github.com/khamsin-io/khamsin/dataplane/frame"
	"github.com/khamsin-io/khamsin/vsync/core"
)

// held keeps the frames of one stream by sequence number. It covers the numbers above base; missing ones are zero
// frames. It grows to the span of what it holds and never shrinks: the span is bounded by the windows.
type held struct {
	slots []frame.Frame // power of two, index seq&mask
	base  core.Seq      // all numbers up to base are gone
	top   core.Seq      // highest number held so far, at least base
}

const heldMin = 16

func (h *held) get(s core.Seq) frame.Frame {
	if s <= h.base || s > h.top {
		return frame.Frame{}
	}
	return h.slots[uint64(s)&uint64(len(h.slots)-1)]
}

func (h *held) put(s core.Seq, f frame.Frame) {
	if need := uint64(s - h.base); need > uint64(len(h.slots)) {
		h.grow(need)
	}
	h.slots[uint64(s)&uint64(len(h.slots)-1)] = f
	h.top = max(h.top, s)
}

func (h *held) grow(need uint64) {
	size := uint64(heldMin)
	for size < need {
		size *= 2
	}
	slots := make([]frame.Frame, size)
	for s := h.base + 1; s <= h.top; s++ {
		slots[uint64(s)&(size-1)] = h.get(s)
	}
	h.slots = slots
}

// drop forgets the number right above base and returns its frame.
func (h *held) drop() frame.Frame {
	s := h.base + 1
	f := h.get(s)
	if len(h.slots) > 0 {
		h.slots[uint64(s)&uint64(len(h.slots)-1)] = frame.Frame{}
	}
	h.base = s
	h.top = max(h.top, s)
	return f
}
