// Package background does work that must not hold up what is urgent: on threads of its own, which give way to others.
package background

import "runtime"

// Do calls f on a thread that gives way to others by nice, and returns what f does. The thread ends with it.
func Do(nice int, f func() error) (err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the thread, with its priority, ends with the goroutine
		giveWay(nice)
		err = f()
	}()
	<-done
	return err
}
