package sim

import (
	"fmt"
	"io"
	"runtime/debug"
	"slices"
	"strconv"
	"time"

	"github.com/khamsin-io/khamsin/dataplane"
	"github.com/khamsin-io/khamsin/dataplane/clock"
	"github.com/khamsin-io/khamsin/dataplane/invariant"
	"github.com/khamsin-io/khamsin/vsync/core"
	"github.com/khamsin-io/khamsin/vsync/internal/engine"
)

// firstPID is the process id of node 0, which does not exist; node i has firstPID+i.
const firstPID = 1000

// Sizes of what the engines may hold; see drawLimits.
const (
	membersMax = 16 // of a group in which nobody needs to be short of room
	stormMax   = 30 // nodes that join at the same moment
	windowMax  = 112
	queueMax   = 512
	rxChunks   = 8192
	txChunks   = 4096
)

// Options says how a world is made. The zero value of every field but Seed means "drawn from the seed" or a default.
type Options struct {
	Seed     uint64
	Nodes    int           // that are there from the start
	Groups   int           // in which they are members
	Oracle   int           // members of the ORACLE when complete
	Hosts    int           // with any: the first nodes, of which a majority must agree who founds the system
	Faults   time.Duration // how long the weather lasts
	Weather  *Weather
	Mix      *Mix
	MTU      int       // bytes of the largest packet
	TxChunks int       // frames for sending in each process's arena
	RxChunks int       // and for receiving
	Canary   string    // name of a planted bug; needs the build tag khamsin_canary
	Trace    io.Writer // gets the timeline as text

	ignore bool                                     // partitions
	timing *engine.Timing                           // nil: drawn
	limits *engine.Limits                           // nil: drawn
	engine func(cfg engine.Config) (machine, error) // nil: the real one
}

// Stats counts what happened in a run.
type Stats struct {
	Virtual    time.Duration
	Events     int
	Processes  int
	Steps      int // calls of engines that brought packets, a deadline or a command
	Packets    int // sent
	Bytes      int // in them
	Arrived    int // copies of packets that engines took in
	Lost       int // copies that did not arrive
	Damaged    int // copies that arrived with flipped bits
	Messages   int // accepted from applications
	Delivered  int // to applications, each member counted
	Deliveries int // of all kinds
	Views      int // installed, each member counted
	Crashes    int
	Full       int // submissions refused for want of room
	Warnings   int
	Ended      int // memberships that ended with their group
	Refused    int // joins that were to create a group and found one
	GivenUp    int // processes that lost the ORACLE
	Some       int // Flushes that waited for some members only
	HeldMax    int // most frames that a process at rest held at the end
}

// Result is what became of a run.
type Result struct {
	Seed      uint64
	TraceHash uint64
	Weather   Weather
	Stats     Stats
	Failures  []Failure
}

// World is a system of processes on a virtual clock.
type World struct {
	opts       Options
	now        clock.Time
	agenda     agenda
	weather    Weather // as it was drawn
	lineDraw   random
	mix        Mix
	timing     engine.Timing
	limits     engine.Limits
	net        *network
	apps       random
	nodeDraw   random
	plan       []fault
	nodes      []*node // by number-1
	live       []*process
	ended      []*process // over and not yet buried
	byEndpoint map[dataplane.Endpoint]*node
	systems    []*system
	history    *history
	trace      tracer
	stats      Stats
	token      uint64
	sending    bool // applications send on their own
	healed     bool
	still      int           // events at the present moment
	every      time.Duration // between two looks for what runUntil waits for
	scratch    []byte
	onEntry    func(m *member, e *entry)       // sees every entry of every log; for stories
	onFlush    func(m *member, f *flushRecord) // sees every Flush that is over; for stories
	crashes    []SmallCrash                    // of a small world whose change is under way
	onCrash    func()                          // sees crashes; for small worlds
}

// NewWorld returns the world of a seed, before anything has happened.
func NewWorld(o Options) *World {
	if o.engine == nil {
		o.engine = newEngine
	}
	w := &World{opts: o, byEndpoint: map[dataplane.Endpoint]*node{}, every: 5 * time.Millisecond}
	w.lineDraw = newRandom(o.Seed, drawLines+2<<8)
	w.apps, w.nodeDraw = newRandom(o.Seed, drawApplications), newRandom(o.Seed, drawNodes)
	w.trace = tracer{hash: mix(o.Seed), out: o.Trace}
	w.history = &history{anonymous: map[place]*message{}}
	w.draw()
	w.net = newNetwork(w, w.weather)
	w.history.clean = !w.weather.Cuts() && !w.weather.Rough()
	return w
}

