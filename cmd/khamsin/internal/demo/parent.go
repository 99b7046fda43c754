package demo

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/khamsin-io/khamsin/transports/mem"
)

// Times of a demo. Every wait of the parent is bounded by one of them.
const (
	trafficFor   = 4 * time.Second // how long the rows last
	startWithin  = 30 * time.Second
	settleWithin = 60 * time.Second
	quitWithin   = 10 * time.Second
	manyMembers  = 10              // to a core or two: each does half as much then,
	suspectMany  = 3 * time.Second // and so long a silence counts as death
)

// parent runs a demo.
type parent struct {
	o       Options
	input   []Movement
	random  *rand.Rand
	screen  *screen
	began   time.Time
	reports chan report
	nursery launcher

	kids   []*kid
	byAddr map[string]*kid
	shares map[int]share
	views  map[uint64]*viewRecord
	faults []string
	step   int // members of the first view
	group  uint16
	peer   uint16
}

// kid is a member as the parent knows it.
type kid struct {
	index    int
	peer     peer
	share    share
	joined   bool
	sending  bool
	oracle   bool
	done     bool
	rows     uint64 // multicast, valid when done
	final    *final
	count    uint64
	view     *viewSeen
	killed   bool
	killedAt time.Time
	gone     bool // from the views of all survivors, which was told
	quitting bool
	ended    bool
}

// String returns the member's name.
func (k *kid) String() string { return fmt.Sprintf("M%d", k.index) }

// viewRecord is what was delivered in front of a view, by the first report of it.
type viewRecord struct {
	count uint64
	order hash
	by    *kid
}

// Run runs a demo. The error says what went wrong, or that the members do not agree.
func Run(ctx context.Context, o Options) error {
	if err := o.validate(); err != nil {
		return err
	}
	input, err := load(o.Input, o.BuiltIn)
	if err != nil {
		return err
	}
	p := &parent{
		o: o, input: input, random: rand.New(rand.NewPCG(o.Seed, 0)), began: time.Now(), reports: make(chan report,
			4096),
		byAddr: make(map[string]*kid), shares: make(map[int]share), views: make(map[uint64]*viewRecord),
		step: o.Members,
	}
	p.group, p.peer = ports()
	p.screen = newScreen(&o, p.began)
	tell := func(r report) { p.reports <- r }
	if o.Transport == "mem" {
		p.nursery = &goroutines{hub: mem.NewHub(), input: input, tell: tell}
	} else {
		p.nursery = newProcesses(o.Program, tell)
	}
	err = p.play(ctx)
	p.cleanUp()
	p.screen.finish()
	if err != nil {
		p.printJSON(p.result(nil))
		return err
	}
	return p.judge()
}

// play is the whole piece.
func (p *parent) play(ctx context.Context) error {
	p.screen.line("%d rows; %d members over %s, seed %d", len(p.input), p.o.Members, p.o.Transport, p.o.Seed)
	if err := p.gather(ctx); err != nil {
		return err
	}
	traffic := p.once
	if p.o.KeepGoing > 0 {
		traffic = p.storm
	}
	if err := traffic(ctx); err != nil {
		return err
	}
	return p.sumUp(ctx)
}

// gather starts the members of the first view. The first alone: it founds the system.
func (p *parent) gather(ctx context.Context) error {
	first, err := p.birth()
	if err != nil {
		return err
	}
	if err := p.await(ctx, startWithin, "the first member", func() bool { return first.joined }); err != nil {
		return err
	}
	for range p.o.Members - 1 {
		if _, err := p.birth(); err != nil {
			return err
		}
	}
	return p.await(ctx, startWithin, "all members in one view", p.settled)
}

