package field

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/khamsin-io/khamsin/dataplane/clock"
	"github.com/khamsin-io/khamsin/vsync"
	"github.com/khamsin-io/khamsin/vsync/core"
	"github.com/khamsin-io/khamsin/vsync/sim"
)

func TestMain(m *testing.M) {
	if text := os.Getenv(crowdMark); text != "" {
		crowdMain(text)
	}
	goleak.VerifyTestMain(m)
}

// patience bounds each wait.
const patience = 40 * time.Second

// detection is fast enough for a short test. It leaves over a second to a busy machine even where members reach each
// other by way of one that has fallen silent, which takes half a second to be passed over: the guarantees survive that
// live members are taken for dead, but with two of the ORACLE's three the system ends.
const (
	heartbeat = 50 * time.Millisecond
	suspect   = 1600 * time.Millisecond
)

// pace is the longest pause of a sender between two bursts.
const pace = 2 * time.Millisecond

// hosts is how many there are, each with one member; the ORACLE has three.
const hosts = 5

// Codes of messages.
const (
	codeCast vsync.Code = iota
	codePeer
)

// field is a group of real systems.
type field struct {
	t       *testing.T
	config  vsync.Config
	ground  ground
	story   *sim.Chronicle
	flavour []vsync.Flavour
	pace    time.Duration // longest pause of a sender between two bursts
	seed    uint64
	joining sync.WaitGroup

	mu      sync.Mutex
	members [hosts]*member // of each host, the present one; nil while there is none
	runs    [hosts]int
	over    bool
}

// member is one process of the group.
type member struct {
	f       *field
	host    int
	sys     *vsync.System
	group   *vsync.Group
	witness *sim.Witness
	quiet   chan struct{} // closed to end its traffic
	silent  chan struct{} // closed when it sends no more
	once    sync.Once
}

// newField returns a field without members. Their configuration is what change makes of the default.
func newField(t *testing.T, seed uint64, make func(t *testing.T) ground, change func(c *vsync.Config)) *field {
	t.Helper()
	f := &field{
		t: t, seed: seed, pace: pace, story: sim.NewChronicle(clock.Monotonic(), vsync.Majority), ground: make(t),
		flavour: []vsync.Flavour{
			vsync.FIFO, vsync.FIFO, vsync.Causal, vsync.Ordered, vsync.Ordered, vsync.Safe, vsync.Unordered, vsync.Raw,
		},
	}
	c := vsync.DefaultConfig()
	c.Interfaces, c.TTL, c.Discovery = nil, 1, 300*time.Millisecond
	c.Heartbeat, c.SuspectAfter, c.Mute = heartbeat, suspect, true
	for i := range hosts {
		c.Network.Hosts = append(c.Network.Hosts, f.ground.ip(i).String())
	}
	change(&c)
	f.config = c
	t.Cleanup(f.end)
	return f
}

// end ends all systems.
func (f *field) end() {
	f.mu.Lock()
	f.over = true
	f.mu.Unlock()
	f.joining.Wait()
	for _, m := range f.members {
		if m != nil {
			m.hush()
			if err := m.sys.Close(); err != nil {
				f.t.Error(err)
			}
		}
	}
}

// within returns a context for one wait.
func within() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), patience)
}

// enter starts a process on a host and makes it a member. A process that is declared failed before that is replaced.
func (f *field) enter(host int) {
	f.t.Helper()
	deadline := time.Now().Add(patience)
	for {
		m, err := f.try(host)
		if err == nil {
			f.mu.Lock()
			f.members[host] = m
			f.mu.Unlock()
			go m.traffic(rand.New(rand.NewPCG(f.seed, uint64(100*host+f.runs[host]))))
			go m.watch()
			return
		}
		f.t.Logf("host %d gets no member yet: %v", host, err)
		if time.Now().After(deadline) {
			f.t.Errorf("host %d gets no member: %v", host, err)
			return
		}
	}
}

// try starts a process once.
func (f *field) try(host int) (*member, error) {
	ctx, cancel := within()
	defer cancel()
	m := &member{f: f, host: host, quiet: make(chan struct{}), silent: make(chan struct{})}
	var err error
	start, giveUp := context.WithCancel(context.Background()) // it ends the system as well
	timer := time.AfterFunc(patience/2, giveUp)
	c := f.config
	f.ground.place(host, &c)
	f.mu.Lock()
	c.FastStart = host == 0 && f.runs[host] == 0 // the first of all
	f.mu.Unlock()
	f.ground.do(host, func() { m.sys, err = vsync.Start(start, vsync.WithConfig(c)) })
	if err != nil {
		giveUp()
		return nil, errors.Join(err, errors.New(f.states()))
	}
	timer.Stop()
	f.t.Cleanup(func() {
		f.mu.Lock()
		f.over = true // who ends from now on is not replaced
		f.mu.Unlock()
		giveUp()
	})
	f.mu.Lock()
	f.runs[host]++
	run := f.runs[host]
	f.mu.Unlock()
	m.witness = f.story.Member(host+1, run, m.sys.Address())
	m.group = m.sys.NewGroup("field", vsync.WithSafeCopies(vsync.Majority))
	err = errors.Join(
		m.group.Handle(codeCast, m.onCast), m.group.Handle(codePeer, m.onPeer),
		m.group.OnView(func(v *vsync.View) { m.witness.View(viewOf(v)) }),
		m.group.OnInit(func(context.Context) error { m.witness.Init(); return nil }),
		m.group.OnMakeState(func(_ context.Context, _ *vsync.View, w *vsync.StateWriter) error {
			return w.Put(m.witness.State())
		}),
		m.group.OnLoadState(m.witness.Load))
	if err == nil {
		err = m.group.Join(ctx)
	}
	if err != nil {
		m.witness.End(sim.Failed, err)
		return nil, errors.Join(err, m.sys.Close())
	}
	return m, nil
}

