package sim

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/khamsin-io/khamsin/dataplane/clock"
	"github.com/khamsin-io/khamsin/vsync/core"
	"github.com/khamsin-io/khamsin/vsync/internal/engine"
)

// story plays a script in a world where nothing goes wrong by itself.
type story struct {
	w       *World
	out     strings.Builder
	pending []string // what happened since the last run, in order
	group   int      // that commands are about: the one joined last
}

// storyCommand is one command of scripts.
type storyCommand struct {
	usage string
	do    func(s *story, args []string) error
}

// storyCommands returns what scripts may contain. Nodes and members are called by their numbers.
func storyCommands() map[string]storyCommand {
	return map[string]storyCommand{
		"nodes":   {"nodes COUNT: start nodes 1 to COUNT; node 1 founds the system", (*story).doNodes},
		"start":   {"start: start one more node", (*story).doStart},
		"restart": {"restart NODE: start a process on a node whose former one is over", (*story).doRestart},
		"join":    {"join NODE… GROUP: later commands are about this group", (*story).doJoin},
		"send":    {"send NODE FLAVOUR TEXT [TIMES]: fifo, causal, total, safe, unordered or raw", (*story).doSend},
		"peer":    {"peer NODE NODE TEXT: a point-to-point message", (*story).doPeer},
		"flush":   {"flush NODE [MEMBERS]", (*story).doFlush},
		"leave":   {"leave NODE", (*story).doLeave},
		"report":  {"report NODE NODE: the first reports the second as failed", (*story).doReport},
		"stop":    {"stop NODE: leave everything in order", (*story).doStop},
		"crash": {"crash NODE [STEPS]: at once, or after so many packets, deliveries and events",
			(*story).doCrash},
		"crash-before": {"crash-before NODE MESSAGE [NTH]: when it is about to send a control message: " +
			strings.Join(controlNames[1:], ", "), (*story).doCrashBefore},
		"oracle": {"oracle COUNT: members of the ORACLE when complete; stands first", (*story).doOracle},
		"hosts": {"hosts COUNT: the first nodes, of which a majority founds the system; stands first",
			(*story).doHosts},
		"create":         {"create NODE GROUP: join a group that must not exist", (*story).doCreate},
		"terminate":      {"terminate NODE: end the group for all", (*story).doTerminate},
		"pause":          {"pause NODE DURATION", (*story).doPause},
		"stall":          {"stall NODE DURATION: its application handles nothing", (*story).doStall},
		"drop":           {"drop NODE->NODE KIND COUNT: lose the next packets of a kind, or any", (*story).doDrop},
		"partition":      {"partition NODE… | NODE…", (*story).doPartition},
		"heal":           {"heal: end partition and drops", (*story).doHeal},
		"run":            {"run DURATION: let time pass, and write what happened", (*story).doRun},
		"expect-seeking": {"expect-seeking NODE…: the nodes' processes belong to no system", (*story).doExpectSeeking},
		"expect-over": {"expect-over NODE REASON: the node's last process is over, and says why",
			(*story).doExpectOver},
		"expect-view": {"expect-view NODE NODE…: the members of a node's present view, by rank", (*story).doExpectView},
	}
}

// PlayStory plays a script, one command per line, and returns what the applications saw as text. The error tells which
// command is wrong or did not find what it expected; failures are those of the checkers. The timeline goes to trace
// unless it is nil.
func PlayStory(script string, trace io.Writer) (output string, failures []Failure, err error) {
	timing, limits := engine.Defaults()
	w := NewWorld(Options{
		Seed: 1, Nodes: 1, Groups: 1, Faults: time.Second, Weather: &Weather{Delay: 100 * time.Microsecond},
		Mix:   &Mix{Burst: 1, Flavours: [6]int{core.FIFO: 1}, ConsumeBatch: 1},
		Trace: trace, timing: &timing, limits: &limits,
	})
	w.history.groups, w.history.safeOf = nil, nil
	s := &story{w: w}
	w.onEntry = s.saw
	w.onFlush = s.flushed
	ok := w.guard(func() { err = s.play(script) })
	if ok {
		w.guard(s.close)
	}
	r := w.result()
	return s.out.String(), r.Failures, err
}

// play runs the script.
func (s *story) play(script string) error {
	commands := storyCommands()
	for i, line := range strings.Split(script, "\n") {
		line, _, _ = strings.Cut(line, "#")
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		c, ok := commands[words[0]]
		if !ok {
			return fmt.Errorf("line %d: there is no command %q", i+1, words[0])
		}
		if err := c.do(s, words[1:]); err != nil {
			return fmt.Errorf("line %d: %s: %w (usage: %s)", i+1, strings.TrimSpace(line), err, c.usage)
		}
	}
	return nil
}