// draw settles everything that the options leave open.
func (w *World) draw() {
	o := &w.opts
	r := newRandom(o.Seed, drawPlan)
	if o.Weather != nil {
		w.weather = *o.Weather
	} else {
		w.weather = DrawWeather(o.Seed)
	}
	w.drawOracle(newRandom(o.Seed, drawOracle))
	w.mix = drawMix(r)
	w.drawRareUse(newRandom(o.Seed, drawRarities+1<<8))
	if o.Mix != nil {
		w.mix = *o.Mix
	}
	w.timing, w.limits = engine.Defaults()
	w.drawTiming(r)
	w.drawLimits(r)
	if o.timing != nil {
		w.timing = *o.timing
	}
	if o.limits != nil {
		w.limits = *o.limits
	}
	if o.Nodes == 0 {
		o.Nodes = 3 + r.IntN(4)
	}
	if o.Groups == 0 {
		o.Groups = 1 + r.IntN(2)
	}
	if o.Faults == 0 {
		o.Faults = r.between(300*time.Millisecond, 1200*time.Millisecond)
	}
	if o.MTU == 0 {
		o.MTU = 1472
	}
	if o.TxChunks == 0 {
		o.TxChunks, o.RxChunks = txChunks, rxChunks
	}
	if w.weather.LongCut {
		o.Faults += w.timing.OracleLost * 3 / 2
	}
	for g := range o.Groups {
		w.addGroup(fmt.Sprintf("group%d", g), []int{0, 0, -1, 2}[r.IntN(4)])
	}
}

// drawOracle draws how many members the ORACLE has, and whether they are subject to the weather. When there is only
// one, the whole system ends with it.
func (w *World) drawOracle(r random) {
	o := &w.opts
	if o.Oracle == 0 {
		o.Oracle = []int{1, 1, 3, 3, 3, 3, 3, 5}[r.IntN(8)]
	}
	if o.Weather == nil {
		w.weather.OracleCrash = o.Oracle > 1 || r.chance(0.2)
	}
}

// drawTiming draws the engines' time constants: most seeds use short ones, so that a crash is noticed while other
// things go on.
func (w *World) drawTiming(r random) {
	t := &w.timing
	if r.chance(0.75) {
		t.Discovery, t.Heartbeat, t.Suspect = 50*time.Millisecond, 30*time.Millisecond, 400*time.Millisecond
		t.Request, t.Beacon = 60*time.Millisecond, 10*time.Millisecond
	}
	t.OracleLost = t.Suspect * time.Duration(4+r.IntN(5))
	if r.chance(0.3) {
		t.Gather = r.upTo(10 * time.Millisecond)
	}
	if slow := 4 * (w.weather.Delay + w.weather.Jitter); slow > time.Millisecond {
		t.Nak, t.Ack, t.Sync = t.Nak+slow, t.Ack+slow, t.Sync+slow
		t.LinkRetry += slow
		t.Suspect += 15 * slow
		t.OracleLost += 60 * slow
	}
}

// drawLimits draws the engines' limits: in some seeds everything is scarce. The largest are such that an arena holds
// what the streams of membersMax members in two groups, and the applications, may hold at most:
//
//	2 groups * membersMax * (2 windows of packets that not everybody has taken) + 2 groups * queue <= rxChunks
func (w *World) drawLimits(r random) {
	l := &w.limits
	l.Window, l.Queue = windowMax, queueMax
	l.JoinerQueue = 64 << 10
	if r.chance(0.3) {
		l.Window = 8 + r.IntN(windowMax-8)
	}
	if r.chance(0.3) {
		l.Queue = 4 + r.IntN(100)
	}
	if w.weather.Storm >= membersMax {
		l.Window = min(l.Window, windowMax*membersMax/(2*stormMax))
	}
	if r.chance(0.3) {
		l.Pending = 5000 + r.IntN(30_000)
	}
	if r.chance(0.3) {
		l.PeerQueue = 500 + r.IntN(20_000)
	}
	if r.chance(0.2) {
		l.Transfer = 30_000 + r.IntN(100_000)
	}
}

