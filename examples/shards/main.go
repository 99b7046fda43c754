// Command shards keeps the members of a group in shards of three. The oldest member is the manager: when the view
// changes it hands out places, leaving everyone where they are, and tells all members the new plan in a message. A
// shard that loses a member gets a newcomer, and nobody else moves.
//
//	go run ./examples/shards
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"

	"github.com/khamsin-io/khamsin/vsync"
)

// codePlan carries a new plan to everybody.
const codePlan vsync.Code = 0

const (
	members   = 8
	shardSize = 3
)

// Shard is the members of one shard.
type Shard struct{ Members []vsync.Address }

// Plan says who is in which shard. The last one may be smaller. It is part of the group's state.
type Plan struct {
	View   uint64 // the view that it is for
	Shards []Shard
}

// next returns the plan for a view: those who stay keep their shards, newcomers fill the gaps, and shards that cannot
// be filled take members from the last one.
func (p Plan) next(v *vsync.View) Plan {
	q := Plan{View: uint64(v.ID)}
	placed := map[vsync.Address]bool{}
	for _, shard := range p.Shards {
		var stay Shard
		for _, a := range shard.Members {
			if v.Contains(a) {
				stay.Members = append(stay.Members, a)
				placed[a] = true
			}
		}
		q.Shards = append(q.Shards, stay)
	}
	var free []vsync.Address
	for _, a := range v.Members {
		if !placed[a] {
			free = append(free, a)
		}
	}
	for i := range q.Shards {
		n := min(shardSize-len(q.Shards[i].Members), len(free))
		q.Shards[i].Members = append(q.Shards[i].Members, free[:n]...)
		free = free[n:]
	}
	for shard := range slices.Chunk(free, shardSize) {
		q.Shards = append(q.Shards, Shard{slices.Clone(shard)})
	}
	return q.compact()
}

// compact fills shards that are short from the last one.
func (p Plan) compact() Plan {
	for i := 0; i < len(p.Shards); i++ {
		for len(p.Shards[i].Members) < shardSize && i < len(p.Shards)-1 {
			last := &p.Shards[len(p.Shards)-1].Members
			if n := len(*last); n > 0 {
				p.Shards[i].Members = append(p.Shards[i].Members, (*last)[n-1])
				*last = (*last)[:n-1]
			}
			if len(*last) == 0 {
				p.Shards = p.Shards[:len(p.Shards)-1]
			}
		}
	}
	return p
}

// size returns the number of members in all shards.
func (p Plan) size() int {
	n := 0
	for _, shard := range p.Shards {
		n += len(shard.Members)
	}
	return n
}

// member is one process.
type member struct {
	group *vsync.Group
	plans chan Plan // those that arrived
	ahead Plan      // the manager's newest, which may still be on its way; the view handler's

	mu   sync.Mutex
	plan Plan
}

func main() {
	if err := run(context.Background(), os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "shards:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out io.Writer, opts ...vsync.Option) error {
	var systems []*vsync.System
	var all []*member
	for range members {
		sys, err := vsync.Start(ctx, opts...)
		if err != nil {
			return err
		}
		defer sys.Close()
		m, err := join(ctx, sys)
		if err != nil {
			return err
		}
		systems, all = append(systems, sys), append(all, m)
	}
	before, err := all[0].planFor(ctx, members)
	if err != nil {
		return err
	}
	show(out, "with all members", before)
	victim := before.Shards[1].Members[0]
	at := slices.IndexFunc(systems, func(s *vsync.System) bool { return s.Address() == victim })
	if err := systems[at].Close(); err != nil {
		return err
	}
	after, err := all[0].planFor(ctx, members-1)
	if err != nil {
		return err
	}
	show(out, "one less", after)
	if slices.Equal(before.Shards[0].Members, after.Shards[0].Members) {
		fmt.Fprintln(out, "the first shard did not change")
	}
	return nil
}

// join makes a process a member.
func join(ctx context.Context, sys *vsync.System) (*member, error) {
	m := &member{group: sys.NewGroup("shards"), plans: make(chan Plan, 100)}
	g := m.group
	if err := errors.Join(vsync.Register[Plan](sys, 1), vsync.Register[Shard](sys, 2)); err != nil {
		return nil, err
	}
	for _, err := range []error{
		vsync.Handle1(g, codePlan, func(_ *vsync.Message, p Plan) { m.set(p) }),
		g.OnMakeState(func(_ context.Context, _ *vsync.View, w *vsync.StateWriter) error { return w.Put(m.get()) }),
		g.OnLoadState(func(p Plan) { m.set(p) }),
		g.OnView(func(v *vsync.View) {
			if v.MyRank() != 0 {
				return
			}
			if p := m.get(); p.View > m.ahead.View {
				m.ahead = p
			}
			m.ahead = m.ahead.next(v)
			go m.manage(sys, m.ahead)
		}),
	} {
		if err != nil {
			return nil, err
		}
	}
	return m, g.Join(ctx)
}

// manage tells everybody the plan. Plans are ordered, so all members follow the same ones. One that a newer view has
// overtaken does no harm: its successor comes behind it.
func (m *member) manage(sys *vsync.System, p Plan) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		select {
		case <-sys.Done():
			cancel()
		case <-ctx.Done():
		}
	}()
	if err := m.group.OrderedSend(ctx, codePlan, p); err != nil {
		sys.Logger().Warn("plan not sent", "err", err)
	}
}

func (m *member) get() Plan {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.plan
}

func (m *member) set(p Plan) {
	m.mu.Lock()
	if p.View < m.plan.View {
		p = m.plan
	}
	m.plan = p
	m.mu.Unlock()
	select {
	case m.plans <- p:
	default: // nobody reads them here
	}
}

// planFor waits for a plan with n members.
func (m *member) planFor(ctx context.Context, n int) (Plan, error) {
	for {
		select {
		case p := <-m.plans:
			if p.size() == n {
				return p, nil
			}
		case <-ctx.Done():
			return Plan{}, context.Cause(ctx)
		}
	}
}

func show(out io.Writer, when string, p Plan) {
	fmt.Fprintf(out, "%s:", when)
	for _, shard := range p.Shards {
		fmt.Fprint(out, " ", len(shard.Members))
	}
	fmt.Fprintln(out)
}
