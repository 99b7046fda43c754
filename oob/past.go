package oob

import (
	"github.com/khamsin-io/khamsin/oob/internal/background"
	"github.com/khamsin-io/khamsin/oob/internal/cast"
)

// pastMin is the size in bytes from which on a transfer uses sockets past the stack: to open them takes about as long
// as to send that many.
const pastMin = 1 << 20

// past returns how the multicasts of a transfer go past the kernel's network stack. Without a Bypass they do not.
func (s *Store) past(x *session) cast.Past {
	total := uint64(0)
	for _, n := range x.sizes() {
		total += n
	}
	p := cast.Past{Trouble: s.notPast, Hear: s.group.System().Hear}
	if total >= pastMin {
		p.Bypass = s.bypass
	}
	return p
}

// notPast says why packets go by UDP that should not: loudly once, since it goes on for as long as its reason does.
func (s *Store) notPast(err error) {
	if s.ctx.Err() != nil {
		return
	}
	if s.stacked.CompareAndSwap(false, true) {
		s.log.Warn("objects: multicasts go by UDP, not past the stack", "err", err)
		return
	}
	s.log.Debug("objects: multicasts go by UDP", "err", err)
}

// do does work on a thread of its own that gives way to others.
func (s *settings) do(work func() error) error {
	return background.Do(s.nice, func() error {
		if s.inside != nil {
			return s.inside(work)
		}
		return work()
	})
}
