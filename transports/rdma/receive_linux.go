//go:build cgo && rdma

package rdma

// #include "verbs.h"
import "C"

import (
	"sync/atomic"
	"unsafe"

	"github.com/khamsin-io/khamsin/dataplane"
	"github.com/khamsin-io/khamsin/dataplane/counters"
	"github.com/khamsin-io/khamsin/dataplane/frame"
	"github.com/khamsin-io/khamsin/dataplane/invariant"
)

// receiver turns completions into packets. It belongs to the goroutine that is in Receive.
//
// ReceiveDepth buffers are always with the device or about to be. A packet is taken only against a free frame, which
// takes its place there; without one, packets wait where they are.
type receiver struct {
	t     *Transport
	queue queue
	board *board
	lkey  C.uint32_t

	large    largeBuffers
	numbers  numbers
	renumber atomic.Bool // a channel was subscribed: what was sent there before is not missing

	lent  []bool        // by chunk: the device has it
	spare []frame.Frame // free frames, to put in the place of packets
	fresh int           // buffers on the board that are to be posted
	stuck bool          // the last poll had no free frame

	packets, bytes, takes, dropped, oversize, undersize, foreign, stalled counters.Counter
	calls, buffers, largeCame                                             counters.Counter
}

func (r *receiver) init(t *Transport) {
	r.t = t
	r.board = newBoard(0, batchMax)
	r.lkey = C.kh_lkey(t.region)
	r.lent = make([]bool, len(t.arena.Memory())/t.arena.Config().ChunkSize)
	r.spare = make([]frame.Frame, 0, batchMax)
	r.large.first = uint32(len(r.lent))
	r.numbers.init()
}

// prime lends the device its buffers.
func (r *receiver) prime() error {
	for left := r.t.cfg.ReceiveDepth; left > 0; {
		n := min(left, batchMax)
		for range n {
			f, ok := r.t.arena.Rx().Get()
			if !ok {
				invariant.Fail("rdma: an arena of %+v has no frames for a receive queue of %d", r.t.arena.Config(),
					r.t.cfg.ReceiveDepth)
			}
			r.lend(f.Chunk)
		}
		if _, err := r.exchange(0); err != nil {
			return err
		}
		left -= n
	}
	return nil
}

// lend notes that a chunk's buffer is to be posted. Its payload shall stand behind the headroom, so the header in front
// of it stands inside.
func (r *receiver) lend(chunk uint32) {
	c := r.t.arena.Config()
	from := uintptr(chunk)*uintptr(c.ChunkSize) + uintptr(c.Headroom) - grhBytes
	r.board.room[r.fresh] = C.kh_rr{
		id: C.uint64_t(chunk), addr: C.uint64_t(address(r.t.arena.Memory()) + from),
		len: C.uint32_t(grhBytes + r.t.device.attr.mtu), lkey: r.lkey,
	}
	r.lent[chunk] = true
	r.fresh++
}

// exchange posts the fresh buffers and takes up to limit completions.
func (r *receiver) exchange(limit int) (int, error) {
	n := r.fresh
	r.fresh = 0
	r.calls.Inc()
	posted, completed, err := r.board.refill(r.t.srq, r.queue.cq, n, limit)
	r.buffers.Add(uint64(posted))
	return completed, err
}

// arm gets free frames, up to want, and returns how many there are.
func (r *receiver) arm(want int) int {
	pool := r.t.arena.Rx()
	for len(r.spare) < want {
		f, ok := pool.Get()
		if !ok {
			break
		}
		r.spare = append(r.spare, f)
	}
	return min(want, len(r.spare))
}

// poll returns packets that are there, without waiting.
func (r *receiver) poll(batch []dataplane.Packet) (int, error) {
	r.t.arena.Rx().Free() // takes in what other goroutines released
	r.stuck = false
	if err := r.topUp(); err != nil {
		return 0, err
	}
	for {
		limit := r.arm(min(len(batch), batchMax))
		if limit == 0 {
			r.stuck = true
			return 0, nil
		}
		completed, err := r.exchange(limit)
		if err != nil {
			return 0, err
		}
		if completed < limit && r.large.depth > 0 {
			r.large.drained.Add(1)
		}
		if completed == 0 {
			return 0, nil
		}
		r.takes.Inc()
		if n := r.deliver(batch, completed); n > 0 {
			return n, nil
		}
	}
}

