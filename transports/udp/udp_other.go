//go:build !linux

package udp

import (
	"errors"
	"fmt"
	"runtime"

	"github.com/khamsin-io/khamsin/dataplane"
)

// Transport is the UDP transport. It exists on Linux only.
type Transport struct{ dataplane.Transport }

// Buffers returns the bytes of the socket buffers that were granted.
func (t *Transport) Buffers() (receive, send int) { return 0, 0 }

// RequestBuffers does nothing.
func (t *Transport) RequestBuffers(int, int) (receive, send int) { return 0, 0 }

// Unbroken returns the longest payload that leaves without IP fragments, zero when that is not known.
func (t *Transport) Unbroken() int { return 0 }

// Open fails: the transport needs Linux.
func Open(Config) (*Transport, error) {
	return nil, fmt.Errorf("udp: %s: %w", runtime.GOOS, errors.ErrUnsupported)
}