// birth starts one member.
func (p *parent) birth() (*kid, error) {
	k := &kid{index: len(p.kids)}
	k.share = share{Number: k.index, First: k.index, Step: p.step}
	rate := float64(len(p.input)) / p.o.Traffic.Seconds() / float64(p.step)
	switch {
	case p.o.KeepGoing > 0:
		k.share.Rows, k.share.Step = -1, p.step
	case k.index < p.step:
		k.share.Rows = int64((len(p.input) - k.index + p.step - 1) / p.step)
	}
	var suspect time.Duration // 0: the default
	if p.o.Members > manyMembers {
		rate /= 2 // all share the cores of one host
	}
	if p.o.Members > manyMembers {
		suspect = suspectMany
	}
	if p.o.Suspect > 0 {
		suspect = p.o.Suspect
	}
	var err error
	k.peer, err = p.nursery.launch(conf{
		Index: k.index, Input: p.o.Input, Share: k.share, Rate: rate, System: fmt.Sprintf("demo-%d", os.Getpid()),
		Transport: p.o.Transport, GroupPort: p.group, PeerPort: p.peer, Suspect: suspect,
	})
	if err != nil {
		return nil, fmt.Errorf("start %v: %w", k, err)
	}
	p.kids = append(p.kids, k)
	p.shares[k.index] = k.share
	return k, nil
}

// living returns the members that have joined and were neither killed nor told to quit.
func (p *parent) living() []*kid {
	return slices.DeleteFunc(slices.Clone(p.kids), func(k *kid) bool {
		return !k.joined || k.killed || k.ended ||
			k.quitting
	})
}

// settled tells whether all members that were started and not killed are in one view, and nobody else.
func (p *parent) settled() bool {
	living := p.living()
	for _, k := range p.kids {
		if !k.joined && !k.killed {
			return false
		}
	}
	for _, k := range living {
		if k.view == nil || k.view.ID != living[0].view.ID || len(k.view.Members) != len(living) {
			return false
		}
	}
	return len(living) > 0
}

// errFault ends a demo whose members reported a fault.
var errFault = errors.New("a member failed")

// await handles reports until ok, at most for the given time.
func (p *parent) await(ctx context.Context, within time.Duration, what string, ok func() bool) error {
	timer := time.NewTimer(within)
	defer timer.Stop()
	for !ok() {
		select {
		case r := <-p.reports:
			p.hear(r)
		case <-timer.C:
			return fmt.Errorf("waited %v in vain for %s", within, what)
		case <-ctx.Done():
			return errors.New("interrupted")
		}
		if len(p.faults) > 0 {
			return fmt.Errorf("%w: %s", errFault, strings.Join(p.faults, "; "))
		}
	}
	return nil
}

// once is the traffic of the plain demo: all rows, one kill and one join on the way.
func (p *parent) once(ctx context.Context) error {
	at := uint64(float64(len(p.input)) * (0.25 + 0.2*p.random.Float64()))
	victim := p.kids[1+p.random.IntN(len(p.kids)-1)]
	p.screen.total(uint64(len(p.input)))
	p.sendAll(p.living())
	if err := p.await(ctx, settleWithin, "traffic", func() bool { return p.kids[0].count >= at }); err != nil {
		return err
	}
	p.kill(victim)
	p.screen.line("M%d starts", len(p.kids))
	if _, err := p.birth(); err != nil {
		return err
	}
	if err := p.await(ctx, settleWithin, "the newcomer, and the end of the dead member", p.settled); err != nil {
		return err
	}
	return p.await(ctx, settleWithin, "all rows", p.allDone)
}

// sendAll tells members to multicast their shares.
func (p *parent) sendAll(kids []*kid) {
	for _, k := range kids {
		k.sending = true
		k.peer.send(command{Do: doGo})
	}
}

// allDone tells whether every living member that multicasts has done its share.
func (p *parent) allDone() bool {
	for _, k := range p.living() {
		if k.sending && !k.done {
			return false
		}
	}
	return true
}

// kill ends a member without telling anybody.
func (p *parent) kill(k *kid) {
	how := "SIGKILL"
	if p.o.Transport == "mem" {
		how = "Kill"
	}
	p.screen.line("%v is killed by %s, at rank %d of view %d", k, how, k.view.Rank, k.view.ID)
	k.killed, k.killedAt = true, time.Now()
	k.peer.kill()
}

