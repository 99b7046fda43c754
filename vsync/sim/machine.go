package sim

import (
	"github.com/khamsin-io/khamsin/dataplane"
	"github.com/khamsin-io/khamsin/dataplane/clock"
	"github.com/khamsin-io/khamsin/vsync/core"
	"github.com/khamsin-io/khamsin/vsync/internal/engine"
)

// machine is what the simulator needs of an engine; *engine.Engine outside of this package's own tests.
type machine interface {
	Start(now clock.Time)
	Receive(now clock.Time, batch []dataplane.Packet)
	Tick(now clock.Time)
	Deadline() clock.Time
	Output() *engine.Output
	Join(now clock.Time, req engine.JoinRequest) engine.Handle
	Leave(now clock.Time, h engine.Handle)
	Terminate(now clock.Time, h engine.Handle)
	Submit(now clock.Time, h engine.Handle, f core.Flavour, head, body []byte) engine.Result
	SubmitTo(now clock.Time, h engine.Handle, to core.Address, msg []byte) engine.Result
	Flush(now clock.Time, h engine.Handle, k int, token uint64)
	StateChunk(now clock.Time, transfer uint64, data []byte, last bool) engine.Result
	Consumed(now clock.Time, h engine.Handle, packets int)
	ConsumedPeers(now clock.Time, h engine.Handle, messages, bytes int)
	Report(now clock.Time, h engine.Handle, who core.Address, reason string) error
	LineClosed(now clock.Time, incarnation uint64)
	LineOpen(now clock.Time, incarnation uint64)
	Stop(now clock.Time)
	View(h engine.Handle) *core.View
	System() uint32
	Quorums() [][]uint64
	Release()
}

// newEngine returns the real engine.
func newEngine(cfg engine.Config) (machine, error) {
	e, err := engine.New(cfg)
	if err != nil {
		return nil, err
	}
	return e, nil
}
