// Package frame owns the memory that packets live in.
//
// An Arena is one mapped region outside the Go heap, cut into equal chunks, so that the same bytes can be handed to
// recvmmsg and sendmmsg, registered as an AF_XDP UMEM or as an RDMA memory region. A Frame is a small handle to bytes
// of one chunk, or of a run of contiguous chunks (a GRO super-packet, a jumbo frame). Chunk 0 is never handed out, so
// the zero Frame is "no frame".
//
//	chunk  0         1 … TxChunks    … RxRuns*RunChunks more           … (LargeTx+LargeRx)*LargeRun more
//	       unused    the Tx pool     the Rx pool, in runs of RunChunks   the LargeTx and LargeRx pools
//
//	frame  | Headroom: XDP's 256, own room, Ethernet+IP+UDP | payload … | free |
//	       chunk*ChunkSize                                  +Off        +Off+Len
//
// References are counted per chunk, or per run at its first chunk: any number of frames may be sub-slices of one
// chunk, each holding one reference. Whoever holds a reference may read the bytes; whoever holds the only one may
// write them. Get, Pool.Release and Free belong to the goroutine that owns the pool and use a plain stack; any other
// goroutine releases through the arena, and the last reference sends the chunk home over the pool's ring. Receiving
// has a pool of its own, so that sending can never starve it. Transports that carry large frames besides those of their
// MTU (dataplane.Caps.Large) have two more pools, of longer runs: LargeTx belongs to whoever owns Tx, LargeRx to the
// owner of Rx.
//
// Releasing twice and using a freed frame are assertions. Under the build tag khamsin_invariants freed chunks are
// filled with 0xDB and checked when they are got again, which catches writes after release as well.
package frame

// Frame is a handle to Len bytes at offset Off of a chunk or, on a run, of the run's first chunk. It is valid while
// its holder owns a reference. Off and Len may be changed freely within the chunk or run; Chunk may not.
type Frame struct{ Chunk, Off, Len uint32 }

// IsZero tells whether f is no frame.
func (f Frame) IsZero() bool { return f.Chunk == 0 }
