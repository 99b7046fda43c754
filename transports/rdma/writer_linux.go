//go:build cgo && rdma

package rdma

// #include "verbs.h"
import "C"

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/khamsin-io/khamsin/dataplane"
)

const (
	writerDepth   = 256     // work requests that are under way
	pieceMax      = 1 << 20 // bytes of one
	exchangeLimit = 5 * time.Second
	farewell      = 'F'
)

// writer is a dataplane.Writer.
type writer struct {
	t    *Transport
	link *link
	conn *net.TCPConn
	key  key

	gone  chan struct{} // the other process is
	watch sync.WaitGroup
	once  sync.Once

	mu       sync.Mutex // held by a Write
	broken   error      // why there can be no more of them
	sentTo   uint64     // number of the next work request
	doneTo   uint64     // all before it are done
	closeErr error
}

// Connect reaches the region of a key.
func (t *Transport) Connect(ctx context.Context, text []byte) (dataplane.Writer, error) {
	k, err := parseKey(text)
	if err != nil {
		return nil, err
	}
	if err := t.sided.enter(); err != nil {
		return nil, err
	}
	defer t.sided.work.Done()
	d := net.Dialer{Timeout: exchangeLimit, LocalAddr: &net.TCPAddr{IP: t.ip.AsSlice()}}
	c, err := d.DialContext(ctx, "tcp", k.host.String())
	if err != nil {
		return nil, fmt.Errorf("rdma: connect: %w", err)
	}
	w := &writer{t: t, conn: c.(*net.TCPConn), key: k, gone: make(chan struct{})}
	if err := w.open(); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	if err := t.sided.addWriter(w); err != nil {
		return nil, errors.Join(err, w.Close())
	}
	return w, nil
}

// open exchanges what the queue pairs need to know of each other.
func (w *writer) open() (err error) {
	if w.link, err = w.t.newLink(writerDepth, 1); err != nil {
		return err
	}
	h := hello{token: w.key.token, pair: w.link.self}
	var b [welcomeBytes]byte
	if _, err = w.conn.Write(h.marshal()); err == nil {
		err = readWithin(w.conn, b[:])
	}
	if errors.Is(err, io.EOF) {
		err = ErrRefused
	}
	var peer pairInfo
	if err == nil {
		peer, err = parseWelcome(b[:])
	}
	if err == nil {
		err = w.link.connect(peer)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("rdma: connect: %w", err), w.link.close())
	}
	w.watch.Go(func() {
		waitFarewell(w.conn)
		close(w.gone)
		w.link.kick()
	})
	return nil
}

// readWithin fills b, within the exchange's limit.
func readWithin(conn *net.TCPConn, b []byte) error {
	timer := time.AfterFunc(exchangeLimit, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) }) // long ago
	_, err := io.ReadFull(conn, b)
	if !timer.Stop() && err == nil {
		err = os.ErrDeadlineExceeded
	}
	return err
}

// waitFarewell waits for the end of a connection, and tells whether the other side meant it.
func waitFarewell(conn *net.TCPConn) bool {
	var b [1]byte
	n, _ := conn.Read(b[:])
	return n == 1 && b[0] == farewell
}

// Size returns the bytes of the region.
func (w *writer) Size() int { return int(w.key.size) }

// Write copies bytes to the region and gives notice behind them.
func (w *writer) Write(ctx context.Context, source dataplane.Region, c dataplane.Copy, notice uint32) error {
	r, ok := source.(*region)
	if !ok || r.t != w.t {
		return errors.New("rdma: the source of a write is no region of this transport")
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	r.use.RLock()
	defer r.use.RUnlock()
	switch {
	case r.mem == nil:
		return dataplane.ErrClosed
	case c.Len < 0 || c.From < 0 || c.From > len(r.mem)-c.Len:
		return fmt.Errorf("rdma: write of %d bytes from %d on, of a source of %d", c.Len, c.From, len(r.mem))
	case c.To < 0 || c.To > w.Size()-c.Len:
		return fmt.Errorf("rdma: write of %d bytes from %d on, to a region of %d", c.Len, c.To, w.Size())
	case w.broken != nil:
		return w.broken
	}
	select {
	case <-w.gone:
		return fmt.Errorf("rdma: write: %w", dataplane.ErrPeerGone)
	default:
	}
	if err := context.Cause(ctx); err != nil {
		return err
	}
	kicked := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		w.link.kick()
		close(kicked)
	})
	err := w.write(ctx, r, job{Copy: c, notice: notice})
	if err != nil {
		w.broken = err
		if failErr := failPair(w.link.pair); failErr != nil { // else the device reads the source no more
			err = errors.Join(err, failErr)
		}
	}
	if !stop() {
		<-kicked
		w.link.unkick()
	}
	return err
}

