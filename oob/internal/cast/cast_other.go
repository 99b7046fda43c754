//go:build !linux

package cast

import "errors"

var errLinux = errors.New("bulk objects need Linux") // immutable: an error

// Run fails: bulk objects need Linux.
func (s *Sending) Run() error { return errLinux }

// Run fails likewise.
func (r *Receiving) Run(func(), func()) error { return errLinux }
