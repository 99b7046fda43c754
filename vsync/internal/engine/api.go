// Package engine holds the whole protocol state of one process and routes packets, commands and deadlines to the
// protocol machines. It is deterministic: the same inputs at the same times give the same outputs. It never reads a
// clock, starts a goroutine or touches a socket; whoever owns it (the host in production, the simulator in tests) calls
// it from one goroutine at a time, passes the time in, and carries out what Output holds after every call.
package engine

import (
	"errors"
	"fmt"
	"time"

	"github.com/khamsin-io/khamsin/dataplane"
	"github.com/khamsin-io/khamsin/dataplane/frame"
	"github.com/khamsin-io/khamsin/dataplane/loan"
	"github.com/khamsin-io/khamsin/vsync/core"
	"github.com/khamsin-io/khamsin/vsync/internal/canary"
	"github.com/khamsin-io/khamsin/vsync/internal/detect"
	"github.com/khamsin-io/khamsin/vsync/internal/member"
)

// Handle names a group inside one engine. Handles are not reused.
type Handle uint32

// Config is what an engine is made from. Zero durations and sizes take the defaults that Defaults gives.
type Config struct {
	Self   core.Address // own address, with a fresh incarnation
	System string       // name of the system; systems of different names ignore each other
	Seed   uint64       // for jitter
	// Channels are those that may be used: the first one for beacons, the others for groups. Zero: Defaults apply.
	Channels Channels
	Arena    *frame.Arena // frames for what the engine sends come from its Tx pool
	MTU      int          // largest packet in bytes
	Timing   Timing
	Limits   Limits
	Oracle   Oracle
	Key      []byte // of the system, seal.KeyLen bytes: packets are signed with it; nil: they have a checksum alone
	NoSums   bool   // not even that, without a key
	Line     uint16 // port where watchers may connect to be told by the kernel when this process ends; 0: none
	Canary   canary.Bug
}

// Channels is a range of channels.
type Channels struct {
	Low   dataplane.Channel
	Count int // at least 2
}

// Timing holds the time constants of the protocols.
type Timing struct {
	Discovery  time.Duration // how long a starting process looks for a running system before it founds one
	Beacon     time.Duration // between beacons while looking
	Gather     time.Duration // how long the ORACLE waits for more joins before it proposes a view
	Heartbeat  time.Duration // between signs of life to a watcher
	Suspect    time.Duration // silence after which a watcher accuses
	Stuck      time.Duration // for which a member's handlers may take nothing, while it is alive, before it is accused
	OracleLost time.Duration // silence of the ORACLE after which a process gives up
	Request    time.Duration // before a request to the ORACLE is repeated
	Nak        time.Duration // gap age at the first negative acknowledgement
	Ack        time.Duration // oldest unacknowledged packet at the receiver
	Sync       time.Duration // oldest unstable packet at the sender before it asks for acknowledgements
	LinkRetry  time.Duration // first retransmission of a lane
	Step       time.Duration // longest a member may take to answer in a view change; at least 5/4 of Suspect
}

// Limits bounds what an engine holds. All are per group unless they say otherwise.
type Limits struct {
	Window       int // packets of one sender that are not yet stable
	Pending      int // bytes that wait to be sent at one member; of point-to-point messages, for each receiver
	Queue        int // packets handed to the host and not yet consumed
	PeerQueue    int // bytes of point-to-point messages handed to the host and not yet consumed
	JoinerQueue  int // bytes that a joiner holds while its state arrives
	Message      int // bytes of one message
	Transfer     int // bytes of one lane that wait to be sent
	OracleEvents int // reserved
}

// Oracle says which part the process takes in the membership service.
type Oracle struct {
	Size      int      // members of the ORACLE when complete: 1, 3, 5 or 7
	Eligible  bool     // whether this process may be one of them
	FastStart bool     // found a new system at once, without looking for a running one
	Hosts     []string // with any: a majority of them is needed to found a system, unless FastStart
	Host      string   // the one that this process is on; empty: none of them
	IgnoreCut bool     // go on without the ORACLE's majority
}

