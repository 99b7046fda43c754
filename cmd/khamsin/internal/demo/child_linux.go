package demo

import "syscall"

// childAttributes makes a child end with its parent, and spares it the terminal's Ctrl-C, which is the parent's
// business.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
}
