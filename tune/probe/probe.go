package probe

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"github.com/khamsin-io/khamsin/dataplane"
	"github.com/khamsin-io/khamsin/dataplane/clock"
	"github.com/khamsin-io/khamsin/transports/udp"
	"github.com/khamsin-io/khamsin/tune"
	"github.com/khamsin-io/khamsin/tune/hostview"
)

// Config says what is measured. Zero fields take their defaults.
type Config struct {
	Interface string         // default "lo"
	To        netip.AddrPort // the answering process; none: one is started here
	Profile   tune.Profile   // decides which point is best; default tune.Throughput
	Each      time.Duration  // of half a measurement; default DefaultEach
	Rounds    int            // how often everything is measured, the median counts; default DefaultRounds
	Buffer    int            // bytes of the largest receive buffer tried; default that of the transport

	// Progress, when not nil, is told before every measurement how many are done, of how many.
	Progress func(done, total int)
}

// Limits and defaults.
const (
	DefaultEach   = 50 * time.Millisecond
	DefaultRounds = 3
	roundsMax     = 99
	eachMin       = 5 * time.Millisecond
	eachMax       = 10 * time.Second
	defaultBatch  = 64
	windowMax     = 1024 // vsync's own
	windowMin     = 16
)

// Series is one curve: the measurements along one setting, the others as they were best.
type Series struct {
	Setting string  `json:"setting"` // "packet", "batch", "window", "buffer" or "waiting"
	Points  []Point `json:"points"`
	Knee    int     `json:"knee"` // index of the best point
}

// Result is everything that was measured.
type Result struct {
	Interface string       `json:"interface"`
	To        string       `json:"to"` // where the answers came from
	Profile   tune.Profile `json:"profile"`
	Unbroken  int          `json:"unbroken"` // longest payload that goes the path without IP fragments
	Series    []Series     `json:"series"`
	Best      Point        `json:"best"`
}

func (c Config) complete() (Config, error) {
	if c.Interface == "" {
		c.Interface = udp.DefaultInterface
	}
	if c.Profile == "" {
		c.Profile = tune.Throughput
	}
	if c.Each == 0 {
		c.Each = DefaultEach
	}
	if c.Rounds == 0 {
		c.Rounds = DefaultRounds
	}
	if c.Buffer == 0 {
		c.Buffer = udp.DefaultRecvBuffer
	}
	var faults []error
	if c.Each < eachMin || c.Each > eachMax {
		faults = append(faults, fmt.Errorf("probe: %v for each measurement is not from %v to %v", c.Each, eachMin,
			eachMax))
	}
	if c.Rounds < 1 || c.Rounds > roundsMax {
		faults = append(faults, fmt.Errorf("probe: %d rounds are not from 1 to %d", c.Rounds, roundsMax))
	}
	if c.Buffer < bufferMin || c.Buffer > bufferMax {
		faults = append(faults, fmt.Errorf("probe: a buffer of %d is not from %d to %d", c.Buffer, bufferMin,
			bufferMax))
	}
	if !slices.Contains([]tune.Profile{tune.Latency, tune.Throughput, tune.Bulk}, c.Profile) {
		faults = append(faults, fmt.Errorf("probe: profile %q: want latency, throughput or bulk", c.Profile))
	}
	if c.To.IsValid() && (!c.To.Addr().Unmap().Is4() || c.To.Port() == 0) {
		faults = append(faults, fmt.Errorf("probe: %v is not an IPv4 address and a port", c.To))
	}
	return c, errors.Join(faults...)
}

// Run measures.
func Run(ctx context.Context, c Config) (r Result, err error) {
	c, err = c.complete()
	if err != nil {
		return Result{}, err
	}
	p, stop, err := newProber(ctx, c)
	if err != nil {
		return Result{}, err
	}
	defer func() { err = errors.Join(err, stop()) }()
	s := &sweep{Config: c, prober: p, unbroken: p.t.Unbroken(), path: pathTo(p.to.AddrPort().Addr())}
	if err := s.all(ctx); err != nil {
		return Result{}, err
	}
	return Result{
		Interface: c.Interface, To: p.to.String(), Profile: c.Profile, Unbroken: s.unbroken, Series: s.series,
		Best: s.best,
	}, nil
}

// headers are those of IPv4 and UDP.
const headers = 28

// pathTo returns a function that tells the longest payload that the kernel believes to go to a peer without fragments,
// which it learns from what routers answer; zero when it does not know.
func pathTo(peer netip.Addr) func() int {
	return func() int {
		host, err := hostview.Here()
		if err != nil {
			return 0
		}
		mtu, err := host.System().PathMTU(peer)
		if err != nil {
			return 0
		}
		return max(0, mtu-headers)
	}
}

// newProber opens the asking side, and the answering one when it is to be here. The function it returns closes them.
func newProber(ctx context.Context, c Config) (*prober, func() error, error) {
	t, err := open(c.Interface, 0)
	if err != nil {
		return nil, nil, err
	}
	p := &prober{
		t: t, to: dataplane.EndpointOf(c.To), clock: clock.Monotonic(), run: rand.Uint32(),
		in: make([]dataplane.Packet, batchMax),
	}
	if c.To.IsValid() {
		return p, t.Close, nil
	}
	to, stop, err := answerHere(ctx, c.Interface)
	if err != nil {
		return nil, nil, errors.Join(err, t.Close())
	}
	p.to = to
	return p, func() error { return errors.Join(stop(), t.Close()) }, nil
}

// answerHere starts the answering side in this process. The function it returns stops it.
func answerHere(ctx context.Context, iface string) (dataplane.Endpoint, func() error, error) {
	t, err := open(iface, 0)
	if err != nil {
		return dataplane.Endpoint{}, nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- newAnswerer(t).serve(ctx) }()
	return t.Local(), func() error {
		cancel()
		return errors.Join(<-ended, t.Close())
	}, nil
}
