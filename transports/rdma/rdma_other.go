//go:build !linux || !cgo || !rdma

package rdma

import "github.com/khamsin-io/khamsin/dataplane"

// Transport is the RDMA transport. This binary is built without it.
type Transport struct{ dataplane.Transport }

// Verbs returns counters of the work for the device.
func (t *Transport) Verbs() VerbsStats { return VerbsStats{} }

// Open fails with ErrNotBuilt.
func Open(Config) (*Transport, error) { return nil, ErrNotBuilt }
