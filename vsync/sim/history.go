package sim

import (
	"encoding/binary"
	"fmt"

	"github.com/khamsin-io/khamsin/dataplane/clock"
	"github.com/khamsin-io/khamsin/vsync/core"
)

// history is what the applications saw and did, in the order in which it happened. Only the world writes it, only the
// checkers read it; it knows nothing of packets and engines.
type history struct {
	groups    []string // names
	messages  []*message
	lives     []*life
	processes []*processRecord
	failures  []Failure // seen while the world ran
	anonymous map[place]*message
	clean     bool  // the weather gave no reason to take a live process for dead
	safeOf    []int // by group: copies of a Safe message, as in a JoinRequest
}

// message is one multicast or one point-to-point message of an application.
type message struct {
	id        int // place in history.messages, from 1
	group     int
	sender    *life
	number    int // place in its sender's order, from 1; 0: not accepted, Unordered, Raw, empty or point-to-point
	accepted  bool
	flavour   core.Flavour
	size      int
	text      string         // of a story; empty: bytes that follow from the number
	to        *processRecord // the receiver of a point-to-point message
	submitted clock.Time
	view      core.ViewID // the sender's view when it was accepted
	handled   int         // how much of the sender's log its application had handled before
	arrived   int         // point-to-point: how often it was delivered
}

// isPeer tells whether m is a point-to-point message.
func (m *message) isPeer() bool { return m.to != nil }

// isReliable tells whether m takes part in the guarantees between views.
func (m *message) isReliable() bool { return !m.isPeer() && m.flavour != core.Raw }

// isSequenced tells whether m takes part in its sender's order.
func (m *message) isSequenced() bool { return m.number > 0 }

// String names the message and its sender.
func (m *message) String() string {
	if m.text != "" {
		return fmt.Sprintf("message %d (%v %q of %s)", m.id, m.flavour, m.text, m.sender)
	}
	if m.size == 0 {
		return fmt.Sprintf("an empty %v of %s", m.flavour, m.sender)
	}
	return fmt.Sprintf("message %d (%v %d of %s, %d bytes)", m.id, m.flavour, m.number, m.sender, m.size)
}

// place names a delivered message by where it stands. It is the only name of messages without bytes.
type place struct {
	system int
	group  int
	view   core.ViewID
	sender core.Rank
	seq    core.Seq
	index  int
}

// fate says how a process or a membership ended.
type fate uint8

// The fates.
const (
	alive   fate = iota
	crashed      // stopped between two instructions
	left         // asked for it
	failed       // the engine said that it is over
	stopped      // with the whole system, after the run
	ended        // with the group, which was terminated
	refused      // the group existed, and was not to
)

// String returns one word.
func (f fate) String() string {
	return [...]string{"alive", "crashed", "left", "failed", "stopped", "ended", "refused"}[f]
}

// processRecord is one run of one process.
type processRecord struct {
	id      int // place in history.processes
	node    int
	run     int // of the node, from 1
	addr    core.Address
	fate    fate
	endedAt clock.Time
	err     error
	system  int  // which system it is part of, from 1; 0 before it is attached
	disturb bool // it was paused or cut off, or accused by an application, or its ORACLE lost its majority
}

// String returns "node.run".
func (p *processRecord) String() string { return fmt.Sprintf("n%d.%d", p.node, p.run) }

// life is one membership of one process in one group, from its first delivery to its last.
type life struct {
	id         int
	process    *processRecord
	group      int
	log        []entry
	peers      []entry    // point-to-point messages delivered
	sent       []*message // accepted multicasts
	flushes    []*flushRecord
	fate       fate
	endedAt    clock.Time
	joinedAt   clock.Time // when it asked
	creates    bool       // it wants to create the group
	terminates bool       // it has asked for the end of the group
	rest       int        // length of the log when the healed world came to rest; 0: was over by then
}

// String returns the process, and the life when it is not the first of the process.
func (l *life) String() string { return fmt.Sprintf("%s/L%d", l.process, l.id) }

// flushRecord is one Flush.
type flushRecord struct {
	at     clock.Time
	covers int // how many of life.sent came before
	k      int
	done   bool
	doneAt clock.Time
	entry  int // length of the log when it was done
}

// entryKind says what happened to a member.
type entryKind uint8

// The kinds of entries.
const (
	entryMessage entryKind = iota
	entryView
	entryMakeState
	entryState // a whole state was loaded
	entryInit
	entryEnd
	entryPeer
)

