package tcp

import (
	"testing"
	"time"

	"github.com/khamsin-io/khamsin/internal/netns"
)

// A host that is cut off leaves half-open connections. They are given up when data stays unacknowledged, and when the
// network is whole again packets go through by new ones. Between, sending blocks nobody.
//
// rows: TRN-03, TRN-13
func TestPartition(t *testing.T) {
	hosts := netns.Pair(t, "khamsin-tcp", netns.Options{})
	const deadAfter = time.Second
	var ends [2]*Transport
	for i, h := range hosts {
		h.Do(func() { ends[i] = openHere(t, Config{Interface: netns.Interface, DeadAfter: deadAfter}) })
	}
	a, b := ends[0], ends[1]
	exchange := func(text string) {
		t.Helper()
		var got [][]byte
		for end := time.Now().Add(waitAtMost); ; {
			hosts[0].Do(func() { send(t, a, b.Local(), []byte(text)) })
			got = append(got, take(t, b)...)
			for _, p := range got {
				if string(p) == text {
					return
				}
			}
			take(t, a)
			if time.Now().After(end) {
				t.Fatalf("%q did not arrive within %v", text, waitAtMost)
			}
		}
	}
	exchange("before")
	hosts[1].Run("nft", "add table inet cut")
	hosts[1].Run("nft", "add chain inet cut in { type filter hook prerouting priority -300; policy drop; }")
	began := time.Now()
	for a.Connections() > 0 {
		hosts[0].Do(func() { send(t, a, b.Local(), []byte("into the void")) })
		take(t, a)
		if took := time.Since(began); took > waitAtMost {
			t.Fatalf("the half-open connection is still there after %v", took)
		}
	}
	hosts[1].Run("nft", "delete table inet cut")
	exchange("after")
}

// openHere opens a transport in the namespace of the calling thread.
func openHere(t testing.TB, cfg Config) *Transport {
	tr, err := Open(cfg)
	if err != nil {
		t.Error(err)
		return nil
	}
	t.Cleanup(func() {
		if err := tr.Close(); err != nil {
			t.Error(err)
		}
	})
	return tr
}

// take returns what has arrived.
func take(t *testing.T, tr *Transport) (got [][]byte) {
	t.Helper()
	rounds := 0
	return receive(t, tr, func([][]byte) bool { rounds++; return rounds > 2 })
}

// A connection leaves by the transport's own address or not at all: who sends from another network namespace, where
// that address is not, reaches nobody, and nothing leaves by whatever network there is.
func TestForeignNamespace(t *testing.T) {
	hosts := netns.Pair(t, "khamsin-tcp", netns.Options{})
	var a, b *Transport
	hosts[0].Do(func() { a = openHere(t, Config{Interface: netns.Interface}) })
	hosts[1].Do(func() { b = openHere(t, Config{Interface: netns.Interface}) })
	hosts[1].Do(func() { send(t, a, b.Local(), []byte("from elsewhere")) })
	if st := a.Stats(); st.SendDropped != 1 || a.Connections() != 0 {
		t.Errorf("%d packets dropped, want one; %d connections, want none", st.SendDropped, a.Connections())
	}
	if got := take(t, b); len(got) > 0 {
		t.Errorf("received %q", got)
	}
}
