package member

import (
	"slices"

	"github.com/khamsin-io/khamsin/dataplane"
	"github.com/khamsin-io/khamsin/vsync/core"
	"github.com/khamsin-io/khamsin/vsync/internal/pdu"
)

// Limits of the registry.
const (
	groupsMax    = 1 << 20
	groupNameMax = 64 << 10
	HandlersMax  = 32 << 10 // bytes of Command.Handlers
	removedMax   = 4096     // removed processes remembered
	reasonMax    = 200      // bytes of a reason that are remembered
)

// process is one live process of the system.
type process struct {
	addr     core.Address
	eligible bool
	lastDone uint64 // number of its last request that was applied
	answer   answer // what it was told then: told again when it asks again
}

// answer is the refusal of a join, or the end of a membership, that a request met. The zero answer is none.
type answer struct {
	group   string
	refusal Refusal
}

// group is one group's chain of views.
type group struct {
	name       string
	lid        uint32
	channel    dataplane.Channel
	own        bool // no group that begins later gets its channel: see assign
	signature  uint64
	handlers   string // of the first member: what a refused process is told
	safeCopies int
	lastView   core.ViewID   // highest number used, by a view or a proposal
	current    *pdu.Decision // newest committed view; nil while the group has no members
	final      *pdu.Decision // the decision that last left the group without members: a new leader tells it again
	pending    *pdu.Propose  // the proposal that may be committed; nil when there is none
	joining    []core.Address
	leaving    []core.Address
	debts      []debt
	terminated bool
	gathering  bool // the leader was asked to wait for more joins
}

// debt is a state that a member was chosen to make at the start of a view, and has not said to have handed over.
type debt struct {
	who  core.Address
	view core.ViewID
}

// Registry is the ORACLE's replicated state: the live processes in the order they came, and every group's chain of
// views. It is deterministic: replicas that apply the same commands are equal. Apply says what should now be told to
// whom; only the leader does tell.
type Registry struct {
	procs   []process
	groups  []*group // in the order created
	byName  map[string]*group
	nextLid uint32
	removed []core.Address // processes that were removed, newest last
	charges []pdu.Charge   // why, one for each of removed
	span    channelRange
	owners  []*group // that live, or did when it was last looked at, and have a channel of their own
	part    uint32   // of a divided system; 0 while it is whole
	base    uint64   // added to the log's indices, which begin anew in each part
	wants   int      // hosts with processes that may serve until which nobody joins a group; 0 from then on
}

type channelRange struct{ low, count uint32 }

// EffectKind says what a replica's leader should do after a command.
type EffectKind uint8

// The effects.
const (
	EffectAdded   EffectKind = iota // Who is part of the system
	EffectRemoved                   // Who is not any more; By accused it for Reason, unless Orderly
	EffectRefused                   // Who may not join Group, for Refusal
	EffectPropose                   // Propose is for its coordinator
	EffectDecided                   // Decision is for the members; To is the coordinator, none when there was no flush
	EffectEnded                     // Group is over for Members
	EffectGather                    // propose Group's next view a little later
	EffectDone                      // the request Number of Who is done
)

// Effect is one thing for the leader to do.
type Effect struct {
	Kind     EffectKind
	Who, By  core.Address
	Orderly  bool
	Reason   string
	Group    string
	Refusal  Refusal
	Handlers string // of the group's members, when they differ from Who's
	Number   uint64
	Propose  *pdu.Propose
	Decision *pdu.Decision
	Members  []core.Address
}

// NewRegistry returns the registry of a fresh system whose groups use count channels from low on.
func NewRegistry(low, count uint32) *Registry {
	return &Registry{byName: map[string]*group{}, nextLid: 1, span: channelRange{low, max(count, 1)}}
}

func (r *Registry) find(a core.Address) *process {
	for i := range r.procs {
		if r.procs[i].addr == a {
			return &r.procs[i]
		}
	}
	return nil
}

// Alive tells whether a process is part of the system.
func (r *Registry) Alive(a core.Address) bool { return r.find(a) != nil }

// Removed tells whether an incarnation was removed.
func (r *Registry) Removed(incarnation uint64) bool {
	return slices.ContainsFunc(r.removed, func(a core.Address) bool { return a.Incarnation == incarnation })
}

// charge returns why a process was removed, as far as it is remembered.
func (r *Registry) charge(a core.Address) pdu.Charge {
	if i := slices.Index(r.removed, a); i >= 0 {
		return r.charges[i]
	}
	return pdu.Charge{Reason: "removed long ago"}
}

// Processes returns the live processes, oldest first.
func (r *Registry) Processes() []core.Address {
	list := make([]core.Address, len(r.procs))
	for i := range r.procs {
		list[i] = r.procs[i].addr
	}
	return list
}

