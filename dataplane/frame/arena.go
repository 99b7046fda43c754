package frame

import (
	"fmt"
	"math"
	"math/bits"
	"sync/atomic"

	"github.com/khamsin-io/khamsin/dataplane/invariant"
)

// notHead is the reference count of chunk 0 and of the chunks inside a run, which no frame may name. It is far below
// zero, so that every use of such a chunk trips the same assertion as the use of a free one.
const notHead = math.MinInt32 / 2

// Arena is one region of memory cut into chunks, with a reference count for each. New makes it; methods may be called
// by any goroutine.
type Arena struct {
	mem     []byte // the whole region; nil after Close
	refs    []int32
	cfg     Config
	shift   uint // log2 of the chunk size
	rxFirst uint32
	txSize  uint32 // bytes of a Tx chunk
	rxSize  uint32 // bytes of an Rx run
	large   uint32 // first chunk of the LargeTx pool; the number of chunks when there are none
	largeRx uint32 // first chunk of the LargeRx pool
	lgSize  uint32 // bytes of a run of either
	huge    bool
	closed  atomic.Bool
	tx, rx  Pool
	lgTx    Pool
	lgRx    Pool

	poisoned []bool // with invariant.Costly: the chunk was freed before; fresh ones are left unpopulated
}

// New maps an arena. Its pages are populated when they are first touched.
func New(cfg Config) (*Arena, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	large := 1 + cfg.TxChunks + cfg.RxRuns*cfg.RunChunks
	chunks := large + (cfg.LargeTx+cfg.LargeRx)*cfg.LargeRun
	mem, huge, err := mapMemory(chunks*cfg.ChunkSize, cfg.HugePages)
	if err != nil {
		return nil, fmt.Errorf("frame: map %d bytes: %w", chunks*cfg.ChunkSize, err)
	}
	a := &Arena{
		mem:     mem,
		refs:    make([]int32, chunks),
		cfg:     cfg,
		shift:   uint(bits.TrailingZeros(uint(cfg.ChunkSize))),
		rxFirst: uint32(1 + cfg.TxChunks),
		txSize:  uint32(cfg.ChunkSize),
		rxSize:  uint32(cfg.ChunkSize * cfg.RunChunks),
		large:   uint32(large),
		largeRx: uint32(large + cfg.LargeTx*cfg.LargeRun),
		lgSize:  uint32(cfg.ChunkSize * cfg.LargeRun),
		huge:    huge,
	}
	for i := range a.refs {
		a.refs[i] = notHead
	}
	if invariant.Costly {
		a.poisoned = make([]bool, chunks)
	}
	a.tx.init(a, "tx", 1, 1, cfg.TxChunks)
	a.rx.init(a, "rx", a.rxFirst, uint32(cfg.RunChunks), cfg.RxRuns)
	a.lgTx.init(a, "large tx", a.large, uint32(cfg.LargeRun), cfg.LargeTx)
	a.lgRx.init(a, "large rx", a.largeRx, uint32(cfg.LargeRun), cfg.LargeRx)
	return a, nil
}

// Tx returns the pool for sending.
func (a *Arena) Tx() *Pool { return &a.tx }

// Rx returns the pool for receiving.
func (a *Arena) Rx() *Pool { return &a.rx }

// LargeTx returns the pool for sending large frames. It may be empty.
func (a *Arena) LargeTx() *Pool { return &a.lgTx }

// LargeRx returns the pool for receiving large frames. It may be empty.
func (a *Arena) LargeRx() *Pool { return &a.lgRx }

// Config returns the configuration of the arena, with its defaults filled in.
func (a *Arena) Config() Config { return a.cfg }

// HugePages tells whether the arena lies in huge pages.
func (a *Arena) HugePages() bool { return a.huge }

// Memory returns the whole region, for registering it with a device. The bytes belong to whoever holds their frames.
func (a *Arena) Memory() []byte { return a.mem }

// Bytes returns the payload of f. The slice cannot grow into its neighbours and is valid while the caller holds its
// reference.
func (a *Arena) Bytes(f Frame) []byte {
	if uint64(f.Off)+uint64(f.Len) > uint64(a.size(f)) {
		a.failRange(f)
	}
	from := uint64(f.Chunk)<<a.shift + uint64(f.Off)
	to := from + uint64(f.Len)
	return a.mem[from:to:to]
}