// Defaults returns the default timing and limits.
func Defaults() (Timing, Limits) {
	return Timing{
			Discovery:  300 * time.Millisecond,
			Beacon:     20 * time.Millisecond,
			Gather:     time.Millisecond,
			Heartbeat:  200 * time.Millisecond,
			Suspect:    1200 * time.Millisecond,
			Stuck:      20 * time.Second,
			OracleLost: 30 * time.Second,
			Request:    500 * time.Millisecond,
			Nak:        300 * time.Microsecond,
			Ack:        time.Millisecond,
			Sync:       4 * time.Millisecond,
			LinkRetry:  20 * time.Millisecond,
			Step:       1500 * time.Millisecond,
		}, Limits{
			Window:      1024,
			Pending:     128 << 10,
			Queue:       2048,
			PeerQueue:   1 << 20,
			JoinerQueue: 256 << 20,
			Message:     6 << 20,
			Transfer:    4 << 20,
		}
}

// JoinMode says what a join does when the group exists or does not.
type JoinMode uint8

// The modes.
const (
	JoinOrCreate JoinMode = iota
	CreateOnly            // fails with ErrGroupExists when the group has members
)

// JoinRequest is the command to become a member of a group.
type JoinRequest struct {
	Name       string
	Mode       JoinMode
	Signature  uint64        // of the handlers; members of a group must have equal ones
	Handlers   string        // what Signature is the hash of, at most HandlersMax bytes; a refused joiner gets it
	Unicast    bool          // send to each member by itself instead of to a channel
	Own        bool          // the group, if this join creates it, shall have a channel that no later one gets
	SafeCopies int           // copies of a SafeSend that must exist before delivery: 0 all members, -1 a majority
	Hint       time.Duration // reserved
}

// Result says what became of a submitted message.
type Result uint8

// The results of Submit and its like.
const (
	Accepted  Result = iota // numbered or waiting to be; it will be delivered here unless this process leaves or fails
	Full                    // no room; try again after an EventRoom, or EventPeerRoom, for the group
	NotMember               // the group is not joined, or over
	TooLarge                // the message is above Limits.Message
)

// Errors that events carry.
var (
	ErrGroupExists     = errors.New("group exists already")
	ErrSignature       = errors.New("handlers differ from those of the group's members")
	ErrNotMember       = errors.New("not a member of the group")
	ErrTerminated      = errors.New("group terminated")
	ErrLeft            = errors.New("left the group")
	ErrPoisoned        = errors.New("declared failed by the system")
	ErrOracleLost      = errors.New("lost contact with the ORACLE")
	ErrStopped         = errors.New("stopped")
	ErrSystemFull      = errors.New("a table of the membership service is full")
	ErrOracleRequired  = errors.New("no ORACLE found and this process may not found one")
	ErrOtherKey        = errors.New("a system of this name has another key, or one of the two has none")
	ErrTransferAborted = errors.New("state transfer aborted")
)

// PoisonError is ErrPoisoned with what is known of it.
type PoisonError struct {
	Accuser core.Address // who accused this process; nobody when the teller does not know
	Teller  core.Address // who told it; nobody when it read of it itself
	Reason  string       // of the accusation
}

// Error says all of it.
func (e *PoisonError) Error() string {
	s := fmt.Sprintf("%v: accused by %v: %s", ErrPoisoned, e.Accuser, e.Reason)
	if !e.Teller.IsZero() {
		s += fmt.Sprintf(" (told by %v)", e.Teller)
	}
	return s
}

// Unwrap returns ErrPoisoned.
func (e *PoisonError) Unwrap() error { return ErrPoisoned }

// HandlersMax is the greatest length of JoinRequest.Handlers.
const HandlersMax = member.HandlersMax

// SignatureError is ErrSignature with what the members have.
type SignatureError struct {
	Handlers string // JoinRequest.Handlers of the member that brought the group to life
}

// Error returns the text of ErrSignature.
func (e *SignatureError) Error() string { return ErrSignature.Error() }

// Unwrap returns ErrSignature.
func (e *SignatureError) Unwrap() error { return ErrSignature }

