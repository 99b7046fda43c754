//go:build !linux

package hostview

import (
	"errors"
	"fmt"
	"runtime"
)

// Here fails: only Linux has settings that are known here. Windows has no cap on socket buffers.
func Here() (*Host, error) {
	return nil, fmt.Errorf("tune: %s: %w: settings are known for Linux only", runtime.GOOS, errors.ErrUnsupported)
}

// Under fails as Here does.
func Under(string) (*Host, error) { return Here() }