// job is what is left of a Write.
type job struct {
	dataplane.Copy
	notice uint32
	over   bool // the notice is posted
}

// write posts work requests, as many in one call as there is room for, until all are done.
func (w *writer) write(ctx context.Context, r *region, j job) error {
	for !j.over || w.doneTo < w.sentTo {
		staged := 0
		for !j.over && staged < batchMax && w.sentTo+uint64(staged) < w.doneTo+writerDepth {
			w.stage(r, &j, staged)
			staged++
		}
		if staged > 0 {
			w.link.board.work[staged-1].flags = C.KH_SIGNALED
		}
		posted, n, errno, err := w.link.board.post(w.link.pair, w.link.queue.cq, staged)
		w.sentTo += uint64(posted)
		if err == nil && posted < staged {
			err = fault("post write", C.int(errno))
		}
		if err == nil && n == 0 && (j.over || w.sentTo == w.doneTo+writerDepth) {
			n, err = w.wait(ctx)
		}
		if err != nil {
			return err
		}
		for i := range n {
			wc := &w.link.board.done[i]
			if wc.status != statusSuccess {
				return failure(uint32(wc.status))
			}
			w.doneTo = uint64(wc.id) + 1
		}
	}
	return nil
}

// stage makes work request i of the next call: the next piece, the last with the notice.
func (w *writer) stage(r *region, j *job, i int) {
	n := min(j.Len, pieceMax, max(1, int(w.t.device.attr.max_msg)))
	wr := &w.link.board.work[i]
	*wr = C.kh_wr{
		id: C.uint64_t(w.sentTo + uint64(i)), len: C.uint32_t(n), lkey: C.kh_lkey(r.mr), rkey: C.uint32_t(w.key.rkey),
		addr: C.uint64_t(uint64(address(r.mem)) + uint64(j.From)), remote: C.uint64_t(w.key.addr + uint64(j.To)),
		op: C.KH_WRITE,
	}
	j.From, j.To, j.Len = j.From+n, j.To+n, j.Len-n
	if j.Len == 0 {
		wr.op, wr.imm, j.over = C.KH_WRITE_IMM, C.uint32_t(j.notice), true
	}
}

// wait waits for completions.
func (w *writer) wait(ctx context.Context) (int, error) {
	n, err := w.link.next()
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		return n, err
	}
	select {
	case <-w.gone:
		return 0, fmt.Errorf("rdma: write: %w", dataplane.ErrPeerGone)
	default:
	}
	if err := context.Cause(ctx); err != nil {
		return 0, fmt.Errorf("rdma: write: %w", err)
	}
	return 0, fmt.Errorf("rdma: write: %w", dataplane.ErrClosed)
}

// Close ends the connection. A Write that is under way fails.
func (w *writer) Close() error {
	w.once.Do(func() {
		w.t.sided.removeWriter(w)
		w.link.kick()
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.broken == nil {
			_, _ = w.conn.Write([]byte{farewell}) // to nobody, if the other one is gone
		}
		w.broken = dataplane.ErrClosed
		err := w.conn.Close()
		w.watch.Wait()
		w.closeErr = errors.Join(err, w.link.close())
	})
	return w.closeErr
}

func (o *oneSided) addWriter(w *writer) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return dataplane.ErrClosed
	}
	o.writers[w] = true
	return nil
}

func (o *oneSided) removeWriter(w *writer) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.writers, w)
}
