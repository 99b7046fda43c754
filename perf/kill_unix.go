//go:build unix

package perf

import "syscall"

// killProcess ends this process at once, as kill -9 does.
func killProcess() { _ = syscall.Kill(syscall.Getpid(), syscall.SIGKILL) }