// DeliveryKind says what a Delivery is.
type DeliveryKind uint8

// The kinds of deliveries, handed up in this order for one group: views, state and multicasts in one sequence,
// point-to-point messages in another.
const (
	DeliverMessages DeliveryKind = iota // Frame (or Data, when it is zero) holds one or more messages: see NextMessage
	DeliverWhole                        // Data is one message that came in fragments
	DeliverView                         // View is the new view; messages behind it belong to it
	// make the state for the joiners of View, and pass it to StateChunk with Transfer
	DeliverMakeState
	DeliverState    // Data is the next piece of the state that this joiner loads
	DeliverStateEnd // the state is complete; the view comes next
	DeliverInit     // this process created the group: no state to load
	DeliverEnd      // the group is over for this process; Err says why
	DeliverPeer     // Data is one point-to-point message from the member at From
	DeliverReply    // Data is one reply from the member at From; nothing is to be reported as consumed
)

// Delivery is one thing for a group's application, in order. The receiver of a Delivery with a frame owns one reference
// of it; Data belongs to the receiver, who must not change it.
type Delivery struct {
	Kind     DeliveryKind
	Flavour  core.Flavour
	Group    Handle
	Sender   core.Rank // of the view in which it is delivered
	ViewID   core.ViewID
	Seq      core.Seq // the packet's number in its sender's stream
	Frame    frame.Frame
	Data     []byte
	Loan     *loan.Loan // of the memory of Data, when that can be returned
	View     *core.View
	From     core.Address
	Transfer uint64
	Err      error
}

// EventKind says what an Event is.
type EventKind uint8

// The kinds of events.
const (
	EventAttached  EventKind = iota // the process is part of a system
	EventJoined                     // the group's first view is installed; its delivery follows in order
	EventEnded                      // the group is over; Err says why. The last event of the group
	EventRoom                       // the group can take multicasts again after Full
	EventPeerRoom                   // the group can take point-to-point messages again after Full
	EventFlushed                    // the Flush with Token is over
	EventStateRoom                  // the transfer Token can take more state
	EventOver                       // the engine is over: poisoned, ORACLE lost, or stopped. Err says why
	EventOracle                     // this process's part in the ORACLE changed; Text says how
	EventSuspect                    // Peer was accused; Text says by whom and why
	EventWarning                    // something worth a line in the log: Text
)

// Event tells the host something that is not part of a group's delivery order.
type Event struct {
	Kind  EventKind
	Group Handle
	Token uint64
	Peer  core.Address
	Text  string
	Err   error
}

// Output is what an engine wants done. It is valid until the next call of the engine; the slices are reused.
type Output struct {
	Packets     []dataplane.Packet // send them, in order; each carries one reference of its frame
	Deliveries  []Delivery
	Events      []Event
	Subscribe   []dataplane.Channel
	Unsubscribe []dataplane.Channel
	Groups      []GroupChange // after Subscribe, before Unsubscribe
	Rosters     []Roster      // for transports that must know who listens
	Lines       []Line        // connections to processes that this one watches
}

// Line asks for a connection to a process whose end is to be told at once (LineClosed), or says that it is not wanted
// any more.
type Line = detect.Line

// GroupChange says that packets of a group are wanted on a channel, or wanted no more.
type GroupChange struct {
	Channel dataplane.Channel
	Group   uint32 // as in the packets' header
	Wanted  bool
}

// Roster says who uses a channel for one group from now on: the members of its view. None ends that.
type Roster struct {
	Channel dataplane.Channel
	Group   uint32
	Members []dataplane.Endpoint
}

// Reset empties o and keeps its memory.
func (o *Output) Reset() {
	clear(o.Packets)
	clear(o.Deliveries)
	clear(o.Events)
	clear(o.Rosters)
	*o = Output{
		Packets: o.Packets[:0], Deliveries: o.Deliveries[:0], Events: o.Events[:0],
		Subscribe: o.Subscribe[:0], Unsubscribe: o.Unsubscribe[:0],
		Groups: o.Groups[:0], Rosters: o.Rosters[:0], Lines: o.Lines[:0],
	}
}
