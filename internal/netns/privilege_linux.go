package netns

import (
	"testing"

	"golang.org/x/sys/unix"
)

// DropPrivileges takes capabilities, all if none is named, away from the calling thread, which must be locked to its
// goroutine, until the function that it returns is called.
func DropPrivileges(tb testing.TB, named ...int) (back func()) {
	tb.Helper()
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var had [2]unix.CapUserData
	if err := unix.Capget(&header, &had[0]); err != nil {
		tb.Fatalf("capget: %v", err)
	}
	none := had
	for i := range none {
		if len(named) == 0 {
			none[i].Effective = 0
		}
	}
	for _, n := range named {
		none[n/32].Effective &^= 1 << (n % 32)
	}
	if err := unix.Capset(&header, &none[0]); err != nil {
		tb.Fatalf("capset: %v", err)
	}
	return func() {
		if err := unix.Capset(&header, &had[0]); err != nil {
			tb.Errorf("capset back: %v", err)
		}
	}
}
