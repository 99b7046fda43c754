package vsync

import (
	"testing"
	"time"

	"github.com/khamsin-io/khamsin/transports/mem"
)

// crowdSuspect is the silence after which a member of a crowd has failed. Tests that are about something else must not
// lose a member to a busy machine.
const crowdSuspect = 3 * time.Second

// crowd starts n systems on one network, and makes each a member of one group. declare adds the handlers of member i.
func crowd(t testing.TB, n int, declare func(i int, g *Group), opts ...Option) []*Group {
	t.Helper()
	hub := mem.NewHub()
	groups := make([]*Group, n)
	opts = append([]Option{WithSuspectAfter(crowdSuspect)}, opts...)
	for i := range groups {
		g := startOn(t, hub, opts...).NewGroup("crowd")
		declare(i, g)
		if err := g.Join(within(t)); err != nil {
			t.Fatal(err)
		}
		groups[i] = g
	}
	for _, g := range groups {
		if _, err := g.WaitForSize(within(t), n); err != nil {
			t.Fatal(err)
		}
	}
	return groups
}

// addresses returns who is behind the groups.
func addresses(groups []*Group) []Address {
	var list []Address
	for _, g := range groups {
		list = append(list, g.sys.Address())
	}
	return list
}

// take returns what comes out of a channel, in time.
func take[T any](t testing.TB, ch <-chan T) T {
	t.Helper()
	var v T
	select {
	case v = <-ch:
	case <-within(t).Done():
		t.Fatal("waited in vain")
	}
	return v
}

// none fails the test when something is in the channel.
func none[T any](t testing.TB, ch <-chan T, what string) {
	t.Helper()
	select {
	case v := <-ch:
		t.Errorf("%s: %v", what, v)
	default:
	}
}
