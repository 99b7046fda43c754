package host

import (
	"context"
	"encoding/binary"
	"errors"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/khamsin-io/khamsin/dataplane"
	"github.com/khamsin-io/khamsin/dataplane/clock"
	"github.com/khamsin-io/khamsin/vsync/core"
	"github.com/khamsin-io/khamsin/vsync/internal/engine"
)

// rows: THR-09
func TestEveryCallersOrderIsKept(t *testing.T) {
	bothModels(t, func(t *testing.T, m Model) {
		const callers, each = 8, 3000
		r := newRig(t, func(c *Config, _ *fakeEngine, _ *fakeTransport) { c.Model = m })
		var next [callers]uint64
		got, all := 0, make(chan struct{})
		g := r.join("g", &fakeApp{cast: func(_ context.Context, msg []byte) {
			v := binary.LittleEndian.Uint64(msg)
			if who, n := v>>32, v&0xffffffff; n != next[who] {
				t.Errorf("caller %d: message %d, want %d", who, n, next[who])
			}
			next[v>>32]++
			if got++; got == callers*each {
				close(all)
			}
		}})
		var wg sync.WaitGroup
		for who := range uint64(callers) {
			wg.Go(func() {
				for n := range uint64(each) {
					if err := g.Submit(t.Context(), 0, Head{}, number(who<<32|n)); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
		<-all
		r.close()
	})
}

// rows: THR-12
func TestFullGroupBlocksOutsideAndRefusesInside(t *testing.T) {
	bothModels(t, func(t *testing.T, m Model) {
		r := newRig(t, func(c *Config, e *fakeEngine, _ *fakeTransport) { c.Model, e.window = m, 4 })
		var g *Group
		release, inside := make(chan struct{}), make(chan error, 2)
		g = r.join("g", &fakeApp{cast: func(ctx context.Context, msg []byte) {
			if binary.LittleEndian.Uint64(msg) != 0 {
				return
			}
			<-release
			inside <- submitUntilError(ctx, g)
			inside <- submitUntilError(context.Background(), g) // known by its goroutine
		}})
		if err := g.Submit(t.Context(), 0, Head{}, number(0)); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		if err := submitUntilError(ctx, g); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("blocked Submit: %v, want the context's error", err)
		}
		close(release)
		for range 2 {
			if err := <-inside; !errors.Is(err, ErrWouldBlock) {
				t.Errorf("Submit inside a handler: %v, want ErrWouldBlock", err)
			}
		}
		// the handler has returned: there is room again
		if err := g.Submit(t.Context(), 0, Head{}, number(1)); err != nil {
			t.Fatal(err)
		}
		r.close()
	})
}

func submitUntilError(ctx context.Context, g *Group) error {
	for n := uint64(1); ; n++ {
		if err := g.Submit(ctx, 0, Head{}, number(n)); err != nil {
			return err
		}
	}
}

func TestBlockedHandlerStallsOnlyItsOwnQueue(t *testing.T) {
	// rows: THR-02, THR-05
	bothModels(t, func(t *testing.T, m Model) {
		r := newRig(t, func(c *Config, _ *fakeEngine, _ *fakeTransport) { c.Model = m })
		release, other, peer := make(chan struct{}), make(chan struct{}), make(chan struct{})
		a := r.join("a", &fakeApp{
			cast: func(context.Context, []byte) { <-release },
			peer: func(context.Context, []byte) { close(peer) },
		})
		b := r.join("b", &fakeApp{cast: func(context.Context, []byte) { close(other) }})
		must(t, a.Submit(t.Context(), 0, Head{}, number(1)))
		must(t, b.Submit(t.Context(), 0, Head{}, number(1)))
		<-other
		must(t, a.SubmitTo(t.Context(), engineAddress, Head{}, number(1)))
		<-peer
		close(release)
		r.close()
	})
}

func TestEarlierDeadlineWakesTheSleeper(t *testing.T) {
	bothModels(t, func(t *testing.T, m Model) {
		ticked := make(chan struct{})
		r := newRig(t, func(c *Config, e *fakeEngine, _ *fakeTransport) {
			c.Model, c.Waiting = m, Block
			e.onTick = func(clock.Time) { close(ticked) }
		})
		for r.transport.blocks.Load() == 0 { // until the receiver sleeps, without a deadline
			runtime.Gosched()
		}
		r.host.doFunc(func(now clock.Time) { r.engine.due = now.Add(5 * time.Millisecond) })
		<-ticked
		r.close()
	})
}

func TestRefusedPacketsAreSentLaterInOrder(t *testing.T) {
	const count = 200
	calls := 0
	r := newRig(t, func(_ *Config, e *fakeEngine, f *fakeTransport) {
		e.packets = true
		f.refuse = func(n int) (int, error) {
			switch calls++; {
			case calls%3 == 0:
				return 0, nil
			case calls%7 == 0 && n > 1:
				return 1, nil
			}
			return n, nil
		}
	})
	g := r.join("g", &fakeApp{})
	for n := range uint64(count) {
		must(t, g.Submit(t.Context(), 0, Head{}, number(n)))
	}
	for { // the receiver tries again by itself
		r.transport.mu.Lock()
		n := len(r.transport.sent)
		r.transport.mu.Unlock()
		if n == count {
			break
		}
		runtime.Gosched()
	}
	for i, n := range r.transport.sent {
		if n != uint64(i) {
			t.Fatalf("packet %d was sent in place %d", n, i)
		}
	}
	r.close()
}

func TestPacketThatTheTransportRefusesIsDropped(t *testing.T) {
	r := newRig(t, func(_ *Config, e *fakeEngine, f *fakeTransport) {
		e.packets = true
		f.refuse = func(int) (int, error) { return 0, dataplane.ErrTooLarge }
	})
	g := r.join("g", &fakeApp{})
	must(t, g.Submit(t.Context(), 0, Head{}, number(1)))
	r.close() // fails when the frame was not released
}

func TestReceivedPacketsReachTheEngineInOrder(t *testing.T) {
	bothModels(t, func(t *testing.T, m Model) {
		const count = 100
		var got []uint32
		all := make(chan struct{})
		r := newRig(t, func(c *Config, e *fakeEngine, _ *fakeTransport) {
			c.Model = m
			e.receive = func(_ clock.Time, p dataplane.Packet) {
				if got = append(got, p.From.Port); len(got) == count {
					close(all)
				}
			}
		})
		for n := range uint32(count) {
			r.put(n)
		}
		<-all
		r.close()
		for i, n := range got {
			if int(n) != i {
				t.Fatalf("packet %d came in place %d", n, i)
			}
		}
	})
}

func TestStateWaitsForRoom(t *testing.T) {
	r := newRig(t, func(_ *Config, e *fakeEngine, _ *fakeTransport) { e.full = 2 })
	made := make(chan error, 1)
	g := r.join("g", &fakeApp{make: func(w *StateWriter) error {
		err := errors.Join(w.Put([]byte("a")), w.Put([]byte("b")))
		made <- err
		return err
	}})
	r.host.doFunc(func(clock.Time) {
		r.engine.deliver(engine.Delivery{Kind: engine.DeliverMakeState, Group: g.handle, Transfer: 7})
	})
	must(t, <-made)
	for ended := false; !ended; runtime.Gosched() { // the maker's return sends the end
		r.host.doFunc(func(clock.Time) { ended = len(r.engine.chunks) == 3 })
	}
	r.close()
	if n := len(r.engine.chunks); n != 3 || string(r.engine.chunks[0])+string(r.engine.chunks[1]) != "ab" {
		t.Fatalf("state chunks %q, want a, b and an end", r.engine.chunks)
	}
}

func TestFailedMakerAbortsTheTransfer(t *testing.T) {
	r := newRig(t, nil)
	failed := make(chan struct{})
	g := r.join("g", &fakeApp{
		make: func(*StateWriter) error { return errors.New("broken") },
		cast: func(context.Context, []byte) { close(failed) },
	})
	r.host.doFunc(func(clock.Time) {
		r.engine.deliver(engine.Delivery{Kind: engine.DeliverMakeState, Group: g.handle, Transfer: 7})
	})
	must(t, g.Submit(t.Context(), 0, Head{}, number(1)))
	<-failed
	r.close()
	if !slices.Equal(r.engine.aborted, []uint64{7}) || len(r.engine.chunks) != 0 {
		t.Fatalf("aborted %v, %d chunks; want transfer 7 and none", r.engine.aborted, len(r.engine.chunks))
	}
}

func TestFailedLoaderLeavesTheGroup(t *testing.T) {
	r := newRig(t, nil)
	broken := errors.New("broken")
	g := r.host.NewGroup("g", &fakeApp{init: func() error { return broken }}, false)
	_ = g.Join(t.Context(), engine.JoinRequest{})
	<-g.Over()
	if !errors.Is(g.Err(), broken) {
		t.Fatalf("group ended by %v, want the handler's error", g.Err())
	}
	r.close()
}

func TestJoinReportsRefusal(t *testing.T) {
	r := newRig(t, nil)
	app := &fakeApp{}
	g := r.host.NewGroup("g", app, false)
	err := g.Join(t.Context(), engine.JoinRequest{Mode: engine.CreateOnly})
	if !errors.Is(err, engine.ErrGroupExists) || app.ends.Load() != 1 {
		t.Fatalf("join: %v, %d ends; want ErrGroupExists and one", err, app.ends.Load())
	}
	if err := g.Submit(t.Context(), 0, Head{}, number(1)); !errors.Is(err, engine.ErrGroupExists) {
		t.Fatalf("Submit after a refused join: %v", err)
	}
	r.close()
}

func TestLeaveDrainsAndEnds(t *testing.T) {
	bothModels(t, func(t *testing.T, m Model) {
		r := newRig(t, func(c *Config, _ *fakeEngine, _ *fakeTransport) { c.Model = m })
		var got atomic.Int64
		app := &fakeApp{cast: func(context.Context, []byte) { got.Add(1) }}
		g := r.join("g", app)
		for n := range uint64(100) {
			must(t, g.Submit(t.Context(), 0, Head{}, number(n)))
		}
		must(t, g.Leave(t.Context()))
		if got.Load() != 100 || app.ends.Load() != 1 {
			t.Fatalf("%d messages and %d ends before Leave returned, want 100 and 1", got.Load(), app.ends.Load())
		}
		if err := g.Submit(t.Context(), 0, Head{}, number(0)); !errors.Is(err, engine.ErrLeft) {
			t.Fatalf("Submit after Leave: %v", err)
		}
		r.close()
	})
}

func TestFlush(t *testing.T) {
	r := newRig(t, nil)
	inside := make(chan error, 1)
	var g *Group
	g = r.join("g", &fakeApp{cast: func(ctx context.Context, _ []byte) { inside <- g.Flush(ctx, 0) }})
	must(t, g.Flush(t.Context(), 0))
	must(t, g.Submit(t.Context(), 0, Head{}, number(1)))
	if err := <-inside; !errors.Is(err, ErrWouldBlock) {
		t.Fatalf("Flush inside a handler: %v, want ErrWouldBlock", err)
	}
	r.close()
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// A slow handler of point-to-point messages makes its senders wait, and inside the handler an error comes instead.
//
// rows: FLC-03
func TestSlowPeerHandlerMakesSendersWait(t *testing.T) {
	bothModels(t, func(t *testing.T, m Model) {
		r := newRig(t, func(c *Config, e *fakeEngine, _ *fakeTransport) { c.Model, e.peerMax = m, 2 })
		gate, got, inside := make(chan struct{}), make(chan byte, 16), make(chan error, 1)
		var g *Group
		app := &fakeApp{peer: func(ctx context.Context, msg []byte) {
			<-gate
			if msg[0] == 0 {
				for err := error(nil); err == nil; {
					err = g.SubmitTo(ctx, core.Address{}, Head{}, []byte{99})
					if err != nil {
						inside <- err
					}
				}
			}
			got <- msg[0]
		}}
		g = r.join("g", app)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		for i := range 2 {
			if err := g.SubmitTo(ctx, core.Address{}, Head{}, []byte{byte(i)}); err != nil {
				t.Fatal(err)
			}
		}
		short, stop := context.WithTimeout(t.Context(), 20*time.Millisecond)
		if err := g.SubmitTo(short, core.Address{}, Head{}, []byte{2}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a send without room returned %v", err)
		}
		stop()
		done := make(chan error, 1)
		go func() { done <- g.SubmitTo(ctx, core.Address{}, Head{}, []byte{3}) }()
		close(gate)
		if err := <-inside; !errors.Is(err, ErrWouldBlock) {
			t.Errorf("inside the handler: %v, want ErrWouldBlock", err)
		}
		if err := <-done; err != nil {
			t.Errorf("the sender that waited: %v", err)
		}
		for seen := 0; seen < 3; {
			if b := <-got; b != 99 {
				seen++
			}
		}
		r.close()
	})
}
