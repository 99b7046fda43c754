package oob

import (
	"context"
	"testing"
	"time"

	"github.com/khamsin-io/khamsin/vsync"
)

// An object that takes the place of one that is deleted has its memory, at the receivers too.
func TestMemoryIsUsedAgain(t *testing.T) {
	c := newCluster(t, 3, func(c *cluster) { c.store = []Option{WithSpareTime(time.Minute)} })
	const size, turns = 4 << 20, 10
	c.members[0].put(t, "f", size)
	for range turns {
		for _, to := range [][]vsync.Address{c.addresses(0, 1, 2), c.addresses(0)} {
			if err := c.members[0].store.Replicate("f", to).Wait(within(t)); err != nil {
				t.Fatal(err)
			}
		}
	}
	for i, m := range c.members[1:] {
		if n := m.store.Stats().Reused; n == 0 || n%size != 0 {
			t.Errorf("receiver %d had %d bytes again", i, n)
		}
	}
}

// An object waits for the memory of transfers that have been stopped, until they have left it, or it is not wanted any
// more, but not for ever.
func TestAwaitMemory(t *testing.T) {
	for _, how := range []string{"left", "stopped", "late"} {
		ctx, cancel := context.WithCancel(t.Context())
		other, x := &session{released: make(chan struct{})}, &session{ctx: ctx}
		s := &Store{leaving: map[*session]bool{other: true}}
		done := make(chan struct{})
		go func() {
			defer close(done)
			s.awaitMemory(x)
		}()
		switch how {
		case "left":
			close(other.released)
		case "stopped":
			cancel()
		}
		select {
		case <-done:
		case <-time.After(patience):
			t.Errorf("%s: it waits on", how)
		}
		cancel()
	}
}
