package sim

import (
	"fmt"
	"slices"
	"strings"

	"github.com/khamsin-io/khamsin/dataplane/wire"
	"github.com/khamsin-io/khamsin/vsync/internal/pdu"
)

// controlNames are the names of control messages in stories.
//
// immutable: table of names
var controlNames = [...]string{
	"", "attach", "welcome", "request", "done", "refuse", "propose", "report", "cut", "ready", "decide", "watch",
}

// ambush makes a process crash when it is about to send a control message of a type.
type ambush struct {
	kind pdu.Type
	left int // so many more of them; 0: none is planned
}

// springs tells whether a packet is the one that is not sent any more. A packet is taken for the beginning of a
// message; in stories they are short.
func (a *ambush) springs(packet []byte) bool {
	const control = 0 // the lanes of control messages
	var h wire.Header
	if a.left == 0 || h.Peek(packet) != nil || h.Kind != wire.KindLink || h.Aux != control ||
		len(packet) <= wire.HeaderLen || pdu.Type(packet[wire.HeaderLen]) != a.kind {
		return false
	}
	a.left--
	return a.left == 0
}

func (s *story) doCrashBefore(args []string) error {
	p, err := s.process(args, 0)
	if err != nil {
		return err
	}
	if len(args) < 2 || slices.Index(controlNames[:], args[1]) < 1 {
		return fmt.Errorf("a control message is needed")
	}
	nth := 1
	if len(args) > 2 {
		if nth, err = number(args, 2); err != nil {
			return err
		}
	}
	p.record.disturb = true
	p.ambush = ambush{pdu.Type(slices.Index(controlNames[:], args[1])), nth}
	return nil
}

func (s *story) doCrash(args []string) error {
	p, err := s.process(args, 0)
	if err != nil {
		return err
	}
	p.record.disturb = true
	if len(args) > 1 {
		p.cutAfter, err = number(args, 1)
		return err
	}
	s.w.end(p, crashed, nil)
	s.w.bury()
	return nil
}

func (s *story) doPause(args []string) error {
	p, err := s.process(args, 0)
	if err != nil {
		return err
	}
	d, err := duration(args, 1)
	s.w.pauseNode(p, d)
	return err
}

func (s *story) doStall(args []string) error {
	d, err := duration(args, 1)
	if err != nil {
		return err
	}
	return s.forEachMember(args[:1], func(m *member) { m.stalled = s.w.now.Add(d) })
}

func (s *story) doDrop(args []string) error {
	if len(args) != 3 {
		return fmt.Errorf("three arguments are needed")
	}
	from, to, ok := strings.Cut(args[0], "->")
	ends := []string{from, to}
	a, err1 := number(ends, 0)
	b, err2 := number(ends, 1)
	count, err3 := number(args, 2)
	kind := slices.Index(kindNames[:], args[1])
	if args[1] == "any" {
		kind = int(wire.KindNone)
	}
	if !ok || err1 != nil || err2 != nil || err3 != nil || kind < 0 {
		return fmt.Errorf("bad link, kind or count")
	}
	s.w.net.rules = append(s.w.net.rules, dropRule{from: a, to: b, kind: wire.Kind(kind), left: count})
	return nil
}

func (s *story) doPartition(args []string) error {
	side := make([]bool, len(s.w.nodes)+1)
	second := false
	for i, a := range args {
		if a == "|" {
			second = true
			continue
		}
		p, err := s.process(args, i)
		if err != nil {
			return err
		}
		p.record.disturb = true
		side[p.node.number] = second
	}
	s.w.net.side = side
	return nil
}

func (s *story) doHeal([]string) error {
	s.w.net.side, s.w.net.rules = nil, nil
	return nil
}
