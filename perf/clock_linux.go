package perf

import (
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// sleeper sleeps as precisely as the system can. A timer of Go's runtime may wake up a millisecond late, and a sleep in
// a system call would keep the processor from the goroutines that wait for it.
type sleeper struct {
	timer *os.File // a timerfd; nil: the runtime's timers must do
	fd    int      // of timer
}

func newSleeper() *sleeper {
	fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		return &sleeper{}
	}
	return &sleeper{os.NewFile(uintptr(fd), "timerfd"), fd}
}

// sleep returns after about d, which is positive.
func (s *sleeper) sleep(d time.Duration) {
	if s.timer == nil || s.wait(d) != nil {
		time.Sleep(d)
	}
}

func (s *sleeper) wait(d time.Duration) error {
	err := unix.TimerfdSettime(s.fd, 0, &unix.ItimerSpec{Value: unix.NsecToTimespec(int64(d))}, nil)
	if err != nil {
		return err
	}
	var expired [8]byte
	_, err = s.timer.Read(expired[:])
	return err
}

func (s *sleeper) close() {
	if s.timer != nil {
		_ = s.timer.Close() // a timer has nothing to lose
	}
}

// sharedTime reads the clock that all processes of a host share.
func sharedTime() int64 {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts) // cannot fail for this clock
	return ts.Nano()
}

// processorTime returns what this process has used so far, in seconds.
func processorTime() float64 {
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
}
