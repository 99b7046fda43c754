package dataplane

import (
	"context"
	"errors"
)

// ErrPeerGone is returned by one-sided operations whose other process is not there any more.
var ErrPeerGone = errors.New("the other process is gone") // immutable: an error

// OneSided is what a transport has besides when it can write into the memory of another process, without that process
// receiving or copying anything. All methods may be called by any goroutine.
type OneSided interface {
	// OpenRegion returns size bytes of memory that writes can go to and come from. It is pinned until it is closed.
	OpenRegion(size int) (Region, error)

	// Register makes a region of memory that the caller has mapped for reading and writing, whole pages at best, and
	// keeps mapped until the region is closed; it is pinned as long. When it is not open, the region is a source of
	// writes alone: it has no key, and nobody else can write into it. One piece of memory can be in several regions at
	// a time.
	Register(memory []byte, open bool) (Region, error)

	// Connect reaches the region of another process that a key belongs to.
	Connect(ctx context.Context, key []byte) (Writer, error)
}

// Region is memory that other processes can write into.
type Region interface {
	// Bytes returns the memory, until Close. While a writer is at it, its bytes change at any time: read those that a
	// notice vouches for.
	Bytes() []byte

	// Key returns what a writer needs, a few dozen bytes. Whoever has it can write anywhere in the region, so it should
	// travel where only the right processes read it.
	Key() []byte

	// Await waits for the next notice: all that its writer wrote before is in memory. It returns ErrPeerGone, once,
	// for each writer that ended without Close.
	Await(ctx context.Context) (notice uint32, err error)

	// Close ends all writers' connections, and then frees the memory, or gives it back to who registered it. When it
	// returns, nothing more is written into the memory, nor read from it, whatever other processes do.
	Close() error
}

// Copy says which bytes are written, and where to.
type Copy struct {
	From int // offset in the source
	To   int // offset in the other process's region
	Len  int // bytes; with none a Write is but a notice
}

// Writer writes into a region of another process.
type Writer interface {
	// Size returns the bytes of the region.
	Size() int

	// Write copies bytes of a region of this process to the other process's region, and gives notice there behind them.
	// It returns nil when all bytes are in the other process's memory. After any other
	// error than one about its arguments the writer is of no more use. One Write is made at a time; others wait.
	Write(ctx context.Context, source Region, c Copy, notice uint32) error

	// Close ends the connection.
	Close() error
}
