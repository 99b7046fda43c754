package cast

import (
	"time"

	"golang.org/x/sys/unix"
)

// slice is how long a thread that moves bytes runs before another one may take its place.
const slice = 100 * time.Microsecond

// giveWay makes the calling thread give way to others: by nice, and, where the kernel knows that, in short slices, so
// that a thread that wakes up to deliver a message does not wait long.
func giveWay(nice int) {
	if nice <= 0 {
		return
	}
	a := unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_NORMAL, Nice: int32(nice), Runtime: uint64(slice)}
	if unix.SchedSetAttr(0, &a, 0) != nil {
		_ = unix.Setpriority(unix.PRIO_PROCESS, 0, nice) // of this thread alone
	}
}
