package host

import (
	"errors"
	"fmt"
	"runtime"
	"time"

	"github.com/khamsin-io/khamsin/dataplane/clock"
	"github.com/khamsin-io/khamsin/vsync/internal/engine"
)

// Errors of closing.
var (
	ErrKilled = errors.New("killed")
	ErrStuck  = errors.New("a handler does not return")
)

// Close leaves all groups and the system in order and returns when every goroutine has ended and the transport is
// closed. It waits at most CloseWait for the system to let this process go, which it then leaves as a crash would, and
// as long again for handlers: then it returns ErrStuck, and the memory that a stuck handler may be reading is freed
// when it returns. Called inside a handler, it closes in the background and returns at once.
func (h *Host) Close() error {
	inside := h.insideAny()
	h.stopOnce.Do(func() { close(h.stopAsked) })
	if inside {
		return nil
	}
	timer := time.NewTimer(2 * h.cfg.CloseWait)
	defer timer.Stop()
	select {
	case <-h.done:
		return h.doneErr
	case <-timer.C:
		return ErrStuck
	}
}

// Kill stops at once, without telling anybody: to other processes it looks like a crash. It returns when all goroutines
// have ended and the transport is closed; it must not be called inside a handler.
func (h *Host) Kill() {
	h.setOver(ErrKilled)
	<-h.done
}

// insideAny tells whether the caller runs in a handler of any group.
func (h *Host) insideAny() bool {
	self := goroutineNumber()
	found := false
	h.doFunc(func(clock.Time) {
		for _, g := range h.own.groups {
			if g != nil && g.runsOn(self) {
				found = true
			}
		}
	})
	return found
}

// undertake waits for the end and then takes everything down.
func (h *Host) undertake() {
	select {
	case <-h.over:
	case <-h.stopAsked:
		h.doFunc(func(now clock.Time) { h.engine.Stop(now) })
		timer := time.NewTimer(h.cfg.CloseWait)
		defer timer.Stop()
		select {
		case <-h.over:
		case <-timer.C:
			h.setOver(fmt.Errorf("%w: no answer from the system within %v", engine.ErrStopped, h.cfg.CloseWait))
		}
	}
	h.tearDown()
}

// tearDown ends the goroutines, gives every frame back and closes the transport.
func (h *Host) tearDown() {
	h.joining.Lock()
	h.ended = true
	h.joining.Unlock()

	h.stopping.Store(true)
	h.ring()
	h.streams.kick()
	for !h.owner.CompareAndSwap(ownFree, ownDead) {
		runtime.Gosched()
	}
	h.killed.Store(errors.Is(h.overErr, ErrKilled))
	if !h.killed.Load() {
		h.send(h.clock.Now(), nil) // what still waits; a last try
	}
	for _, g := range h.own.groups {
		if g != nil {
			g.end(h.overErr)
		}
	}
	h.wakeQueues()
	close(h.dead)

	if h.cfg.Lines != nil {
		h.cfg.Lines.Close(errors.Is(h.overErr, engine.ErrStopped))
	}
	h.transport.Wake()
	h.workers.Wait()
	h.groups.Wait()

	h.engine.Release()
	h.releasePackets(h.own.unsent)
	for p, ok := h.rx.Pop(); ok; p, ok = h.rx.Pop() {
		h.arena.Release(p.Frame)
	}
	if h.cfg.OnClose != nil {
		h.cfg.OnClose()
	}
	h.doneErr = h.transport.Close() // an error when a frame was not released
	h.journal.close()
	close(h.done)
}
