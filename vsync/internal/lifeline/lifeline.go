// Package lifeline keeps connections by which the kernel tells that a process is dead. A process listens at a TCP port;
// each of its watchers connects and then waits. When the process ends, however it ends, its kernel closes the
// connection, and the watcher knows within a round trip.
//
// What a connection says is a hint. A cut cable closes nothing; a firewall may close what is alive. So the keeper tries
// to connect again: a process that answers with its own name is alive. What to make of the rest is for the failure
// detector to decide, which asks the process over the other way, the transport.
//
//	listener -> watcher:  "khamsin" | 1 | fingerprint of the incarnation, 8 bytes;  later 'b' when it leaves in order
//	watcher -> listener:  nothing; whoever sends something is cut off
//
// The bytes that name a process are a hash of its incarnation, so a stranger that connects learns nothing that packets
// of the process would be trusted for. A keeper may be used by any goroutine.
package lifeline

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"github.com/khamsin-io/khamsin/vsync/core"
)

// Limits of a keeper.
const (
	heldMax     = 64          // connections to this process that are kept; the eldest goes first
	dialWithin  = time.Second // for a connection, and again for the other side's name
	backoffMin  = 20 * time.Millisecond
	backoffMax  = 5 * time.Second
	greetingLen = 16
	farewell    = 'b'
)

// greeting returns what a process says to whoever connects.
func greeting(incarnation uint64) (g [greetingLen]byte) {
	copy(g[:], "khamsin\x01")
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], incarnation)
	sum := sha256.Sum256(b[:])
	copy(g[8:], sum[:])
	return g
}

// Report is told what becomes of the line to a process: alive false when it was closed at the other end, or cannot be
// opened because nothing, or another process, is there; alive true when the process itself answered after that.
type Report func(incarnation uint64, alive bool)

// Keeper listens for this process's watchers and keeps the lines to those that it watches.
type Keeper struct {
	self     core.Address
	ip       net.IP
	listener net.Listener
	report   Report
	ctx      context.Context
	cancel   context.CancelFunc
	running  sync.WaitGroup

	mu    sync.Mutex
	held  []net.Conn                    // watchers' connections, the eldest first
	lines map[uint64]context.CancelFunc // by incarnation of the process at the other end
	over  bool
}

// Open listens at the address of self, at its own port number over TCP when that is free, else at any. It calls nobody
// before Start.
func Open(self core.Address) (*Keeper, error) {
	ip := netip.AddrFrom16(self.IP).Unmap()
	if !ip.IsValid() || ip.IsUnspecified() {
		return nil, fmt.Errorf("lifeline: %v is no address to listen at", ip)
	}
	lc := net.ListenConfig{KeepAlive: -1}
	listener, err := lc.Listen(context.Background(), "tcp", netip.AddrPortFrom(ip, self.Port).String())
	if err != nil {
		listener, err = lc.Listen(context.Background(), "tcp", netip.AddrPortFrom(ip, 0).String())
	}
	if err != nil {
		return nil, fmt.Errorf("lifeline: %w", err)
	}
	k := &Keeper{self: self, ip: ip.AsSlice(), listener: listener, lines: map[uint64]context.CancelFunc{}}
	k.ctx, k.cancel = context.WithCancel(context.Background())
	return k, nil
}

// Port returns the TCP port where watchers connect.
func (k *Keeper) Port() uint16 { return uint16(k.listener.Addr().(*net.TCPAddr).Port) }

// Start begins to let watchers in. The report is called by goroutines of the keeper, which Close waits for. It must be
// called once, before Want.
func (k *Keeper) Start(report Report) {
	k.report = report
	k.running.Go(k.accept)
}

// Want opens a line to a process, at a port of its address, and keeps it until Drop. It returns at once.
func (k *Keeper) Want(to core.Address, port uint16) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if _, has := k.lines[to.Incarnation]; has || k.over {
		return
	}
	ctx, cancel := context.WithCancel(k.ctx)
	k.lines[to.Incarnation] = cancel
	l := &line{keeper: k, peer: to.Incarnation, backoff: backoffMin,
		to: netip.AddrPortFrom(netip.AddrFrom16(to.IP).Unmap(), port).String()}
	k.running.Go(func() { l.keep(ctx) })
}

