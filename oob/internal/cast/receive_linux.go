package cast

import (
	"crypto/cipher"
	"io"
	"math/rand/v2"
	"net/netip"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/khamsin-io/khamsin/oob/internal/transfer"
)

const (
	recvMessages  = 4   // super-packets per system call
	singles       = 64  // packets per system call when they come one by one
	reportEvery   = 256 // packets between two feedbacks at the most
	idleReport    = 20 * time.Millisecond
	waitMax       = 50 * time.Millisecond
	overflowLen   = 64 << 10
	singlesBefore = 4 // calls without super-packets after which they are not expected any more
)

// receiveWork is what one receiving needs.
type receiveWork struct {
	*Receiving
	group, own *socket
	stop       *stopFile
	past       *pastIn   // nil: everything comes by the sockets
	heard      io.Closer // lets it come
	session    uint16
	source     netip.AddrPort // of the sender, once it was heard
	control    cipher.AEAD
	data       cipher.AEAD
	nonce      [nonceLen]byte         // of the packet that is opened
	head       [transfer.HeadLen]byte // likewise

	unit   int // bytes of a full segment
	room   int // bytes of its packet behind the head
	per    int // packets that a message has room for
	count  int // messages of a call
	msgs   []mmsghdr
	iovs   []unix.Iovec
	names  []name
	heads  []byte
	slots  []byte   // memory for packets that cannot be received where they belong
	at     []uint32 // for each packet of the tables: the segment whose place it is received at; none: in its slot
	over   []byte   // for each message: what is longer than expected
	expect uint32   // segment that should come next
	plain  int      // calls in a row that brought no super-packets
	few    bool     // packets come one by one

	memory  []byte // of heads, slots, over and stash
	stash   []byte // packets that must be moved
	moves   []move
	landed  []uint32 // segments that were written
	blocks  []uint32 // that got a segment and have parity
	since   int      // packets since the last feedback
	reports int
	last    time.Time
	fb      transfer.Feedback
	done    []bool
}

const nowhere = ^uint32(0)

// Run receives until everything has arrived and is right, and then answers the sender until it is stopped. Ready is
// called when packets can be received.
func (r *Receiving) Run(ready func(), complete func()) error {
	l := r.Receiver.Layout()
	w := &receiveWork{Receiving: r, unit: l.Unit(), room: l.Unit(), done: make([]bool, l.Items())}
	var err error
	if r.Keys != nil {
		w.room += TagLen
		if w.control, err = r.Keys.Control(); err != nil {
			return err
		}
	}
	if w.group, err = openGroup(r.Path); err != nil {
		return err
	}
	defer w.group.close()
	if w.own, err = openUnicast(r.Path); err != nil {
		return err
	}
	defer w.own.close()
	if w.stop, err = openStop(r.Stop); err != nil {
		return err
	}
	defer w.stop.close()
	if err := w.prepare(); err != nil {
		return err
	}
	defer w.release()
	defer w.endPast()
	if w.openPast(); w.past == nil {
		if err := w.hear(); err != nil {
			return err
		}
	}
	ready()
	return w.loop(complete)
}

// loop is the life of a receiving.
func (w *receiveWork) loop(complete func()) error {
	told := false
	w.last = time.Now()
	for {
		if stopped(w.Stop) {
			return errStopped
		}
		n, err := w.turn()
		if err != nil {
			return err
		}
		if w.Receiver.Complete() && !told {
			told = true
			w.report(false)
			complete()
		}
		switch now := time.Now(); {
		case w.since >= reportEvery:
			w.report(false)
		case n > 0:
		case w.since > 0 && now.Sub(w.last) > idleReport:
			w.report(false)
		default:
			w.wait()
		}
	}
}

