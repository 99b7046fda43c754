package member

import (
	"fmt"
	"io"
	"log"
	"slices"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/khamsin-io/khamsin/dataplane/invariant"
	"github.com/khamsin-io/khamsin/vsync/core"
)

// Consensus is the ORACLE's replicated log: raft, driven as a machine. It owns no clock: elections begin when Campaign
// is called, because the ORACLE's own failure detection has found the leader gone, and Beat makes the leader send its
// heartbeats; so runs are deterministic. Its log lives in memory, which is sound because a crashed process never comes
// back under its old identity.
type Consensus struct {
	id      uint64
	node    *raft.RawNode
	storage *raft.MemoryStorage
	voters  []core.Address // who they are is part of the configuration changes
	applied uint64
	conf    *raftpb.ConfState

	// Registry is the state that the log builds.
	Registry *Registry
	// Outgoing are messages for other ORACLE members, to be sent and cleared by the caller.
	Outgoing []Outgoing
}

// Outgoing is a raft message for another ORACLE member.
type Outgoing struct {
	To   uint64 // incarnation
	Data []byte
}

// compactAfter is the number of log entries after which the log is cut off and replaced by a snapshot.
const compactAfter = 4096

// found returns the consensus of a founder: the only voter, elected at once.
func found(self core.Address, reg *Registry) *Consensus {
	c := start(self)
	c.Registry = reg
	c.voters = []core.Address{self}
	one := uint64(1)
	c.conf = &raftpb.ConfState{Voters: []uint64{c.id}}
	snap := &raftpb.Snapshot{Data: c.snapshotData(), Metadata: &raftpb.SnapshotMetadata{
		ConfState: c.conf, Index: &one, Term: &one,
	}}
	c.must(c.storage.ApplySnapshot(snap))
	c.applied = 1
	c.open()
	c.must(c.node.Campaign())
	return c
}

// follow returns the consensus of a process that the leader is about to make a voter.
func follow(self core.Address) *Consensus {
	c := start(self)
	c.Registry = NewRegistry(0, 1)
	c.open()
	return c
}

func start(self core.Address) *Consensus {
	return &Consensus{id: self.Incarnation, storage: raft.NewMemoryStorage()}
}

func (c *Consensus) open() {
	node, err := raft.NewRawNode(&raft.Config{
		ID: c.id, ElectionTick: 1 << 30, HeartbeatTick: 1, Storage: c.storage, Applied: c.applied,
		MaxSizePerMsg: 1 << 20, MaxInflightMsgs: 64, MaxUncommittedEntriesSize: 64 << 20,
		Logger: &raft.DefaultLogger{Logger: log.New(io.Discard, "", 0)},
	})
	c.must(err)
	c.node = node
}

func (c *Consensus) must(err error) {
	if err != nil {
		invariant.Fail("member: raft: %v", err)
	}
}

// Leader tells whether this replica leads.
func (c *Consensus) Leader() bool { return c.node.BasicStatus().RaftState == raft.StateLeader }

// LeaderKnown tells whether some replica is known to lead.
func (c *Consensus) LeaderKnown() bool { return c.node.BasicStatus().Lead != raft.None }

// Voters returns the ORACLE's members, the leader first when it is known.
func (c *Consensus) Voters() []core.Address {
	list := slices.Clone(c.voters)
	lead := c.node.BasicStatus().Lead
	if i := slices.IndexFunc(list, func(a core.Address) bool { return a.Incarnation == lead }); i > 0 {
		a := list[i]
		list = slices.Insert(slices.Delete(list, i, i+1), 0, a)
	}
	return list
}

// address finds an ORACLE member, or another process of the system, by its incarnation.
func (c *Consensus) address(incarnation uint64) core.Address {
	for _, a := range c.voters {
		if a.Incarnation == incarnation {
			return a
		}
	}
	for i := range c.Registry.procs {
		if a := c.Registry.procs[i].addr; a.Incarnation == incarnation {
			return a
		}
	}
	return core.NoAddress
}

// Voter tells whether a process is an ORACLE member.
func (c *Consensus) Voter(a core.Address) bool { return slices.Contains(c.voters, a) }

// Propose hands in a command. False means that it cannot be taken now (no leader); the requester will ask again.
func (c *Consensus) Propose(cmd *Command) bool { return c.node.Propose(cmd.Encode()) == nil }

// Campaign starts an election.
func (c *Consensus) Campaign() {
	if c.Electable() {
		_ = c.node.Campaign() // refused while a configuration change is being applied: tried again later
	}
}

// Electable tells whether this replica itself may be elected.
func (c *Consensus) Electable() bool {
	return slices.ContainsFunc(c.voters, func(a core.Address) bool { return a.Incarnation == c.id })
}

// Needed tells whether the others cannot go on without this replica: it is still a voter, and there are processes that
// could take over.
func (c *Consensus) Needed() bool {
	if c.conf == nil {
		return false
	}
	if slices.Contains(c.conf.GetVotersOutgoing(), c.id) {
		return true
	}
	return slices.Contains(c.conf.GetVoters(), c.id) && (len(c.conf.GetVoters()) > 1 || len(c.Registry.eligible()) > 0)
}

