package vsync

import (
	"encoding/json"
	"time"

	"github.com/khamsin-io/khamsin/dataplane/clock"
	"github.com/khamsin-io/khamsin/vsync/internal/engine"
)

// SystemState is a summary of a system, for people and for programs that watch over it. It marshals to JSON.
type SystemState struct {
	System     string       `json:"system"`
	Address    Address      `json:"address"`
	Active     bool         `json:"active"`
	Attached   bool         `json:"attached"`
	Error      string       `json:"error,omitempty"` // why it is over
	Leader     bool         `json:"oracleLeader"`    // this process leads the membership service
	Oracle     []Address    `json:"oracle"`          // its members
	Processes  []Address    `json:"processes"`       // of the system, oldest first; known to the ORACLE's members
	Suspects   int          `json:"suspects"`        // processes that this one accused
	OpenFrames int          `json:"openFrames"`      // packets in memory
	Kept       int64        `json:"keptPackets"`     // those that handlers keep
	Groups     []GroupState `json:"groups"`
	Stats      IOStats      `json:"stats"`
	Transport  string       `json:"transport"`                 // how packets travel: "udp", "xdp", …
	Choice     string       `json:"transportChoice,omitempty"` // why, when Auto chose it
	Settings   Settings     `json:"settings"`
}

// Settings are the settings in force that a state shows.
type Settings struct {
	Interfaces       []string      `json:"interfaces"`
	GroupPort        uint16        `json:"groupPort"`
	PeerPort         uint16        `json:"peerPort"`
	OracleSize       int           `json:"oracleSize"`
	MaxMessage       int           `json:"maxMessage"`
	MaxUnstable      int           `json:"maxUnstable"`
	SuspectAfter     time.Duration `json:"suspectAfterNs"`
	QueryTimeout     time.Duration `json:"queryTimeoutNs"`
	IgnorePartitions bool          `json:"ignorePartitions"`
	Compression      bool          `json:"compression"`
}

// GroupState is a summary of a group. It marshals to JSON.
type GroupState struct {
	Name     string    `json:"name"`
	ID       string    `json:"id"`
	View     ViewID    `json:"view"` // that is being handled; 0 before the first
	Rank     Rank      `json:"rank"`
	Members  []Address `json:"members"`
	Changing bool      `json:"changing"` // between two views
	Loading  bool      `json:"loading"`  // the state is on its way
	Channel  uint32    `json:"channel"`  // of its multicasts from here: 239.0.0.0 plus this; 0: none
	Backlog
	Queries     int    `json:"queries"`     // that wait for replies
	LateReplies uint64 `json:"lateReplies"` // to queries that had ended
	LostReplies uint64 `json:"lostReplies"` // of this process, that could not be sent
	Unhandled   uint64 `json:"unhandled"`   // messages without a handler
	Malformed   uint64 `json:"malformed"`   // messages that could not be read
	Slow        uint64 `json:"slow"`        // handlers that ran longer than HandlerDeadline
	Error       string `json:"error,omitempty"`
}

// Backlog is how much of a group is under way at this process.
type Backlog struct {
	Waiting      int `json:"waiting"`      // packets of this process that are not sent yet
	WaitingBytes int `json:"waitingBytes"` // their bytes
	Unstable     int `json:"unstable"`     // packets of this process that not all members have acknowledged
	Queued       int `json:"queued"`       // packets of all members that the handlers here have not finished
}

// State returns a summary of the system.
func (s *System) State() SystemState {
	if s == nil {
		none := []Address{}
		return SystemState{Error: ErrNotRunning.Error(), Oracle: none, Processes: none, Groups: []GroupState{}}
	}
	st := SystemState{
		System: s.config.SystemName, Address: s.self, Active: s.Active(), Kept: s.kept.Load(), Stats: s.IOStats(),
		Oracle: []Address{}, Processes: []Address{}, Groups: []GroupState{}, Settings: s.config.shown(),
		Transport: s.caps.Name, Choice: s.config.choice,
	}
	if err := s.host.Err(); err != nil {
		st.Error = public(err).Error()
	}
	s.host.Do(func(clock.Time) {
		r := s.engine.Status()
		st.Attached, st.Leader, st.Suspects = r.Attached, r.Leader, r.Suspects
		st.Oracle = append(st.Oracle, r.Oracle...)
		st.Processes = append(st.Processes, r.Processes...)
		st.OpenFrames = s.host.Arena().Outstanding()
	})
	for _, g := range s.Groups() {
		st.Groups = append(st.Groups, g.State())
	}
	return st
}

func (c *Config) shown() Settings {
	return Settings{
		Interfaces: c.Interfaces, GroupPort: c.GroupPort, PeerPort: c.PeerPort, OracleSize: c.OracleSize,
		MaxMessage: c.MaxMessage, MaxUnstable: c.MaxUnstable, SuspectAfter: c.SuspectAfter,
		QueryTimeout: c.QueryTimeout, IgnorePartitions: c.IgnorePartitions, Compression: !c.NoCompression,
	}
}

// State returns a summary of the group.
func (g *Group) State() GroupState {
	st := GroupState{
		Name: g.name, ID: g.ID().String(), Rank: NoRank, Members: []Address{}, LateReplies: g.pending.late.Load(),
		LostReplies: g.repliesLost.Load(), Unhandled: g.unhandled.Load(), Malformed: g.malformed.Load(),
		Slow: g.slow.Load(),
	}
	g.pending.mu.Lock()
	st.Queries = len(g.pending.open)
	g.pending.mu.Unlock()
	if v := g.View(); v != nil {
		st.View, st.Rank, st.Members = v.ID, v.MyRank(), v.Members
	}
	if g.inner == nil {
		st.Error = ErrNotRunning.Error()
		return st
	}
	if err := g.inner.Err(); err != nil {
		st.Error = public(err).Error()
	}
	r := g.status()
	st.Changing, st.Loading = r.Changing, r.Loading
	if n := &g.sys.config.Network; !n.TCPOnly && !n.UnicastOnly {
		st.Channel = uint32(r.Channel)
	}
	st.Backlog = backlog(r)
	return st
}

// Backlog returns how much of the group is under way at this process: what makes its senders wait.
func (g *Group) Backlog() Backlog {
	if g.inner == nil {
		return Backlog{}
	}
	return backlog(g.status())
}

func backlog(r engine.GroupStatus) Backlog {
	return Backlog{Waiting: r.Waiting, WaitingBytes: r.WaitingBytes, Unstable: r.Unstable, Queued: r.Queued}
}

// status asks the engine for the group's state; that of a group that is over is empty.
func (g *Group) status() (r engine.GroupStatus) {
	g.sys.host.Do(func(clock.Time) { r, _ = g.sys.engine.GroupStatus(g.inner.Handle()) })
	return r
}

// String returns the state in JSON, one field a line.
func (s SystemState) String() string { return indented(s) }

// String returns the state in JSON, one field a line.
func (s GroupState) String() string { return indented(s) }

func indented(v any) string {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err.Error()
	}
	return string(b)
}
