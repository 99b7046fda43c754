package oob

import (
	"context"
	"fmt"

	"github.com/khamsin-io/khamsin/oob/internal/chain"
	"github.com/khamsin-io/khamsin/vsync"
)

// Stats counts what a store has done since it was attached. Bytes and packets are those of transfers alone.
type Stats struct {
	Memory   string `json:"memory"`    // what objects are made of
	Used     int64  `json:"used"`      // bytes of objects here
	Reused   uint64 `json:"reused"`    // bytes of memory that deleted objects had before
	Transfer int    `json:"transfers"` // that run in the group

	SentPackets     uint64 `json:"sent_packets"` // by multicast
	SentBytes       uint64 `json:"sent_bytes"`
	ReceivedPackets uint64 `json:"received_packets"`
	ReceivedBytes   uint64 `json:"received_bytes"`
	Moved           uint64 `json:"moved"`     // segments that did not arrive where they belong, and were copied
	Repaired        uint64 `json:"repaired"`  // segments sent again
	Parity          uint64 `json:"parity"`    // parity segments sent
	Single          uint64 `json:"single"`    // of those two, sent to one receiver alone
	Feedbacks       uint64 `json:"feedbacks"` // sent and received
	Malformed       uint64 `json:"malformed"` // packets that are none, or not sealed as they must be
	Stale           uint64 `json:"stale"`     // packets of another transfer, such as one that has just ended
	Corrupt         uint64 `json:"corrupt"`   // chunks that were not what was registered; they came again
	LinkSent        uint64 `json:"link_sent"` // bytes by links of chains
	LinkReceived    uint64 `json:"link_received"`
	LinksRefused    uint64 `json:"links_refused"`
	Writes          uint64 `json:"writes"` // into other processes' memory
	WrittenBytes    uint64 `json:"written_bytes"`
	LandedBytes     uint64 `json:"landed_bytes"` // that others wrote into this process's memory
	Unsided         uint64 `json:"unsided"`      // links that should have written, and could not, or not to the end
	XDPSent         uint64 `json:"xdp_sent"`     // packets, of those by multicast, that went through AF_XDP sockets
	XDPReceived     uint64 `json:"xdp_received"` // likewise
	XDPRefused      uint64 `json:"xdp_refused"`  // transfers that should have used them, and went by UDP, or in part
}

// Stats returns the counters.
func (s *Store) Stats() Stats {
	c, l := &s.casts, &s.links
	s.mu.Lock()
	transfers := len(s.catalog.Transfers())
	s.mu.Unlock()
	return Stats{
		Memory: s.pool.Kind(), Used: s.pool.Used(), Reused: s.pool.Reused(), Transfer: transfers,
		SentPackets: c.SentPackets.Load(), SentBytes: c.SentBytes.Load(), ReceivedPackets: c.ReceivedPackets.Load(),
		ReceivedBytes: c.ReceivedBytes.Load(), Moved: c.Moved.Load(), Repaired: c.Repaired.Load(),
		Parity: c.Parity.Load(), Single: c.Single.Load(), Feedbacks: c.Feedbacks.Load(), Malformed: c.Malformed.Load(),
		Stale:   c.Stale.Load(),
		Corrupt: c.Corrupt.Load() + l.Corrupt.Load(), LinkSent: l.SentBytes.Load(),
		LinkReceived: l.ReceivedBytes.Load(),
		LinksRefused: l.Refused.Load(), Writes: l.Writes.Load(), WrittenBytes: l.WrittenBytes.Load(),
		LandedBytes: l.LandedBytes.Load(), Unsided: l.Unsided.Load(),
		XDPSent: c.PastSent.Load(), XDPReceived: c.PastReceived.Load(), XDPRefused: c.PastRefused.Load(),
	}
}

// AwaitMembers waits until n members of the group can take part in transfers. A request that comes earlier waits for
// those that it needs.
func (s *Store) AwaitMembers(ctx context.Context, n int) error {
	for {
		s.mu.Lock()
		changed, have := s.changed, 0
		if v := s.group.View(); v != nil {
			for _, a := range v.Members {
				if m := s.catalog.Member(a); m != nil && m.Unit > 0 {
					have++
				}
			}
		}
		s.mu.Unlock()
		if have >= n {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("%d of %d members are there: %w", have, n, context.Cause(ctx))
		case <-s.ctx.Done():
			return context.Cause(s.ctx)
		}
	}
}

// Everybody returns the members of the present view, for requests that shall give all of them a copy.
func (s *Store) Everybody() []vsync.Address {
	if v := s.group.View(); v != nil {
		return append([]vsync.Address(nil), v.Members...)
	}
	return nil
}

// Progress says how far an object is that moves from or to this process.
type Progress struct {
	Done  int64 `json:"done"`  // bytes, of all objects that share the transfer
	Total int64 `json:"total"` // of them; 0: nothing moves here
}

// count lets f tell how many segments have moved.
func (x *session) count(f func() uint32) { x.moved.Store(&f) }

// Progress tells how far an object is.
func (s *Store) Progress(name string) (p Progress) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, x := range s.sessions { // the one that is furthest behind, in any order
		total, here := int64(0), false
		for _, it := range x.transfer.Items {
			total += int64(it.Size)
			here = here || it.Name == name
		}
		f := x.moved.Load()
		if !here || f == nil {
			continue
		}
		unit := int64(x.transfer.Unit)
		if !x.transfer.Cast {
			unit = chain.Unit
		}
		if done := min(total, int64((*f)())*unit); p.Total == 0 || done < p.Done {
			p = Progress{Done: done, Total: total}
		}
	}
	return p
}
