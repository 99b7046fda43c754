package host

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/khamsin-io/khamsin/dataplane/clock"
	"github.com/khamsin-io/khamsin/vsync/core"
	"github.com/khamsin-io/khamsin/vsync/internal/engine"
)

// engineAddress is any address.
var engineAddress = core.Address{Port: 1, Incarnation: 1}

func TestCloseReleasesWhoeverWaits(t *testing.T) {
	bothModels(t, func(t *testing.T, m Model) {
		r := newRig(t, func(c *Config, e *fakeEngine, _ *fakeTransport) { c.Model, e.window = m, 1 })
		entered := make(chan struct{}, 1)
		g := r.join("g", &fakeApp{cast: func(ctx context.Context, _ []byte) {
			entered <- struct{}{}
			<-ctx.Done()
		}})
		must(t, g.Submit(t.Context(), 0, Head{}, number(1)))
		<-entered
		blocked := make(chan error, 1)
		go func() { blocked <- submitUntilError(context.Background(), g) }()
		r.close()
		if err := <-blocked; !errors.Is(err, engine.ErrStopped) {
			t.Fatalf("blocked Submit after Close: %v", err)
		}
		must(t, r.host.Close()) // again
		if err := r.host.NewGroup("h", &fakeApp{}, false).Join(t.Context(), engine.JoinRequest{}); !errors.Is(err,
			ErrEnded) {
			t.Fatalf("Join after Close: %v", err)
		}
	})
}

func TestCloseInsideAHandler(t *testing.T) {
	r := newRig(t, nil)
	g := r.join("g", &fakeApp{cast: func(context.Context, []byte) { _ = r.host.Close() }})
	must(t, g.Submit(t.Context(), 0, Head{}, number(1)))
	<-r.host.Done()
}

func TestCloseWithoutAnAnswerFromTheSystem(t *testing.T) {
	r := newRig(t, func(c *Config, e *fakeEngine, _ *fakeTransport) { c.CloseWait, e.stop = 10*time.Millisecond, true })
	g := r.join("g", &fakeApp{})
	<-r.host.Attached()
	_ = r.host.Close()
	<-r.host.Done()
	if !errors.Is(g.Err(), engine.ErrStopped) {
		t.Fatalf("group ended by %v", g.Err())
	}
}

func TestCloseSaysThatAHandlerIsStuck(t *testing.T) {
	r := newRig(t, func(c *Config, _ *fakeEngine, _ *fakeTransport) { c.CloseWait = 10 * time.Millisecond })
	release, entered := make(chan struct{}), make(chan struct{})
	g := r.join("g", &fakeApp{cast: func(context.Context, []byte) { close(entered); <-release }})
	must(t, g.Submit(t.Context(), 0, Head{}, number(1)))
	<-entered
	if err := r.host.Close(); !errors.Is(err, ErrStuck) {
		t.Fatalf("Close with a stuck handler: %v", err)
	}
	close(release)
	<-r.host.Done()
}

func TestKillDropsWhatIsQueued(t *testing.T) {
	bothModels(t, func(t *testing.T, m Model) {
		r := newRig(t, func(c *Config, _ *fakeEngine, _ *fakeTransport) { c.Model = m })
		handled, entered := 0, make(chan struct{}, 1)
		g := r.join("g", &fakeApp{cast: func(ctx context.Context, _ []byte) {
			handled++
			entered <- struct{}{}
			<-ctx.Done()
			<-r.host.dead
		}})
		for n := range uint64(50) {
			must(t, g.Submit(t.Context(), 0, Head{}, number(n)))
		}
		<-entered
		r.host.Kill()
		if handled != 1 {
			t.Fatalf("%d messages handled, want the one in progress only", handled)
		}
		if err := g.Submit(t.Context(), 0, Head{}, number(1)); !errors.Is(err, ErrKilled) {
			t.Fatalf("Submit after Kill: %v", err)
		}
	})
}

// rows: LIF-17
func TestPoisonEndsEverything(t *testing.T) {
	r := newRig(t, nil)
	app := &fakeApp{}
	g := r.join("g", app)
	r.host.doFunc(func(clock.Time) { r.engine.over(engine.ErrPoisoned) })
	<-r.host.Done()
	if !errors.Is(r.host.Err(), engine.ErrPoisoned) || !errors.Is(g.Err(), engine.ErrPoisoned) || app.ends.Load() != 1 {
		t.Fatalf("host %v, group %v, ends %d", r.host.Err(), g.Err(), app.ends.Load())
	}
}

func TestPanicHandlerIsCalled(t *testing.T) {
	reasons := make(chan any, 1)
	r := newRig(t, func(c *Config, _ *fakeEngine, _ *fakeTransport) {
		c.OnPanic = func(_ string, reason any) { reasons <- reason }
	})
	g := r.join("g", &fakeApp{cast: func(context.Context, []byte) { panic("boom") }})
	must(t, g.Submit(t.Context(), 0, Head{}, number(1)))
	if got := <-reasons; got != "boom" {
		t.Fatalf("panic handler got %v", got)
	}
	r.close() // fails when the frame was not released
}
