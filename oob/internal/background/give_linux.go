package background

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// slice is how long, in nanoseconds, such a thread may run before one that woke up takes its place. By default it would
// be some milliseconds, whatever the priorities; with much less the system would prefer it for being modest.
const slice = 300_000

// giveWay makes the calling thread give way to others, and names it. What the system refuses makes it no worse. Threads
// of SCHED_BATCH take nobody's place when they wake up, which the short slice would let them do.
func giveWay(nice int) {
	name := [...]byte{'k', 'h', 'a', 'm', 's', 'i', 'n', '-', 'b', 'u', 'l', 'k', 0}
	_ = unix.Prctl(unix.PR_SET_NAME, uintptr(unsafe.Pointer(&name[0])), 0, 0, 0)
	a := unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_BATCH, Nice: int32(nice), Runtime: slice}
	if unix.SchedSetAttr(0, &a, 0) != nil && nice > 0 { // of this thread alone
		_ = unix.Setpriority(unix.PRIO_PROCESS, 0, nice)
	}
}
