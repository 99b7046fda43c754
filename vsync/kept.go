package vsync

import (
	"sync/atomic"

	"github.com/khamsin-io/khamsin/dataplane/frame"
)

// keptMax is how many packets of a system handlers may keep without a copy.
const keptMax = rxFrames / 8

// Kept is a payload that outlives its handler: see Message.Keep.
type Kept struct {
	payload  []byte
	frame    frame.Frame
	sys      *System // nil when the payload lies in memory of its own
	released atomic.Bool
}

// Bytes returns the payload, until Release. It must not be changed.
func (k *Kept) Bytes() []byte { return k.payload }

// Release gives the payload back. Releasing twice does nothing. A payload that is never released is lost room for
// incoming packets. It must be released before the system ends: Close reports those that were not, and their bytes are
// gone then.
func (k *Kept) Release() {
	if k.released.Swap(true) {
		return
	}
	k.payload = nil
	if k.sys == nil {
		return
	}
	k.sys.keptMu.Lock()
	defer k.sys.keptMu.Unlock()
	if !k.sys.ended {
		k.sys.host.Arena().Release(k.frame)
	}
	k.sys.kept.Add(-1)
}

// endKept is called just before the memory of packets goes.
func (s *System) endKept() {
	s.keptMu.Lock()
	defer s.keptMu.Unlock()
	s.ended = true
}