// Room returns how many bytes there are from f.Off to the end of its chunk or run.
func (a *Arena) Room(f Frame) int {
	size := a.size(f)
	if f.Off > size {
		a.failRange(f)
	}
	return int(size - f.Off)
}

// size returns the bytes of the chunk or run that f lies in, which must be in use.
func (a *Arena) size(f Frame) uint32 {
	if uint(f.Chunk) >= uint(len(a.refs)) || atomic.LoadInt32(&a.refs[f.Chunk]) <= 0 {
		a.failFree("use", f)
	}
	return a.span(f.Chunk)
}

// span returns the bytes of the chunk or run that begins at chunk.
func (a *Arena) span(chunk uint32) uint32 {
	switch {
	case chunk < a.rxFirst:
		return a.txSize
	case chunk < a.large:
		return a.rxSize
	}
	return a.lgSize
}

// Refs returns how many references there are to the chunk of f.
func (a *Arena) Refs(f Frame) int {
	if uint(f.Chunk) >= uint(len(a.refs)) {
		a.failFree("look", f)
	}
	return int(max(0, atomic.LoadInt32(&a.refs[f.Chunk])))
}

// Retain adds one reference to the chunk of f. The caller holds one.
func (a *Arena) Retain(f Frame) { a.RetainN(f, 1) }

// RetainN adds n references to the chunk of f at once. The caller holds one.
func (a *Arena) RetainN(f Frame, n int) {
	if uint(f.Chunk) >= uint(len(a.refs)) || n < 0 || atomic.AddInt32(&a.refs[f.Chunk], int32(n)) <= int32(n) {
		a.failFree("retain", f)
	}
}

// Release drops one reference of f; with the last one the chunk goes home over the ring of its pool.
func (a *Arena) Release(f Frame) {
	if uint(f.Chunk) >= uint(len(a.refs)) {
		a.failFree("release", f)
	}
	switch n := atomic.AddInt32(&a.refs[f.Chunk], -1); {
	case n == 0:
		a.poison(f.Chunk)
		a.poolOf(f.Chunk).sendHome(f.Chunk)
	case n < 0:
		a.failFree("release", f)
	}
}

// poolOf returns the pool that a chunk belongs to.
func (a *Arena) poolOf(chunk uint32) *Pool {
	switch {
	case chunk < a.rxFirst:
		return &a.tx
	case chunk < a.large:
		return &a.rx
	case chunk < a.largeRx:
		return &a.lgTx
	}
	return &a.lgRx
}

// Outstanding returns how many chunks and runs are in use: 0 when the arena is whole. It is exact when nobody is
// working. It looks at every reference count.
func (a *Arena) Outstanding() int {
	return a.tx.outstanding() + a.rx.outstanding() + a.lgTx.outstanding() + a.lgRx.outstanding()
}

// Close unmaps the arena. Frames that are still in use are an error, and reading them from now on a fault. A second
// Close does nothing.
func (a *Arena) Close() error {
	if a.closed.Swap(true) {
		return nil
	}
	tx, rx := a.tx.outstanding()+a.lgTx.outstanding(), a.rx.outstanding()+a.lgRx.outstanding()
	mem := a.mem
	a.mem = nil
	if err := unmapMemory(mem); err != nil {
		return fmt.Errorf("frame: unmap %d bytes: %w", len(mem), err)
	}
	if tx+rx > 0 {
		return fmt.Errorf("frame: closed with %d frames outstanding (tx %d, rx %d)", tx+rx, tx, rx)
	}
	return nil
}

func (a *Arena) failFree(what string, f Frame) {
	refs := int32(0)
	if uint(f.Chunk) < uint(len(a.refs)) {
		refs = atomic.LoadInt32(&a.refs[f.Chunk])
	}
	invariant.Fail("frame: %s of a frame that is not in use: %+v, references %d, chunks %d", what, f, refs, len(a.refs))
}

func (a *Arena) failRange(f Frame) {
	invariant.Fail("frame: %+v reaches beyond its %d bytes", f, a.size(f))
}