// Constants of the storm.
const (
	stormPauseMin = 300 * time.Millisecond
	stormPauseMax = 900 * time.Millisecond
	stormExtra    = 2 // members above the first number
)

// storm is the traffic of --keep-going: random kills and joins until the time is over.
func (p *parent) storm(ctx context.Context) error {
	p.sendAll(p.living())
	end := time.Now().Add(p.o.KeepGoing)
	for time.Now().Before(end) {
		pause := stormPauseMin + time.Duration(p.random.Int64N(int64(stormPauseMax-stormPauseMin)))
		next := time.Now().Add(min(pause, time.Until(end)))
		if err := p.hearUntil(ctx, next); err != nil {
			return err
		}
		p.sendAll(slices.DeleteFunc(p.living(), func(k *kid) bool { return k.sending }))
		if err := p.strike(); err != nil {
			return err
		}
	}
	if err := p.await(ctx, settleWithin, "one view of all who live", p.settled); err != nil {
		return err
	}
	for _, k := range p.living() {
		k.peer.send(command{Do: doStop})
	}
	return p.await(ctx, settleWithin, "what was under way", p.allDone)
}

// strike kills one member or starts one.
func (p *parent) strike() error {
	victims := p.victims()
	started := len(slices.DeleteFunc(slices.Clone(p.kids), func(k *kid) bool { return k.killed || k.ended }))
	mayBear := started < p.o.Members+stormExtra
	if len(victims) > 0 && (!mayBear || p.random.IntN(2) == 0) {
		p.kill(victims[p.random.IntN(len(victims))])
		return nil
	}
	if !mayBear {
		return nil
	}
	p.screen.line("M%d starts", len(p.kids))
	_, err := p.birth()
	return err
}

// oracleQuorum is the number of living members of the ORACLE of which one may be killed: the other two are a majority
// of three. The next one must wait until the dead one has been replaced.
const oracleQuorum = 3

// victims returns the members that may be killed now: never below three living ones, and of the ORACLE's only while it
// is complete.
func (p *parent) victims() []*kid {
	living := p.living()
	if len(living) <= MembersMin {
		return nil
	}
	oracle := 0
	for _, k := range living {
		if k.oracle {
			oracle++
		}
	}
	return slices.DeleteFunc(living, func(k *kid) bool { return k.oracle && oracle < oracleQuorum })
}

// hearUntil handles reports until a point in time.
func (p *parent) hearUntil(ctx context.Context, t time.Time) error {
	over := false
	timer := time.AfterFunc(time.Until(t), func() { p.reports <- report{} })
	defer timer.Stop()
	return p.await(ctx, settleWithin, "the next stroke", func() bool {
		over = over || !time.Now().Before(t)
		return over
	})
}

// sumUp makes all living members sum up at one point of the order, then leave.
func (p *parent) sumUp(ctx context.Context) error {
	living := p.living()
	living[0].peer.send(command{Do: doFinish})
	err := p.await(ctx, settleWithin, "the members' sums", func() bool {
		for _, k := range living {
			if k.final == nil {
				return false
			}
		}
		return true
	})
	if err != nil {
		return err
	}
	p.screen.finish()
	for _, k := range slices.Backward(living) { // the youngest first, so that the membership service stays to the end
		k.quitting = true
		k.peer.send(command{Do: doQuit})
		if err := p.await(ctx, quitWithin, k.String()+"'s departure", func() bool { return k.ended }); err != nil {
			return err
		}
	}
	return nil
}

// cleanUp ends whoever still lives. Reports are heard and forgotten meanwhile, so that nobody waits.
func (p *parent) cleanUp() {
	done := make(chan struct{})
	go func() {
		p.nursery.close()
		close(done)
	}()
	for {
		select {
		case <-p.reports:
		case <-done:
			return
		}
	}
}
