package vsync

import (
	"bytes"
	"encoding/binary"
	"sync"
	"testing"

	"github.com/khamsin-io/khamsin/dataplane"
	"github.com/khamsin-io/khamsin/dataplane/wire"
	"github.com/khamsin-io/khamsin/transports/mem"
)

// nonces notes the packets of systems with a key, by origin and counter.
type nonces struct {
	mu      sync.Mutex
	packets map[[2]uint64][]byte
	origins map[uint64]int // packets of each
	repeats int            // other packets with a nonce that was there
}

// note takes a packet in. The same packet may be sent again, with another checksum.
func (x *nonces) note(packet []byte) {
	var h wire.Header
	if h.Peek(packet) != nil || !h.Signed {
		return
	}
	key := [2]uint64{
		binary.LittleEndian.Uint64(packet[wire.HeaderLen:]), binary.LittleEndian.Uint64(packet[wire.HeaderLen+8:]),
	}
	same := bytes.Clone(packet)
	clear(same[wire.CRCOffset : wire.CRCOffset+4])
	x.mu.Lock()
	defer x.mu.Unlock()
	if before, ok := x.packets[key]; !ok {
		x.packets[key] = same
		x.origins[key[0]]++
	} else if !bytes.Equal(before, same) {
		x.repeats++
	}
}

// noncesOf is a transport whose packets are noted.
type noncesOf struct {
	dataplane.Transport
	seen *nonces
}

func (n noncesOf) Send(batch []dataplane.Packet) (int, error) {
	for _, p := range batch {
		n.seen.note(n.Arena().Bytes(p.Frame))
	}
	return n.Transport.Send(batch)
}

// Processes of a system with a key come, go, crash and come again, through many views: no two packets have one nonce,
// and each start of a process has a key of its own.
func TestNoNonceOverRestartsAndViews(t *testing.T) {
	const rounds, each = 4, 10
	hub := mem.NewHub()
	seen := &nonces{packets: map[[2]uint64][]byte{}, origins: map[uint64]int{}}
	start := func() *System {
		return startOn(t, hub, WithSystemKey(keyNamed(6)), WithTransport(func(c *Config) (dataplane.Transport, error) {
			inner, err := Mem(hub)(c)
			return noncesOf{inner, seen}, err
		}))
	}
	stays := joined(t, start(), "g")
	for round := range rounds {
		s := start()
		comes := joined(t, s, "g")
		for n := range uint64(each) {
			comes.send(t, Ordered, n)
			stays.send(t, FIFO, n)
		}
		comes.untilCount(t, 2*each*(round+1))
		if round%2 == 0 {
			must(s.Close())
		} else {
			s.Kill()
			must(stays.group.ReportFailure(s.Address(), "killed"))
		}
		stays.until(t, "the view without it", func() bool { return stays.views[len(stays.views)-1].Size() == 1 })
	}
	seen.mu.Lock()
	defer seen.mu.Unlock()
	if len(seen.origins) != rounds+1 || seen.repeats != 0 {
		t.Errorf("packets of %d origins, want %d; %d repeated a nonce", len(seen.origins), rounds+1, seen.repeats)
	}
	for origin, n := range seen.origins {
		if n < each {
			t.Errorf("origin %x made %d packets", origin, n)
		}
	}
}
