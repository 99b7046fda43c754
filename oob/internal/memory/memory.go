// Package memory is where the bytes of bulk objects are: files without a name, in memory, mapped into the process.
//
// What such a file is made of decides how fast an object arrives. A fresh page costs a fault, and with pages of 4 KiB
// on a virtual machine the faults cost more than everything else together. So a pool takes huge pages where it can have
// them, and where it cannot it measures once whether faults or writes are cheaper.
package memory

import (
	"errors"
	"slices"
	"sync"
	"time"
)

// Errors of pools.
var (
	ErrNoSpace = errors.New("no memory is left for the object") // immutable: an error
	ErrClosed  = errors.New("the pool is closed")               // immutable: an error
)

// Kinds of memory.
const (
	KindHuge  = "huge pages" // of a file system in memory
	KindFault = "pages, filled in place"
	KindWrite = "pages, written"
	KindFile  = "files"
)

const (
	pageLen   = 4 << 10
	slabLen   = 4 << 20
	slabBlock = 1 << 20 // blocks of at least so many bytes have a file of their own
)

// Spares says how much of the memory that is given back is kept for what comes next, which then has its pages already.
type Spares struct {
	Most   int64         // bytes
	Linger time.Duration // for how long more than that is kept
	Heavy  func(func())  // does work that takes long; nil: calls it
}

// Pool hands out memory. All methods may be called by any goroutine.
type Pool struct {
	source source
	limits Spares

	mu       sync.Mutex // guards what follows
	slabs    []*slab
	spares   []*area // the first one has been kept for longest
	kept     int64   // bytes of spares
	used     int64
	reused   uint64 // bytes
	trimAt   *time.Timer
	trimming sync.WaitGroup
	closed   bool
}

// source makes files.
type source struct {
	kind  string
	mount int // descriptor of a file system; −1: none
	dir   string
}

// slab is one file in which several blocks lie.
type slab struct {
	area  *area
	taken []bool // pages
	count int
	again bool // some have been given back
}

// Block is the memory of one object.
type Block struct {
	Data []byte // mapped for reading and writing

	pool  *Pool
	area  *area
	slab  *slab
	off   int64
	pages int
	used  bool // before
}

// Fresh tells whether the block's bytes are zero, because nobody has had it before.
func (b *Block) Fresh() bool { return !b.used }

// Lendable tells whether the block may be registered with a device: its memory is no file, whose pages a device must
// not change behind the back of the file system.
func (b *Block) Lendable() bool { return b != nil && b.area != nil && b.pool.source.kind != KindFile }

// Direct tells whether bytes should be received right into Data; else WriteAt is cheaper.
func (p *Pool) Direct() bool { return p.source.kind == KindHuge || p.source.kind == KindFault }

// Kind returns what the memory is made of.
func (p *Pool) Kind() string { return p.source.kind }

// Used returns how many bytes are handed out.
func (p *Pool) Used() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.used
}

// Reused returns how many bytes have been handed out that others had before, in areas that were kept.
func (p *Pool) Reused() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.reused
}

// keep keeps an area for later, and returns what must go instead: the areas that were kept longest, or this one when
// it is too big to be kept. p.mu is held.
func (p *Pool) keep(a *area) (gone []*area) {
	n := int64(len(a.data))
	if p.closed || p.source.kind == KindFile || n > p.limits.Most && p.limits.Linger <= 0 {
		return []*area{a}
	}
	a.since = time.Now()
	p.spares = append(p.spares, a)
	p.kept += n
	return p.trim(a.since)
}

// trim takes the spares out that are too many and have been kept long enough, and sees to the others. p.mu is held.
func (p *Pool) trim(now time.Time) (gone []*area) {
	for p.kept > p.limits.Most {
		a := p.spares[0]
		if left := p.limits.Linger - now.Sub(a.since); left > 0 && !p.closed {
			if p.trimAt == nil {
				p.trimming.Add(1)
				p.trimAt = time.AfterFunc(left, p.trimLate)
			}
			break
		}
		p.kept -= int64(len(a.data))
		gone = append(gone, a)
		p.spares = slices.Delete(p.spares, 0, 1)
	}
	return gone
}

// trimLate gives back what was kept for a while only.
func (p *Pool) trimLate() {
	defer p.trimming.Done()
	p.mu.Lock()
	p.trimAt = nil
	gone := p.trim(time.Now())
	p.mu.Unlock()
	if len(gone) > 0 {
		p.limits.heavy(func() { closeAll(gone) })
	}
}

// shed takes out all spares that are too many. p.mu is held.
func (p *Pool) shed() []*area {
	for _, a := range p.spares {
		a.since = time.Time{}
	}
	return p.trim(time.Now())
}

func (l *Spares) heavy(work func()) {
	if l.Heavy == nil {
		work()
		return
	}
	l.Heavy(work)
}

func closeAll(list []*area) {
	for _, a := range list {
		a.close()
	}
}

