package host

import (
	"log/slog"
	"sync/atomic"

	"github.com/khamsin-io/khamsin/dataplane"
	"github.com/khamsin-io/khamsin/vsync/internal/engine"
)

// journal writes log lines on a goroutine of its own, so that a slow log holds up no turn. It drops lines rather than
// wait, and says how many.
type journal struct {
	logger  *slog.Logger
	lines   chan line
	dropped atomic.Int64
	done    chan struct{}
}

// line is one log line: an event of the engine, or a text.
type line struct {
	event    engine.Event
	hasEvent bool
	text     string
	tuned    string // a decision of the autotuner
	group    string
	channel  dataplane.Channel
	err      error
}

func newJournal(logger *slog.Logger) *journal {
	return &journal{logger: logger, lines: make(chan line, journalMax), done: make(chan struct{})}
}

// add queues a line. Any goroutine, until close.
func (j *journal) add(l line) {
	select {
	case j.lines <- l:
	default:
		j.dropped.Add(1)
	}
}

// close makes run write what is queued and end. Nothing may be added afterwards.
func (j *journal) close() {
	close(j.lines)
	<-j.done
}

func (j *journal) run() {
	defer close(j.done)
	for l := range j.lines {
		if n := j.dropped.Swap(0); n > 0 {
			j.logger.Warn("log lines dropped", "lines", n)
		}
		j.write(l)
	}
}

func (j *journal) write(l line) {
	var args []any
	if l.group != "" {
		args = append(args, "group", l.group)
	}
	if l.channel != 0 {
		args = append(args, "channel", l.channel)
	}
	if l.err != nil {
		args = append(args, "error", l.err)
	}
	if l.tuned != "" {
		j.logger.Info("autotune", "decision", l.tuned)
		return
	}
	if !l.hasEvent {
		j.logger.Error(l.text, args...)
		return
	}
	e := l.event
	if !e.Peer.IsZero() {
		args = append(args, "peer", e.Peer)
	}
	if e.Text != "" {
		args = append(args, "text", e.Text)
	}
	if e.Err != nil {
		args = append(args, "error", e.Err)
	}
	switch e.Kind {
	case engine.EventAttached:
		j.logger.Info("attached", args...)
	case engine.EventEnded:
		j.logger.Info("group ended", args...)
	case engine.EventOver:
		j.logger.Info("system over", args...)
	case engine.EventOracle:
		j.logger.Info("oracle", args...)
	case engine.EventSuspect:
		j.logger.Warn("suspect", args...)
	default:
		j.logger.Warn("engine", args...)
	}
}
