//go:build cgo && rdma

package rdma

// #include "verbs.h"
import "C"

import (
	"errors"
	"net/netip"
	"sync"
	"time"
	"unsafe"

	"github.com/khamsin-io/khamsin/dataplane/clock"
)

const (
	pathsMax     = 4096                   // hosts and channels that are remembered
	pathPause    = 2 * time.Millisecond   // that a Send waits for an address that it needs for the first time,
	pathPatience = 250 * time.Millisecond // and how long it then holds its caller up, before it drops
	pathRetry    = 2 * time.Second        // before an address that was not found is looked up again
)

// paths remembers the address handles of hosts and channels. To make one the kernel looks up the way, and asks the
// network for a hardware address, which can take a second: so it is done beside the sender. Meanwhile packets are not
// accepted, for a while, and then dropped, so that one host that is gone does not hold up what goes to others.
type paths struct {
	t    *Transport
	last struct { // consecutive packets often go the same way
		to [16]byte
		ah uint64
	}
	table map[[16]byte]*way
	work  sync.WaitGroup
}

// way is the way to one address. ah, err and until are written before done is closed.
type way struct {
	done    chan struct{}
	patient clock.Time // packets wait for the outcome until then
	ah      handle
	until   clock.Time // there is no way, and looking for one again is in vain, until then
}

func (p *paths) init(t *Transport) {
	p.t = t
	p.table = make(map[[16]byte]*way)
}

// find returns the address handle for an address, 0 when there is none. With pending it may be known soon.
func (p *paths) find(to [16]byte) (ah uint64, pending bool) {
	if p.last.ah != 0 && p.last.to == to {
		return p.last.ah, false
	}
	w := p.table[to]
	if w == nil {
		if w = p.resolve(to); w == nil {
			return 0, false
		}
	}
	select {
	case <-w.done:
	default:
		return 0, p.t.clock.Now() < w.patient
	}
	if w.ah == nil {
		if p.t.clock.Now() >= w.until {
			delete(p.table, to) // the next packet tries again
		}
		return 0, false
	}
	p.last.to, p.last.ah = to, uint64(uintptr(w.ah))
	return p.last.ah, false
}

// resolve starts looking for the way to an address, and waits a little for the outcome; nil when it is none that a
// packet can be sent to.
func (p *paths) resolve(to [16]byte) *way {
	addr := netip.AddrFrom16(to).Unmap()
	broadcast := netip.AddrFrom4([4]byte{255, 255, 255, 255})
	group := p.t.infiniband() && addr.Is4() && addr.IsMulticast()
	if addr.IsUnspecified() || addr == broadcast || !group && addr.Is4() != p.t.gid.addr.Is4In6() {
		return nil
	}
	if len(p.table) >= pathsMax && !p.forget() {
		return nil
	}
	destination := p.t.device.destination(to, p.t.gid.index, p.t.cfg.TTL)
	if p.t.infiniband() && !group {
		if destination.dlid = C.uint16_t(p.t.lids.of(to)); destination.dlid == 0 {
			return nil // it was not heard yet; the next packet looks again
		}
	}
	w := &way{done: make(chan struct{}), patient: p.t.clock.Now().Add(pathPatience)}
	p.table[to] = w
	p.work.Go(func() {
		var err error
		if group {
			err = p.t.toGroup(addr, destination)
		}
		if err == nil {
			err = fault("address handle", C.kh_create_ah(p.t.device.pd, destination, &w.ah))
		}
		if err != nil {
			w.ah, w.until = nil, p.t.clock.Now().Add(pathRetry)
			p.t.log.Warn("rdma: no way to a host", "to", addr, "error", err)
		}
		close(w.done)
	})
	timer := time.NewTimer(pathPause)
	defer timer.Stop()
	select {
	case <-w.done:
	case <-timer.C:
	}
	return w
}

// toGroup makes a destination that of a group over InfiniBand, whose identifier only its members know: so this process
// becomes one, until the manager is closed.
func (t *Transport) toGroup(group netip.Addr, destination *C.kh_peer) error {
	_, at, err := t.groups.manager.join(group)
	if err != nil {
		return err
	}
	for i, b := range at.mgid {
		destination.dgid[i] = C.uint8_t(b)
	}
	destination.dlid, destination.sl, destination.rate = C.uint16_t(at.mlid), C.uint8_t(at.sl), C.uint8_t(at.rate)
	return nil
}

// forget empties the table, unless the device may still use what is in it.
func (p *paths) forget() bool {
	if p.t.sender.head != p.t.sender.tail {
		return false
	}
	if err := p.close(); err != nil {
		p.t.log.Warn("rdma: address handles", "error", err)
	}
	return true
}

// close destroys all address handles.
func (p *paths) close() error {
	p.work.Wait()
	var errs []error
	for _, w := range p.table {
		if w.ah != nil {
			errs = append(errs, fault("address handle", C.kh_destroy_ah(w.ah)))
		}
	}
	clear(p.table)
	p.last.ah = 0
	return errors.Join(errs...)
}

// address returns where bytes outside the Go heap lie.
func address(b []byte) uintptr { return uintptr(unsafe.Pointer(unsafe.SliceData(b))) }
