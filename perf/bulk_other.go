//go:build !linux

package perf

import "errors"

func wireBytes(string) uint64 { return 0 }

func residentBytes() int64 { return 0 }

func limitLine(string, int) error { return errors.New("lines are limited on Linux only") }
