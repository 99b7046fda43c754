//go:build cgo && rdma

package field

import (
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/khamsin-io/khamsin/dataplane"
	"github.com/khamsin-io/khamsin/dataplane/transporttest"
	"github.com/khamsin-io/khamsin/vsync"
)

// device is an RDMA device that the processes of all hosts share. What they send each other passes no filter of the
// kernel, so each process's transport loses packets on arrival.
type device struct {
	itf  string
	loss atomic.Int64 // thousandths
	cut  atomic.Int64 // host that is cut off; negative: none
	lost atomic.Int64 // packets

	mu   sync.Mutex
	host map[dataplane.Endpoint]int64
}

// newDevice returns the device that the environment names.
func newDevice(t *testing.T) *device {
	t.Helper()
	d := &device{itf: transporttest.RDMAInterface(t), host: map[dataplane.Endpoint]int64{}}
	d.cut.Store(-1)
	return d
}

func (d *device) do(_ int, fn func()) { fn() }

// ip is of no use here: processes find each other by multicast.
func (d *device) ip(int) netip.Addr { return netip.Addr{} }

func (d *device) place(host int, c *vsync.Config) {
	c.Interfaces = []string{d.itf}
	c.Transport = func(c *vsync.Config) (dataplane.Transport, error) {
		t, err := vsync.RDMA()(c)
		if err != nil {
			return nil, err
		}
		d.mu.Lock()
		defer d.mu.Unlock()
		d.host[t.Local()] = int64(host)
		return &loser{Transport: t, device: d, host: int64(host)}, nil
	}
}

func (d *device) weather(_ *testing.T, thousandths, cut int) {
	d.loss.Store(int64(thousandths))
	d.cut.Store(int64(cut))
}

// loses decides on a packet that comes to a host.
func (d *device) loses(to int64, from dataplane.Endpoint) bool {
	d.mu.Lock()
	sender, known := d.host[from]
	d.mu.Unlock()
	cut := d.cut.Load()
	return known && (sender == cut) != (to == cut) || rand.Int64N(1000) < d.loss.Load()
}

// loser is a transport that loses packets.
type loser struct {
	dataplane.Transport
	device *device
	host   int64
}

// Receive is the transport's, with losses. A batch that is lost as a whole looks like a wait that ran out.
func (l *loser) Receive(batch []dataplane.Packet, wait dataplane.Wait) (int, error) {
	n, err := l.Transport.Receive(batch, wait)
	kept := 0
	for i := range batch[:n] {
		if l.device.loses(l.host, batch[i].From) {
			l.device.lost.Add(1)
			l.Arena().Release(batch[i].Frame)
			continue
		}
		batch[kept] = batch[i]
		kept++
	}
	clear(batch[kept:n])
	return kept, err
}

// Over RDMA, where the processors may be emulated: detection and traffic are slow enough for them.
//
// rows: TRN-09
func TestRDMACheckers(t *testing.T) {
	d := newDevice(t)
	f := newField(t, 1, func(*testing.T) ground { return d }, func(c *vsync.Config) {
		c.Network.Hosts, c.Discovery = nil, patience/2
		c.Heartbeat, c.SuspectAfter = 250*time.Millisecond, 4*time.Second
	})
	f.pace = 40 * time.Millisecond
	f.run(rounds(t), 20)
	if d.lost.Load() == 0 {
		t.Error("no packet was lost")
	}
	t.Logf("AGREE: the simulator's checkers over RDMA, %d packets lost: %s", d.lost.Load(), f.story.Summary())
}
