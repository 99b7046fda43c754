// Package canary names the bugs that can be planted in the protocol machines to prove that the simulator's checkers
// catch them. They exist only in binaries built with the tag khamsin_canary; elsewhere Enabled is a false constant and
// the compiler removes every trace.
package canary

// Bug is one planted bug. None is no bug.
type Bug uint8

// The bugs.
const (
	None             Bug = iota
	ForgetCut            // a survivor installs the next view without fetching what it lacks of the old one
	SkipGap              // the receiver delivers past a gap in a stream
	OwnOrderFirst        // a member delivers its own ordered messages without waiting for their place
	RepairTwice          // a repaired packet is taken as new although it was there already
	TrustDamage          // packets with a wrong checksum are accepted
	StateLate            // the state for a joiner is taken one message too late
	ViewWithoutLast      // one member installs views without their youngest member
	IgnoreCause          // CausalSend is delivered without waiting for its causes
	UnsafeSafe           // SafeSend is delivered before the acceptors hold it
	FlushEarly           // Flush reports stability that is not there
	TwoPrimaries         // a view is committed without the ORACLE's majority
	NeverDiscard         // stable packets are never discarded
	ForgetInstall        // a decided view is announced only once, and the announcement may be lost
	WrongView            // a message that waited for the next view keeps the old view's label
	LeaderOnlyOffers     // only the ORACLE's leader answers processes that look for a system
	HastySuspicion       // a target is accused when it misses a sign of life or two
	OwnLost              // a member now and then forgets to deliver a message of its own
	PeerTwice            // a point-to-point message is delivered twice
	KeepFrame            // a process that ends keeps a frame
	StateUnasked         // a joiner is told to begin from nothing, though it has got the state
	JoinAnyway           // a process that wants to create a group joins one that is there
	EndUnasked           // a member that leaves ends the whole group
	bugs
)

var names = [...]string{ // immutable: table of names
	"none", "forget-cut", "skip-gap", "own-order-first", "repair-twice", "trust-damage", "state-late",
	"view-without-last",
	"ignore-cause", "unsafe-safe", "flush-early", "two-primaries", "never-discard", "forget-install", "wrong-view",
	"leader-only-offers", "hasty-suspicion", "own-lost", "peer-twice", "keep-frame", "state-unasked",
	"join-anyway", "end-unasked",
}

var checkers = [...]string{ // immutable: table of names
	"", "same-messages", "fifo", "total-order", "no-duplicate", "no-creation", "joiner-state", "view-agreement",
	"causal", "uniform", "flush-stable", "single-primary", "bounded-memory", "liveness", "view-synchrony",
	"one-system", "accuracy", "self-delivery", "peer", "whole-arena", "contract",
	"create-only", "termination",
}

// All returns every bug that can be planted.
func All() []Bug {
	all := make([]Bug, 0, bugs)
	for b := ForgetCut; b < bugs; b++ {
		all = append(all, b)
	}
	return all
}

// String returns the bug's name.
func (b Bug) String() string { return names[b] }

// Checker returns the name of the simulator's checker that must catch the bug.
func (b Bug) Checker() string { return checkers[b] }
