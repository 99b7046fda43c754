//go:build cgo && rdma

package rdma

/*
#cgo CFLAGS: -O2 -Wall
#cgo LDFLAGS: -ldl
#cgo noescape kh_send
#cgo nocallback kh_send
#cgo noescape kh_receive
#cgo nocallback kh_receive
#cgo nocallback kh_arm
#cgo nocallback kh_take_events
#include <stdlib.h>
#include "verbs.h"
*/
import "C"

import (
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// batchMax is how many work requests, receive buffers and completions one call into C takes along.
const batchMax = 64

// States of a queue pair, as libibverbs numbers them.
const (
	stateReadyToSend = 3
	stateSendError   = 5
)

// Statuses of completions, as libibverbs numbers them.
const (
	statusSuccess   = 0
	statusLength    = 1
	statusFlushed   = 5
	statusRetries   = 12
	portStateActive = 4
	linkInfiniBand  = 1
)

// handle is an object of libibverbs; nil when it is not there.
type handle = unsafe.Pointer

// fault makes an error of an errno that C returned; nil for 0.
func fault(what string, errno C.int) error {
	if errno == 0 {
		return nil
	}
	return fmt.Errorf("rdma: %s: %w", what, unix.Errno(errno))
}

// loadLibrary opens libibverbs, once for the process.
func loadLibrary() error {
	const size = 256
	buf := (*C.char)(C.malloc(size))
	defer C.free(unsafe.Pointer(buf))
	if why := C.kh_load(buf, size); why != nil {
		return fmt.Errorf("%w: %s", ErrNoDevice, C.GoString(why))
	}
	return nil
}

// statusText says what a completion's status means.
func statusText(status uint32) string { return C.GoString(C.kh_status(C.int(status))) }

// device is an open device with what belongs to it as a whole.
type device struct {
	ctx, pd handle
	port    C.uint8_t
	attr    C.kh_port
}

// openDevice opens a device and asks for its port.
func openDevice(name string, port int) (d device, err error) {
	text := C.CString(name)
	defer C.free(unsafe.Pointer(text))
	d.port = C.uint8_t(port)
	if errno := C.kh_open(text, &d.ctx); errno != 0 {
		return d, fmt.Errorf("%w: %s: %w", ErrNoDevice, name, unix.Errno(errno))
	}
	if err = fault("query "+name, C.kh_query(d.ctx, d.port, &d.attr)); err == nil && d.attr.state != portStateActive {
		err = fmt.Errorf("rdma: port %d of %s is not active (state %d): is its link up?", port, name, d.attr.state)
	}
	if err == nil {
		err = fault("protection domain", C.kh_alloc_pd(d.ctx, &d.pd))
	}
	return d, err
}

func (d *device) close() error {
	var errs []error
	if d.pd != nil {
		errs = append(errs, fault("protection domain", C.kh_dealloc_pd(d.pd)))
	}
	if d.ctx != nil {
		errs = append(errs, fault("close device", C.kh_close(d.ctx)))
	}
	d.pd, d.ctx = nil, nil
	return errors.Join(errs...)
}

// register makes memory known to the device. Nothing may unmap it before deregister.
func (d *device) register(mem []byte, remoteWrite bool) (handle, error) {
	var mr handle
	remote := C.int(0)
	if remoteWrite {
		remote = 1
	}
	base := C.uint64_t(uintptr(unsafe.Pointer(unsafe.SliceData(mem))))
	err := fault(fmt.Sprintf("register %d bytes (see ulimit -l)", len(mem)),
		C.kh_reg_mr(d.pd, base, C.uint64_t(len(mem)), remote, &mr))
	return mr, err
}

func deregister(mr handle) error { return fault("deregister memory", C.kh_dereg_mr(mr)) }

// destination fills in the way to an address.
func (d *device) destination(to [16]byte, sgid, hops int) *C.kh_peer {
	p := &C.kh_peer{port: d.port, sgid_index: C.uint8_t(sgid), hop_limit: C.uint8_t(hops)}
	for i, b := range to {
		p.dgid[i] = C.uint8_t(b)
	}
	return p
}

// queue is a completion queue, or two, that wake by one descriptor.
type queue struct{ channel, cq handle }

// openQueue makes a completion queue on a channel, which is made first when it is nil.
func (d *device) openQueue(entries int, channel handle) (q queue, err error) {
	q.channel = channel
	if channel == nil {
		if err = fault("completion channel", C.kh_create_channel(d.ctx, &q.channel)); err != nil {
			return queue{}, err
		}
	}
	err = fault(fmt.Sprintf("completion queue of %d", entries), C.kh_create_cq(d.ctx, C.int(entries), q.channel, &q.cq))
	return q, err
}

func (q *queue) fd() int { return int(C.kh_channel_fd(q.channel)) }

// arm makes the next completion an event.
func (q *queue) arm() error { return fault("arm completion queue", C.kh_arm(q.cq)) }

// takeEvents makes the descriptor quiet again.
func (q *queue) takeEvents() { C.kh_take_events(q.channel) }

func closeQueue(cq handle) error {
	if cq == nil {
		return nil
	}
	return fault("completion queue", C.kh_destroy_cq(cq))
}

func closeChannel(channel handle) error {
	if channel == nil {
		return nil
	}
	return fault("completion channel", C.kh_destroy_channel(channel))
}

func closePair(qp handle) error {
	if qp == nil {
		return nil
	}
	return fault("queue pair", C.kh_destroy_qp(qp))
}

// failPair puts a queue pair into its error state: all that is posted is flushed, and the device reads it no more.
func failPair(qp handle) error { return fault("fail queue pair", C.kh_fail(qp)) }

// board is memory outside the Go heap that the calls of one direction share with C.
type board struct {
	memory handle
	result []C.int // how many were posted, and why not the next
	done   []C.kh_wc
	work   []C.kh_wr // of a sender
	room   []C.kh_rr // of a receiver
}

func newBoard(work, room int) *board {
	size := C.size_t(unsafe.Sizeof(C.kh_wc{}))*batchMax + C.size_t(unsafe.Sizeof(C.kh_wr{}))*C.size_t(work) +
		C.size_t(unsafe.Sizeof(C.kh_rr{}))*C.size_t(room) + 2*C.size_t(unsafe.Sizeof(C.int(0)))
	b := &board{memory: C.calloc(1, size)} // cgo's calloc never fails
	at := uintptr(0)
	b.done = unsafe.Slice((*C.kh_wc)(b.memory), batchMax)
	at += unsafe.Sizeof(C.kh_wc{}) * batchMax
	b.work = unsafe.Slice((*C.kh_wr)(unsafe.Add(b.memory, at)), work)
	at += unsafe.Sizeof(C.kh_wr{}) * uintptr(work)
	b.room = unsafe.Slice((*C.kh_rr)(unsafe.Add(b.memory, at)), room)
	at += unsafe.Sizeof(C.kh_rr{}) * uintptr(room)
	b.result = unsafe.Slice((*C.int)(unsafe.Add(b.memory, at)), 2)
	return b
}

func (b *board) close() {
	C.free(b.memory)
	*b = board{}
}

// post posts n work requests and takes completions, all in one call. It returns how many were posted and how many
// completions are in done, and why the next was not posted.
func (b *board) post(qp, cq handle, n int) (posted, completed int, errno unix.Errno, err error) {
	k := C.kh_send(qp, cq, unsafe.SliceData(b.work), C.int(n), &b.result[0], &b.result[1], &b.done[0], batchMax)
	if k < 0 {
		return int(b.result[0]), 0, unix.Errno(b.result[1]), fault("poll completion queue", -k)
	}
	return int(b.result[0]), int(k), unix.Errno(b.result[1]), nil
}

// refill posts n receive buffers and takes up to limit completions, all in one call.
func (b *board) refill(srq, cq handle, n, limit int) (posted, completed int, err error) {
	k := C.kh_receive(srq, cq, unsafe.SliceData(b.room), C.int(n), &b.result[0], &b.result[1], &b.done[0], C.int(limit))
	if errno := b.result[1]; errno != 0 {
		err = fault("post receive buffers", errno)
	}
	if k < 0 {
		return int(b.result[0]), 0, fault("poll completion queue", -k)
	}
	return int(b.result[0]), int(k), err
}
