package host

import (
	"bytes"
	"context"
	"encoding/binary"
	"runtime"
	"slices"
	"testing"

	"github.com/khamsin-io/khamsin/dataplane/clock"
	"github.com/khamsin-io/khamsin/vsync/internal/engine"
)

// batches returns how many messages each command of the inbox has, oldest first; 0 for what is no batch.
func batches(h *Host) (list []int) {
	for at := h.inbox.head.Load(); at < h.inbox.tail.Load(); at++ {
		c := &h.inbox.slots[at&h.inbox.mask].command
		n := 0
		for rest := c.buf; c.kind == cmdSubmit && len(rest) > 0; n++ {
			_, _, rest = nextStaged(rest)
		}
		list = append(list, n)
	}
	return list
}

func TestStagedMessagesShareBatches(t *testing.T) {
	r := newRig(t, nil)
	a, b := r.join("a", &fakeApp{}), r.join("b", &fakeApp{})
	h := r.host
	for !h.tryOwn() {
		runtime.Gosched()
	}
	stage := func(g *Group, n, size int) {
		for range n {
			if g.stage(0, Head{}, make([]byte, size)) != engine.Accepted {
				t.Fatal("not accepted")
			}
		}
	}
	stage(a, 3, 10)
	stage(b, 2, 10) // another group's are a batch of their own,
	stage(a, 2, 10) // which is behind the first one, so that cannot grow any more
	if got := batches(h); !slices.Equal(got, []int{3, 2, 2}) {
		t.Errorf("batches of %v messages", got)
	}
	s, at := h.reserve() // as a call of the same goroutine does, which no later message may overtake
	nothing := &call{kind: callFunc, fn: func(clock.Time) {}, done: make(chan struct{}, 1)}
	s.command.kind, s.command.call = cmdCall, nothing
	h.inbox.publish(s, at)
	stage(a, batchMost+1, 10)
	if got := batches(h); !slices.Equal(got, []int{3, 2, 2, 0, batchMost, 1}) {
		t.Errorf("batches of %v messages", got)
	}
	const long = 1000
	fit := batchBytes / (stagedHead + long)
	stage(b, fit+2, long)
	if got := batches(h); !slices.Equal(got[6:], []int{fit, 2}) {
		t.Errorf("batches of %v messages", got)
	}
	h.takeIn(h.clock.Now())
	if n := h.stager.out.Load(); n != 0 || h.stager.newest != nil {
		t.Errorf("%d batches are counted when all are taken", n)
	}
	stage(a, 1, 10) // a batch that was taken takes no more
	if got := batches(h); !slices.Equal(got, []int{1}) {
		t.Errorf("batches of %v messages", got)
	}
	h.finish(h.begin())
	r.close()
}

// The messages of a batch that finds no room wait for it in their order, with those of the batches behind it.
func TestStagedMessagesWaitForRoom(t *testing.T) {
	const count = 200
	next, all := uint64(0), make(chan struct{})
	r := newRig(t, func(_ *Config, e *fakeEngine, _ *fakeTransport) { e.window = 7 })
	g := r.join("g", &fakeApp{cast: func(_ context.Context, msg []byte) {
		if n := binary.LittleEndian.Uint64(msg[1:]); n != next || msg[0] != 9 {
			t.Errorf("message %d, want %d", n, next)
		}
		if next++; next == count {
			close(all)
		}
	}})
	for !r.host.tryOwn() {
		runtime.Gosched()
	}
	for n := range uint64(count) {
		g.stage(0, NewHead(9, 1), number(n))
	}
	r.host.finish(r.host.begin())
	<-all
	r.close()
}

// A sender sleeps while the most batches wait, and goes on when the owner has taken them.
func TestSendersSleepWhenTooManyBatchesWait(t *testing.T) {
	const count = 2*batchesMax*batchMost + 1
	next, all := uint64(0), make(chan struct{})
	r := newRig(t, nil)
	g := r.join("g", &fakeApp{cast: func(_ context.Context, msg []byte) {
		if n := binary.LittleEndian.Uint64(msg); n != next {
			t.Errorf("message %d, want %d", n, next)
		}
		if next++; next == count {
			close(all)
		}
	}})
	b := &r.host.stager
	for !r.host.tryOwn() {
		runtime.Gosched()
	}
	go func() {
		for n := range uint64(count) {
			g.stage(0, Head{}, number(n))
		}
	}()
	for asleep := false; !asleep; runtime.Gosched() {
		b.room.mu.Lock()
		asleep = len(b.room.waiting) == 1
		b.room.mu.Unlock()
	}
	if n := b.out.Load(); n != batchesMax {
		t.Errorf("%d batches wait when a sender sleeps, want %d", n, batchesMax)
	}
	r.host.finish(r.host.begin())
	<-all
	r.close()
	if n := len(b.spare); n > batchesMax {
		t.Errorf("memory of %d batches is kept", n)
	}
}

func TestHead(t *testing.T) {
	for n := range headMax + 1 {
		want := []byte("abcdefg")[:n]
		bits := uint64(0)
		for i, b := range want {
			bits |= uint64(b) << (8 * i)
		}
		h := NewHead(bits, n)
		if got := h.Append([]byte("x")); h.Len() != n || !bytes.Equal(got, append([]byte("x"), want...)) {
			t.Errorf("%d bytes: %q", h.Len(), got)
		}
	}
}