// states describes all systems, for a failure's report.
func (f *field) states() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var b strings.Builder
	for i, m := range f.members {
		if m != nil {
			s := m.sys.State()
			fmt.Fprintf(&b, "host %d: %v leads %v, ORACLE %v, %d suspects", i, s.Address, s.Leader, s.Oracle,
				s.Suspects)
			for _, g := range s.Groups {
				fmt.Fprintf(&b, "; view %d %v changing %v\n", g.View, g.Members, g.Changing)
			}
		}
	}
	return b.String()
}

// content makes the bytes of a message: its number, and what follows from it.
func content(number uint64, size int) []byte {
	b := binary.LittleEndian.AppendUint64(make([]byte, 0, size), number)
	for i := len(b); i < size; i++ {
		b = append(b, byte(number)+byte(i))
	}
	return b
}

// contentMin is the length of the shortest message.
const contentMin = 8

// number checks a message's bytes and returns its number.
func (m *member) number(b []byte) (uint64, bool) {
	if len(b) < contentMin {
		m.f.t.Errorf("host %d: a message of %d bytes", m.host, len(b))
		return 0, false
	}
	n := binary.LittleEndian.Uint64(b)
	if !slices.Equal(b, content(n, len(b))) {
		m.f.t.Errorf("host %d: message %d has other bytes than it was sent with", m.host, n)
		return 0, false
	}
	return n, true
}

// viewOf returns a view as the checkers know it.
func viewOf(v *vsync.View) *core.View {
	return &core.View{Group: v.Group, ID: v.ID, Members: v.Members, Joined: v.Joined, Left: v.Left}
}

func (m *member) onCast(msg *vsync.Message) {
	if n, ok := m.number(msg.Payload); ok {
		if err := m.witness.Deliver(viewOf(msg.View), msg.From, n); err != nil {
			m.f.t.Error(err)
		}
	}
}

func (m *member) onPeer(msg *vsync.Message) {
	if n, ok := m.number(msg.Payload); ok {
		if err := m.witness.DeliverPeer(n); err != nil {
			m.f.t.Error(err)
		}
	}
}

// traffic sends until it is hushed or the member is over.
func (m *member) traffic(r *rand.Rand) {
	defer close(m.silent)
	for {
		select {
		case <-m.quiet:
			return
		case <-m.sys.Done():
			return
		case <-time.After(time.Duration(r.Int64N(int64(m.f.pace)))):
		}
		for range 1 + r.IntN(8) {
			if m.act(r) != nil {
				return // the member is over, or stuck: what waits for it will say so
			}
		}
	}
}

// act sends one message, or flushes.
func (m *member) act(r *rand.Rand) error {
	ctx, cancel := within()
	defer cancel()
	size := contentMin + r.IntN(200)
	if r.IntN(20) == 0 {
		size += r.IntN(30_000)
	}
	switch r.IntN(40) {
	case 0:
		over := m.witness.Flushing(0)
		err := m.group.Flush(ctx)
		over(err == nil)
		return err
	case 1, 2:
		if to := m.f.someone(r); to != nil && m.group.View().Contains(to.sys.Address()) {
			n := m.witness.SendingTo(to.witness, size)
			err := m.group.SendBytesTo(ctx, to.sys.Address(), codePeer, content(n, size))
			m.witness.SentPeer(n, err == nil)
			if errors.Is(err, vsync.ErrNotMember) {
				err = nil // it has just left
			}
			return err
		}
	}
	f := m.f.flavour[r.IntN(len(m.f.flavour))]
	n := m.witness.Sending(f, size)
	err := m.group.SendBytes(ctx, f, codeCast, content(n, size))
	m.witness.Sent(n, err == nil)
	return err
}

// someone returns a member, or nil.
func (f *field) someone(r *rand.Rand) *member {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.members[r.IntN(hosts)]
}

