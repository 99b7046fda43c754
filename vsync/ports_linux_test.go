package vsync

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
)

// The ports that the environment names are those that are bound: the group port by the multicast socket, the other one
// by the first process of the host, and the next by the second.
//
// rows: NET-01
func TestPortsOfTheEnvironment(t *testing.T) {
	c, err := configFrom([]string{"ISIS_PORTNO=20970", "ISIS_PORTNOp=20980"})
	if err != nil {
		t.Fatal(err)
	}
	c.SystemName, c.Mute = t.Name(), true
	for i := range uint16(2) {
		s, err := Start(context.Background(), WithConfig(c))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() })
		if got := s.Address().Port; got != 20980+i {
			t.Errorf("process %d has port %d", i, got)
		}
	}
	table, err := os.ReadFile("/proc/thread-self/net/udp")
	if err != nil {
		t.Fatal(err)
	}
	for _, port := range []int{20970, 20980, 20981} {
		if !strings.Contains(string(table), fmt.Sprintf(":%04X ", port)) {
			t.Errorf("nobody is bound to port %d", port)
		}
	}
}
