package oob

import (
	"fmt"
	"os"
	"runtime"
	"time"

	"github.com/khamsin-io/khamsin/vsync"
)

// Option changes how a Store works.
type Option func(*settings)

type settings struct {
	transfers int
	dir       string
	loss      float64
	nice      int
	unsided   bool
	spare     int64
	linger    time.Duration
	stack     bool
	inside    func(work func() error) error // of tests: runs it where its member is
}

// Defaults and bounds.
const (
	maxTransfersMax = 256
	defaultNice     = 10
	niceMax         = 19
	defaultSpare    = 48 << 20
	defaultLinger   = time.Second
)

// WithMaxTransfers sets how many transfers run at once in the whole group, from 1 to 256. Each uses a multicast address
// of its own. What the group's first member has counts. The default is Config.MaxTransfers: 4, or what
// ISIS_OOBMAXIPMCADDRS says.
func WithMaxTransfers(n int) Option { return func(s *settings) { s.transfers = n } }

// WithDirectory lets objects be files in a directory, without names, instead of memory: for more bytes than there is
// memory.
func WithDirectory(dir string) Option { return func(s *settings) { s.dir = dir } }

// extraProcs is how many threads may move bytes here before others must share what GOMAXPROCS says.
const extraProcs = 4

// MoreProcs raises GOMAXPROCS by four, unless the environment sets it. A thread that moves bytes holds one of the
// processors that GOMAXPROCS counts even while it gives way to other programs, so on hosts of few cores none may be
// left for what is urgent. Call it once, when a program starts that replicates big objects beside messages that must
// not wait.
func MoreProcs() {
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + extraProcs)
	}
}

// WithSpareMemory sets how many bytes of deleted objects' memory are kept for the next ones of about the same size:
// 48 MiB unless it is set. Filling memory that was used before is much faster than taking fresh memory from the system,
// and disturbs messages less, so where objects follow each other set it to what those that change at a time take
// together. Files in a directory are never kept.
func WithSpareMemory(bytes int64) Option { return func(s *settings) { s.spare = bytes } }

// WithSpareTime sets for how long more than that is kept, for objects that take the place of others: one second unless
// it is set. An object for which nothing fits lets it go before that; zero always does.
func WithSpareTime(d time.Duration) Option { return func(s *settings) { s.linger = d } }

// WithNice sets by how much the threads that move bytes give way to others, 0 to 19; see setpriority(2). The default is
// 10.
func WithNice(n int) Option { return func(s *settings) { s.nice = n } }

// WithoutOneSided lets bytes go by multicast or TCP even where the system's transport could write them from memory to
// memory.
func WithoutOneSided() Option { return func(s *settings) { s.unsided = true } }

// WithoutBypass lets multicasts go by UDP even where the system's transport could carry them past the kernel's network
// stack.
func WithoutBypass() Option { return func(s *settings) { s.stack = true } }

// WithReceiveLoss throws away a share of the packets of transfers that arrive, 0 to 1, each by chance: to measure and
// test what losses do.
func WithReceiveLoss(share float64) Option { return func(s *settings) { s.loss = share } }

func newSettings(c vsync.Config, opts []Option) (settings, error) {
	s := settings{transfers: c.MaxTransfers, nice: defaultNice, spare: defaultSpare, linger: defaultLinger}
	for _, o := range opts {
		o(&s)
	}
	switch {
	case s.transfers < 1 || s.transfers > maxTransfersMax:
		return s, fmt.Errorf("%d transfers at once: want 1 to %d", s.transfers, maxTransfersMax)
	case s.loss < 0 || s.loss >= 1:
		return s, fmt.Errorf("a loss of %v: want at least 0 and less than 1", s.loss)
	case s.spare < 0:
		return s, fmt.Errorf("%d bytes of spare memory", s.spare)
	case s.linger < 0:
		return s, fmt.Errorf("spare memory for %v", s.linger)
	case s.nice < 0 || s.nice > niceMax:
		return s, fmt.Errorf("a niceness of %d: want 0 to %d", s.nice, niceMax)
	}
	return s, nil
}
