package member

import (
	"errors"
	"fmt"
	"io"
	"log"
	"slices"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"
	"google.golang.org/protobuf/proto"

	"github.com/khamsin-io/khamsin/dataplane/invariant"
	"github.com/khamsin-io/khamsin/vsync/core"
)

// Consensus is the ORACLE's replicated log: raft, driven as a machine. It owns no clock: elections begin when Campaign
// is called, and Beat makes the leader send its heartbeats; raft's own election timer, which draws from a global
// generator, never runs out, so runs are deterministic. Its log lives in memory, which is sound because a crashed
// process never comes back under its old identity.
type Consensus struct {
	id      uint64
	node    *raft.RawNode
	storage *raft.MemoryStorage
	voters  []core.Address // who they are is part of the configuration changes
	former  []core.Address // who they were before the change that is under way
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
		ID: c.id, ElectionTick: 1 << 29, HeartbeatTick: 1, Storage: c.storage, Applied: c.applied,
		MaxSizePerMsg: 1 << 20, MaxInflightMsgs: 64, MaxUncommittedEntriesSize: 64 << 20,
		PreVote: true, StepDownOnRemoval: true,
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

// LeaderID returns the incarnation of the replica that is known to lead, 0 when none is.
func (c *Consensus) LeaderID() uint64 { return c.node.BasicStatus().Lead }

// Voters returns the ORACLE's members, the leader first when it is known.
func (c *Consensus) Voters() []core.Address {
	list := slices.Clone(c.voters)
	lead := c.LeaderID()
	if i := slices.IndexFunc(list, func(a core.Address) bool { return a.Incarnation == lead }); i > 0 {
		a := list[i]
		list = slices.Insert(slices.Delete(list, i, i+1), 0, a)
	}
	return list
}

// address finds an ORACLE member, or another process of the system, by its incarnation.
func (c *Consensus) address(incarnation uint64) core.Address {
	for _, list := range [][]core.Address{c.voters, c.former} {
		for _, a := range list {
			if a.Incarnation == incarnation {
				return a
			}
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

// Quorums returns the sets of incarnations of each of which a majority is needed: one set, or two while a change of the
// ORACLE's membership is under way. Nil for a replica that has not heard of the log yet.
func (c *Consensus) Quorums() [][]uint64 {
	if c.conf == nil {
		return nil
	}
	list := [][]uint64{c.conf.GetVoters()}
	if c.Changing() {
		list = append(list, c.conf.GetVotersOutgoing())
	}
	return list
}

// Propose hands in a command. False means that it cannot be taken now (no leader); the requester will ask again.
func (c *Consensus) Propose(cmd *Command) bool { return c.node.Propose(cmd.Encode()) == nil }

// Campaign starts an election.
func (c *Consensus) Campaign() {
	if c.Electable() {
		_ = c.node.Campaign() // refused while a configuration change is being applied: tried again later
	}
}

// Electable tells whether this replica itself may be elected: it has a vote, in what was or in what will be.
func (c *Consensus) Electable() bool {
	return c.conf != nil && (slices.Contains(c.conf.GetVoters(), c.id) ||
		slices.Contains(c.conf.GetVotersOutgoing(), c.id))
}

// Needed tells whether the others cannot go on without this replica: it still has a vote, and there are processes that
// could take over.
func (c *Consensus) Needed() bool { return c.Electable() && len(c.Registry.eligible()) > 0 }

// Changing tells whether a change of the ORACLE's membership is under way.
func (c *Consensus) Changing() bool { return c.conf != nil && len(c.conf.GetVotersOutgoing()) > 0 }

// Beat makes a leader send heartbeats.
func (c *Consensus) Beat() { c.node.Tick() }

// errUnwanted is a message that a replica does not listen to.
var errUnwanted = errors.New("member: raft message not wanted now") // immutable: an error

// Step takes a message of another ORACLE member in. With loyal set, nobody gets this replica's vote for an election
// that the leader did not ask for itself. It tells whether the message is one of the present leader.
func (c *Consensus) Step(from uint64, data []byte, loyal bool) (led bool, err error) {
	m := new(raftpb.Message)
	if err := proto.Unmarshal(data, m); err != nil {
		return false, fmt.Errorf("member: raft message: %w", err)
	}
	if m.GetFrom() != from || m.GetTo() != c.id {
		return false, fmt.Errorf("member: raft message from %x to %x, sent by %x to %x", m.GetFrom(), m.GetTo(), from,
			c.id)
	}
	if loyal && m.GetType() == raftpb.MsgPreVote {
		return false, errUnwanted
	}
	if err := c.plausible(m); err != nil {
		return false, err
	}
	if err := c.node.Step(m); err != nil {
		return false, fmt.Errorf("member: raft message: %w", err)
	}
	switch m.GetType() {
	case raftpb.MsgApp, raftpb.MsgHeartbeat, raftpb.MsgSnap:
		return m.GetFrom() == c.LeaderID(), nil
	}
	return false, nil
}

// plausible refuses what no correct replica sends, and what raft would end the process for: an order to commit what
// this replica has not, and other entries in the place of committed ones.
func (c *Consensus) plausible(m *raftpb.Message) error {
	last, err := c.storage.LastIndex()
	c.must(err)
	committed := c.node.BasicStatus().GetCommit()
	if m.GetType() == raftpb.MsgHeartbeat && m.GetCommit() > last {
		return fmt.Errorf("member: raft heartbeat commits entry %d of %d", m.GetCommit(), last)
	}
	if m.GetType() != raftpb.MsgApp {
		return nil
	}
	for i, e := range m.GetEntries() {
		if e.GetIndex() != m.GetIndex()+1+uint64(i) {
			return fmt.Errorf("member: raft entry %d behind entry %d", e.GetIndex(), m.GetIndex()+uint64(i))
		}
		if e.GetIndex() > committed {
			continue
		}
		if term, err := c.storage.Term(e.GetIndex()); err == nil && term != e.GetTerm() {
			return fmt.Errorf("member: raft entry %d of term %d in the place of a committed one of term %d",
				e.GetIndex(), e.GetTerm(), term)
		}
	}
	return nil
}

// Learners returns the incarnations of the processes that follow the log without a vote.
func (c *Consensus) Learners() []uint64 {
	if c.conf == nil {
		return nil
	}
	return c.conf.GetLearners()
}

// lagMax is how many entries behind the newest a learner may be when it becomes a voter.
const lagMax = 16

// CaughtUp tells, on the leader, whether a replica holds nearly all of the log.
func (c *Consensus) CaughtUp(incarnation uint64) bool {
	up, commit := false, c.node.BasicStatus().GetCommit()
	c.node.WithProgress(func(id uint64, _ raft.ProgressType, pr tracker.Progress) {
		up = up || id == incarnation && pr.State == tracker.StateReplicate && pr.Match+lagMax >= commit
	})
	return up
}

// Change proposes to make exactly these processes the ORACLE. One change is under way at a time: a second one is
// refused by raft without a word.
func (c *Consensus) Change(voters []core.Address) {
	var list []*raftpb.ConfChangeSingle
	for _, a := range voters {
		if !c.Voter(a) {
			list = append(list, single(raftpb.ConfChangeAddNode, a.Incarnation))
		}
	}
	for _, a := range c.voters {
		if !slices.Contains(voters, a) {
			list = append(list, single(raftpb.ConfChangeRemoveNode, a.Incarnation))
		}
	}
	c.change(list, core.AppendAddresses(nil, voters))
}

// Teach proposes who follows the log without a vote: some more and some less.
func (c *Consensus) Teach(add, remove []uint64) {
	var list []*raftpb.ConfChangeSingle
	for _, id := range add {
		list = append(list, single(raftpb.ConfChangeAddLearnerNode, id))
	}
	for _, id := range remove {
		list = append(list, single(raftpb.ConfChangeRemoveNode, id))
	}
	c.change(list, nil)
}

func single(t raftpb.ConfChangeType, id uint64) *raftpb.ConfChangeSingle {
	return &raftpb.ConfChangeSingle{Type: t.Enum(), NodeId: &id}
}

func (c *Consensus) change(list []*raftpb.ConfChangeSingle, voters []byte) {
	cc := &raftpb.ConfChangeV2{Context: voters, Changes: list} // several changes: by joint consensus
	_ = c.node.ProposeConfChange(cc)                           // refused: asked again at the next beat
}

// Transfer asks another voter to lead; with this replica's own address it calls that off.
func (c *Consensus) Transfer(to core.Address) { c.node.TransferLeader(to.Incarnation) }

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
			c.voters, c.former = voters, c.voters
		}
		if !c.Changing() {
			c.former = nil
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
	return append(core.AppendAddresses(core.AppendAddresses(nil, c.voters), c.former), c.Registry.Encode()...)
}

func (c *Consensus) restore(s *raftpb.Snapshot) {
	voters, rest, err := core.DecodeAddresses(s.Data)
	c.must(err)
	former, rest, err := core.DecodeAddresses(rest)
	c.must(err)
	reg, err := DecodeRegistry(rest)
	c.must(err)
	c.must(c.storage.ApplySnapshot(s))
	c.voters, c.former, c.Registry = voters, former, reg
	c.applied, c.conf = s.GetMetadata().GetIndex(), s.GetMetadata().GetConfState()
}

func (c *Consensus) send(m *raftpb.Message) {
	data, err := proto.Marshal(m)
	c.must(err)
	c.Outgoing = append(c.Outgoing, Outgoing{m.GetTo(), data})
	if m.GetType() == raftpb.MsgSnap {
		c.node.ReportSnapshot(m.GetTo(), raft.SnapshotFinish)
	}
}
