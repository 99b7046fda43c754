package vsync

import (
	"time"

	"github.com/khamsin-io/khamsin/dataplane"
	"github.com/khamsin-io/khamsin/vsync/internal/tuner"
)

// Tuning is what the autotuner set in this process, and why.
type Tuning struct {
	Window        int // packets of this process in one group that may be under way
	Packet        int // bytes of the longest packet of a group
	Batch         int // packets taken from the transport at once
	ReceiveBuffer int // bytes asked for as each socket's receive buffer; zero when the transport has none
	SendBuffer    int

	Decisions []TuningDecision // the last 64, oldest first
	Made      uint64           // decisions ever made
}

// TuningDecision is one change that the autotuner made, or would have made if it were possible.
type TuningDecision struct {
	After   time.Duration // since the system started
	Setting string        // "window", "packet", "batch", "receive buffer" or "send buffer"
	From    int
	To      int
	Why     string
}

// Tuning returns what the autotuner set and why. It returns false when the autotuner is off: WithAutotune(false), or
// ISIS_AUTOTUNE=false.
func (s *System) Tuning() (Tuning, bool) {
	if s == nil {
		return Tuning{}, false
	}
	said, on := s.host.Tuning()
	t := Tuning{
		Window: said.Settings.Window, Packet: said.Settings.Packet, Batch: said.Settings.Batch,
		ReceiveBuffer: said.Settings.ReceiveBuffer, SendBuffer: said.Settings.SendBuffer, Made: said.Made,
	}
	for _, d := range said.Decisions {
		t.Decisions = append(t.Decisions, TuningDecision{
			After: d.At.Sub(0), Setting: d.Setting, From: d.From, To: d.To, Why: d.Why,
		})
	}
	return t, on
}

// Bounds of the autotuner.
const (
	tunedWindowMin = 32
	tunedBufferMax = 64 << 20
)

// tunerConfig returns where the autotuner starts, nil when it is off.
func tunerConfig(c *Config, t dataplane.Transport, packet int) *tuner.Config {
	if !c.Autotune {
		return nil
	}
	batch := c.Batch
	if batch == 0 {
		batch = t.Caps().Batch
	}
	cfg := &tuner.Config{
		Start:     tuner.Settings{Window: c.MaxUnstable, Packet: packet, Batch: min(batch, batchMax)},
		WindowMin: tunedWindowMin, BatchMax: batchMax, BufferMax: tunedBufferMax,
	}
	if _, ok := t.(interface {
		RequestBuffers(receive, send int) (int, int)
	}); ok {
		cfg.Start.ReceiveBuffer, cfg.Start.SendBuffer = c.Buffers()
	}
	if u, ok := t.(interface{ Unbroken() int }); ok {
		cfg.Unbroken = u.Unbroken()
	}
	return cfg
}