// reuse returns a kept area that has room for size bytes, and not more than twice as much; nil without one. p.mu is
// held.
func (p *Pool) reuse(size int64) *area {
	best := -1
	for i, a := range p.spares {
		n := int64(len(a.data))
		if n >= size && n <= 2*size && (best < 0 || n < int64(len(p.spares[best].data))) {
			best = i
		}
	}
	if best < 0 {
		return nil
	}
	a := p.spares[best]
	p.spares = slices.Delete(p.spares, best, best+1)
	p.kept -= int64(len(a.data))
	return a
}

// release gives all spares back to the system, and tells whether there were any.
func (p *Pool) release() bool {
	p.mu.Lock()
	gone := p.spares
	p.spares, p.kept = nil, 0
	p.mu.Unlock()
	closeAll(gone)
	return len(gone) > 0
}

// Alloc returns memory for size bytes; what was in it may still be there. When it returns, the system has set the
// memory aside, so that filling it cannot fail; there is no other way to survive that.
func (p *Pool) Alloc(size int64) (*Block, error) {
	if size == 0 {
		return &Block{pool: p}, nil
	}
	pages := int((size + pageLen - 1) / pageLen)
	own := size >= slabBlock || p.source.kind == KindFile
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return nil, ErrClosed
	}
	if own {
		if a := p.reuse(size); a != nil {
			p.used += size
			p.reused += uint64(size)
			p.mu.Unlock()
			return &Block{Data: a.data[:size:size], pool: p, area: a, used: true}, nil
		}
	} else {
		for _, s := range p.slabs {
			if b := s.take(p, size, pages); b != nil {
				p.mu.Unlock()
				return b, nil
			}
		}
		if a := p.reuse(slabLen); a != nil {
			b := p.newSlab(a, true).take(p, size, pages)
			p.reused += slabLen
			p.mu.Unlock()
			return b, nil
		}
	}
	gone := p.shed()
	p.mu.Unlock() // making a file takes long
	closeAll(gone)
	length := int64(slabLen)
	if own {
		length = size
	}
	a, err := p.source.newArea(length)
	if errors.Is(err, ErrNoSpace) && p.release() {
		a, err = p.source.newArea(length)
	}
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		a.close()
		return nil, ErrClosed
	}
	if own {
		p.used += size
		return &Block{Data: a.data[:size:size], pool: p, area: a}, nil
	}
	return p.newSlab(a, false).take(p, size, pages), nil
}

// newSlab makes a slab of an area, which somebody may have had before. p.mu is held.
func (p *Pool) newSlab(a *area, again bool) *slab {
	s := &slab{area: a, taken: make([]bool, slabLen/pageLen), again: again}
	p.slabs = append(p.slabs, s)
	return s
}

// take returns a block of the slab, nil when it has no room.
func (s *slab) take(p *Pool, size int64, pages int) *Block {
	if len(s.taken)-s.count < pages {
		return nil
	}
	run := 0
	for i, t := range s.taken {
		if run++; t {
			run = 0
		}
		if run < pages {
			continue
		}
		first := i + 1 - pages
		for j := first; j <= i; j++ {
			s.taken[j] = true
		}
		s.count += pages
		p.used += size
		off := int64(first) * pageLen
		return &Block{Data: s.area.data[off : off+size : off+size], pool: p, area: s.area, slab: s, off: off,
			pages: pages, used: s.again}
	}
	return nil
}

// Free gives the memory back. Data must not be used any more.
func (b *Block) Free() {
	if end := b.Retire(); end != nil {
		end()
	}
}

// Retire is Free without what takes long. What the pool keeps can be had again at once; when there is something that it
// does not keep, Retire returns what gives it to the system.
func (b *Block) Retire() (end func()) {
	if p := b.pool; b.area != nil && p != nil {
		if gone := p.give(b); len(gone) > 0 {
			end = func() { closeAll(gone) }
		}
	}
	*b = Block{}
	return end
}

// give takes a block back, and returns the areas that nobody needs any more.
func (p *Pool) give(b *Block) []*area {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.used -= int64(len(b.Data))
	if b.slab == nil {
		return p.keep(b.area)
	}
	b.slab.again = true
	first := int(b.off / pageLen)
	for i := first; i < first+b.pages; i++ {
		b.slab.taken[i] = false
	}
	if b.slab.count -= b.pages; b.slab.count == 0 && p.spare(b.slab) {
		return p.keep(b.slab.area)
	}
	return nil
}

// spare takes an empty slab out, unless it is the only one with room.
func (p *Pool) spare(s *slab) bool {
	for _, other := range p.slabs {
		if other != s && other.count == 0 || p.closed {
			for i := range p.slabs {
				if p.slabs[i] == s {
					p.slabs = append(p.slabs[:i], p.slabs[i+1:]...)
					return true
				}
			}
		}
	}
	return false
}

// Close lets the pool hand out nothing any more, and gives back what is not in use.
func (p *Pool) Close() {
	defer p.trimming.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	if p.trimAt != nil && p.trimAt.Stop() {
		p.trimming.Done()
	}
	keep := p.slabs[:0]
	for _, s := range p.slabs {
		if s.count == 0 {
			s.area.close()
		} else {
			keep = append(keep, s)
		}
	}
	p.slabs = keep
	closeAll(p.spares)
	p.spares, p.kept = nil, 0
	p.source.close()
}