// Apply executes a command and returns its effects in order.
func (r *Registry) Apply(c *Command) []Effect {
	var out []Effect
	if c.Number != 0 {
		p := r.find(c.By)
		switch {
		case p == nil && c.Op != opAdd:
			return nil
		case c.Op == opJoin && r.wants > 0:
			return nil // it is asked again
		case p != nil && c.Number <= p.lastDone:
			if c.Number == p.lastDone && p.answer != (answer{}) {
				e := Effect{Kind: EffectRefused, Who: c.By, Group: p.answer.group, Refusal: p.answer.refusal,
					Number: c.Number}
				if g := r.byName[e.Group]; g != nil && e.Refusal == RefusedSignature {
					e.Handlers = g.handlers
				}
				out = append(out, e)
			}
			return append(out, Effect{Kind: EffectDone, Who: c.By, Number: c.Number})
		}
	}
	switch c.Op {
	case opAdd:
		out = r.add(c)
	case opRemove:
		out = r.remove(c)
	case opJoin:
		out = r.join(c)
	case opLeave:
		out = r.leave(c)
	case opTerminate:
		out = r.terminate(c)
	case opKeep:
		out = r.keep(c)
	case opCommit:
		out = r.commit(c)
	case opGather:
		if g := r.byName[c.Group]; g != nil {
			g.gathering = false
			out = r.advance(g, nil, false)
		}
	}
	for i := range out {
		if out[i].Kind == EffectRefused || out[i].Kind == EffectEnded {
			out[i].Number = c.Number
		}
	}
	if p := r.find(c.By); p != nil && c.Number != 0 {
		p.lastDone, p.answer = c.Number, answerOf(c.By, out)
	}
	if c.Number != 0 {
		out = append(out, Effect{Kind: EffectDone, Who: c.By, Number: c.Number})
	}
	return out
}

// answerOf returns what effects tell a process about its own request.
func answerOf(who core.Address, effects []Effect) answer {
	for i := range effects {
		e := &effects[i]
		if e.Kind == EffectRefused && e.Who == who {
			return answer{e.Group, e.Refusal}
		}
		if e.Kind == EffectEnded && slices.Contains(e.Members, who) {
			return answer{e.Group, RefusedNot}
		}
	}
	return answer{}
}

func (r *Registry) add(c *Command) []Effect {
	if r.Removed(c.Who.Incarnation) || r.Alive(c.Who) || c.Who.Incarnation == 0 {
		return nil
	}
	r.procs = append(r.procs, process{addr: c.Who, eligible: c.Eligible})
	if r.wants > 0 && r.hosts() >= r.wants {
		r.wants = 0
	}
	return []Effect{{Kind: EffectAdded, Who: c.Who}}
}

// hosts returns on how many hosts there are processes that may serve.
func (r *Registry) hosts() int {
	seen := map[[16]byte]bool{}
	for i := range r.procs {
		if p := &r.procs[i]; p.eligible {
			seen[p.addr.IP] = true
		}
	}
	return len(seen)
}

// remove takes a process out of the system and out of all its groups. Every group that it touches gets a new proposal
// at once.
func (r *Registry) remove(c *Command) []Effect {
	i := slices.IndexFunc(r.procs, func(p process) bool { return p.addr == c.Who })
	if i < 0 {
		return nil
	}
	r.procs = slices.Delete(r.procs, i, i+1)
	r.removed = append(r.removed, c.Who)
	r.charges = append(r.charges, pdu.Charge{By: c.By, Reason: c.Reason[:min(len(c.Reason), reasonMax)]})
	if more := len(r.removed) - removedMax; more > 0 {
		r.removed, r.charges = slices.Delete(r.removed, 0, more), slices.Delete(r.charges, 0, more)
	}
	out := []Effect{{Kind: EffectRemoved, Who: c.Who, By: c.By, Orderly: c.Orderly, Reason: c.Reason}}
	for _, g := range r.groups {
		g.joining = without(g.joining, c.Who)
		touched := g.current != nil && g.current.View.Contains(c.Who)
		touched = touched || (g.pending != nil && g.pending.Next.Contains(c.Who))
		if touched {
			out = r.advance(g, out, true)
		}
	}
	return out
}

func without(list []core.Address, a core.Address) []core.Address {
	return slices.DeleteFunc(slices.Clone(list), func(x core.Address) bool { return x == a })
}

