package perf

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/khamsin-io/khamsin/vsync"
)

// A run in rounds measures what happens to one member at a time: it is killed, its cable is cut, or it is new. The
// members are systems with default settings, but for the pace of failure detection. The time from the blow until a
// survivor has the view without the victim is read on the clock that all processes of a host share; the last survivor's
// counts. A new member's time is from the call of Start to the return of Join.

// roundWithin bounds every wait of a round.
const roundWithin = 60 * time.Second

// roundsDefault is how many rounds are run when nothing is said.
const roundsDefault = 5

// attended is a member process's answer when it has joined.
type attended struct {
	Address vsync.Address
	Start   int64 // nanoseconds that Start took
	Join    int64 // nanoseconds that Join took after it
}

// awaitOrder makes a member wait until it has a view.
type awaitOrder struct {
	Gone vsync.Address // without this process, after one with it; nobody: does not matter
	Size int           // of so many members; 0: does not matter

	Oracle int // and until the ORACLE has so many members; 0: does not matter
}

// attendance is the views that a member in rounds has seen.
type attendance struct {
	mu     sync.Mutex
	last   *vsync.View
	views  int
	gone   map[vsync.Address]int64 // when who was first left out
	change chan struct{}           // closed by the next view
}

// onView takes a view in.
func (a *attendance) onView(v *vsync.View, now int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.last != nil {
		for _, m := range a.last.Members {
			if !v.Contains(m) {
				a.gone[m] = now
			}
		}
	}
	a.last = v
	a.views = int(v.ID)
	close(a.change)
	a.change = make(chan struct{})
}

