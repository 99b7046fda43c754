package cast

import (
	"fmt"
	"sync"

	"golang.org/x/sys/unix"
)

// stopFile can be read from when a channel was closed: it ends the waiting of those that wait for files. What a
// transfer holds, the memory of its objects above all, is given back at once then.
type stopFile struct {
	fd      int
	over    chan struct{}
	watcher sync.WaitGroup
}

func openStop(stop <-chan struct{}) (*stopFile, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("eventfd: %w", err)
	}
	f := &stopFile{fd: fd, over: make(chan struct{})}
	f.watcher.Go(func() {
		select {
		case <-stop:
			_, _ = unix.Write(fd, []byte{1, 0, 0, 0, 0, 0, 0, 0}) // cannot fail: nobody else writes
		case <-f.over:
		}
	})
	return f, nil
}

func (f *stopFile) close() {
	close(f.over)
	f.watcher.Wait()
	_ = unix.Close(f.fd)
}
