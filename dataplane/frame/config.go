package frame

import (
	"errors"
	"fmt"
	"math"
	"math/bits"
)

// Defaults and limits of a Config.
const (
	DefaultChunkSize = 2048
	DefaultHeadroom  = 384 // 256 (XDP) + 64 + room for 14+40+8 header bytes
	ChunkSizeMin     = 256
	ChunkSizeMax     = 1 << 20
	RunSizeMax       = 1 << 30 // bytes of one run
	SizeMax          = 1 << 36 // bytes of one arena
)

// Config says how an arena is cut. Zero fields other than TxChunks and RxRuns take their defaults.
type Config struct {
	ChunkSize int  // bytes, a power of two; default DefaultChunkSize
	TxChunks  int  // chunks of the Tx pool
	RxRuns    int  // runs of the Rx pool
	RunChunks int  // chunks per Rx run, e.g. 34 of 2048 for a 64 KiB GRO super-packet; default 1
	LargeTx   int  // runs of the LargeTx pool; default none
	LargeRx   int  // runs of the LargeRx pool; default none
	LargeRun  int  // chunks per run of these two; default 1
	Headroom  int  // bytes free in front of the payload in a fresh frame; default DefaultHeadroom
	HugePages bool // try huge pages first, fall back to small ones
}

// withDefaults returns c with its zero fields filled in.
func (c Config) withDefaults() Config {
	if c.ChunkSize == 0 {
		c.ChunkSize = DefaultChunkSize
	}
	if c.RunChunks == 0 {
		c.RunChunks = 1
	}
	if c.LargeRun == 0 {
		c.LargeRun = 1
	}
	if c.Headroom == 0 {
		c.Headroom = DefaultHeadroom
	}
	return c
}

// Validate reports everything that is wrong with c, defaults applied, or nil.
func (c Config) Validate() error {
	c = c.withDefaults()
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf("frame: "+format, args...)) }
	if c.ChunkSize < ChunkSizeMin || c.ChunkSize > ChunkSizeMax || bits.OnesCount(uint(c.ChunkSize)) != 1 {
		fault("ChunkSize %d is not a power of two from %d to %d", c.ChunkSize, ChunkSizeMin, ChunkSizeMax)
	}
	if c.TxChunks < 0 {
		fault("TxChunks %d is negative", c.TxChunks)
	}
	if c.RxRuns < 0 {
		fault("RxRuns %d is negative", c.RxRuns)
	}
	if c.LargeTx < 0 || c.LargeRx < 0 {
		fault("LargeTx %d or LargeRx %d is negative", c.LargeTx, c.LargeRx)
	}
	if c.TxChunks == 0 && c.RxRuns == 0 {
		fault("TxChunks and RxRuns are both 0: the arena would be empty")
	}
	if c.RunChunks < 0 || float64(c.RunChunks)*float64(c.ChunkSize) > RunSizeMax {
		fault("RunChunks %d is not from 1 to %d bytes", c.RunChunks, RunSizeMax)
	}
	if c.LargeRun < 0 || float64(c.LargeRun)*float64(c.ChunkSize) > RunSizeMax {
		fault("LargeRun %d is not from 1 to %d bytes", c.LargeRun, RunSizeMax)
	}
	if c.Headroom < 0 || c.Headroom >= c.ChunkSize {
		fault("Headroom %d does not leave room for a payload in a chunk of %d", c.Headroom, c.ChunkSize)
	}
	if len(faults) == 0 && c.bytes() > min(SizeMax, math.MaxInt) {
		fault("the arena would have more than %d bytes", min(SizeMax, math.MaxInt))
	}
	return errors.Join(faults...)
}

// bytes returns the size of the arena, or infinity when it is beyond all measure.
func (c Config) bytes() float64 {
	large := (float64(c.LargeTx) + float64(c.LargeRx)) * float64(c.LargeRun)
	return float64(c.ChunkSize) * (1 + float64(c.TxChunks) + float64(c.RxRuns)*float64(c.RunChunks) + large)
}
