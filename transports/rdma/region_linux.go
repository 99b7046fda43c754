//go:build cgo && rdma

package rdma

// #include "verbs.h"
import "C"

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/khamsin-io/khamsin/dataplane"
)

// noticesMax is how many notices wait for Await; behind them, writers wait.
const noticesMax = 1024

// notice is what Await returns.
type notice struct {
	value uint32
	err   error
}

// region is a dataplane.Region.
type region struct {
	t       *Transport
	mem     []byte
	own     bool // mem was mapped here
	mr      handle
	key     key // of those that writers can reach
	notices chan notice
	closed  chan struct{}
	once    sync.Once
	err     error          // of closing
	use     sync.RWMutex   // held for reading while a write reads the memory
	links   sync.WaitGroup // writers' connections
}

var (
	_ dataplane.OneSided = (*Transport)(nil)
	_ dataplane.Region   = (*region)(nil)
	_ dataplane.Writer   = (*writer)(nil)
)

// OpenRegion returns memory that writers reach by TCP on the device's address, and then write to directly.
func (t *Transport) OpenRegion(size int) (dataplane.Region, error) {
	if size < 1 || size > regionMax {
		return nil, fmt.Errorf("rdma: region of %d bytes: want 1 to %d", size, regionMax)
	}
	mem, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_ANON)
	if err != nil {
		return nil, fmt.Errorf("rdma: map %d bytes: %w", size, err)
	}
	r, err := t.newRegion(mem, true)
	if err != nil {
		return nil, errors.Join(err, unix.Munmap(mem))
	}
	r.own = true
	return r, nil
}

// Register makes a region of the caller's memory. One that is not open is unknown to writers, and the device refuses
// their writes as well.
func (t *Transport) Register(memory []byte, open bool) (dataplane.Region, error) {
	if len(memory) < 1 || len(memory) > regionMax {
		return nil, fmt.Errorf("rdma: region of %d bytes: want 1 to %d", len(memory), regionMax)
	}
	r, err := t.newRegion(memory, open)
	if err != nil {
		return nil, err
	}
	return r, nil
}

func (t *Transport) newRegion(mem []byte, open bool) (*region, error) {
	if err := t.sided.enter(); err != nil {
		return nil, err
	}
	defer t.sided.work.Done()
	r := &region{t: t, mem: mem, notices: make(chan notice, noticesMax), closed: make(chan struct{})}
	if open {
		host, err := t.sided.listen(t)
		if err != nil {
			return nil, err
		}
		r.key = key{host: host, addr: uint64(address(mem)), size: uint64(len(mem))}
	}
	_, _ = rand.Read(r.key.token[:]) // never fails: see crypto/rand
	var err error
	if r.mr, err = t.device.register(mem, open); err != nil {
		return nil, err
	}
	r.key.rkey = uint32(C.kh_rkey(r.mr))
	if err := t.sided.addRegion(r); err != nil {
		return nil, errors.Join(err, deregister(r.mr))
	}
	return r, nil
}

// Bytes returns the memory.
func (r *region) Bytes() []byte { return r.mem }

// Key returns what a writer needs; nil when none can write.
func (r *region) Key() []byte {
	if !r.open() {
		return nil
	}
	return r.key.marshal()
}

func (r *region) open() bool { return r.key.size > 0 }

// Await waits for the next notice.
func (r *region) Await(ctx context.Context) (uint32, error) {
	select {
	case n := <-r.notices:
		return n.value, n.err
	case <-r.closed:
		return 0, dataplane.ErrClosed
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
}

// Close ends all connections and frees the memory.
func (r *region) Close() error {
	r.once.Do(func() {
		r.t.sided.removeRegion(r)
		close(r.closed)
		r.links.Wait()
		r.use.Lock()
		defer r.use.Unlock()
		r.err = r.free()
	})
	return r.err
}

func (r *region) free() error {
	err := deregister(r.mr)
	if r.own {
		err = errors.Join(err, unix.Munmap(r.mem))
	}
	r.mem = nil
	return err
}

// serve is the life of a writer's connection, from behind its hello.
func (r *region) serve(conn *net.TCPConn, h hello) error {
	l, err := r.t.newLink(1, linkBuffers)
	if err != nil {
		return err
	}
	defer func() {
		if err := l.close(); err != nil {
			r.t.log.Warn("rdma: close connection", "error", err)
		}
	}()
	if err := fault("receive buffers", C.kh_post_empty(l.pair, linkBuffers)); err != nil {
		return err
	}
	if err := l.connect(h.pair); err != nil {
		return err
	}
	if _, err := conn.Write(marshalWelcome(l.self)); err != nil {
		return err
	}
	var watch sync.WaitGroup
	over := make(chan struct{})
	orderly := false
	watch.Go(func() { // until the writer says farewell, or is gone
		defer close(over)
		orderly = waitFarewell(conn)
		l.kick()
	})
	watch.Go(func() {
		select {
		case <-r.closed:
			_ = conn.Close()
		case <-over:
		}
	})
	r.relay(l, over)
	_ = conn.Close()
	watch.Wait()
	if !orderly {
		select {
		case r.notices <- notice{err: dataplane.ErrPeerGone}:
		case <-r.closed:
		}
	}
	return nil
}

// relay hands on notices until the connection is over.
func (r *region) relay(l *link, over <-chan struct{}) {
	for {
		n, err := l.next()
		if err != nil {
			return
		}
		for i := range n {
			wc := &l.board.done[i]
			if wc.status != statusSuccess {
				return
			}
			if wc.flags&C.KH_IMM == 0 {
				continue
			}
			select {
			case r.notices <- notice{value: uint32(wc.imm)}:
			case <-r.closed:
				return
			case <-over:
				select { // its last words still count
				case r.notices <- notice{value: uint32(wc.imm)}:
				default:
					return
				}
			}
		}
		if C.kh_post_empty(l.pair, C.int(n)) != 0 {
			return
		}
	}
}

// oneSided is what a transport keeps of regions and writers.
type oneSided struct {
	mu       sync.Mutex
	closed   bool
	listener *net.TCPListener
	regions  map[token]*region
	writers  map[*writer]bool
	calls    map[*net.TCPConn]bool // connections whose hello has not come
	callers  chan struct{}         // limits how many are served at a time
	work     sync.WaitGroup
}

const (
	callersMax  = 256                    // writers that a process serves at a time
	acceptPause = 100 * time.Millisecond // before the next call is taken, when one could not be
)

func (o *oneSided) init() {
	o.regions, o.writers = make(map[token]*region), make(map[*writer]bool)
	o.calls = make(map[*net.TCPConn]bool)
	o.callers = make(chan struct{}, callersMax)
}

// enter keeps close waiting until work.Done, or says that it is too late.
func (o *oneSided) enter() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return dataplane.ErrClosed
	}
	o.work.Add(1)
	return nil
}

