package link

import (
	"testing"

	"github.com/khamsin-io/khamsin/dataplane"
	"github.com/khamsin-io/khamsin/dataplane/wire"
)

// A peer cannot open lanes without end, nor lanes of kinds that there are not: what it claims is counted, and costs
// nothing. The lanes that are open go on.
func TestLanesAreBounded(t *testing.T) {
	s := newStation(t, 1, 64)
	arrive := func(aux, group uint32, seq uint64) {
		f, ok := s.arena.Rx().Get()
		if !ok {
			t.Fatal("no frame")
		}
		h := wire.Header{
			Kind: wire.KindLink, View: 7, Rank: uint32(s.addr.Incarnation), Aux: aux, Group: group, Seq: seq,
		}
		f.Len = wire.HeaderLen
		h.Encode(s.arena.Bytes(f))
		wire.Seal(s.arena.Bytes(f))
		s.links.OnPacket(1, &h, f, dataplane.Endpoint{Port: 7})
		for _, p := range s.out.Packets { // acknowledgements
			s.arena.Tx().Release(p.Frame)
		}
		s.out.Packets = s.out.Packets[:0]
	}
	for _, aux := range []uint32{uint32(kinds), 255, 256, 1 << 31} {
		arrive(aux, 1, 1)
	}
	if n := s.links.Count.Foreign; n != 4 || len(s.links.peers) != 0 {
		t.Errorf("%d packets are foreign, %d peers are known", n, len(s.links.peers))
	}
	arrive(uint32(Peer), 1, 1)
	p := s.links.peers[7]
	for len(p.lanes) < lanesMax { // as so many packets would; each would look for its lane among all
		p.lanes = append(p.lanes, &lane{id: laneID{7, State, uint32(len(p.lanes))}})
	}
	before := s.links.Count
	for group := range uint32(10) {
		arrive(uint32(Reply), group, 1)
	}
	arrive(uint32(Peer), 1, 2)
	if now := s.links.Count; len(p.lanes) != lanesMax || now.Malformed != before.Malformed+10 ||
		now.Received != before.Received+1 {
		t.Errorf("%d lanes, %+v after %+v", len(p.lanes), now, before)
	}
}
