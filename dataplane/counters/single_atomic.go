//go:build race || !(amd64 || arm64 || ppc64le || riscv64 || s390x || loong64)

package counters

import "sync/atomic"

// Counter counts for one writer; any goroutine may read. The zero value is 0.
type Counter struct{ v atomic.Uint64 }

// Add adds n. Owner only.
func (c *Counter) Add(n uint64) { c.v.Store(c.v.Load() + n) }

// Inc adds one. Owner only.
func (c *Counter) Inc() { c.Add(1) }

// Load returns the present value. Any goroutine.
func (c *Counter) Load() uint64 { return c.v.Load() }

// Gauge is a level that one writer sets; any goroutine may read. The zero value is 0.
type Gauge struct{ v atomic.Uint64 }

// Set sets the level. Owner only.
func (g *Gauge) Set(v uint64) { g.v.Store(v) }

// Load returns the present level. Any goroutine.
func (g *Gauge) Load() uint64 { return g.v.Load() }
