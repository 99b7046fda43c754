//go:build !linux

package apply

import (
	"errors"
	"fmt"
	"os"
	"runtime"
)

// lock fails: only Linux has settings to change.
func lock(*os.File) error { return fmt.Errorf("lock on %s: %w", runtime.GOOS, errors.ErrUnsupported) }
