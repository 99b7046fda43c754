package vsync

import (
	"runtime"
	"testing"
	"time"
)

// collectGarbageUntil returns what comes out of ch, collecting garbage until it does.
func collectGarbageUntil[T any](t testing.TB, ch <-chan T) T {
	t.Helper()
	for range int(patience / (10 * time.Millisecond)) {
		runtime.GC()
		select {
		case v := <-ch:
			return v
		case <-time.After(10 * time.Millisecond):
		}
	}
	t.Fatal("waited in vain")
	panic("unreachable")
}
