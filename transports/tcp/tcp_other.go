//go:build !linux

package tcp

import (
	"errors"
	"fmt"
	"runtime"

	"github.com/khamsin-io/khamsin/dataplane"
)

// Transport is the TCP transport. It exists on Linux only.
type Transport struct{ dataplane.Transport }

// Open fails: the transport needs Linux.
func Open(Config) (*Transport, error) {
	return nil, fmt.Errorf("tcp: %s: %w", runtime.GOOS, errors.ErrUnsupported)
}

// Refused returns nothing: the transport exists on Linux only.
func (t *Transport) Refused() Refused { return Refused{} }
