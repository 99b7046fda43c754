package perf

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"golang.org/x/sys/unix"
)

// floorServer is a member's side of the floor's measurements: raw sockets, one goroutine with a thread of its own.
type floorServer struct {
	running atomic.Bool
	done    chan struct{}
	clock   hostClock
	ages    *hdrhistogram.Histogram // of what an echo got
	count   uint64
	err     error

	close     func() error  // of what serves
	processor time.Duration // of a way's receiver
}

// rawWait bounds a receive that sleeps, so that the end of a measurement is noticed and a lost packet hangs nothing.
const rawWait = 20 * time.Millisecond

// do carries out one step.
func (f *floorServer) do(ctx context.Context, o *floorOrder) (*floorReport, error) {
	switch {
	case o.Alone:
		return f.alone(), nil
	case o.Stop:
		err := f.stop()
		r := &floorReport{Count: f.count, Processor: f.processor.Seconds()}
		if f.ages != nil {
			r.Latency = latencyOf(f.ages)
		}
		return r, err
	case o.Way != "":
		return f.doWay(ctx, o)
	case o.Echo:
		return &floorReport{}, f.serve(o, func(s int) { f.echo(s, o.Spin) })
	case o.Sink > 0:
		return &floorReport{}, f.serve(o, func(s int) { f.sink(s, o.Sink) })
	case o.Ping != "":
		return ping(ctx, o)
	case o.Blast > 0:
		return blast(ctx, o)
	}
	return nil, errors.New("floor: nothing to do")
}

// serve runs work on a fresh socket until stop.
func (f *floorServer) serve(o *floorOrder, work func(socket int)) error {
	if f.running.Load() {
		return errors.New("floor: busy")
	}
	s, err := rawSocket(o)
	if err != nil {
		return err
	}
	return f.run(func() error { return unix.Close(s) }, func() { work(s) })
}

// run runs work, on a thread of its own, until stop, which closes what it works with.
func (f *floorServer) run(closing func() error, work func()) error {
	f.close, f.done, f.clock, f.count, f.err = closing, make(chan struct{}), newHostClock(), 0, nil
	f.ages, f.processor = newHistogram(), 0
	f.running.Store(true)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(f.done)
		work()
	}()
	return nil
}

// stop ends what serve began.
func (f *floorServer) stop() error {
	if !f.running.Swap(false) {
		return nil
	}
	<-f.done
	return errors.Join(f.err, f.close())
}

// echo sends every datagram back.
func (f *floorServer) echo(s int, spin bool) {
	var b [2048]byte
	for f.running.Load() {
		n, from, err := rawReceive(s, b[:], spin)
		if n < 8 || err != nil {
			continue
		}
		record(f.ages, f.clock.now()-int64(binary.LittleEndian.Uint64(b[:])))
		_ = unix.Sendto(s, b[:n], 0, from) // what is lost, the other side misses
	}
}

// sink counts datagrams, which come in super-packets.
func (f *floorServer) sink(s, size int) {
	b := make([]byte, 1<<16)
	for f.running.Load() {
		n, _, err := unix.Recvfrom(s, b, 0)
		if err == nil {
			f.count += uint64((n + size - 1) / size)
		}
	}
	for { // what is still in the socket buffer got here in time
		n, _, err := unix.Recvfrom(s, b, unix.MSG_DONTWAIT)
		if err != nil {
			return
		}
		f.count += uint64((n + size - 1) / size)
	}
}

// rawReceive waits for one datagram, polling or asleep, for rawWait.
func rawReceive(s int, b []byte, spin bool) (int, unix.Sockaddr, error) {
	if !spin {
		return unix.Recvfrom(s, b, 0)
	}
	for end := time.Now().Add(rawWait); ; {
		n, from, err := unix.Recvfrom(s, b, unix.MSG_DONTWAIT)
		if err != unix.EAGAIN || time.Now().After(end) {
			return n, from, err
		}
	}
}

