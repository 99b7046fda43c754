//go:build cgo && rdma

package rdma

import (
	"context"
	"errors"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/khamsin-io/khamsin/dataplane"
)

// rung tells whether a completion has rung the bell of a transport's receiver.
func rung(t *testing.T, tr *Transport) bool {
	t.Helper()
	look := []unix.PollFd{{Fd: int32(tr.receiver.queue.fd()), Events: unix.POLLIN}}
	n, err := unix.Poll(look, 0)
	if err != nil {
		t.Fatal(err)
	}
	return n > 0
}

// Completions are waited for in two ways. Who polls asks for no bell, and none rings; who blocks is woken by it.
func TestPollingAndEvents(t *testing.T) {
	a, b := openUntilEnd(t, nil), openUntilEnd(t, nil)
	batch := make([]dataplane.Packet, 8)
	receive := func(wait dataplane.Wait) {
		n, err := b.Receive(batch, wait)
		if n != 1 || err != nil {
			t.Errorf("%d packets came by %+v: %v", n, wait, err)
		}
		for _, p := range batch[:n] {
			b.Arena().Rx().Release(p.Frame)
		}
	}
	send := func() { sendAll(t, a, []dataplane.Packet{{Frame: filled(t, a, 1, 100), To: b.Local()}}) }
	const rounds = 20
	for range rounds {
		send()
		if receive(dataplane.Wait{Timeout: peersPatience, Spin: peersPatience}); rung(t, b) {
			t.Fatal("a bell rings for who polls")
		}
	}
	for range rounds {
		over := make(chan struct{})
		go func() {
			defer close(over)
			receive(dataplane.Wait{Timeout: peersPatience})
		}()
		for b.waiter.state.Load() != asleep { // when it is, the bell is being armed, or is
			select {
			case <-over:
				t.Fatal("it returned before something was sent")
			case <-time.After(time.Millisecond):
			}
		}
		send()
		<-over
	}
}

// A reliable connection to what is not there gives up when all its retries were in vain, within seconds: with one retry
// more some devices never do.
func TestRetriesEnd(t *testing.T) {
	tr := openUntilEnd(t, nil)
	source := openRegion(t, tr, 4096)
	other, err := tr.newLink(1, 1)
	if err != nil {
		t.Fatal(err)
	}
	gone := other.self
	if err := other.close(); err != nil {
		t.Fatal(err)
	}
	for name, timer := range map[string]uint8{"rail": railTimer, "write": retryTimer} {
		l, err := tr.newLink(4, 1)
		if err != nil {
			t.Fatal(err)
		}
		if err := tr.connectPair(l.pair, l.self.psn, gone, timer); err != nil {
			t.Fatal(err)
		}
		w := &writer{t: tr, link: l, key: key{size: 4096}, gone: make(chan struct{})}
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		began := time.Now()
		if err := w.Write(ctx, source, dataplane.Copy{Len: 8}, 1); !errors.Is(err, dataplane.ErrPeerGone) {
			t.Errorf("%s: after %v: %v", name, time.Since(began), err)
		}
		cancel()
		t.Logf("MEASURED: the timer of a %s gave up after %.2f s", name, time.Since(began).Seconds())
		if err := l.close(); err != nil {
			t.Error(err)
		}
	}
}