// arrange says where the packets of the next call shall go: each to the place of the segment that it probably carries.
func (w *receiveWork) arrange() {
	w.per, w.count = segmentsMax, recvMessages
	if w.few {
		w.per, w.count = 1, singles
	}
	seg := w.expect
	total := w.Receiver.Layout().Total()
	for m := range w.count {
		first := m * w.per
		iov := first*2 + m
		h := &w.msgs[m].hdr
		*h = unix.Msghdr{Name: (*byte)(unsafe.Pointer(&w.names[m])), Namelen: uint32(unsafe.Sizeof(w.names[m])),
			Iov: &w.iovs[iov]}
		for i := first; i < first+w.per; i++ {
			w.iovs[iov].Base = &w.heads[i*transfer.HeadLen]
			w.iovs[iov].SetLen(transfer.HeadLen)
			slot := w.slots[i*w.room : (i+1)*w.room]
			w.at[i] = nowhere
			if w.Direct && w.data == nil && w.Keys == nil && seg < total && !w.Receiver.Has(seg) {
				if place := w.Receiver.Slot(seg); len(place) == w.unit {
					slot, w.at[i] = place, seg
				}
			}
			seg++
			w.iovs[iov+1].Base = unsafe.SliceData(slot)
			w.iovs[iov+1].SetLen(len(slot))
			iov += 2
		}
		over := w.over[m*overflowLen:][:overflowLen] // what is longer goes here
		w.iovs[iov].Base = &over[0]
		w.iovs[iov].SetLen(len(over))
		h.SetIovlen(2*w.per + 1)
	}
}

// pull receives once, and returns how many messages came.
func (w *receiveWork) pull(s *socket) (int, error) {
	w.arrange()
	n, errno := recvmmsg(s.fd, w.msgs[:w.count])
	if errno != 0 {
		if errno == unix.EAGAIN || errno == unix.EINTR || errno == unix.ECONNREFUSED {
			return 0, nil
		}
		return 0, errno
	}
	most := 0
	w.moves, w.blocks, w.stash = w.moves[:0], w.blocks[:0], w.stash[:0]
	for m := range n {
		from := w.names[m].get()
		left := int(w.msgs[m].len)
		packets := 0
		for i := m * w.per; i < (m+1)*w.per && left > 0; i++ {
			size := min(left, transfer.HeadLen+w.room)
			left -= size
			w.packet(i, size, from)
			packets++
		}
		if left > 0 {
			w.overflow(m, left, from)
			packets += (left + transfer.HeadLen + w.room - 1) / (transfer.HeadLen + w.room)
		}
		most = max(most, packets)
	}
	if err := w.settle(); err != nil {
		return n, err
	}
	w.expect = w.Receiver.Next(w.expect)
	w.Segments.Store(w.Receiver.Layout().Total() - w.Receiver.Missing())
	switch {
	case most > 1:
		w.plain, w.few = 0, false
	case n > 1:
		if w.plain++; w.plain >= singlesBefore {
			w.few = true
		}
	}
	return n, nil
}

// overflow takes the packets of a message that was longer than the tables.
func (w *receiveWork) overflow(m, left int, from netip.AddrPort) {
	over := w.over[m*overflowLen:][:overflowLen]
	for b := over[:min(left, len(over))]; len(b) > 0; {
		size := min(len(b), transfer.HeadLen+w.room)
		if h, ok := w.admit(b[:size], from); ok {
			w.keep(h, b[transfer.HeadLen:size], from)
		}
		b = b[size:]
	}
}

// admit reads a packet's head, and tells whether the packet is of this transfer.
func (w *receiveWork) admit(head []byte, from netip.AddrPort) (transfer.Head, bool) {
	h, ok := transfer.ParseHead(head)
	if !ok || h.Type == transfer.TypeFeedback || from.Addr() != w.Source {
		w.Counters.Malformed.Add(1)
		return h, false
	}
	if h.Transfer != w.ID {
		w.Counters.Stale.Add(1)
		return h, false
	}
	if w.Loss > 0 && rand.Float64() < w.Loss {
		return h, false
	}
	if h.Type != transfer.TypeProbe && (!w.source.IsValid() || h.Session != w.session) {
		return h, false // a probe comes first
	}
	return h, true
}

