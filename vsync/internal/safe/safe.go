// Package safe knows which acceptors hold what, so that a SafeSend is delivered only when enough of them do.
//
// The acceptors of a message are its sender and the lowest-ranked other members, Copies in all. An acceptor has logged
// a packet when it acknowledged it: in memory, holding is logging. For a packet to be delivered anywhere, every
// acceptor must hold the packet and the record that gives it its place in the total order; whatever crashes afterwards,
// as long as one acceptor survives, the packet is in the cut at that place. Guarded by the simulator's checker uniform.
package safe

import (
	"iter"

	"github.com/khamsin-io/khamsin/vsync/core"
	"github.com/khamsin-io/khamsin/vsync/internal/canary"
)

// Stable tells how far a stream is known to be held by every member.
type Stable interface{ StableAt(r core.Rank) core.Seq }

// Tracker is the acceptors' acknowledgements in one view, as one member knows them.
type Tracker struct {
	self   core.Rank
	n      int
	copies int
	stable Stable
	canary canary.Bug
	held   [][]core.Seq // by acceptor, by stream; nil until the acceptor was heard
	needs  [][]core.Seq // by stream, what the causal records in it refer to, and what that refers to in turn
}

// New returns the tracker of a view of n members. Copies of zero or less than zero mean all members and a majority;
// more than n means all: the group's threshold is then not reachable, and package engine holds such messages back.
func New(self core.Rank, n, copies int, stable Stable, bug canary.Bug) *Tracker {
	switch {
	case copies == 0 || copies > n:
		copies = n
	case copies < 0:
		copies = n/2 + 1
	}
	return &Tracker{self: self, n: n, copies: copies, stable: stable, canary: bug, held: make([][]core.Seq, n),
		needs: make([][]core.Seq, n)}
}

// OnAck notes that a member holds a stream up to a number.
func (t *Tracker) OnAck(member, owner core.Rank, to core.Seq) {
	if t.held[member] == nil {
		t.held[member] = make([]core.Seq, t.n)
	}
	t.held[member][owner] = max(t.held[member][owner], to)
}

// OnCause notes that a causal record in a member's stream refers to a packet. Should that packet be lost when a view
// ends, what stands behind the record is lost with it, so the acceptors of a SafeSend behind it must hold the packet
// too.
func (t *Tracker) OnCause(r, of core.Rank, q core.Seq) {
	if t.needs[r] == nil {
		t.needs[r] = make([]core.Seq, t.n)
	}
	t.needs[r][of] = max(t.needs[r][of], q)
	for k, x := range t.needs[of] {
		t.needs[r][k] = max(t.needs[r][k], x)
	}
}

// Held tells whether every acceptor holds the sender's packet q and rank 0's record by.
func (t *Tracker) Held(sender core.Rank, q, by core.Seq) bool {
	if canary.Enabled && t.canary == canary.UnsafeSafe {
		return true
	}
	for r := range t.Acceptors(sender) {
		if t.Lacks(r, sender, q, by) {
			return false
		}
	}
	return true
}

// Acceptors iterates over the members that must hold a sender's message: itself and the lowest-ranked others.
func (t *Tracker) Acceptors(sender core.Rank) iter.Seq[core.Rank] {
	return func(yield func(core.Rank) bool) {
		if !yield(sender) {
			return
		}
		others := 0
		for r := core.Rank(0); int(r) < t.n && others < t.copies-1; r++ {
			if r == sender {
				continue
			}
			others++
			if !yield(r) {
				return
			}
		}
	}
}

// Lacks tells whether a member is not known to hold the sender's packet q and rank 0's record by.
func (t *Tracker) Lacks(member, sender core.Rank, q, by core.Seq) bool {
	if !t.holds(member, sender, q) || !t.holds(member, 0, by) {
		return true
	}
	for k, x := range t.needs[sender] {
		if x > 0 && !t.holds(member, core.Rank(k), x) {
			return true
		}
	}
	return false
}

func (t *Tracker) holds(member, owner core.Rank, q core.Seq) bool {
	if member == t.self || member == owner || t.stable.StableAt(owner) >= q {
		return true
	}
	return t.held[member] != nil && t.held[member][owner] >= q
}
