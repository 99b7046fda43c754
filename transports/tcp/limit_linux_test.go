package tcp

import (
	"encoding/binary"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/khamsin-io/khamsin/dataplane"
)

// Who has more peers than it may have connections talks to them in turn. Each connection that is retired for the next
// one loses nothing, whatever was under way on it in both directions, and there are never more than allowed.
//
// rows: TRN-04
func TestRetiredConnectionsLoseNothing(t *testing.T) {
	const peers, limit, rounds = 12, 4, 3
	a := open(t, Config{Connections: limit})
	others := make([]*Transport, peers)
	for i := range others {
		others[i] = open(t, Config{})
	}
	got := make(chan int, 1)
	stop := make(chan struct{})
	var receivers sync.WaitGroup
	receivers.Go(func() { got <- drainAll(t, a, stop) })
	counts := make([]int, peers)
	for i, o := range others {
		receivers.Go(func() { counts[i] = drainAll(t, o, stop) })
	}
	payload := make([]byte, 3000)
	sent, back := make([]int, peers), 0
	for range rounds {
		for i, o := range others {
			until := time.Now().Add(waitAtMost)
			for arrived := 0; arrived < 20; { // dropped, not lost, while all connections are in use
				if send(t, a, o.Local(), payload) {
					arrived++
					sent[i]++
				} else if time.Now().After(until) {
					t.Fatalf("no packet to peer %d leaves: %+v", i, a.Stats())
				} else {
					time.Sleep(time.Millisecond) // another connection is being retired
				}
				if send(t, o, a.Local(), payload) {
					back++
				}
			}
		}
	}
	want := func() bool {
		total := uint64(0)
		for i, o := range others {
			if o.Stats().ReceivedPackets != uint64(sent[i]) {
				return false
			}
			total += o.Stats().SentPackets - o.Stats().SendDropped
		}
		return a.Stats().ReceivedPackets == total
	}
	for end := time.Now().Add(waitAtMost); !want() && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	close(stop)
	for range others {
		a.Wake()
	}
	receivers.Wait()
	if n := <-got; n != back {
		t.Errorf("%d packets arrived of %d that the peers sent", n, back)
	}
	for i := range others {
		if counts[i] != sent[i] {
			t.Errorf("%d packets arrived at peer %d of %d", counts[i], i, sent[i])
		}
	}
	st := a.Stats()
	t.Logf("%d connections were retired, at most %d open at a time", st.Retired, st.ConnectionsMost)
	if st.Retired == 0 || st.ConnectionsMost > limit {
		t.Errorf("%d connections were retired, %d open at a time, want some, and up to %d", st.Retired,
			st.ConnectionsMost, limit)
	}
}

// drainAll receives until it is told to stop, and returns how many packets came.
func drainAll(t *testing.T, tr *Transport, stop chan struct{}) (n int) {
	batch := make([]dataplane.Packet, 64)
	for {
		k, err := tr.Receive(batch, dataplane.Wait{Timeout: 5 * time.Millisecond})
		if err != nil {
			t.Error(err)
			return n
		}
		for _, p := range batch[:k] {
			tr.Arena().Rx().Release(p.Frame)
		}
		n += k
		select {
		case <-stop:
			if k == 0 {
				return n
			}
		default:
		}
	}
}

// Two ends that retire a connection, and send on it as fast as they can but for short pauses, lose nothing: neither
// packets that the other end has not read yet, nor the rest of one that left in part.
func TestRetiredUnderLoad(t *testing.T) {
	cfg := Config{SendBuffer: 8 << 10, RecvBuffer: 8 << 10}
	a, b := open(t, cfg), open(t, cfg)
	stop := make(chan struct{})
	var all sync.WaitGroup
	var got [2]uint64
	for _, pair := range [][2]*Transport{{a, b}, {b, a}} {
		all.Go(func() { pour(t, pair[0], pair[1].Local(), stop) })
	}
	receiving := make(chan struct{})
	var receivers sync.WaitGroup
	sent := func() [2]uint64 {
		x, y := a.Stats(), b.Stats()
		return [2]uint64{x.SentPackets - x.SendDropped, y.SentPackets - y.SendDropped}
	}
	for i, tr := range []*Transport{b, a} {
		receivers.Go(func() { got[i] = uint64(drainAll(t, tr, receiving)) })
	}
	retired := 0
	for end := time.Now().Add(waitAtMost); retired < 100 && time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		a.mu.Lock()
		if l := a.peers[b.Local()]; l != nil && l.stage == stageOpen && len(l.rest) == 0 {
			a.retire(l, a.clock.Now())
			retired++
		}
		a.mu.Unlock()
	}
	close(stop)
	all.Wait()
	for end := time.Now().Add(waitAtMost); time.Now().Before(end) &&
		sent() != [2]uint64{b.Stats().ReceivedPackets, a.Stats().ReceivedPackets}; time.Sleep(time.Millisecond) {
		send(t, a, b.Local(), []byte{1}) // the rest of a packet leaves with the next one
		send(t, b, a.Local(), []byte{1})
	}
	close(receiving)
	receivers.Wait()
	if got != sent() || retired == 0 {
		t.Errorf("sent %v, received %v, %d connections retired; refused %+v, %+v", sent(), got, retired, a.Refused(),
			b.Refused())
	}
	t.Logf("%d connections were retired under %v packets", retired, sent())
}

// pour sends until it is told to stop.
func pour(t *testing.T, tr *Transport, to dataplane.Endpoint, stop chan struct{}) {
	r := rand.New(rand.NewPCG(1, 2))
	batch := make([]dataplane.Packet, 0, 8)
	for n := uint64(0); ; {
		select {
		case <-stop:
			return
		default:
		}
		if batch = batch[:0]; r.IntN(50) == 0 {
			time.Sleep(2 * time.Millisecond) // while the socket is full, there is always a rest
		}
		for range cap(batch) {
			f, ok := tr.Arena().Tx().Get()
			if !ok {
				t.Error("no frame to send with")
				return
			}
			n++
			f.Len = 8 + r.Uint32N(8000)
			binary.LittleEndian.PutUint64(tr.Arena().Bytes(f), n)
			batch = append(batch, dataplane.Packet{Frame: f, To: to})
		}
		if k, err := tr.Send(batch); k != len(batch) || err != nil {
			t.Error(k, err)
		}
	}
}