// Leaderless tells whether nobody leads, or somebody who is no voter any more.
func (c *Consensus) Leaderless() bool {
	lead := c.node.BasicStatus().Lead
	return lead == raft.None || !slices.ContainsFunc(c.voters,
		func(a core.Address) bool { return a.Incarnation == lead })
}

// Changing tells whether a change of the ORACLE's membership is under way.
func (c *Consensus) Changing() bool { return c.conf != nil && len(c.conf.GetVotersOutgoing()) > 0 }

// Beat makes a leader send heartbeats.
func (c *Consensus) Beat() { c.node.Tick() }

// Step takes a message of another ORACLE member in.
func (c *Consensus) Step(data []byte) error {
	m := new(raftpb.Message)
	if err := proto.Unmarshal(data, m); err != nil {
		return fmt.Errorf("member: raft message: %w", err)
	}
	return c.node.Step(m)
}

// Change proposes to make exactly these processes the ORACLE. One change is under way at a time.
func (c *Consensus) Change(voters []core.Address) bool {
	if c.conf == nil || len(c.conf.GetVotersOutgoing()) > 0 {
		return false
	}
	cc := &raftpb.ConfChangeV2{Context: core.AppendAddresses(nil, voters)}
	cc.Transition = raftpb.ConfChangeTransitionJointImplicit.Enum()
	for _, a := range voters {
		if !c.Voter(a) {
			id := a.Incarnation
			cc.Changes = append(cc.Changes, &raftpb.ConfChangeSingle{Type: raftpb.ConfChangeAddNode.Enum(),
				NodeId: &id})
		}
	}
	for _, a := range c.voters {
		if !slices.Contains(voters, a) {
			id := a.Incarnation
			cc.Changes = append(cc.Changes, &raftpb.ConfChangeSingle{Type: raftpb.ConfChangeRemoveNode.Enum(),
				NodeId: &id})
		}
	}
	return len(cc.Changes) > 0 && c.node.ProposeConfChange(cc) == nil
}

// Applied is one committed entry's effects.
type Applied struct {
	Index   uint64
	Effects []Effect
	Conf    bool // the ORACLE's membership changed
}

// Drain does what raft wants done and returns the effects of what was committed, in order.
func (c *Consensus) Drain() []Applied {
	var out []Applied
	for c.node.HasReady() {
		rd := c.node.Ready()
		if !raft.IsEmptySnap(rd.Snapshot) {
			c.restore(rd.Snapshot)
			out = append(out, Applied{Index: c.applied, Conf: true})
		}
		c.must(c.storage.Append(rd.Entries))
		if rd.HardState != nil && !raft.IsEmptyHardState(rd.HardState) {
			c.must(c.storage.SetHardState(rd.HardState))
		}
		for _, e := range rd.CommittedEntries {
			out = append(out, c.apply(e))
		}
		for _, m := range rd.Messages {
			c.send(m)
		}
		c.node.Advance(rd)
		c.compact(compactAfter)
	}
	return out
}

func (c *Consensus) apply(e *raftpb.Entry) Applied {
	c.applied = e.GetIndex()
	a := Applied{Index: c.applied}
	switch e.GetType() {
	case raftpb.EntryNormal:
		if cmd, err := DecodeCommand(e.Data); err == nil {
			a.Effects = c.Registry.Apply(cmd)
		}
	case raftpb.EntryConfChangeV2:
		cc := new(raftpb.ConfChangeV2)
		c.must(proto.Unmarshal(e.Data, cc))
		c.conf = c.node.ApplyConfChange(cc)
		if voters, _, err := core.DecodeAddresses(cc.Context); err == nil && len(voters) > 0 {
			c.voters = voters
		}
		c.compact(0)
		a.Conf = true
	}
	return a
}

// compact replaces all but the newest entries of the log by a snapshot when it holds more than keep of them.
func (c *Consensus) compact(keep uint64) {
	first, err := c.storage.FirstIndex()
	c.must(err)
	if c.applied < first+keep {
		return
	}
	if _, err := c.storage.CreateSnapshot(c.applied, c.conf, c.snapshotData()); err != nil {
		return // one of this index exists
	}
	c.must(c.storage.Compact(c.applied))
}

func (c *Consensus) snapshotData() []byte {
	return append(core.AppendAddresses(nil, c.voters), c.Registry.Encode()...)
}

func (c *Consensus) restore(s *raftpb.Snapshot) {
	voters, rest, err := core.DecodeAddresses(s.Data)
	c.must(err)
	reg, err := DecodeRegistry(rest)
	c.must(err)
	c.must(c.storage.ApplySnapshot(s))
	c.voters, c.Registry, c.applied, c.conf = voters, reg, s.GetMetadata().GetIndex(), s.GetMetadata().GetConfState()
}

func (c *Consensus) send(m *raftpb.Message) {
	data, err := proto.Marshal(m)
	c.must(err)
	c.Outgoing = append(c.Outgoing, Outgoing{m.GetTo(), data})
	if m.GetType() == raftpb.MsgSnap {
		c.node.ReportSnapshot(m.GetTo(), raft.SnapshotFinish)
	}
}
