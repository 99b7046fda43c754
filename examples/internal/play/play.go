// Package play runs example programs in tests, on a network of their own in memory, and keeps what they print. Only
// tests import it.
package play

import (
	"bytes"
	"context"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/khamsin-io/khamsin/transports/mem"
	"github.com/khamsin-io/khamsin/vsync"
)

// limit bounds a run.
const limit = 20 * time.Second

// Program is the run function of an example.
type Program func(ctx context.Context, out io.Writer, opts ...vsync.Option) error

// screen is what a program printed. Handlers print from goroutines of their own.
type screen struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *screen) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(b)
}

func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// Options returns the options for systems that share a network in memory.
func Options(hub *mem.Hub) []vsync.Option {
	return []vsync.Option{
		vsync.WithTransport(vsync.Mem(hub)), vsync.WithDiscovery(50 * time.Millisecond), vsync.WithMute(),
		vsync.WithSuspectAfter(10 * time.Second), // nobody crashes here, however busy the machine is
	}
}

// Run runs a program and returns what it printed. Options override those of the network in memory.
func Run(t testing.TB, program Program, opts ...vsync.Option) string {
	t.Helper()
	out := new(screen)
	if err := program(Context(t), out, append(Options(mem.NewHub()), opts...)...); err != nil {
		t.Fatalf("%v; it printed:\n%s", err, out)
	}
	return out.String()
}

// Context ends when the test does, or when it took too long.
func Context(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	t.Cleanup(cancel)
	return ctx
}
