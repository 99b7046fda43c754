package tuner

import (
	"fmt"

	"github.com/khamsin-io/khamsin/dataplane/clock"
)

// receiver is the part that looks at what this process's own sockets lose. Everything it sets only grows.
type receiver struct {
	receive, send  socketBuffer
	packets, calls uint64 // of intervals that were too quiet to judge
}

// socketBuffer is one kind of buffer.
type socketBuffer struct {
	name  string
	asked *int // bytes asked for, a field of the settings
	cut   bool // there is no more to be had
}

func (t *Tuner) initReceiver() {
	t.receiver.receive = socketBuffer{name: "receive buffer", asked: &t.now.ReceiveBuffer}
	t.receiver.send = socketBuffer{name: "send buffer", asked: &t.now.SendBuffer}
}

// stepReceiver judges buffers and batches.
func (t *Tuner) stepReceiver(now clock.Time, d Sample) {
	r := &t.receiver
	if d.Dropped > 0 && share(d.Dropped, d.Dropped+d.Received) >= dropShare {
		why := fmt.Sprintf("%d of %d packets were lost in front of a full socket", d.Dropped, d.Dropped+d.Received)
		t.growBuffer(now, &r.receive, d.ReceiveBuffer, why)
	}
	if d.SendDropped > 0 {
		t.growBuffer(now, &r.send, d.SendBuffer, fmt.Sprintf("it had no room for %d packets", d.SendDropped))
	}
	r.packets, r.calls = r.packets+d.Received, r.calls+d.Calls
	if r.packets < evidence || r.calls == 0 {
		return
	}
	each := float64(r.packets) / float64(r.calls)
	r.packets, r.calls = 0, 0
	if old := t.now.Batch; old < t.cfg.BatchMax && each >= fullShare*float64(old) {
		t.now.Batch = min(2*old, t.cfg.BatchMax)
		t.decide(now, "batch", old, t.now.Batch, fmt.Sprintf("each of them was full: %.0f packets on average", each))
	}
}

// growBuffer doubles what is asked for, unless the kernel granted less than was asked the last time, which is said
// once.
func (t *Tuner) growBuffer(now clock.Time, b *socketBuffer, granted int, why string) {
	old := *b.asked
	switch {
	case b.cut || old == 0:
		return
	case granted > 0 && granted < old:
		b.cut = true
		why += fmt.Sprintf(", and the kernel grants no more than %d: khamsin tune check says how to raise its limit",
			granted)
		t.decide(now, b.name, old, granted, why)
		return
	case old >= t.cfg.BufferMax:
		b.cut = true
		t.decide(now, b.name, old, old, why+", and the buffer is as large as it may become")
		return
	}
	*b.asked = min(2*old, t.cfg.BufferMax)
	t.decide(now, b.name, old, *b.asked, why)
}
