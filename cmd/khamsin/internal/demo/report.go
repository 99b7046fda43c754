package demo

import "time"

// conf is what a member is told when it starts.
type conf struct {
	Index     int // of the process, in the order of starting
	Name      string
	Input     string // path; empty for the built-in data
	Share     share
	Rate      float64 // rows a second
	System    string
	Transport string // "rdma", else the default
	GroupPort uint16
	PeerPort  uint16
	Suspect   time.Duration
}

// command is what the parent tells a member.
type command struct {
	Do   verb
	Conf *conf `json:",omitempty"` // of start
}

type verb string

const (
	doStart  verb = "start"  // attach and join; the first command
	doGo     verb = "go"     // multicast the share
	doStop   verb = "stop"   // multicast no more
	doFinish verb = "finish" // multicast the last message, behind which everybody sums up
	doQuit   verb = "quit"   // leave in order
)

// report is what a member tells the parent.
type report struct {
	Kind  kind
	Index int
	At    int64         // nanoseconds since 1970, by the clock of this host
	Took  time.Duration `json:",omitempty"` // attached, joined: since the start
	Addr  string        `json:",omitempty"` // attached
	Text  string        `json:",omitempty"` // oracle, warning, failed
	Rows  uint64        `json:",omitempty"` // joined: messages in the transferred state; done: rows multicast
	View  *viewSeen     `json:",omitempty"` // view
	Count uint64        `json:",omitempty"` // progress
	Final *final        `json:",omitempty"` // final
}

type kind string

const (
	kindAttached kind = "attached"
	kindJoined   kind = "joined"
	kindView     kind = "view"
	kindOracle   kind = "oracle"
	kindWarning  kind = "warning"
	kindProgress kind = "progress"
	kindDone     kind = "done"   // the whole share is multicast and delivered here
	kindFinal    kind = "final"  // the last message was delivered
	kindFailed   kind = "failed" // the member gives up
	kindEnded    kind = "ended"  // the process is gone; the parent's own report
)

// viewSeen is a view as one member saw it, with what was delivered in front of it.
type viewSeen struct {
	ID      uint64
	Rank    int
	Members []string
	Joined  []string
	Left    []string
	Count   uint64
	Order   hash
}

// final is a member's sum.
type final struct {
	Rank    int
	View    uint64
	Count   uint64
	Order   hash
	Stock   hash
	Applied map[int]uint64
	Own     uint64 // messages delivered by this member itself, without those in the transferred state
}