// ping measures round trips.
func ping(ctx context.Context, o *floorOrder) (*floorReport, error) {
	to, err := netip.ParseAddr(o.Ping)
	if err != nil {
		return nil, err
	}
	s, err := rawSocket(&floorOrder{Interface: o.Interface, Address: o.Address, Ping: o.Ping})
	if err != nil {
		return nil, err
	}
	defer unix.Close(s)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	c, h := newHostClock(), newHistogram()
	peer := &unix.SockaddrInet4{Port: floorPort, Addr: to.As4()}
	var b [floorPingBytes]byte
	begin := c.now()
	for now := begin; now < begin+int64(2*floorPhase) && ctx.Err() == nil; now = c.now() {
		if o.Rest {
			rest := unix.NsecToTimespec(int64(floorRest))
			_ = unix.Nanosleep(&rest, nil) // a signal may end it
			now = c.now()
		}
		binary.LittleEndian.PutUint64(b[:], uint64(now))
		if err := unix.Sendto(s, b[:], 0, peer); err != nil {
			return nil, fmt.Errorf("floor: send: %w", err)
		}
		n, _, err := rawReceive(s, b[:], o.Spin)
		for err == nil && int64(binary.LittleEndian.Uint64(b[:])) != now {
			n, _, err = rawReceive(s, b[:], o.Spin) // that was the answer to a datagram given up for lost
		}
		if n == len(b) && err == nil && now > begin+int64(floorPhase)/4 {
			record(h, c.now()-int64(binary.LittleEndian.Uint64(b[:])))
		}
	}
	return &floorReport{Latency: latencyOf(h)}, nil
}

// blast multicasts as fast as the system takes it.
func blast(ctx context.Context, o *floorOrder) (*floorReport, error) {
	s, err := rawSocket(o)
	if err != nil {
		return nil, err
	}
	defer unix.Close(s)
	group := &unix.SockaddrInet4{Port: floorPort, Addr: netip.MustParseAddr(floorGroup).As4()}
	const superMax, segmentsMax = 64000, 64
	datagrams := min(segmentsMax, superMax/o.Blast)
	b := make([]byte, datagrams*o.Blast)
	r := &floorReport{}
	began := time.Now()
	for time.Since(began) < floorPhase && ctx.Err() == nil {
		if err := unix.Sendto(s, b, 0, group); err != nil && err != unix.EAGAIN && err != unix.ENOBUFS {
			return nil, fmt.Errorf("floor: send: %w", err)
		}
		r.Count += uint64(datagrams)
	}
	r.Seconds = time.Since(began).Seconds()
	return r, nil
}

// rawSocket opens a socket for one step.
func rawSocket(o *floorOrder) (int, error) {
	ifi, err := net.InterfaceByName(o.Interface)
	if err != nil {
		return -1, err
	}
	ip, err := netip.ParseAddr(o.Address)
	if err != nil {
		return -1, err
	}
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	timeout := unix.NsecToTimeval(int64(rawWait))
	const buffer = 4 << 20
	_ = unix.SetsockoptInt(s, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, buffer) // takes a privilege; else the default
	err = unix.SetsockoptTimeval(s, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout)
	bound := &unix.SockaddrInet4{Addr: ip.As4()}
	switch {
	case o.Echo:
		bound.Port = floorPort
	case o.Sink > 0:
		bound = &unix.SockaddrInet4{Port: floorPort}
		mreq := &unix.IPMreqn{Multiaddr: netip.MustParseAddr(floorGroup).As4(), Ifindex: int32(ifi.Index)}
		err = errors.Join(err,
			unix.SetsockoptInt(s, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1),
			unix.SetsockoptInt(s, unix.SOL_UDP, unix.UDP_GRO, 1),
			unix.SetsockoptIPMreqn(s, unix.IPPROTO_IP, unix.IP_ADD_MEMBERSHIP, mreq))
	case o.Blast > 0:
		mreq := &unix.IPMreqn{Address: ip.As4(), Ifindex: int32(ifi.Index)}
		ttl := floorGroupTTLNet
		if o.Loopback {
			ttl = 0
		}
		err = errors.Join(err,
			unix.SetsockoptIPMreqn(s, unix.IPPROTO_IP, unix.IP_MULTICAST_IF, mreq),
			unix.SetsockoptInt(s, unix.IPPROTO_IP, unix.IP_MULTICAST_TTL, ttl),
			unix.SetsockoptInt(s, unix.SOL_UDP, unix.UDP_SEGMENT, o.Blast))
	}
	if err = errors.Join(err, unix.Bind(s, bound)); err != nil {
		return -1, errors.Join(fmt.Errorf("floor: %w", err), unix.Close(s))
	}
	return s, nil
}

// systemRounds is how many system calls are timed.
const systemRounds = 100000

// measureSystemCall returns nanoseconds of a call that does nothing.
func measureSystemCall() float64 {
	began := time.Now()
	for range systemRounds {
		_, _, _ = unix.RawSyscall(unix.SYS_GETPPID, 0, 0, 0)
	}
	return float64(time.Since(began)) / systemRounds
}
