package demo

import (
	"fmt"
	"strings"
	"time"
)

// hear takes one report in.
func (p *parent) hear(r report) {
	if r.Kind == "" {
		return // a clock that rang
	}
	k := p.kids[r.Index]
	switch r.Kind {
	case kindAttached:
		p.byAddr[r.Addr] = k
		p.screen.line("%v attached in %v, %s", k, round(r.Took), r.Addr)
	case kindJoined:
		k.joined = true
		if r.Rows > 0 {
			p.screen.line("%v joined %v after its start, with the state of %d messages", k, round(r.Took), r.Rows)
		}
	case kindView:
		p.hearView(k, r)
	case kindOracle:
		if !k.oracle || strings.HasPrefix(r.Text, "leads") {
			p.screen.line("%v %s", k, r.Text)
		}
		k.oracle = true
	case kindWarning:
		p.screen.line("%v: %s", k, r.Text)
	case kindProgress:
		k.count = max(k.count, r.Count)
		p.screen.progress(k.count)
	case kindDone:
		k.done, k.rows = true, r.Rows
	case kindFinal:
		k.final = r.Final
	case kindFailed:
		p.fault("%v: %s", k, r.Text)
	case kindEnded:
		k.ended = true
		if !k.killed && !k.quitting {
			p.fault("%v ended: %s", k, r.Text)
		}
	}
}

func (p *parent) fault(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	p.faults = append(p.faults, text)
	p.screen.line("FAULT %s", text)
}

// hearView compares what was delivered in front of a view with what the first reporter of the view said.
func (p *parent) hearView(k *kid, r report) {
	v := r.View
	if k.killed {
		return // the last words of a dead process: what it saw counts, but no longer as its present view
	}
	k.view, k.count = v, max(k.count, v.Count)
	known := p.views[v.ID]
	switch {
	case known == nil:
		p.views[v.ID] = &viewRecord{count: v.Count, order: v.Order, by: k}
		p.screen.line("view %d after %d messages: %s%s%s", v.ID, v.Count, p.names(v.Members),
			p.list(", joined ", v.Joined), p.list(", left ", v.Left))
	case known.count != v.Count || known.order != v.Order:
		p.fault("view %d: %v delivered %d messages (%s) before it, %v %d (%s)", v.ID, known.by, known.count,
			known.order.short(), k, v.Count, v.Order.short())
	}
	p.noteGone(time.Unix(0, r.At))
}

// noteGone tells how long it took until all survivors had a view without a member that was killed.
func (p *parent) noteGone(at time.Time) {
	for _, dead := range p.kids {
		if !dead.killed || dead.gone {
			continue
		}
		seen := false
		for _, k := range p.living() {
			for _, name := range k.view.Members {
				seen = seen || p.byAddr[name] == dead
			}
		}
		if !seen {
			dead.gone = true
			p.screen.line("%v is out: the last survivor had the new view %v after the kill", dead,
				round(at.Sub(dead.killedAt)))
		}
	}
}

// names returns the names of addresses.
func (p *parent) names(addresses []string) string {
	names := make([]string, len(addresses))
	for i, a := range addresses {
		names[i] = p.name(a)
	}
	return strings.Join(names, " ")
}

// name returns the name of an address, also of a process whose own report is still on its way.
func (p *parent) name(address string) string {
	if k := p.byAddr[address]; k != nil {
		return k.String()
	}
	for _, k := range p.kids {
		if pid := k.peer.pid(); pid != 0 && strings.HasPrefix(address, fmt.Sprintf("(%d:", pid)) {
			return k.String()
		}
	}
	return address
}

func (p *parent) list(what string, addresses []string) string {
	if len(addresses) == 0 {
		return ""
	}
	return what + p.names(addresses)
}

// round makes a duration readable.
func round(d time.Duration) time.Duration {
	if d < 10*time.Millisecond {
		return d.Round(10 * time.Microsecond)
	}
	return d.Round(time.Millisecond)
}