// close ends every process that is left, and thereby looks for frames that are lost.
func (s *story) close() {
	for _, p := range slices.Clone(s.w.live) {
		s.w.end(p, stopped, nil)
	}
	s.w.bury()
}

// saw notes what a member's application is given.
func (s *story) saw(m *member, e *entry) {
	what := ""
	switch e.kind {
	case entryMessage:
		what = fmt.Sprintf("%v %s from %d", e.message.flavour, e.message.label(), e.message.sender.process.node)
	case entryPeer:
		what = fmt.Sprintf("point-to-point %s from %d", e.message.label(), e.message.sender.process.node)
	case entryView:
		what = viewText(e.view)
	case entryMakeState:
		what = "make state for " + viewText(e.view)
	case entryState:
		what = fmt.Sprintf("load state of %d messages", e.state.Count)
	case entryInit:
		what = "init"
	case entryEnd:
		what = fmt.Sprintf("end: %v", e.err)
	}
	s.note(m.p, m.life.group, what)
}

// flushed notes that a Flush is over.
func (s *story) flushed(m *member, f *flushRecord) {
	what := "flush is over"
	if f.k > 0 {
		what = fmt.Sprintf("flush at %d members is over", f.k)
	}
	s.note(m.p, m.life.group, what)
}

// note adds a line to what happened. Addresses are left out: they differ where nothing of interest does.
func (s *story) note(p *process, group int, what string) {
	if i := strings.Index(what, " (told by "); i >= 0 {
		what = what[:i]
	}
	if len(s.w.history.groups) > 1 {
		what = s.w.history.groups[group] + ": " + what
	}
	s.pending = append(s.pending, fmt.Sprintf("%2d  %s", p.node.number, what))
}

// label names a message of a story.
func (m *message) label() string {
	if m.text == "" {
		return "(empty)"
	}
	return strconv.Quote(m.text)
}

func (s *story) doNodes(args []string) error {
	count, err := number(args, 0)
	if err != nil {
		return err
	}
	for range count {
		s.w.launch(s.w.addNode())
	}
	return nil
}

func (s *story) doStart([]string) error {
	s.w.launch(s.w.addNode())
	return nil
}

func (s *story) doRestart(args []string) error {
	n, err := number(args, 0)
	if err != nil || n > len(s.w.nodes) || s.w.nodes[n-1].proc != nil {
		return fmt.Errorf("no node without a process (%v)", err)
	}
	s.w.launch(s.w.nodes[n-1])
	return nil
}

func (s *story) doJoin(args []string) error {
	if len(args) < 2 {
		return fmt.Errorf("a node and a group are needed")
	}
	s.group = s.w.addGroup(args[len(args)-1], 0)
	return s.forEach(args[:len(args)-1], func(p *process) error {
		p.join(s.group)
		return nil
	})
}

func (s *story) doOracle(args []string) error {
	count, err := number(args, 0)
	if err != nil || len(s.w.nodes) > 0 {
		return fmt.Errorf("a count is needed before there are nodes (%v)", err)
	}
	s.w.opts.Oracle = count
	return nil
}

func (s *story) doCreate(args []string) error {
	if len(args) != 2 {
		return fmt.Errorf("a node and a group are needed")
	}
	s.group = s.w.addGroup(args[1], 0)
	return s.forEach(args[:1], func(p *process) error {
		p.joinAs(s.group, engine.CreateOnly)
		return nil
	})
}

func (s *story) doTerminate(args []string) error {
	return s.forEachMember(args, func(m *member) { m.terminate() })
}

func (s *story) doSend(args []string) error {
	m, err := s.member(args, 0)
	if err != nil {
		return err
	}
	flavours := []string{"unordered", "fifo", "causal", "total", "safe", "raw"} // by core.Flavour
	if len(args) < 3 || !slices.Contains(flavours, args[1]) {
		return fmt.Errorf("a flavour and a text are needed")
	}
	times := 1
	if len(args) > 3 {
		if times, err = number(args, 3); err != nil {
			return err
		}
	}
	for i := range times {
		text := args[2]
		if times > 1 {
			text += strconv.Itoa(i + 1)
		}
		s.say(m, core.Flavour(slices.Index(flavours, args[1])), text, nil)
	}
	s.w.settle(m.p)
	return nil
}

// say makes a member send a text.
func (s *story) say(m *member, f core.Flavour, text string, to *processRecord) {
	msg := m.newMessage(f, 0)
	msg.text, msg.to = text, to
	msg.size = 1 // it has bytes
	m.outbox = append(m.outbox, msg)
	m.drain()
}

func (s *story) doPeer(args []string) error {
	m, err := s.member(args, 0)
	if err != nil {
		return err
	}
	to, err := s.process(args, 1)
	if err != nil || len(args) < 3 {
		return fmt.Errorf("a receiver and a text are needed (%v)", err)
	}
	s.say(m, core.FIFO, args[2], to.record)
	s.w.settle(m.p)
	return nil
}

