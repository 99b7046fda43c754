package tcp

import (
	"errors"
	"runtime"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/khamsin-io/khamsin/dataplane"
	"github.com/khamsin-io/khamsin/dataplane/frame"
	"github.com/khamsin-io/khamsin/dataplane/transporttest"
	"github.com/khamsin-io/khamsin/dataplane/tree"
	"github.com/khamsin-io/khamsin/internal/netns"
)

// The suite on the loopback.
//
// rows: TRN-03, TRN-05
func TestConformance(t *testing.T) {
	transporttest.Run(t, func(testing.TB, string) transporttest.World {
		return transporttest.World{
			Open: func(tb testing.TB, o transporttest.Options) dataplane.Transport {
				tb.Helper()
				return openFor(tb, o, Config{})
			},
		}
	})
}

// openFor opens a transport with the options of the suite.
func openFor(tb testing.TB, o transporttest.Options, cfg Config) *Transport {
	tb.Helper()
	tr, err := Open(suited(o, cfg))
	if err != nil {
		tb.Fatal(err)
	}
	return tr
}

// suited returns a configuration with the options of the suite.
func suited(o transporttest.Options, cfg Config) Config {
	cfg.RecvBuffer, cfg.SendBuffer, cfg.Arena = o.Buffer, o.Buffer, frame.Config{TxChunks: o.Tx, RxRuns: o.Rx}
	return cfg
}

// The suite over a tree of TCP connections, and over direct ones.
//
// rows: TRN-03, TRN-04
func TestTreeConformance(t *testing.T) {
	for _, c := range []struct {
		name string
		tree tree.Config
	}{{"tree", tree.Config{}}, {"direct", tree.Config{Direct: true}}} {
		t.Run(c.name, func(t *testing.T) {
			open := func(tb testing.TB, o transporttest.Options) transporttest.Rostering {
				tb.Helper()
				tr, err := tree.New(openFor(tb, o, Config{}), c.tree)
				if err != nil {
					tb.Fatal(err)
				}
				return tr
			}
			transporttest.Run(t, transporttest.Rostered(open))
		})
	}
}

// The suite over an Ethernet between two hosts: every second transport is on the other one.
//
// rows: TRN-03
func TestConformanceBetweenHosts(t *testing.T) {
	hosts := netns.Pair(t, "khamsin-tcp", netns.Options{})
	transporttest.Run(t, func(testing.TB, string) transporttest.World {
		opened := 0
		return transporttest.World{
			Open: func(tb testing.TB, o transporttest.Options) dataplane.Transport {
				tb.Helper()
				h := hosts[opened%len(hosts)]
				opened++
				x := &resident{
					batches: make(chan []dataplane.Packet), results: make(chan result), gone: make(chan struct{}),
				}
				var err error
				h.Do(func() { x.Transport, err = Open(suited(o, Config{Interface: netns.Interface})) })
				if err != nil {
					tb.Fatal(err)
				}
				go x.live(h.Name)
				return x
			},
		}
	})
}

// resident is a transport whose Send runs on a thread of its host, since that is where connections are made.
type resident struct {
	*Transport
	mu      sync.Mutex
	over    bool
	batches chan []dataplane.Packet
	results chan result
	gone    chan struct{}
}

type result struct {
	n   int
	err error
}

// live is the thread.
func (x *resident) live(host string) {
	defer close(x.gone)
	runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
	fd, err := unix.Open("/run/netns/"+host, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err == nil {
		err = errors.Join(unix.Setns(fd, unix.CLONE_NEWNET), unix.Close(fd))
	}
	for batch := range x.batches {
		r := result{err: err}
		if err == nil {
			r.n, r.err = x.Transport.Send(batch)
		}
		x.results <- r
	}
}

// Send sends as the transport does, on the thread.
func (x *resident) Send(batch []dataplane.Packet) (int, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.over {
		return x.Transport.Send(batch)
	}
	x.batches <- batch
	r := <-x.results
	return r.n, r.err
}

// Close ends the thread.
func (x *resident) Close() error {
	x.mu.Lock()
	if !x.over {
		x.over = true
		close(x.batches)
		<-x.gone
	}
	x.mu.Unlock()
	return x.Transport.Close()
}