// packet takes packet i of the tables.
func (w *receiveWork) packet(i, size int, from netip.AddrPort) {
	if size < transfer.HeadLen {
		w.Counters.Malformed.Add(1)
		return
	}
	h, ok := w.admit(w.heads[i*transfer.HeadLen:(i+1)*transfer.HeadLen], from)
	if !ok {
		return
	}
	size -= transfer.HeadLen
	if w.at[i] != nowhere {
		if h.Type == transfer.TypeData && h.Index == w.at[i] && size == w.unit && w.Receiver.Wants(h.Index) {
			w.saw(&h, size)
			w.arrived(h.Index)
			return
		}
		w.keep(h, w.Receiver.Slot(w.at[i])[:size], from)
		return
	}
	data := w.slots[i*w.room : i*w.room+size]
	if h.Type == transfer.TypeProbe {
		w.probe(w.heads[i*transfer.HeadLen:(i+1)*transfer.HeadLen], h, data, from)
		return
	}
	w.moves = append(w.moves, move{h, data, from})
}

// keep copies a packet to where nothing is received.
func (w *receiveWork) keep(h transfer.Head, data []byte, from netip.AddrPort) {
	at := len(w.stash)
	if at+len(data) > cap(w.stash) {
		return // like any loss
	}
	w.stash = append(w.stash, data...)
	w.moves = append(w.moves, move{h, w.stash[at:], from})
}

// saw notes a packet of data.
func (w *receiveWork) saw(h *transfer.Head, size int) {
	w.Receiver.Saw(h.Number)
	if h.Type == transfer.TypeData {
		w.Receiver.Touched(h.Index/transfer.BlockLen, h.Number)
		w.Receiver.Passed(h.Index + 1)
	} else {
		w.Receiver.Touched(h.Index>>8, h.Number)
	}
	w.since++
	w.Counters.ReceivedPackets.Add(1)
	w.Counters.ReceivedBytes.Add(uint64(size + transfer.HeadLen))
}

// arrived notes that a segment is where it belongs.
func (w *receiveWork) arrived(seg uint32) {
	w.Receiver.Arrived(seg)
	w.expect = seg + 1
	if w.Receiver.HasRows(seg / transfer.BlockLen) {
		w.blocks = append(w.blocks, seg/transfer.BlockLen)
	}
}

// run is bytes of one object, in a row, that are to be written.
type run struct {
	item int
	off  int64
	data []byte
}

// write writes the run and empties it.
func (w *receiveWork) write(r *run) error {
	b := r.data
	if r.data = nil; len(b) == 0 {
		return nil
	}
	return w.Write(r.item, b, r.off)
}

// follows tells whether data is what comes behind the run, in the object and in memory.
func (r *run) follows(p transfer.Place, data []byte) bool {
	return len(r.data) > 0 && p.Item == r.item && int64(p.Off) == r.off+int64(len(r.data)) &&
		unsafe.SliceData(data) == (*byte)(unsafe.Add(unsafe.Pointer(unsafe.SliceData(r.data)), len(r.data)))
}

// settle moves the packets that are not where they belong, and works out what parity allows to.
func (w *receiveWork) settle() error {
	var r run
	w.landed = w.landed[:0]
	for i := range w.moves {
		if err := w.settleOne(&w.moves[i], &r); err != nil {
			return err
		}
	}
	if err := w.write(&r); err != nil {
		return err
	}
	for _, seg := range w.landed {
		w.Receiver.Check(seg)
		w.expect = seg + 1
		if w.Receiver.HasRows(seg / transfer.BlockLen) {
			w.blocks = append(w.blocks, seg/transfer.BlockLen)
		}
	}
	for _, b := range w.blocks {
		if err := w.Receiver.Repair(b, w.put); err != nil {
			return err
		}
	}
	w.notice()
	return nil
}

