package cast

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Who waits for packets that do not come goes on when the transfer is stopped.
func TestStopEndsWaiting(t *testing.T) {
	stop := make(chan struct{})
	f, err := openStop(stop)
	if err != nil {
		t.Fatal(err)
	}
	s, err := openUnicast(loopback(t, 990))
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	f.await(time.Millisecond, unix.POLLIN, s) // by time
	done := make(chan struct{})
	go func() {
		defer close(done)
		f.await(time.Hour, unix.POLLIN, s)
	}()
	close(stop)
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Fatal("it waits on")
	}
	f.close()
	never, err := openStop(make(chan struct{}))
	if err != nil {
		t.Fatal(err)
	}
	never.close() // and its goroutine ends, which TestMain sees
}
