package engine

import (
	"github.com/khamsin-io/khamsin/dataplane"
	"github.com/khamsin-io/khamsin/vsync/core"
)

// Status is the state of an engine as its users may see it.
type Status struct {
	Attached  bool
	Leader    bool           // this process leads the ORACLE
	Oracle    []core.Address // the ORACLE's members as last told, leader first
	Processes []core.Address // all of the system, oldest first; none but at the ORACLE's members
	Suspects  int            // processes that this one accused
	Counters  Counters
}

// Status returns the state of the process.
func (e *Engine) Status() Status {
	return Status{
		Attached: e.member.Active() && !e.over, Leader: e.member.Leader(), Oracle: e.member.Oracle(),
		Processes: e.member.Processes(), Suspects: len(e.suspects), Counters: e.Counters(),
	}
}

// GroupStatus is the state of one group.
type GroupStatus struct {
	View         *core.View // nil before the first
	Changing     bool       // between two views
	Loading      bool       // the state is on its way
	Leaving      bool
	Channel      dataplane.Channel // that this process sends to; 0 when to none, or before the first view
	Waiting      int               // packets that are not sent yet
	WaitingBytes int
	Unstable     int // packets of this member that not all members have acknowledged
	Queued       int // packets that the handlers have not finished
}

// GroupStatus returns the state of a group, false when it is over.
func (e *Engine) GroupStatus(h Handle) (GroupStatus, bool) {
	g := e.group(h)
	if g == nil {
		return GroupStatus{}, false
	}
	r := GroupStatus{
		View: g.view, Changing: g.member != nil, Loading: g.loading != nil, Leaving: g.leaving, Waiting: g.pack.Len(),
		WaitingBytes: g.pack.Bytes(), Queued: g.queued,
	}
	if g.st != nil {
		r.Unstable = int(g.st.NumberedTo() - g.st.StableTo())
	}
	if !g.unicast {
		r.Channel = g.channel
	}
	return r, true
}
