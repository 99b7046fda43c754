package host

import (
	"github.com/khamsin-io/khamsin/dataplane"
	"github.com/khamsin-io/khamsin/dataplane/clock"
	"github.com/khamsin-io/khamsin/dataplane/frame"
	"github.com/khamsin-io/khamsin/vsync/internal/engine"
)

// Arena returns the arena whose frames deliveries are in.
func (h *Host) Arena() *frame.Arena { return h.arena }

// TransportStats returns what the transport counted.
func (h *Host) TransportStats() dataplane.Stats { return h.transport.Stats() }

// Handle returns the engine's name for the group. It must be called inside Do.
func (g *Group) Handle() engine.Handle { return g.handle }

// Do runs fn while nobody else is in the engine, and tells whether it did: it does not when the host has ended. fn must
// not block.
func (h *Host) Do(fn func(now clock.Time)) bool { return h.doFunc(fn) }

// GiveUp ends the host for a reason, as Kill does, without waiting for the end. What is queued for handlers is still
// handled.
func (h *Host) GiveUp(reason error) { h.setOver(reason) }

// Ending is closed when the group has ended for the engine; Err then says why. Handlers may still run.
func (g *Group) Ending() <-chan struct{} { return g.ending }

// OnHandler tells whether the calling goroutine is running a handler of the group. It costs about a microsecond.
func (g *Group) OnHandler() bool { return g.runsOn(goroutineNumber()) }
