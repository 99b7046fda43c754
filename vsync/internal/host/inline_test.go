package host

import (
	"context"
	"encoding/binary"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/khamsin-io/khamsin/dataplane"
	"github.com/khamsin-io/khamsin/dataplane/clock"
	"github.com/khamsin-io/khamsin/vsync/internal/engine"
)

// put makes the transport receive one packet.
func (r *rig) put(port uint32) {
	r.t.Helper()
	f, ok := r.transport.arena.Rx().Get()
	if !ok {
		r.t.Fatal("arena empty")
	}
	r.transport.put(dataplane.Packet{Frame: f, From: dataplane.Endpoint{Port: port}})
}

func TestInlineHandlersRunOneAtATimeInOrder(t *testing.T) {
	const senders, each, packets = 3, 2000, 100
	r := newRig(t, func(_ *Config, e *fakeEngine, _ *fakeTransport) {
		e.receive = func(_ clock.Time, p dataplane.Packet) {
			e.open[1]++
			e.deliver(engine.Delivery{Kind: engine.DeliverWhole, Group: 1,
				Data: number(senders<<32 | uint64(p.From.Port))})
		}
	})
	r.inline = true
	var running atomic.Int32
	var next [senders + 1]uint64
	var inline atomic.Int32
	got, first, all := 0, make(chan struct{}), make(chan struct{})
	g := r.join("g", &fakeApp{cast: func(_ context.Context, msg []byte) {
		if running.Add(1) != 1 {
			t.Error("two handlers at once")
		}
		v := binary.LittleEndian.Uint64(msg)
		if who, n := v>>32, v&0xffffffff; n != next[who] {
			t.Errorf("sender %d: message %d, want %d", who, n, next[who])
		}
		if next[v>>32]++; goroutineNumber() == r.host.receiver.Load() {
			inline.Add(1)
		}
		switch got++; got {
		case 1:
			close(first)
		case senders*each + packets:
			close(all)
		}
		running.Add(-1)
	}})
	for !g.casts.parked.Load() {
		runtime.Gosched()
	}
	r.put(0)
	<-first
	if inline.Load() != 1 {
		t.Error("the handler did not run on the receiver's goroutine although the executor slept")
	}
	var wg sync.WaitGroup
	for who := range uint64(senders) {
		wg.Go(func() {
			for n := range uint64(each) {
				if err := g.Submit(t.Context(), 0, Head{}, number(who<<32|n)); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for n := range uint32(packets - 1) {
		r.put(1 + n)
	}
	wg.Wait()
	<-all
	r.close()
}

func TestInlineHandlerMaySend(t *testing.T) {
	r := newRig(t, func(_ *Config, e *fakeEngine, _ *fakeTransport) {
		e.receive = func(clock.Time, dataplane.Packet) {
			e.open[1]++
			e.deliver(engine.Delivery{Kind: engine.DeliverWhole, Group: 1, Data: number(0)})
		}
	})
	r.inline = true
	var g *Group
	done := make(chan struct{})
	g = r.join("g", &fakeApp{cast: func(ctx context.Context, msg []byte) {
		if binary.LittleEndian.Uint64(msg) == 1 {
			close(done)
		} else if err := g.Submit(ctx, 0, Head{}, number(1)); err != nil {
			t.Error(err)
		}
	}})
	r.put(0)
	<-done
	r.close()
}

func TestReceiverSleepsWhileTheEngineIsOwned(t *testing.T) {
	r := newRig(t, nil)
	r.host.doFunc(func(now clock.Time) {
		r.engine.due = now // for the whole time
		r.host.deadline.Store(int64(now))
		r.transport.Wake()
		before := r.transport.calls.Load()
		for end := time.Now().Add(50 * time.Millisecond); time.Now().Before(end); {
			continue // the owner is busy
		}
		if n := r.transport.calls.Load() - before; n > 200 {
			t.Errorf("the receiver polled %d times in 50 ms while it could do nothing", n)
		}
	})
	r.close()
}
