package core

import (
	"testing"

	"github.com/khamsin-io/khamsin/dataplane"
)

// An address gives back the endpoint that it was made of: ports and queue pair numbers alike.
func TestEndpoint(t *testing.T) {
	ports := []uint32{1, 16, 7000, 65534, 65535, 65536, 65537, 1<<24 - 2}
	for upper := uint32(0); upper <= 255; upper++ {
		ports = append(ports, upper<<16|(upper-1)&0xffff, upper<<16|upper, upper<<16|0xffff)
	}
	for _, port := range ports {
		want := dataplane.Endpoint{IP: [16]byte{1, 15: 2}, Port: port}
		a := Address{PID: 3, Incarnation: 4}
		a.SetEndpoint(want)
		if got := a.Endpoint(); got != want {
			t.Errorf("port %#x became %#x", port, got.Port)
		}
		if port <= 0xffff && a.AckPort != a.Port+1 {
			t.Errorf("port %d has the second port %d", port, a.AckPort)
		}
	}
}
