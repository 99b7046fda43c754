package stream

import (
	"github.com/khamsin-io/khamsin/dataplane/frame"
	"github.com/khamsin-io/khamsin/vsync/core"
)

// held keeps the frames of one stream by sequence number. It covers the numbers above base; missing ones are zero
// frames. It grows to the span of what it holds and never shrinks: the span is bounded by the windows.
type held struct {
	slots []heldSlot // power of two, index seq&mask
	base  core.Seq   // all numbers up to base are gone
	top   core.Seq   // highest number held so far, at least base
}

// heldSlot is a packet and its flags, which are asked for several times: here they are found without its frame.
type heldSlot struct {
	frame frame.Frame
	flags uint8
}

const heldMin = 16

func (h *held) slot(s core.Seq) heldSlot {
	if s <= h.base || s > h.top {
		return heldSlot{}
	}
	return h.slots[uint64(s)&uint64(len(h.slots)-1)]
}

func (h *held) get(s core.Seq) frame.Frame { return h.slot(s).frame }

func (h *held) put(s core.Seq, f frame.Frame, flags uint8) {
	if need := uint64(s - h.base); need > uint64(len(h.slots)) {
		h.grow(need)
	}
	h.slots[uint64(s)&uint64(len(h.slots)-1)] = heldSlot{f, flags}
	h.top = max(h.top, s)
}

func (h *held) grow(need uint64) {
	size := uint64(heldMin)
	for size < need {
		size *= 2
	}
	slots := make([]heldSlot, size)
	for s := h.base + 1; s <= h.top; s++ {
		slots[uint64(s)&(size-1)] = h.slot(s)
	}
	h.slots = slots
}

// drop forgets the number right above base and returns its frame.
func (h *held) drop() frame.Frame {
	s := h.base + 1
	f := h.get(s)
	if len(h.slots) > 0 {
		h.slots[uint64(s)&uint64(len(h.slots)-1)] = heldSlot{}
	}
	h.base = s
	h.top = max(h.top, s)
	return f
}
