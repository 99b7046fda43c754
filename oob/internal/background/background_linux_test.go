package background

import (
	"errors"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// The work is done on a thread with a name and a priority of its own, and neither stays on another thread.
func TestDo(t *testing.T) {
	fault := errors.New("as it was")
	mine := 0
	err := Do(7, func() error {
		a, err := unix.SchedGetAttr(0, 0)
		if err != nil {
			t.Fatal(err)
		}
		mine = unix.Gettid()
		name, err := os.ReadFile("/proc/thread-self/comm")
		if err != nil {
			t.Fatal(err)
		}
		if a.Nice != 7 || a.Policy != unix.SCHED_BATCH || strings.TrimSpace(string(name)) != "khamsin-bulk" {
			t.Errorf("nice %d, policy %d, thread %q", a.Nice, a.Policy, name)
		}
		return fault
	})
	if !errors.Is(err, fault) {
		t.Errorf("returned %v", err)
	}
	for range 100 {
		done := make(chan struct{})
		go func() {
			defer close(done)
			if a, err := unix.SchedGetAttr(0, 0); err == nil && a.Nice == 7 || unix.Gettid() == mine {
				t.Errorf("nice %d on another goroutine's thread %d", a.Nice, unix.Gettid())
			}
		}()
		<-done
	}
}
