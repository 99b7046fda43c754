//go:build !unix

package perf

import "os"

// killProcess ends this process at once.
func killProcess() { os.Exit(137) }