// addGroup gives a name to a group and returns its number.
func (w *World) addGroup(name string, safeCopies int) int {
	if i := slices.Index(w.history.groups, name); i >= 0 {
		return i
	}
	w.history.groups = append(w.history.groups, name)
	w.history.safeOf = append(w.history.safeOf, safeCopies)
	return len(w.history.groups) - 1
}

// addNode adds a host.
func (w *World) addNode() *node {
	n := &node{number: len(w.nodes) + 1, offset: clock.Time(1 + w.nodeDraw.Int64N(int64(time.Hour)))}
	if d := w.weather.Drift; d > 0 {
		n.drift = w.nodeDraw.Int64N(int64(2*d+1)) - int64(d)
	}
	w.nodes = append(w.nodes, n)
	return n
}

// address returns the address of a node's present run. A process that comes back may get its old port again.
func (w *World) address(n *node) core.Address {
	a := core.Address{PID: uint32(firstPID + n.number), Port: 7000, AckPort: 7001}
	a.IP[10], a.IP[11], a.IP[12] = 0xff, 0xff, 10
	a.IP[13], a.IP[14], a.IP[15] = byte(n.number>>16), byte(n.number>>8), byte(n.number)
	if n.runs > 1 && w.nodeDraw.chance(0.5) {
		a.Port, a.AckPort = uint16(7000+2*n.runs), uint16(7001+2*n.runs)
	}
	a.Incarnation = mix(w.opts.Seed^uint64(n.number)<<40^uint64(n.runs)<<20) | 1
	return a
}

// engineConfig returns what a process's engine is made from. The first node founds the system.
func (w *World) engineConfig(p *process) engine.Config {
	cfg := engine.Config{
		Self: p.addr, System: "sim", Seed: p.addr.Incarnation, Arena: p.arena, MTU: w.opts.MTU,
		Timing: w.timing, Limits: w.limits,
		Oracle: engine.Oracle{
			Size: w.opts.Oracle, Eligible: w.mayFound(p), IgnoreCut: w.opts.ignore,
			FastStart: p.node.number == 1 && p.record.run == 1 && w.opts.Hosts == 0,
		},
	}
	for i := range w.opts.Hosts {
		cfg.Oracle.Hosts = append(cfg.Oracle.Hosts, strconv.Itoa(i+1))
		if p.node.number == i+1 {
			cfg.Oracle.Host = cfg.Oracle.Hosts[i]
		}
	}
	if w.weather.Key {
		cfg.Key = []byte("a key that all processes share!!")
	}
	return plant(cfg, w.opts.Canary)
}

// runUntil lets everything happen that is due up to a time, and stops early when stop, unless nil, returns true; it is
// asked from time to time.
func (w *World) runUntil(end clock.Time, stop func() bool) bool {
	for {
		next := min(end, w.now.Add(w.every))
		for w.agenda.first() <= next {
			e := w.agenda.take()
			if w.still++; w.now != e.at {
				w.still = 0
			}
			invariant.Check(w.still < stillMax, "sim: %d events at %s, and more of them", w.still, stamp(e.at))
			w.now = e.at
			w.do(&e)
		}
		w.now = next
		if stop != nil && stop() {
			return true
		}
		if w.now >= end {
			return false
		}
	}
}

// do lets one event happen.
func (w *World) do(e *event) {
	w.stats.Events++
	w.trace.note(traceEvent, w.now, uint64(e.kind), uint64(e.arg))
	switch e.kind {
	case eventArrival:
		w.onArrival(e.node, e.packet)
	case eventWake:
		w.onWake(e.node)
	case eventPoll:
		w.onPoll(e.node)
	case eventFault:
		w.onFault(&w.plan[e.arg])
	case eventLaunch:
		w.onLaunch(e.node, e.arg)
	default:
		w.onProcess(e)
	}
	if len(w.ended) > 0 {
		w.bury()
	}
}

