package host

import "golang.org/x/sys/unix"

// crowding tells whether somebody else wants the cores: whether the system took them away from threads of this process
// since the last look. It asks rarely, since the answer costs a system call.
type crowding struct {
	calls int
	taken int64 // involuntary context switches at the last look
}

// Constants of crowding.
const (
	crowdingEvery = 64 // waits between two looks
	crowdingMax   = 8  // switches in that time that are nothing
)

func (c *crowding) now() bool {
	if c.calls++; c.calls%crowdingEvery != 0 {
		return false
	}
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &u) != nil {
		return false
	}
	more := u.Nivcsw - c.taken
	c.taken = u.Nivcsw
	return more > crowdingMax
}
