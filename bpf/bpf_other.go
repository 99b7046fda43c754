//go:build !linux

package bpf

import (
	"errors"
	"fmt"
	"runtime"
)

// ProbeDemux tells that there is no XDP here.
func ProbeDemux() error { return unsupported() }

// ProbeFilter tells that there is no socket filter here.
func ProbeFilter() error { return unsupported() }

// Filter is a transport's socket filter. It exists on Linux only.
type Filter struct{}

// OpenFilter fails: the filter needs Linux.
func OpenFilter() (*Filter, error) { return nil, unsupported() }

// Attach fails.
func (f *Filter) Attach(int) error { return unsupported() }

// Admit fails.
func (f *Filter) Admit(uint32) error { return unsupported() }

// Revoke fails.
func (f *Filter) Revoke(uint32) error { return unsupported() }

// Counts fails.
func (f *Filter) Counts() (passed, dropped uint64, err error) { return 0, 0, unsupported() }

// Close does nothing.
func (f *Filter) Close() error { return nil }

func unsupported() error { return fmt.Errorf("bpf: %s: %w", runtime.GOOS, errors.ErrUnsupported) }