// settleOne deals with one packet. What is written, not received in place, is collected in r.
func (w *receiveWork) settleOne(m *move, r *run) error {
	h := &m.head
	if h.Type == transfer.TypeProbe {
		var head [transfer.HeadLen]byte
		h.Put(head[:])
		w.probe(head[:], *h, m.data, m.from)
		return nil
	}
	data, ok := w.unseal(h, m.data)
	if !ok {
		w.Counters.Malformed.Add(1)
		return nil
	}
	w.saw(h, len(data))
	if h.Type == transfer.TypeParity {
		if err := w.write(r); err != nil {
			return err // it needs what came before at its place
		}
		return w.Receiver.Parity(h.Index>>8, int(h.Index&0xff), data, w.put)
	}
	if !w.Receiver.Wants(h.Index) {
		return nil
	}
	p := w.Receiver.Place(h.Index)
	if p.Len != len(data) {
		w.Counters.Malformed.Add(1)
		return nil
	}
	if w.Direct || p.List {
		w.Counters.Moved.Add(1)
		copy(w.Receiver.Slot(h.Index), data)
		w.arrived(h.Index)
		return nil
	}
	if r.follows(p, data) {
		r.data = unsafe.Slice(unsafe.SliceData(r.data), len(r.data)+len(data))
	} else {
		if err := w.write(r); err != nil {
			return err
		}
		*r = run{p.Item, int64(p.Off), data}
	}
	w.Receiver.Mark(h.Index)
	w.landed = append(w.landed, h.Index)
	return nil
}

// notice tells of the objects that are complete.
func (w *receiveWork) notice() {
	if w.Verified == nil || len(w.done) > 1 && !w.Receiver.Complete() {
		return
	}
	for i := range w.done {
		if !w.done[i] && w.Receiver.CompleteItem(i) {
			w.done[i] = true
			w.Verified(i)
		}
	}
}

// put puts a segment that was worked out where it belongs.
func (w *receiveWork) put(seg uint32, b []byte) error {
	p := w.Receiver.Place(seg)
	if w.Direct || p.List {
		copy(w.Receiver.Slot(seg), b)
		return nil
	}
	return w.Write(p.Item, b, int64(p.Off))
}

// unseal returns a segment's bytes.
func (w *receiveWork) unseal(h *transfer.Head, data []byte) ([]byte, bool) {
	if w.Keys == nil {
		return data, true
	}
	if w.data == nil || len(data) < TagLen {
		return nil, false
	}
	h.Put(w.head[:])
	out, err := w.data.Open(data[:0], nonceOf(&w.nonce, h.Number), data, w.head[:])
	return out, err == nil
}

// probe answers the sender.
func (w *receiveWork) probe(head []byte, h transfer.Head, data []byte, from netip.AddrPort) {
	text, ok := open(w.control, append(append(make([]byte, 0, 128), head...), data...))
	if !ok || len(text) != transfer.ProbeLen+SaltLen {
		w.Counters.Malformed.Add(1)
		return
	}
	p, ok := transfer.ParseProbe(text[:transfer.ProbeLen])
	if l := w.Receiver.Layout(); !ok || p.Total != l.Total() || int(p.Unit) != l.Unit() {
		w.Counters.Malformed.Add(1)
		return
	}
	if !w.source.IsValid() || h.Session != w.session {
		if w.source.IsValid() && w.source != from {
			w.Receiver.Restart() // another sender: its numbers begin anew
		}
		w.source, w.session = from, h.Session
		if w.Keys != nil {
			data, err := w.Keys.Data(text[transfer.ProbeLen:])
			if err != nil {
				return
			}
			w.data = data
		}
	}
	if h.Number > 0 {
		w.Receiver.Saw(h.Number)
	}
	w.Receiver.Passed(p.Passed)
	w.report(true)
}

// report tells the sender what is missing; with all, everything.
func (w *receiveWork) report(all bool) {
	w.since, w.last = 0, time.Now()
	if !w.source.IsValid() {
		return
	}
	w.fb.Receiver, w.fb.Window = w.Self, w.group.room(w.unit+transfer.HeadLen)
	if w.past != nil {
		w.fb.Window = min(w.fb.Window, uint32(w.past.inlet.Room()))
	}
	w.Receiver.Report(&w.fb, transfer.EntriesMax, all, func() {
		head := make([]byte, transfer.HeadLen, transfer.HeadLen+nonceLen+transfer.FeedbackLenMax+TagLen)
		h := transfer.Head{Type: transfer.TypeFeedback, Session: w.session, Transfer: w.ID, Number: uint32(w.reports)}
		h.Put(head)
		w.reports++
		w.own.sendTo(seal(w.control, head, w.fb.Append(nil)), w.source, w.Path.Interface)
		w.Counters.Feedbacks.Add(1)
	})
	w.Counters.Corrupt.Add(w.Receiver.TakeCorrupt())
}
