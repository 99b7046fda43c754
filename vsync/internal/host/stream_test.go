package host

import (
	"context"
	"encoding/binary"
	"runtime"
	"testing"

	"github.com/khamsin-io/khamsin/dataplane/clock"
)

// The clock stands still: however busy the machine is, the sends follow each other at once.
func TestStreamOfSendsSharesTurns(t *testing.T) {
	const count = 50000
	r := newRig(t, func(c *Config, _ *fakeEngine, _ *fakeTransport) { c.Clock = new(clock.Manual) })
	next, all := uint64(0), make(chan struct{})
	g := r.join("g", &fakeApp{cast: func(_ context.Context, msg []byte) {
		if n := binary.LittleEndian.Uint64(msg); n != next {
			t.Errorf("message %d, want %d", n, next)
		}
		if next++; next == count {
			close(all)
		}
	}})
	for n := range uint64(count) {
		if err := g.Submit(t.Context(), 0, Head{}, number(n)); err != nil {
			t.Fatal(err)
		}
	}
	<-all
	for r.host.streams.on.Load() { // the sweeper finds nothing more
		runtime.Gosched()
	}
	r.close()
	if r.engine.outputs > count/2 {
		t.Errorf("%d outputs for %d messages sent one after the other, want far fewer", r.engine.outputs, count)
	}
}
