package sim

import "time"

// lineDelayMax bounds how long a process's end takes to reach those who hold a line to it.
const lineDelayMax = 2 * time.Millisecond

// Values of eventLine's argument, below the number of the process at the other end.
const (
	lineClosed = iota
	lineOpen
	lineWords
)

// closeLines makes the kernel of a process that crashed tell everybody: those who do not watch it do not listen. It
// reaches nobody on the other side of a partition.
func (w *World) closeLines(dead *process) {
	if !w.weather.Lines {
		return
	}
	for _, p := range w.live {
		at := w.now.Add(w.lineDraw.upTo(lineDelayMax))
		w.agenda.add(event{at: at, kind: eventLine, proc: p, arg: dead.record.id*lineWords + lineClosed})
	}
}

// breakLine closes a line between two processes that live. In half of the cases it is open again soon after.
func (w *World) breakLine() {
	if len(w.live) < 2 {
		return
	}
	from := w.live[w.lineDraw.IntN(len(w.live))]
	to := w.live[w.lineDraw.IntN(len(w.live))]
	if from == to {
		return
	}
	w.trace.printf(w.now, from.name(), "loses its line to %s, which lives", to.name())
	arg := to.record.id * lineWords
	w.agenda.add(event{at: w.now, kind: eventLine, proc: from, arg: arg + lineClosed})
	if w.lineDraw.chance(0.5) {
		at := w.now.Add(w.lineDraw.upTo(lineDelayMax))
		w.agenda.add(event{at: at, kind: eventLine, proc: from, arg: arg + lineOpen})
	}
}

// onLine tells a process what became of a line.
func (p *process) onLine(arg int) {
	other := p.w.history.processes[arg/lineWords]
	if n := p.w.net; n.side != nil && n.sideOf(p.node) != n.sideOf(n.w.nodes[other.node-1]) {
		return
	}
	if arg%lineWords == lineOpen {
		if other.fate == alive {
			p.engine.LineOpen(p.now(), other.addr.Incarnation)
		}
		return
	}
	p.engine.LineClosed(p.now(), other.addr.Incarnation)
}