// listen opens the TCP socket, when it is not yet open, and returns its address.
func (o *oneSided) listen(t *Transport) (netip.AddrPort, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed { // after enter
		return netip.AddrPort{}, dataplane.ErrClosed
	}
	if o.listener == nil {
		l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(t.ip, 0)))
		if err != nil {
			return netip.AddrPort{}, fmt.Errorf("rdma: socket for connections: %w", err)
		}
		o.listener = l
		o.work.Go(func() { o.accept(t, l) })
	}
	return o.listener.Addr().(*net.TCPAddr).AddrPort(), nil
}

// accept takes calls until the listener is closed.
func (o *oneSided) accept(t *Transport, l *net.TCPListener) {
	for {
		conn, err := l.AcceptTCP()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil:
			t.log.Warn("rdma: a connection could not be accepted", "error", err)
			time.Sleep(acceptPause) // what is missing, descriptors perhaps, is not there at once
			continue
		}
		select {
		case o.callers <- struct{}{}:
		default:
			_ = conn.Close()
			t.log.Warn("rdma: a writer was turned away: too many are connected", "from", conn.RemoteAddr())
			continue
		}
		o.work.Go(func() {
			defer func() { <-o.callers }()
			if err := o.answer(conn); err != nil {
				t.log.Warn("rdma: a writer's connection failed", "from", conn.RemoteAddr(), "error", err)
			}
			_ = conn.Close()
		})
	}
}

// answer reads a caller's hello and serves it.
func (o *oneSided) answer(conn *net.TCPConn) error {
	o.mu.Lock()
	o.calls[conn] = true
	if o.closed {
		_ = conn.Close()
	}
	o.mu.Unlock()
	var b [helloBytes]byte
	err := readWithin(conn, b[:])
	o.mu.Lock()
	delete(o.calls, conn)
	o.mu.Unlock()
	if err != nil {
		return err
	}
	h, err := parseHello(b[:])
	if err != nil {
		return err
	}
	r := o.find(h.token)
	if r == nil {
		return errors.New("no region has its token")
	}
	defer r.links.Done()
	return r.serve(conn, h)
}

// find returns the region of a token, with one more link; nil when there is none.
func (o *oneSided) find(t token) *region {
	o.mu.Lock()
	defer o.mu.Unlock()
	for have, r := range o.regions { // a few; compared in constant time
		if subtle.ConstantTimeCompare(have[:], t[:]) == 1 && r.open() && !o.closed {
			r.links.Add(1)
			return r
		}
	}
	return nil
}

func (o *oneSided) addRegion(r *region) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return dataplane.ErrClosed
	}
	o.regions[r.key.token] = r
	return nil
}

func (o *oneSided) removeRegion(r *region) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.regions, r.key.token)
}

// close closes all writers and regions.
func (o *oneSided) close() error {
	o.mu.Lock()
	o.closed = true
	var errs []error
	if o.listener != nil {
		errs = append(errs, o.listener.Close())
	}
	var closers []interface{ Close() error }
	for w := range o.writers {
		closers = append(closers, w)
	}
	for conn := range o.calls {
		_ = conn.Close()
	}
	for _, r := range o.regions {
		closers = append(closers, r)
	}
	o.mu.Unlock()
	for _, c := range closers {
		errs = append(errs, c.Close())
	}
	o.work.Wait()
	return errors.Join(errs...)
}
