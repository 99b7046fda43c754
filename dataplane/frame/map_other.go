//go:build !linux

package frame

// mapMemory takes the arena from the Go heap: enough for the transports that work here.
func mapMemory(size int, _ bool) (mem []byte, inHuge bool, err error) {
	return make([]byte, size), false, nil
}

func unmapMemory([]byte) error { return nil }
