//go:build !linux

package xdp

import (
	"errors"
	"fmt"
	"runtime"

	"github.com/khamsin-io/khamsin/dataplane"
)

// Transport is the AF_XDP transport. It exists on Linux only.
type Transport struct{ dataplane.Transport }

// Open fails: the transport needs Linux.
func Open(Config) (*Transport, error) {
	return nil, fmt.Errorf("xdp: %s: %w", runtime.GOOS, errors.ErrUnsupported)
}