// entry is one line of a member's log.
type entry struct {
	at      clock.Time
	kind    entryKind
	view    *core.View
	message *message
	viewID  core.ViewID // as the engine labelled it
	sender  core.Rank
	seq     core.Seq
	state   replica
	err     error
}

// String returns the entry as one line of a report.
func (e *entry) String() string {
	s := stamp(e.at) + " "
	switch e.kind {
	case entryMessage:
		return s + fmt.Sprintf("deliver in view %d, rank %d seq %d: %v", e.viewID, e.sender, e.seq, e.message)
	case entryPeer:
		return s + fmt.Sprintf("deliver point-to-point: %v", e.message)
	case entryView:
		return s + viewText(e.view)
	case entryMakeState:
		return s + "make state for " + viewText(e.view)
	case entryState:
		return s + fmt.Sprintf("load state %v", e.state)
	case entryInit:
		return s + "init"
	}
	return s + fmt.Sprintf("end: %v", e.err)
}

// nodeOf returns the number of the node behind an address of the simulator.
func nodeOf(a core.Address) int { return int(a.PID) - firstPID }

// viewText prints a view by node numbers.
func viewText(v *core.View) string {
	if v == nil {
		return "no view"
	}
	numbers := func(list []core.Address) []int {
		out := make([]int, len(list))
		for i, a := range list {
			out[i] = nodeOf(a)
		}
		return out
	}
	s := fmt.Sprintf("view %d %v", v.ID, numbers(v.Members))
	if len(v.Joined) > 0 {
		s += fmt.Sprintf(" joined %v", numbers(v.Joined))
	}
	if len(v.Left) > 0 {
		s += fmt.Sprintf(" left %v", numbers(v.Left))
	}
	return s
}

// replica is the replicated state of the simulated application.
type replica struct {
	Count uint64 // messages applied
	Chain uint64 // hash over the totally ordered ones, in order
	Sum   uint64 // commutative hash over all
}

// apply takes one message in.
func (r *replica) apply(m *message) {
	if !m.isReliable() {
		return
	}
	r.Count++
	r.Sum += mix(uint64(m.id))
	if m.flavour.Ordered() {
		r.Chain = mix(r.Chain ^ mix(uint64(m.id)))
	}
}

// replicaLen is the length of an encoded replica in bytes.
const replicaLen = 24

func (r replica) encode(b []byte) []byte {
	b = binary.LittleEndian.AppendUint64(b, r.Count)
	b = binary.LittleEndian.AppendUint64(b, r.Chain)
	return binary.LittleEndian.AppendUint64(b, r.Sum)
}

func (r *replica) decode(b []byte) {
	r.Count = binary.LittleEndian.Uint64(b)
	r.Chain = binary.LittleEndian.Uint64(b[8:])
	r.Sum = binary.LittleEndian.Uint64(b[16:])
}

// String prints the count and the first digits of both hashes.
func (r replica) String() string {
	return fmt.Sprintf("%d messages, chain %08x, sum %08x", r.Count, r.Chain>>32, r.Sum>>32)
}

// Failure is a guarantee that did not hold.
type Failure struct {
	Checker string     // its name: see Checkers
	At      clock.Time // virtual time
	Text    string
	Log     []string // what the members concerned saw around it
}

// complain records a failure while the world runs.
func (h *history) complain(checker string, at clock.Time, format string, args ...any) {
	const most = 20
	if len(h.failures) < most {
		h.failures = append(h.failures, Failure{Checker: checker, At: at, Text: fmt.Sprintf(format, args...)})
	}
}

// addMessage records a message that is about to be submitted.
func (h *history) addMessage(m *message) *message {
	h.messages = append(h.messages, m)
	m.id = len(h.messages)
	return m
}

// lostPeer returns a point-to-point message that did not arrive although its sender and its only possible receiver are
// alive; nil when there is none.
func (h *history) lostPeer() *message {
	for _, m := range h.messages {
		if !m.isPeer() || !m.accepted || m.arrived > 0 || m.sender.fate != alive || m.to.fate != alive {
			continue
		}
		receivers, over := 0, 0
		for _, l := range h.lives {
			if l.process == m.to && l.group == m.group {
				receivers++
				over += btoi(l.fate != alive)
			}
		}
		if receivers == 1 && over == 0 {
			return m
		}
	}
	return nil
}

// byID returns a message, nil when there is none of that number.
func (h *history) byID(id uint64) *message {
	if id == 0 || id > uint64(len(h.messages)) {
		return nil
	}
	return h.messages[id-1]
}
