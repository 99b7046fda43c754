//go:build !race && (amd64 || arm64 || ppc64le || riscv64 || s390x || loong64)

package counters

import "sync/atomic"

// Counter counts for one writer; any goroutine may read. The zero value is 0.
//
// The writer stores plainly: a 64-bit store is one instruction here, so that a reader sees some value that was
// written (go.dev/ref/mem, word-sized races). An atomic store would be a locked instruction on amd64 and cost ten
// times as much. Under the race detector, and where words are shorter, the store is atomic.
type Counter struct{ v uint64 }

// Add adds n. Owner only.
func (c *Counter) Add(n uint64) { c.v += n }

// Inc adds one. Owner only.
func (c *Counter) Inc() { c.v++ }

// Load returns the present value. Any goroutine.
func (c *Counter) Load() uint64 { return atomic.LoadUint64(&c.v) }

// Gauge is a level that one writer sets; any goroutine may read. The zero value is 0.
type Gauge struct{ v uint64 }

// Set sets the level. Owner only.
func (g *Gauge) Set(v uint64) { g.v = v }

// Load returns the present level. Any goroutine.
func (g *Gauge) Load() uint64 { return atomic.LoadUint64(&g.v) }
