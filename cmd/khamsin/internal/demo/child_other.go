//go:build !linux

package demo

import "syscall"

// childAttributes leaves it to the end of the pipes to end a child with its parent.
func childAttributes() *syscall.SysProcAttr { return nil }
