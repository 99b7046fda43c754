package main

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"golang.org/x/sys/unix"
)

// rawSocket is a UDP socket on loopback, driven by system calls.
type rawSocket struct {
	fd   int
	spin bool
}

// rawTimeout bounds a blocking receive, so that a lost packet does not hang the measurement.
const rawTimeout = 200 * time.Millisecond

func newRawSocket(spin bool) (*rawSocket, int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, 0, err
	}
	timeout := unix.NsecToTimeval(int64(rawTimeout))
	err = errors.Join(
		unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout),
	)
	if err != nil {
		return nil, 0, errors.Join(err, unix.Close(fd))
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		return nil, 0, errors.Join(err, unix.Close(fd))
	}
	return &rawSocket{fd: fd, spin: spin}, name.(*unix.SockaddrInet4).Port, nil
}

// receive waits for one datagram, polling or asleep. It returns 0 when none came in time.
func (s *rawSocket) receive(b []byte) (int, unix.Sockaddr, error) {
	flags := 0
	if s.spin {
		flags = unix.MSG_DONTWAIT
	}
	for end := time.Now().Add(rawTimeout); ; {
		n, from, err := unix.Recvfrom(s.fd, b, flags)
		switch {
		case err == nil:
			return n, from, nil
		case err == unix.EINTR:
		case err != unix.EAGAIN:
			return 0, nil, err
		case !s.spin || time.Now().After(end):
			return 0, nil, nil
		}
	}
}

// rawReceiver sends every datagram back.
type rawReceiver struct {
	socket    *rawSocket
	mu        sync.Mutex
	histogram *hdrhistogram.Histogram
	stop      chan struct{}
	done      chan struct{}
}

func newRawReceiver(spin bool, a *answer) (receiver, error) {
	s, port, err := newRawSocket(spin)
	if err != nil {
		return nil, err
	}
	a.Port = port
	r := &rawReceiver{socket: s, histogram: newHistogram(), stop: make(chan struct{}), done: make(chan struct{})}
	go r.run()
	return r, nil
}

func (r *rawReceiver) run() {
	runtime.LockOSThread()
	defer close(r.done)
	var b [2048]byte
	for {
		select {
		case <-r.stop:
			return
		default:
		}
		n, from, err := r.socket.receive(b[:])
		if err != nil {
			return
		}
		if n < payloadBytes {
			continue
		}
		ns := age(b[:n])
		_ = unix.Sendto(r.socket.fd, b[:n], 0, from) // a lost answer costs one sample
		r.mu.Lock()
		_ = r.histogram.RecordValue(ns)
		r.mu.Unlock()
	}
}

func (r *rawReceiver) load(bool, int) {}

func (r *rawReceiver) report() spread {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := spreadOf(r.histogram)
	r.histogram.Reset()
	return s
}

func (r *rawReceiver) close() {
	close(r.stop)
	<-r.done
	_ = unix.Close(r.socket.fd)
}

// raw measures one cell over raw sockets: paced and ping-pong; load has no meaning without a protocol.
func (c *cli) raw(x cell, other *partner) (outcome, error) {
	o := outcome{Own: map[string]spread{}, Remote: map[string]spread{}}
	s, _, err := newRawSocket(x.Raw == "spin")
	if err != nil {
		return o, err
	}
	defer unix.Close(s.fd)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	to := &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: other.was.Port}
	if _, err := exchange(s, to, c.Phase/4, 0); err != nil {
		return o, err
	}
	if _, err = other.report(); err != nil {
		return o, err
	}
	if _, err := exchange(s, to, c.Phase, pacedEvery); err != nil {
		return o, err
	}
	if o.Remote[phasePaced], err = other.report(); err != nil {
		return o, err
	}
	if o.RTT, err = exchange(s, to, c.Phase, 0); err != nil {
		return o, err
	}
	o.Remote[phasePing], err = other.report()
	return o, err
}

// exchange sends a datagram, waits for its answer, pauses, and so on.
func exchange(s *rawSocket, to unix.Sockaddr, d, pause time.Duration) (spread, error) {
	h := newHistogram()
	payload := make([]byte, payloadBytes)
	var b [2048]byte
	for end := time.Now().Add(d); time.Now().Before(end); {
		stamp(payload)
		if err := unix.Sendto(s.fd, payload, 0, to); err != nil {
			return spread{}, fmt.Errorf("sendto: %w", err)
		}
		n, _, err := s.receive(b[:])
		if err != nil {
			return spread{}, fmt.Errorf("recvfrom: %w", err)
		}
		if n >= payloadBytes {
			_ = h.RecordValue(age(b[:n]))
		}
		time.Sleep(pause)
	}
	return spreadOf(h), nil
}
