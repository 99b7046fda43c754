// Package counters holds the numbers that say what a part of the system did: a named counter for every loss and every
// stall, cheap enough for every packet.
//
// The counters of one owner (a goroutine, an engine) are fields of one struct, with a Pad between the fields of two
// owners, so that none shares a cache line with another's. A Set gives them names for reports. Nothing here allocates
// after set-up, and nothing is global.
package counters

import "sync/atomic"

// Pad keeps what stands before it and what stands after it off each other's cache lines.
type Pad [128]byte

// Shared counts for any number of writers. The zero value is 0.
type Shared struct{ v atomic.Uint64 }

// Add adds n. Any goroutine.
func (s *Shared) Add(n uint64) { s.v.Add(n) }

// Inc adds one. Any goroutine.
func (s *Shared) Inc() { s.v.Add(1) }

// Load returns the present value. Any goroutine.
func (s *Shared) Load() uint64 { return s.v.Load() }

// Reader is a number that can be reported: a Counter, a Gauge or a Shared.
type Reader interface{ Load() uint64 }

// Set is a list of named numbers. Name them all before the set is shared; then any goroutine may read.
type Set struct {
	names   []string
	readers []Reader
}

// Name appends a number under a name such as "udp.sent_packets".
func (s *Set) Name(name string, r Reader) {
	s.names = append(s.names, name)
	s.readers = append(s.readers, r)
}

// Each calls fn for every number in the order of naming. Each value is exact, but they are not of one moment.
func (s *Set) Each(fn func(name string, v uint64)) {
	for i, r := range s.readers {
		fn(s.names[i], r.Load())
	}
}
