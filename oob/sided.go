package oob

import (
	"github.com/khamsin-io/khamsin/dataplane"
	"github.com/khamsin-io/khamsin/oob/internal/catalog"
	"github.com/khamsin-io/khamsin/oob/internal/chain"
	"github.com/khamsin-io/khamsin/vsync"
)

// sidedOf returns what writes into others' memory, nil when this store does without: objects in files cannot be
// registered, and what is written is not sealed.
func sidedOf(sys *vsync.System, s *settings) dataplane.OneSided {
	if s.unsided || s.dir != "" {
		return nil
	}
	return sys.OneSided()
}

// isSided tells whether this process offers the others to write into its memory, and writes into theirs.
func (s *Store) isSided() bool {
	if s.sided == nil {
		return false
	}
	keys, err := s.keys()
	return err == nil && keys == nil
}

// sides returns how a link of a chain writes; nil when its bytes go over the connection. The memory is that of the
// transfer's one object, as far as it can be registered.
func (s *Store) sides(x *session, peer bool) *chain.Sided {
	items := x.transfer.Items
	if !peer || !s.isSided() || len(items) != 1 || !catalog.Alone(items[0].Size) {
		return nil
	}
	w := &chain.Sided{OneSided: s.sided, Trouble: s.unsided}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(x.copies) == 1 && x.copies[0].block.Lendable() {
		w.Memory = x.copies[0].item.Data
	}
	return w
}

// unsided says why bytes do not go from memory to memory: loudly once, since it goes on for as long as its reason does.
func (s *Store) unsided(err error) {
	if s.ctx.Err() != nil {
		return
	}
	if s.troubled.CompareAndSwap(false, true) {
		s.log.Warn("objects: bytes are copied or go by TCP, not by writes from memory to memory", "err", err)
		return
	}
	s.log.Debug("objects: no writes into memory", "err", err)
}
