package cast

import "golang.org/x/sys/unix"

// giveWay makes the calling thread give way to others.
func giveWay(nice int) {
	if nice > 0 {
		_ = unix.Setpriority(unix.PRIO_PROCESS, 0, nice) // of this thread alone, in Linux
	}
}