// watch notices that the system declared the member failed, and replaces it.
func (m *member) watch() {
	<-m.group.Over()
	if m.witness.Over() {
		return
	}
	f := m.f
	f.t.Logf("host %d: %v", m.host, m.group.Err())
	m.witness.End(sim.Failed, m.group.Err())
	lost := errors.Is(m.group.Err(), vsync.ErrOracleLost)
	f.mu.Lock()
	if lost && !f.over { // those that start now found another system, whose views have nothing to do with this one's
		f.over = true
		f.t.Errorf("host %d: the system is lost: a majority of the ORACLE was taken for dead", m.host)
	}
	if f.over || f.members[m.host] != m {
		f.mu.Unlock()
		return
	}
	f.members[m.host] = nil
	f.joining.Add(1)
	f.mu.Unlock()
	defer f.joining.Done()
	m.hush()
	if err := m.sys.Close(); err != nil {
		f.t.Error(err)
	}
	f.enter(m.host)
}

// hush ends the member's traffic.
func (m *member) hush() {
	m.once.Do(func() { close(m.quiet) })
	<-m.silent
}

// kill ends the process of a host at once, and starts another when the others have seen that.
func (f *field) kill(host int) {
	f.t.Helper()
	f.mu.Lock()
	m := f.members[host]
	f.members[host] = nil
	f.mu.Unlock()
	if m == nil {
		return // it is being replaced
	}
	f.t.Logf("host %d is killed", host)
	m.witness.End(sim.Crashed, nil)
	m.sys.Kill()
	m.hush()
	f.enter(host)
}

// outsider returns a host that can be cut off so that the others keep a majority of the ORACLE: all of its members
// live, as its leader sees it, and are elsewhere. It returns -1 when there is none.
func (f *field) outsider(r *rand.Rand) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	var oracle []vsync.Address
	for _, m := range f.members {
		if m != nil {
			if s := m.sys.State(); s.Leader {
				oracle = s.Oracle
			}
		}
	}
	var list []int
	living := 0
	for i, m := range f.members {
		switch {
		case m == nil:
		case slices.Contains(oracle, m.sys.Address()):
			living++
		default:
			list = append(list, i)
		}
	}
	if len(list) == 0 || living < 3 || living < len(oracle) {
		return -1
	}
	return list[r.IntN(len(list))]
}

// run lets the group live through rounds of bad weather, and judges it.
func (f *field) run(rounds int, loss int) {
	f.t.Helper()
	r := rand.New(rand.NewPCG(f.seed, 0))
	for i := range hosts {
		f.enter(i)
	}
	f.t.Cleanup(func() { f.ground.weather(f.t, 0, -1) })
	for range rounds {
		f.ground.weather(f.t, loss, -1)
		pause(200*time.Millisecond + time.Duration(r.IntN(300))*time.Millisecond)
		f.kill(r.IntN(hosts))
		pause(time.Duration(r.IntN(200)) * time.Millisecond)
		f.ground.weather(f.t, loss, f.outsider(r))
		pause(f.config.SuspectAfter + 4*f.config.Heartbeat + time.Duration(r.IntN(400))*time.Millisecond)
		f.ground.weather(f.t, loss, -1)
		pause(time.Duration(r.IntN(300)) * time.Millisecond)
	}
	f.ground.weather(f.t, 0, -1)
	f.rest()
	f.judge()
}

// judge puts what happened before the checkers.
func (f *field) judge() {
	f.t.Helper()
	for _, x := range f.story.Judge() {
		f.t.Errorf("%s: %s\n%s", x.Checker, x.Text, strings.Join(x.Log, "\n"))
	}
	f.t.Log(f.story.Summary())
}

// pause lets the weather last. It is the length of a fault, not a wait for something.
func pause(d time.Duration) { <-time.After(d) }

// rest ends the traffic and waits until all that live agree: the guarantee of liveness.
func (f *field) rest() {
	f.t.Helper()
	deadline := time.Now().Add(patience)
	for {
		f.mu.Lock()
		members := f.members
		f.mu.Unlock()
		complete := true
		for _, m := range members {
			if complete = complete && m != nil; m != nil {
				m.hush()
			}
		}
		why := "a host has no member"
		if complete {
			var settled bool
			if why, settled = f.story.Settled(); settled {
				return
			}
		}
		if time.Now().After(deadline) {
			f.t.Fatalf("the group does not come to rest: %s", why)
		}
		<-time.After(20 * time.Millisecond)
	}
}

// relays checks whether members passed packets on for each other.
func (f *field) relays(want bool) {
	f.t.Helper()
	var n uint64
	for _, m := range f.members {
		if m != nil {
			n += m.sys.Stats().Transport.Relayed
		}
	}
	if (n > 0) != want {
		f.t.Errorf("the present members passed %d packets on, want some: %v", n, want)
	}
	f.t.Logf("%d packets were passed on", n)
}

// rounds returns how long a run is: short in the suite, KHAMSIN_FIELD rounds when that is set.
func rounds(t *testing.T) int {
	n := 1
	if text := os.Getenv("KHAMSIN_FIELD"); text != "" {
		if _, err := fmt.Sscan(text, &n); err != nil || n < 1 {
			t.Fatalf("KHAMSIN_FIELD is %q, want a number of rounds", text)
		}
	}
	return n
}