// Drop ends the line to a process.
func (k *Keeper) Drop(incarnation uint64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if cancel, has := k.lines[incarnation]; has {
		cancel()
		delete(k.lines, incarnation)
	}
}

// Close ends all lines and waits for the keeper's goroutines. In order, watchers are told that this process leaves and
// is not to be taken for dead.
func (k *Keeper) Close(orderly bool) {
	k.mu.Lock()
	k.over = true
	held := k.held
	k.held = nil
	k.mu.Unlock()
	_ = k.listener.Close()
	for _, c := range held {
		if orderly {
			_ = c.SetWriteDeadline(time.Now().Add(dialWithin)) // an empty buffer takes one byte at once
			_, _ = c.Write([]byte{farewell})
		}
		_ = c.Close()
	}
	k.cancel()
	k.running.Wait()
}

// accept lets watchers in.
func (k *Keeper) accept() {
	for {
		c, err := k.listener.Accept()
		if errors.Is(err, net.ErrClosed) || k.ctx.Err() != nil {
			return
		}
		if err != nil { // out of descriptors, or the watcher is gone again
			select {
			case <-k.ctx.Done():
				return
			case <-time.After(backoffMin):
				continue
			}
		}
		if k.hold(c) {
			k.running.Go(func() { k.serve(c) })
		}
	}
}

// hold lists a watcher's connection, and closes the eldest when there are too many.
func (k *Keeper) hold(c net.Conn) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.over {
		_ = c.Close()
		return false
	}
	k.held = append(k.held, c)
	if len(k.held) > heldMax {
		_ = k.held[0].Close()
		k.held = append(k.held[:0], k.held[1:]...)
	}
	return true
}

// serve says who this process is, and waits until the watcher goes.
func (k *Keeper) serve(c net.Conn) {
	g := greeting(k.self.Incarnation)
	_ = c.SetWriteDeadline(time.Now().Add(dialWithin))
	if _, err := c.Write(g[:]); err == nil {
		_, _ = c.Read(make([]byte, 1)) // nothing comes but the end
	}
	_ = c.Close()
	k.mu.Lock()
	defer k.mu.Unlock()
	for i, x := range k.held {
		if x == c {
			k.held = append(k.held[:i], k.held[i+1:]...)
			return
		}
	}
}

// line is the connection to one process, kept by one goroutine.
type line struct {
	keeper  *Keeper
	peer    uint64
	to      string
	backoff time.Duration
	closed  bool // reported as closed, and not as alive since
}

// verdict is how an attempt to hold the line ended.
type verdict uint8

const (
	unknown verdict = iota // nobody answered, or the connection broke: it may be the network's fault
	gone                   // the other end closed it, or nothing listens there any more, or somebody else does
	left                   // the process said that it leaves
)

// keep opens the line again and again until ctx ends.
func (l *line) keep(ctx context.Context) {
	for ctx.Err() == nil {
		switch l.hold(ctx) {
		case left:
			l.keeper.Drop(l.peer)
			return
		case gone:
			if ctx.Err() == nil {
				l.closed = true
				l.keeper.report(l.peer, false)
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(l.backoff):
			l.backoff = min(2*l.backoff, backoffMax)
		}
	}
}

// hold opens the line once and holds it until it breaks.
func (l *line) hold(ctx context.Context) verdict {
	d := net.Dialer{Timeout: dialWithin, KeepAlive: -1, LocalAddr: &net.TCPAddr{IP: l.keeper.ip}}
	c, err := d.DialContext(ctx, "tcp", l.to)
	if errors.Is(err, syscall.ECONNREFUSED) {
		return gone
	}
	if err != nil {
		return unknown
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { _ = c.Close() })()
	var got [greetingLen]byte
	_ = c.SetReadDeadline(time.Now().Add(dialWithin))
	switch _, err := io.ReadFull(c, got[:]); {
	case err != nil:
		return unknown
	case got != greeting(l.peer):
		return gone
	}
	if l.backoff = backoffMin; l.closed {
		l.closed = false
		l.keeper.report(l.peer, true)
	}
	_ = c.SetReadDeadline(time.Time{})
	n, err := c.Read(got[:1])
	switch {
	case n == 1 && got[0] == farewell:
		return left
	case errors.Is(err, io.EOF):
		return gone
	}
	return unknown
}