func (s *story) doFlush(args []string) error {
	m, err := s.member(args, 0)
	if err != nil {
		return err
	}
	k := 0
	if len(args) > 1 {
		if k, err = number(args, 1); err != nil {
			return err
		}
	}
	m.flush(k)
	s.w.settle(m.p)
	return nil
}

func (s *story) doLeave(args []string) error {
	return s.forEachMember(args, func(m *member) { m.leave() })
}

func (s *story) doReport(args []string) error {
	m, err := s.member(args, 0)
	if err != nil {
		return err
	}
	who, err := s.process(args, 1)
	if err != nil {
		return err
	}
	who.record.disturb = true
	err = m.p.engine.Report(m.p.now(), m.handle, who.addr, "reported by the story")
	s.w.settle(m.p)
	return err
}

func (s *story) doStop(args []string) error {
	return s.forEach(args, func(p *process) error {
		p.stopping = true
		p.engine.Stop(p.now())
		return nil
	})
}

// doRun writes what happened node by node, each in its own order.
func (s *story) doRun(args []string) error {
	d, err := duration(args, 0)
	if err != nil {
		return err
	}
	s.w.runUntil(s.w.now.Add(d), nil)
	fmt.Fprintf(&s.out, "until %v\n", s.w.now.Sub(clock.Time(0)))
	slices.SortStableFunc(s.pending, func(a, b string) int { return strings.Compare(a[:2], b[:2]) })
	for _, line := range s.pending {
		fmt.Fprintln(&s.out, line)
	}
	s.pending = s.pending[:0]
	return nil
}

func (s *story) doExpectView(args []string) error {
	m, err := s.member(args, 0)
	if err != nil {
		return err
	}
	if m.view == nil {
		return fmt.Errorf("it has no view")
	}
	var got []string
	for _, a := range m.view.Members {
		got = append(got, strconv.Itoa(nodeOf(a)))
	}
	if !slices.Equal(got, args[1:]) {
		return fmt.Errorf("it is in %s", viewText(m.view))
	}
	return nil
}

func (s *story) doExpectOver(args []string) error {
	n, err := number(args, 0)
	if err != nil || n > len(s.w.nodes) {
		return fmt.Errorf("no such node (%v)", err)
	}
	var last *processRecord
	for _, p := range s.w.history.processes {
		if p.node == n {
			last = p
		}
	}
	want := strings.Join(args[1:], " ")
	if last == nil || last.fate == alive || !strings.Contains(fmt.Sprint(last.err), want) {
		return fmt.Errorf("its last process: %v", last.ending())
	}
	return nil
}

// ending tells how a process ended.
func (p *processRecord) ending() string {
	if p == nil {
		return "none"
	}
	return fmt.Sprintf("%v, %v", p.fate, p.err)
}

// process returns the process on the node that an argument names.
func (s *story) process(args []string, i int) (*process, error) {
	n, err := number(args, i)
	if err != nil {
		return nil, err
	}
	if n > len(s.w.nodes) || s.w.nodes[n-1].proc == nil {
		return nil, fmt.Errorf("nothing runs on node %d", n)
	}
	return s.w.nodes[n-1].proc, nil
}

// member returns the membership of a node's process in the story's group.
func (s *story) member(args []string, i int) (*member, error) {
	p, err := s.process(args, i)
	if err != nil {
		return nil, err
	}
	for j := len(p.members) - 1; j >= 0; j-- {
		if p.members[j].life.group == s.group {
			return p.members[j], nil
		}
	}
	return nil, fmt.Errorf("node %d is not a member of the group", p.node.number)
}

func (s *story) forEach(args []string, f func(p *process) error) error {
	for i := range args {
		p, err := s.process(args, i)
		if err != nil {
			return err
		}
		if err := f(p); err != nil {
			return err
		}
		s.w.settle(p)
		s.w.bury()
	}
	return nil
}

func (s *story) forEachMember(args []string, f func(m *member)) error {
	for i := range args {
		m, err := s.member(args, i)
		if err != nil {
			return err
		}
		f(m)
		s.w.settle(m.p)
	}
	return nil
}

// number reads a positive number.
func number(args []string, i int) (int, error) {
	if i >= len(args) {
		return 0, fmt.Errorf("argument %d is missing", i+1)
	}
	n, err := strconv.Atoi(args[i])
	if err != nil || n < 1 {
		return 0, fmt.Errorf("%q is not a number above zero", args[i])
	}
	return n, nil
}

func duration(args []string, i int) (time.Duration, error) {
	if i >= len(args) {
		return 0, fmt.Errorf("argument %d is missing", i+1)
	}
	return time.ParseDuration(args[i])
}