// onProcess lets something happen that belongs to one run of a process. A node that stands still does it when it wakes.
func (w *World) onProcess(e *event) {
	p := e.proc
	if p.over {
		return
	}
	if p.node.pausedUntil > w.now {
		p.node.deferred = append(p.node.deferred, *e)
		return
	}
	switch e.kind {
	case eventTimer:
		if p.timerAt != e.at {
			return // an earlier one took its place
		}
		p.timerAt = clock.Never
		if p.engine.Deadline() <= p.now() {
			w.stats.Steps++
			p.engine.Tick(p.now())
		}
	case eventHandle:
		e.member.onHandle()
	case eventSend:
		e.member.burst()
	case eventRetry:
		e.member.drain()
	case eventTransfer:
		e.member.transfer()
	case eventLine:
		p.onLine(e.arg)
	default:
		invariant.Fail("sim: event of kind %v for a process", e.kind)
	}
	w.settle(p)
}

// onArrival puts a packet into a node's socket.
func (w *World) onArrival(n *node, pkt *packet) {
	p := n.proc
	mine := p != nil && (pkt.channel != 0 && slices.Contains(p.channels, pkt.channel) ||
		pkt.channel == 0 && pkt.to == p.addr.Endpoint())
	full := w.net.weather.RxBuffer > 0 && len(n.inbox) >= w.net.weather.RxBuffer
	if !mine || full {
		w.stats.Lost++
		w.net.put(pkt)
		return
	}
	n.inbox = append(n.inbox, pkt)
	if !n.pollPending {
		n.pollPending = true
		w.agenda.add(event{at: w.now.Add(w.net.draw.upTo(20 * time.Microsecond)), kind: eventPoll, node: n})
	}
}

// onPoll lets a node take in what its socket holds.
func (w *World) onPoll(n *node) {
	if n.pausedUntil > w.now {
		n.deferred = append(n.deferred, event{kind: eventPoll, node: n})
		return
	}
	n.pollPending = false
	if p := n.proc; p != nil && len(n.inbox) > 0 {
		p.receive()
		w.settle(p)
	}
}

// onWake ends a pause, unless it was made longer: what was put off meanwhile happens now, in its order.
func (w *World) onWake(n *node) {
	if n.pausedUntil > w.now {
		return
	}
	w.trace.printf(w.now, n.name(), "goes on")
	deferred := n.deferred
	n.deferred = nil
	for _, e := range deferred {
		if e.kind == eventTimer && e.proc.timerAt == e.at {
			e.proc.timerAt = w.now
		}
		e.at = w.now
		w.agenda.add(e)
	}
}

// onLaunch starts a process, which joins the groups in the bits of the mask.
func (w *World) onLaunch(n *node, mask int) {
	if n.proc != nil {
		return
	}
	p := w.launch(n)
	for g := range w.history.groups {
		if mask&(1<<g) != 0 && !p.over {
			p.joinAs(g, w.drawMode())
			w.settle(p)
		}
	}
}

// onApply is called when an application has handled a multicast: sometimes it answers with another.
func (w *World) onApply(m *member, msg *message) {
	if m.budget <= 0 || !w.sending || m.leaving || m.over {
		return
	}
	if w.apps.chance(w.mix.Reply / float64(m.view.Size())) {
		m.budget--
		f := core.Causal
		if w.apps.chance(0.3) || w.mix.Flavours[core.Causal] == 0 {
			f = w.drawFlavour()
		}
		m.sendDrawn(f)
	}
}

// endpointName returns how traces call the owner of an endpoint.
func (w *World) endpointName(e dataplane.Endpoint) string {
	if n := int(e.IP[13])<<16 | int(e.IP[14])<<8 | int(e.IP[15]); n > 0 {
		return fmt.Sprintf("n%d", n)
	}
	return e.String()
}

// addressName returns how traces call the owner of an address.
func (w *World) addressName(a core.Address) string {
	if a.IsZero() {
		return "-"
	}
	return fmt.Sprintf("n%d", nodeOf(a))
}

// guard runs f and turns a failed assertion, or any other panic, into a failure.
func (w *World) guard(f func()) (ok bool) {
	defer func() {
		if r := recover(); r != nil {
			ok = false
			w.history.failures = append(w.history.failures, Failure{
				Checker: checkInvariant, At: w.now, Text: fmt.Sprint(r), Log: stackLines(debug.Stack()),
			})
		}
	}()
	f()
	return true
}