// await waits for a view, and returns when the process that is to be gone was left out.
func (a *attendance) await(ctx context.Context, o *awaitOrder) (int64, error) {
	timer := time.NewTimer(roundWithin)
	defer timer.Stop()
	for {
		a.mu.Lock()
		at, gone := a.gone[o.Gone]
		there := (gone || o.Gone.IsZero()) && (o.Size == 0 || a.last != nil && a.last.Size() == o.Size)
		last, change := a.last, a.change
		a.mu.Unlock()
		if there {
			return at, nil
		}
		select {
		case <-change:
		case <-timer.C:
			return 0, fmt.Errorf("after %v the view is %v; want size %d, without %v", roundWithin, last, o.Size, o.Gone)
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
	}
}

// awaitOracle waits until the ORACLE, as this member was told last, has so many members.
func (m *member) awaitOracle(ctx context.Context, size int) error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := m.clock.now() + int64(roundWithin); ; {
		have := m.sys.State().Oracle
		if size == 0 || len(have) == size {
			return nil
		}
		if m.clock.now() > end {
			return fmt.Errorf("after %v the ORACLE is %v, want %d members", roundWithin, have, size)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// attend starts the member's system with default settings and joins the group.
func (m *member) attend(ctx context.Context) (*attended, error) {
	c := vsync.DefaultConfig()
	c.SystemName, c.Interfaces, c.GroupPort, c.PeerPort = m.System, []string{m.Interface}, m.GroupPort, m.PeerPort
	c.Waiting, c.Mute = waitings()[m.Waiting], true
	m.setTransport(&c)
	if m.OracleLost > 0 {
		c.OracleLost = m.OracleLost
	}
	begin := m.clock.now()
	var err error
	m.sys, err = vsync.Start(context.WithoutCancel(ctx), vsync.WithConfig(c),
		vsync.WithDetection(detections()[m.Detect]))
	if err != nil {
		return nil, err
	}
	started := m.clock.now()
	m.seen = attendance{gone: map[vsync.Address]int64{}, change: make(chan struct{})}
	m.group = m.sys.NewGroup(groupName)
	if err := m.group.OnView(func(v *vsync.View) { m.seen.onView(v, m.clock.now()) }); err != nil {
		return nil, err
	}
	a := &attended{Address: m.sys.Address(), Start: started - begin}
	if m.Apart {
		return a, nil
	}
	if err := m.group.Join(ctx); err != nil {
		return nil, err
	}
	a.Join = m.clock.now() - started
	return a, nil
}

// joinAt joins the group at a time.
func (m *member) joinAt(ctx context.Context, at int64) error {
	m.clock.sleepUntil(at)
	return m.group.Join(ctx)
}

// fate is how a member's system ended.
type fate struct {
	Poisoned bool
	Lost     bool // contact with the ORACLE
	Accuser  vsync.Address
	Reason   string
	Text     string // of the error
	At       int64
}

// end waits until the member's system is over.
func (m *member) end(ctx context.Context) (*fate, error) {
	if err := wait(ctx, m.sys.Done(), roundWithin, "for the system's end"); err != nil {
		return nil, err
	}
	err := m.sys.Wait()
	f := &fate{At: m.clock.now(), Text: fmt.Sprint(err), Lost: errors.Is(err, vsync.ErrOracleLost)}
	var poison *vsync.PoisonError
	if f.Poisoned = errors.As(err, &poison); f.Poisoned {
		f.Accuser, f.Reason = poison.Accuser, poison.Reason
	}
	return f, nil
}

// detections returns the paces of failure detection by name.
func detections() map[string]vsync.Detection {
	return map[string]vsync.Detection{
		"": vsync.Steady, "steady": vsync.Steady, "tight": vsync.Tight, "patient": vsync.Patient,
	}
}

// inRounds tells whether the options ask for a run in rounds.
func (o *Options) inRounds() bool {
	return o.Primitive == "kill" || o.Primitive == "cut" || o.Primitive == "join" && o.Count > 0
}

// rounds runs rounds.
type rounds struct {
	*local
	clock   hostClock
	there   map[*kid]*attended
	next    int         // number of the next member process
	change  func(*part) // what is different from the default; nil: nothing
	latency *hdrhistogram.Histogram
	result  *Result
}

func newRounds(l *local) *rounds {
	return &rounds{
		local: l, clock: newHostClock(), there: map[*kid]*attended{}, latency: newHistogram(),
		result: &Result{Options: l.options, Began: l.began.UTC(), Go: runtime.Version(), Cores: runtime.NumCPU()},
	}
}

// measureRounds runs all rounds and makes the result.
func (l *local) measureRounds(ctx context.Context) (*Result, error) {
	r := newRounds(l)
	members := l.options.Members
	if l.options.Primitive == "join" {
		members-- // the joiner is the last one
	}
	for range members {
		if _, err := r.enlist(ctx); err != nil {
			return nil, err
		}
	}
	if err := r.all(nil, whole(members), nil); err != nil {
		return nil, err
	}
	count := l.options.Count
	if count == 0 {
		count = roundsDefault
	}
	for range count {
		if err := r.round(ctx, members); err != nil {
			return nil, err
		}
	}
	res := r.result
	res.Seconds, res.Latency = time.Since(l.began).Seconds(), latencyOf(r.latency)
	if l.options.Primitive != "join" {
		res.Removal, res.Others = res.Latency.Max/1e3, res.Latency
	} else {
		res.Own = res.Latency
	}
	return res, nil
}

// round runs one round, after which the group is as before.
func (r *rounds) round(ctx context.Context, members int) error {
	if r.options.Primitive == "join" {
		k, err := r.enlist(ctx)
		if err != nil {
			return err
		}
		record(r.latency, r.there[k].Start+r.there[k].Join)
		if _, err := k.do(order{Leave: true}); err != nil {
			return err
		}
		r.dismiss(k)
		return r.all(nil, whole(members), nil)
	}
	victim := r.kids[rand.IntN(len(r.kids))]
	gone := r.there[victim].Address
	at, err := r.strike(victim)
	if err != nil {
		return err
	}
	var last int64
	if err := r.all(victim, &awaitOrder{Gone: gone}, &last); err != nil {
		return err
	}
	record(r.latency, last-at)
	_ = victim.cmd.Process.Kill() // one that is only cut off would go on until it gives up
	r.dismiss(victim)
	if _, err := r.enlist(ctx); err != nil {
		return err
	}
	return r.all(nil, whole(members), nil)
}

// whole is what members wait for between two rounds: a blow while the ORACLE is still growing could end the system.
func whole(members int) *awaitOrder {
	size := min(members, vsync.DefaultConfig().OracleSize)
	return &awaitOrder{Size: members, Oracle: size - 1 + size%2}
}

// strike kills a member or cuts its cable, and returns when.
func (r *rounds) strike(victim *kid) (at int64, err error) {
	if r.options.Primitive == "kill" {
		at = r.clock.now()
		return at, victim.cmd.Process.Kill()
	}
	r.here(func() {
		at = r.clock.now()
		err = r.lan.cut(victim.index)
	})
	return at, err
}

// all makes every member but one wait for a view, and notes the latest time that one of them reports.
func (r *rounds) all(but *kid, o *awaitOrder, last *int64) error {
	answers, faults := make([]answer, len(r.kids)), make([]error, len(r.kids))
	var waiting sync.WaitGroup
	for i, k := range r.kids {
		if k != but {
			waiting.Go(func() { answers[i], faults[i] = k.do(order{Await: o}) })
		}
	}
	waiting.Wait()
	for i := range answers {
		if last != nil {
			*last = max(*last, answers[i].At)
		}
	}
	return errors.Join(faults...)
}

// enlist starts a member process and makes it join.
func (r *rounds) enlist(ctx context.Context) (k *kid, err error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	hosts := r.hosts()
	r.here(func() { k, err = r.startMember(r.next) })
	r.next++
	if err != nil {
		return nil, err
	}
	p := r.part(k.index)
	if hosts != nil {
		p.Hosts = append(hosts, lanAddress(k.index).String())
	}
	if r.change != nil {
		r.change(p)
	}
	a, err := k.do(order{Attend: p})
	if err != nil {
		return nil, err
	}
	r.there[k] = a.Attended
	if k.index == 0 {
		r.result.First = float64(a.Attended.Start) / 1e6
	}
	return k, nil
}

// hosts returns where the members are, nil when there are none or all are on this host.
func (r *rounds) hosts() []string {
	var list []string
	for _, k := range r.kids {
		if r.lan != nil {
			list = append(list, lanAddress(k.index).String())
		}
	}
	return list
}

// dismiss forgets a member process and waits for its end.
func (r *rounds) dismiss(k *kid) {
	r.mu.Lock()
	for i, x := range r.kids {
		if x == k {
			r.kids = append(r.kids[:i], r.kids[i+1:]...)
			break
		}
	}
	r.mu.Unlock()
	delete(r.there, k)
	k.end()
}
