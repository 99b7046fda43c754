package transporttest

import (
	"context"
	"encoding/binary"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/khamsin-io/khamsin/dataplane"
)

// Sides joins processes of a test whose memory the others can write into: what a transport with dataplane.OneSided
// does, by copies inside of one process.
type Sides struct {
	mu      sync.Mutex
	last    uint64
	regions map[uint64]*sideRegion
	late    sync.WaitGroup
}

// NewSides returns sides without any process.
func NewSides() *Sides { return &Sides{regions: make(map[uint64]*sideRegion)} }

// Side is one process's dataplane.OneSided. The functions are set before it is used.
type Side struct {
	sides *Sides

	// Refuse tells why memory of a size cannot be registered, as a limit of locked memory would. Nil: it always can.
	Refuse func(size int) error
	// Break tells why write number n, from 1 on, fails; its connection is broken then. Nil: none does.
	Break func(n uint64) error
	// Late is how long after a write that failed its bytes land, changed, if the region still lets them. 0: never.
	Late time.Duration

	Writes, Bytes atomic.Uint64 // that succeeded
	Landed        atomic.Uint64 // late ones that were let in
	Open          atomic.Int64  // regions that are not closed
}

var (
	_ dataplane.OneSided = (*Side)(nil)
	_ dataplane.Region   = (*sideRegion)(nil)
	_ dataplane.Writer   = (*sideWriter)(nil)
)

// Side returns another process.
func (s *Sides) Side() *Side { return &Side{sides: s} }

// Wait returns when no late write is left.
func (s *Sides) Wait() { s.late.Wait() }

// sideNotices is how many notices wait, as in a transport.
const sideNotices = 1024

type sideNotice struct {
	value uint32
	err   error
}

type sideRegion struct {
	side    *Side
	id      uint64
	mem     []byte
	open    bool
	notices chan sideNotice
	closed  chan struct{}
	once    sync.Once
	use     sync.RWMutex // held for reading while bytes are copied to or from it
}

// OpenRegion returns memory.
func (s *Side) OpenRegion(size int) (dataplane.Region, error) {
	return s.Register(make([]byte, size), true)
}

// Register makes a region of memory.
func (s *Side) Register(memory []byte, open bool) (dataplane.Region, error) {
	if s.Refuse != nil {
		if err := s.Refuse(len(memory)); err != nil {
			return nil, err
		}
	}
	s.sides.mu.Lock()
	defer s.sides.mu.Unlock()
	s.sides.last++
	r := &sideRegion{
		side: s, id: s.sides.last, mem: memory, open: open, notices: make(chan sideNotice, sideNotices),
		closed: make(chan struct{}),
	}
	if open {
		s.sides.regions[r.id] = r
	}
	s.Open.Add(1)
	return r, nil
}

func (r *sideRegion) Bytes() []byte { return r.mem }

func (r *sideRegion) Key() []byte {
	if !r.open {
		return nil
	}
	return binary.LittleEndian.AppendUint64(nil, r.id)
}

func (r *sideRegion) Await(ctx context.Context) (uint32, error) {
	select {
	case n := <-r.notices:
		return n.value, n.err
	case <-r.closed:
		return 0, dataplane.ErrClosed
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
}

func (r *sideRegion) Close() error {
	r.once.Do(func() {
		r.side.sides.mu.Lock()
		delete(r.side.sides.regions, r.id)
		r.side.sides.mu.Unlock()
		close(r.closed)
		r.use.Lock() // until nobody is at it
		defer r.use.Unlock()
		r.mem = nil
		r.side.Open.Add(-1)
	})
	return nil
}

type sideWriter struct {
	side   *Side
	target *sideRegion
	size   int
	mu     sync.Mutex
	count  uint64
	broken error
}

// Connect reaches a region.
func (s *Side) Connect(_ context.Context, key []byte) (dataplane.Writer, error) {
	if len(key) != 8 {
		return nil, errors.New("no key")
	}
	s.sides.mu.Lock()
	defer s.sides.mu.Unlock()
	r := s.sides.regions[binary.LittleEndian.Uint64(key)]
	if r == nil {
		return nil, dataplane.ErrPeerGone
	}
	return &sideWriter{side: s, target: r, size: len(r.mem)}, nil
}

func (w *sideWriter) Size() int { return w.size }

func (w *sideWriter) Write(ctx context.Context, source dataplane.Region, c dataplane.Copy, notice uint32) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	from, ok := source.(*sideRegion)
	if !ok || from.side != w.side {
		return errors.New("the source is of another process")
	}
	if w.broken != nil {
		return w.broken
	}
	w.count++
	if w.side.Break != nil {
		if w.broken = w.side.Break(w.count); w.broken != nil {
			w.lose(c)
			return w.broken
		}
	}
	if w.broken = w.write(ctx, from, c, notice); w.broken == nil {
		w.side.Writes.Add(1)
		w.side.Bytes.Add(uint64(c.Len))
	}
	return w.broken
}

func (w *sideWriter) write(ctx context.Context, from *sideRegion, c dataplane.Copy, notice uint32) error {
	from.use.RLock()
	defer from.use.RUnlock()
	w.target.use.RLock()
	defer w.target.use.RUnlock()
	switch {
	case from.mem == nil:
		return dataplane.ErrClosed
	case w.target.mem == nil:
		return dataplane.ErrPeerGone
	}
	copy(w.target.mem[c.To:c.To+c.Len], from.mem[c.From:c.From+c.Len])
	select {
	case w.target.notices <- sideNotice{value: notice}:
		return nil
	case <-w.target.closed:
		return dataplane.ErrPeerGone
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// lose lets the bytes of a write that failed land later, changed.
func (w *sideWriter) lose(c dataplane.Copy) {
	if w.side.Late == 0 {
		return
	}
	w.side.sides.late.Go(func() {
		select {
		case <-time.After(w.side.Late):
		case <-w.target.closed:
		}
		w.target.use.Lock() // nobody reads what others write meanwhile, or the race detector speaks
		defer w.target.use.Unlock()
		if w.target.mem == nil {
			return
		}
		w.side.Landed.Add(1)
		for i := range c.Len {
			w.target.mem[c.To+i] ^= 0xff
		}
	})
}

func (w *sideWriter) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.broken != nil && !errors.Is(w.broken, dataplane.ErrClosed) {
		select {
		case w.target.notices <- sideNotice{err: dataplane.ErrPeerGone}:
		default:
		}
	}
	w.broken = dataplane.ErrClosed
	return nil
}
