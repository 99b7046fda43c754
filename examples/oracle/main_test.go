package main

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/khamsin-io/khamsin/examples/internal/play"
	"github.com/khamsin-io/khamsin/transports/mem"
	"github.com/khamsin-io/khamsin/vsync"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rows: EXA-05, LIF-16
func TestOracleServesAProcessThatMayNotFound(t *testing.T) {
	ctx, opts := play.Context(t), play.Options(mem.NewHub())
	serving, stop := context.WithCancel(ctx)
	defer stop()
	var out bytes.Buffer
	ended := make(chan error, 1)
	go func() { ended <- run(serving, &out, opts...) }()

	sys, err := vsync.Start(ctx, append(opts, vsync.WithEligible(false), vsync.WithDiscovery(5*time.Second))...)
	if err != nil {
		t.Fatal(err)
	}
	g := sys.NewGroup("g")
	if err := g.Join(ctx); err != nil {
		t.Fatal(err)
	}
	if st := sys.State(); st.Leader || len(st.Oracle) != 1 || st.Oracle[0] == sys.Address() {
		t.Errorf("the process takes part in the service: %+v", st)
	}
	if err := sys.Close(); err != nil {
		t.Fatal(err)
	}
	stop()
	if err := <-ended; err != nil || !strings.Contains(out.String(), `serves system "khamsin"`) {
		t.Errorf("%v, %q", err, out.String())
	}
}