func (r *Registry) join(c *Command) []Effect {
	refuse := func(why Refusal) []Effect {
		return []Effect{{Kind: EffectRefused, Who: c.By, Group: c.Group, Refusal: why}}
	}
	g := r.byName[c.Group]
	if g == nil {
		if len(r.groups) >= groupsMax || len(c.Group) > groupNameMax || len(c.Handlers) > HandlersMax {
			return refuse(RefusedFull)
		}
		g = r.create(c)
	}
	live := g.live()
	switch {
	case g.current != nil && g.current.View.Contains(c.By) && !slices.Contains(g.leaving, c.By):
		return []Effect{{Kind: EffectDecided, Decision: g.current, Members: []core.Address{c.By}}}
	case slices.Contains(g.joining, c.By):
		return nil
	case live && c.Create:
		return refuse(RefusedExists)
	case live && g.signature != c.Signature:
		return []Effect{{
			Kind: EffectRefused, Who: c.By, Group: c.Group, Refusal: RefusedSignature, Handlers: g.handlers,
		}}
	}
	if !live {
		r.assign(g, c.Own)
		g.signature, g.handlers, g.safeCopies = c.Signature, c.Handlers, c.SafeCopies
	}
	g.joining = append(slices.Clone(g.joining), c.By)
	if g.pending != nil || g.gathering {
		return nil
	}
	g.gathering = true
	return []Effect{{Kind: EffectGather, Group: g.name}}
}

func (r *Registry) create(c *Command) *group {
	g := &group{name: c.Group, lid: r.nextLid}
	r.nextLid++
	r.groups = append(r.groups, g)
	r.byName[c.Group] = g
	return g
}

// leave takes a member out of the next view. Who is no member any more, and was not told because the ORACLE's leader
// failed, is told now.
func (r *Registry) leave(c *Command) []Effect {
	g := r.byName[c.Group]
	if g == nil {
		return []Effect{{Kind: EffectEnded, Group: c.Group, Members: []core.Address{c.By}}}
	}
	if slices.Contains(g.joining, c.By) {
		g.joining = without(g.joining, c.By)
		if g.pending == nil || !g.pending.Next.Contains(c.By) {
			return []Effect{{Kind: EffectEnded, Group: g.name, Members: []core.Address{c.By}}}
		}
		out := []Effect{{Kind: EffectEnded, Group: g.name, Members: []core.Address{c.By}}}
		return r.advance(g, out, true)
	}
	if g.current == nil || !g.current.View.Contains(c.By) {
		return []Effect{{Kind: EffectEnded, Group: g.name, Members: []core.Address{c.By}}}
	}
	g.debts = slices.DeleteFunc(slices.Clone(g.debts), func(d debt) bool {
		return d.who == c.By &&
			d.view <= c.Through
	})
	if !slices.Contains(g.leaving, c.By) {
		g.leaving = append(slices.Clone(g.leaving), c.By)
	}
	return r.advance(g, nil, false)
}

// keep holds a member back that leaves with the last state, until it has handed it over.
func (r *Registry) keep(c *Command) []Effect {
	g := r.byName[c.Group]
	if g == nil || g.pending == nil || g.pending.Next.ID != c.Through || c.By != g.pending.Coordinator ||
		!slices.Contains(g.leaving, c.Who) {
		return nil
	}
	g.debts = append(slices.Clone(g.debts), debt{c.Who, c.Through})
	return r.advance(g, nil, true)
}

func (r *Registry) terminate(c *Command) []Effect {
	g := r.byName[c.Group]
	if g == nil || g.current == nil || !g.current.View.Contains(c.By) {
		return nil
	}
	g.terminated = true
	return r.advance(g, nil, g.pending != nil)
}

// commit makes a proposal the group's view, unless a newer proposal has overtaken it.
func (r *Registry) commit(c *Command) []Effect {
	g := r.byName[c.Decision.Name]
	d := c.Decision
	if g == nil || g.pending == nil || d.View.ID != g.pending.Next.ID || c.By != g.pending.Coordinator ||
		len(d.Cut) != g.current.View.Size() {
		return nil
	}
	d = &pdu.Decision{
		Name: g.name, Lid: g.lid, Channel: g.channel, SafeCopies: g.safeCopies, Prev: g.current.View.ID,
		View: g.pending.Next, Cut: d.Cut, Source: d.Source, Stateless: d.Stateless,
	}
	for _, m := range g.current.View.Members {
		if !r.Alive(m) {
			d.Failed = append(d.Failed, m)
			d.Charges = append(d.Charges, r.charge(m))
		}
	}
	to := slices.Concat(g.pending.Flushers, d.View.Joined)
	r.install(g, d)
	out := []Effect{{Kind: EffectDecided, Decision: d, Who: c.By, Members: to}}
	if d.View.Size() == 0 {
		g.final = d
		return r.end(g, out)
	}
	return r.advance(g, out, false)
}

func (r *Registry) install(g *group, d *pdu.Decision) {
	g.current, g.pending = d, nil
	for _, m := range d.View.Members {
		g.joining = without(g.joining, m)
	}
	g.leaving = slices.DeleteFunc(slices.Clone(g.leaving), func(a core.Address) bool { return !d.View.Contains(a) })
	g.debts = slices.DeleteFunc(slices.Clone(g.debts), func(x debt) bool { return !d.View.Contains(x.who) })
	if len(d.Stateless) > 0 {
		g.debts = append(g.debts, debt{d.Source, d.View.ID})
	}
}
