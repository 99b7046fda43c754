package host

import (
	"fmt"
	"sync"

	"github.com/khamsin-io/khamsin/dataplane/clock"
	"github.com/khamsin-io/khamsin/vsync/internal/tuner"
)

// Tuning is what the autotuner set and why.
type Tuning struct {
	Settings  tuner.Settings
	Decisions []tuner.Decision // the last ones, oldest first; times are those of the host's clock
	Made      uint64           // decisions ever made
}

// tunable is an engine that can be tuned; *engine.Engine is.
type tunable interface {
	Losses() (sent, resent uint64)
	Tune(now clock.Time, window, packet int)
}

// buffered is a transport whose socket buffers can be asked for anew.
type buffered interface {
	Buffers() (receive, send int)
	RequestBuffers(receive, send int) (gotReceive, gotSend int)
}

// autotuner drives a tuner at the ends of turns, so that an idle system is not woken for it.
type autotuner struct {
	tuner *tuner.Tuner // the owner's; nil when tuning is off
	due   clock.Time

	mu   sync.Mutex // guards said
	said Tuning
}

// startTuning begins tuning from the settings in force. Only an engine that can be tuned is.
func (h *Host) startTuning(cfg *tuner.Config) {
	if _, ok := h.engine.(tunable); cfg == nil || !ok {
		h.tuning.due = clock.Never
		return
	}
	h.tuning.tuner = tuner.New(*cfg)
	h.tuning.said.Settings = cfg.Start
}

// tune lets the tuner judge, and does what it decides. Owner only, at the end of a turn.
func (h *Host) tune(now clock.Time) {
	a := &h.tuning
	before := a.tuner.Settings()
	_, made := a.tuner.Decisions()
	after := a.tuner.Step(now, h.sample())
	a.due = a.tuner.Due()
	decisions, total := a.tuner.Decisions()
	if total == made {
		return
	}
	if after.Window != before.Window || after.Packet != before.Packet {
		h.engine.(tunable).Tune(now, after.Window, after.Packet)
	}
	if b, ok := h.transport.(buffered); ok &&
		(after.ReceiveBuffer != before.ReceiveBuffer || after.SendBuffer != before.SendBuffer) {
		b.RequestBuffers(after.ReceiveBuffer, after.SendBuffer)
	}
	h.batch.Store(int64(after.Batch))
	fresh := decisions[len(decisions)-int(min(total-made, uint64(len(decisions)))):]
	for _, d := range fresh {
		h.journal.add(line{tuned: fmt.Sprint(d)})
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.said = Tuning{Settings: after, Decisions: append([]tuner.Decision(nil), decisions...), Made: total}
}

// sample counts what the tuner wants to know.
func (h *Host) sample() tuner.Sample {
	st := h.transport.Stats()
	s := tuner.Sample{
		Received: st.ReceivedPackets, Dropped: st.ReceiveDropped, Calls: st.ReceiveCalls, SendDropped: st.SendNoRoom,
	}
	s.Sent, s.Resent = h.engine.(tunable).Losses()
	if b, ok := h.transport.(buffered); ok {
		s.ReceiveBuffer, s.SendBuffer = b.Buffers()
	}
	return s
}

// Tuning returns what the autotuner set and why, and false when it is off.
func (h *Host) Tuning() (Tuning, bool) {
	h.tuning.mu.Lock()
	defer h.tuning.mu.Unlock()
	said := h.tuning.said
	return said, h.tuning.tuner != nil
}