// deliver hands out the packets of completions, and puts a buffer in the place of each.
func (r *receiver) deliver(batch []dataplane.Packet, completed int) int {
	if r.renumber.Load() && r.renumber.Swap(false) {
		r.numbers.forget()
	}
	n := 0
	bytes := uint64(0)
	for i := range completed {
		wc := &r.board.done[i]
		chunk := uint32(wc.id)
		if uint64(wc.id) >= uint64(len(r.lent)) || !r.lent[chunk] {
			invariant.Fail("rdma: a completion is of chunk %d, which the device of %v does not have", wc.id, r.t.local)
		}
		if chunk >= r.large.first {
			if r.readLarge(wc, chunk, &batch[n]) {
				bytes += uint64(batch[n].Frame.Len)
				n++
			}
			continue
		}
		if !r.read(wc, chunk, &batch[n]) {
			r.lend(chunk)
			continue
		}
		r.lent[chunk] = false
		top := len(r.spare) - 1
		r.lend(r.spare[top].Chunk)
		r.spare = r.spare[:top]
		bytes += uint64(batch[n].Frame.Len)
		n++
	}
	if n > 0 {
		r.packets.Add(uint64(n))
		r.bytes.Add(bytes)
	}
	return n
}

// read makes a packet of a completion; false when it is none, which is counted.
func (r *receiver) read(wc *C.kh_wc, chunk uint32, p *dataplane.Packet) bool {
	switch wc.status {
	case statusSuccess:
	case statusLength:
		r.oversize.Inc()
		r.t.sender.suspect.Store(true)
		return false
	default:
		r.dropped.Inc()
		r.t.sender.suspect.Store(true)
		return false
	}
	headroom := uint32(r.t.cfg.Arena.Headroom)
	if wc.flags&C.KH_GRH == 0 || wc.len < grhBytes {
		r.foreign.Inc()
		return false
	}
	header := r.t.arena.Bytes(frame.Frame{Chunk: chunk, Off: headroom - grhBytes, Len: grhBytes})
	o := readHeader((*[grhBytes]byte)(unsafe.Pointer(unsafe.SliceData(header))), r.t.gid.addr.Is4In6())
	if !o.ok {
		r.foreign.Inc()
		return false
	}
	if r.t.infiniband() {
		r.t.lids.learn(o.source, uint16(wc.flags>>16))
	}
	from := dataplane.Endpoint{IP: o.source, Port: uint32(wc.qpn)}
	if wc.flags&C.KH_IMM == 0 { // it has no number, so it is a word about rails, or none of ours
		payload := r.t.arena.Bytes(frame.Frame{Chunk: chunk, Off: headroom, Len: uint32(wc.len) - grhBytes})
		if w, ok := parseRailWord(payload); !ok || o.channel != 0 || !r.t.keeper.receive(letter{from: from, word: w}) {
			r.foreign.Inc()
		}
		return false
	}
	r.dropped.Add(r.numbers.missing(stream{o.channel, from}, uint32(wc.imm)))
	switch {
	case wc.len == grhBytes:
		r.undersize.Inc()
		return false
	case int(wc.len)-grhBytes > r.t.cfg.MTU:
		r.oversize.Inc()
		return false
	}
	*p = dataplane.Packet{
		Frame:   frame.Frame{Chunk: chunk, Off: headroom, Len: uint32(wc.len) - grhBytes},
		Channel: o.channel,
		From:    from,
	}
	return true
}

// close releases every frame that the receiver or the device holds. The queue pair is gone.
func (r *receiver) close() {
	if r.board == nil {
		return
	}
	for chunk, lent := range r.lent {
		if lent {
			r.t.arena.Release(frame.Frame{Chunk: uint32(chunk)})
		}
	}
	for _, f := range r.spare {
		r.t.arena.Release(f)
	}
	r.lent, r.spare = nil, nil
	r.board.close()
	r.board = nil
	if r.large.board != nil {
		r.large.board.close()
	}
}
