//go:build cgo && rdma

package rdma

import (
	"crypto/sha256"
	"testing"
	"time"

	"github.com/khamsin-io/khamsin/dataplane"
)

// Large frames over the wire: all come, in order and whole, also where datagrams are lost.
func TestPeersLarge(t *testing.T) {
	p := newPair(t)
	tr := openUntilEnd(t, withLarge)
	var there dataplane.Endpoint
	p.tell(tr.Local())
	p.hear(&there)
	const total = 300
	if p.left {
		digest := sha256.New()
		for i := range total {
			digest.Write(pattern(i, testLarge-i))
		}
		p.meet("begin")
		began := time.Now()
		sendLarge(t, tr, there, total)
		settle(t, "all are sent", func() bool { return home(tr) }, tr)
		took := time.Since(began)
		v := tr.Verbs()
		t.Logf("MEASURED: %d large frames of %d KiB over the wire in %.1fs (emulated): %d work requests, %d signalled",
			total, testLarge>>10, took.Seconds(), v.WorkRequests, v.Signalled)
		if st := tr.Stats(); st.SendDropped != 0 || v.RailFailures != 0 || v.Rails != 1 {
			t.Errorf("%+v %+v", st, v)
		}
		p.tell(digest.Sum(nil))
		p.meet("compared")
		return
	}
	p.meet("begin")
	digest := sha256.New()
	batch := make([]dataplane.Packet, 64)
	for came := 0; came < total; {
		n, err := tr.Receive(batch, dataplane.Wait{Timeout: peersPatience})
		if n == 0 || err != nil {
			t.Fatalf("%d of %d came: %v; %+v", came, total, err, tr.Stats())
		}
		for _, packet := range batch[:n] {
			digest.Write(tr.Arena().Bytes(packet.Frame))
			tr.Arena().Rx().Release(packet.Frame)
			if packet.From != there {
				t.Errorf("a frame is from %v, not %v", packet.From, there)
			}
		}
		came += n
	}
	var want []byte
	p.hear(&want)
	if got := digest.Sum(nil); string(got) != string(want) {
		t.Errorf("digest %x, want %x", got, want)
	}
	p.meet("compared")
}

// A process of the other machine is killed with large frames on their way to it.
func TestPeersLargeKill(t *testing.T) {
	p := newPair(t)
	if p.lossy {
		p.meet("not here")
		t.Skip("losses say nothing more of a process that is gone")
	}
	if p.left {
		a, b := openUntilEnd(t, withLarge), openUntilEnd(t, nil)
		var first, second dataplane.Endpoint
		p.hear(&first)
		killInFlight(t, a, b, victim{first, func() { p.meet("kill it") }, func() dataplane.Endpoint {
			p.meet("the next one")
			p.hear(&second)
			return second
		}})
		p.meet("all came")
		return
	}
	one := startChild(t)
	p.tell(one.local)
	one.received(t, 1)
	p.meet("kill it")
	one.kill()
	p.meet("the next one")
	two := startChild(t)
	p.tell(two.local)
	two.received(t, 10)
	p.meet("all came")
}
