//go:build cgo && rdma

package rdma

// #include "verbs.h"
import "C"

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/khamsin-io/khamsin/dataplane"
)

// How a reliable connection is made. A lost packet is sent again after 4.096 µs * 2^16, a quarter of a second, and six
// times in all: with seven some devices never give up. A receiver that has no buffer for a notice is waited for without
// end: the caller's context limits that.
const (
	retryTimer = 16
	retryCount = 6
	retryReady = 7
	// linkBuffers is how many notices may be under way at a time.
	linkBuffers = 32
)

// link is one side of a reliable connection: a queue pair and its completions, which wake goroutines through the Go
// runtime's poller.
type link struct {
	t     *Transport
	queue queue
	pair  handle
	board *board
	file  *os.File // of the completion channel
	raw   syscall.RawConn
	self  pairInfo
	depth int
}

// newLink makes one side, which is not connected yet.
func (t *Transport) newLink(sends, receives int) (l *link, err error) {
	l = &link{t: t, board: newBoard(batchMax, 0), depth: sends}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.close())
			l = nil
		}
	}()
	if l.queue, err = t.device.openQueue(sends+receives, nil); err != nil {
		return l, err
	}
	fd, err := unix.FcntlInt(uintptr(l.queue.fd()), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return l, fmt.Errorf("rdma: descriptor of completions: %w", err)
	}
	l.file = os.NewFile(uintptr(fd), "rdma completions") // it does not block, so the poller takes it
	if l.raw, err = l.file.SyscallConn(); err != nil {
		return l, err
	}
	errno := C.kh_create_rc(t.device.pd, l.queue.cq, l.queue.cq, nil, C.int(sends), C.int(receives), &l.pair)
	if err = fault("queue pair", errno); err != nil {
		return l, err
	}
	if err = fault("initialise queue pair", C.kh_rc_init(l.pair, t.device.port, 1)); err != nil {
		return l, err
	}
	l.self = pairInfo{gid: t.gid.addr.As16(), number: uint32(C.kh_qp_num(l.pair)), psn: randomPSN()}
	return l, nil
}

// randomPSN returns the number of a queue pair's first packet. What is left of an older connection does not fit it.
func randomPSN() uint32 {
	var b [4]byte
	_, _ = rand.Read(b[:]) // never fails: see crypto/rand
	return binary.BigEndian.Uint32(b[:]) & psnMax
}

// connect readies the queue pair to send to, and to receive from, the other side.
func (l *link) connect(peer pairInfo) error {
	return l.t.connectPair(l.pair, l.self.psn, peer, retryTimer)
}

// connectPair readies a reliable queue pair whose own packets begin with a number, and are sent again after a timer of
// 4.096 µs * 2^timer.
func (t *Transport) connectPair(qp handle, psn uint32, peer pairInfo, timer uint8) error {
	p := t.device.destination(peer.gid, t.gid.index, t.cfg.TTL)
	if t.infiniband() {
		if p.dlid = C.uint16_t(t.lids.of(peer.gid)); p.dlid == 0 {
			return fmt.Errorf("rdma: nothing was heard yet of %v, so its local identifier is not known",
				netip.AddrFrom16(peer.gid))
		}
	}
	p.qpn, p.psn, p.my_psn = C.uint32_t(peer.number), C.uint32_t(peer.psn), C.uint32_t(psn)
	p.mtu = t.device.attr.mtu
	p.timeout, p.retry, p.rnr_retry = C.uint8_t(timer), retryCount, retryReady
	return fault("connect queue pair", C.kh_rc_connect(qp, p))
}

// next waits for completions, which are then in the board. It returns os.ErrDeadlineExceeded after kick.
func (l *link) next() (n int, err error) {
	waitErr := l.raw.Read(func(uintptr) bool {
		l.queue.takeEvents()
		if n, err = l.poll(); n > 0 || err != nil {
			return true
		}
		if err = l.queue.arm(); err != nil {
			return true
		}
		n, err = l.poll() // what came before it was armed rings no bell
		return n > 0 || err != nil
	})
	if n == 0 && err == nil && waitErr != nil {
		n, err = l.poll() // the poller may not have called us at all
	}
	if n > 0 || err != nil {
		return n, err
	}
	return 0, waitErr
}

func (l *link) poll() (int, error) {
	_, n, _, err := l.board.post(l.pair, l.queue.cq, 0)
	return n, err
}

// kick ends a next that waits, and all later ones that would, until unkick.
func (l *link) kick() { _ = l.file.SetReadDeadline(time.Unix(1, 0)) }

func (l *link) unkick() { _ = l.file.SetReadDeadline(time.Time{}) }

// close destroys the queue pair. Nobody waits any more.
func (l *link) close() error {
	errs := []error{closePair(l.pair)}
	if l.file != nil {
		errs = append(errs, l.file.Close())
	}
	errs = append(errs, closeQueue(l.queue.cq), closeChannel(l.queue.channel))
	l.board.close()
	return errors.Join(errs...)
}

// failure makes an error of a completion's status.
func failure(status uint32) error {
	switch status {
	case statusRetries, statusFlushed:
		return fmt.Errorf("rdma: %s: %w", statusText(status), dataplane.ErrPeerGone)
	}
	return fmt.Errorf("rdma: write: %s", statusText(status))
}
