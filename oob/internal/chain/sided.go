package chain

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/khamsin-io/khamsin/dataplane"
	"github.com/khamsin-io/khamsin/oob/internal/transfer"
)

// How bytes are written. When the upstream side's greeting says that it can write, the downstream side registers its
// copy's memory and answers with the key of that region, or with none. What must not be written, the list of digests
// and what a broken writer left, comes in frames as on other links. Before it writes, the upstream side says so in a
// frame without segments; each piece has a notice behind it that names its segments; and when it is done for now, a
// frame says how many pieces there were.
//
// A region belongs to one connection. It is closed, and with it whoever may write into it, before bytes come another
// way, before another connection feeds the copy, and before the copy is said to be complete: what was verified by then
// is not written into any more.

// Sided lets the bytes of a transfer's one object be written from memory to memory.
type Sided struct {
	dataplane.OneSided

	// Memory is the object's bytes as they are mapped, to be written into or from. Nil, at the upstream side: they
	// cannot be registered, and are copied to where they can be written from.
	Memory []byte

	// Trouble is told why bytes do not go by writes though they should.
	Trouble func(error)
}

// Numbers of segments that no frame has: what they say instead.
const (
	writesBegin  = 1<<31 + iota // bytes will be written
	writesEnd                   // so many pieces were, and that is all for now
	writesBroken                // likewise; no more will be on this connection
)

const (
	runBits     = 3
	runMax      = 1 << runBits // segments of a piece
	sidedMax    = 1 << (32 - runBits)
	keyMax      = 255
	connectTime = 5 * time.Second
	noticeTime  = 5 * time.Second // for notices of pieces whose bytes are known to be there
)

// noticeOf names a run of segments.
func noticeOf(first, n uint32) uint32 { return first<<runBits | (n - 1) }

func runOf(notice uint32) (first, n uint32) { return notice >> runBits, notice&(runMax-1) + 1 }

// single tells whether writes can carry what a layout describes.
func single(l *transfer.Layout) bool { return l.Items() == 1 && l.Total() > 0 && l.Total() <= sidedMax }

func (o *Outgoing) sided() bool { return o.Sided != nil && o.Keys == nil && single(o.Layout) }

// begin hears where to write, and connects there. Without an error there may be no writer all the same.
func (f *feeder) begin(ctx context.Context) error {
	key, err := f.link.readKey()
	if err != nil {
		return err
	}
	if len(key) == 0 {
		f.Counters.Unsided.Add(1)
		return nil
	}
	if err := f.connect(ctx, key); err != nil {
		f.end()
		f.trouble(fmt.Errorf("connect to the memory of %v: %w", f.Peer, err))
	}
	return nil
}

func (f *feeder) connect(ctx context.Context, key []byte) (err error) {
	if f.Sided.Memory != nil {
		if f.source, err = f.Sided.Register(f.Sided.Memory, false); err != nil {
			f.Sided.Trouble(err)
		}
	}
	if f.source == nil {
		f.staged = true
		if f.source, err = f.Sided.OpenRegion(runMax * Unit); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, connectTime)
	defer cancel()
	if f.writer, err = f.Sided.Connect(ctx, key); err != nil {
		return err
	}
	if want := len(f.Items[0].Data); f.writer.Size() != want {
		return fmt.Errorf("%w: memory of %d bytes, want %d", ErrForeign, f.writer.Size(), want)
	}
	return nil
}

func (f *feeder) trouble(err error) {
	f.Counters.Unsided.Add(1)
	f.Sided.Trouble(err)
}

// end ends what begin began. After it bytes go over the connection.
func (f *feeder) end() {
	if f.writer != nil {
		_ = f.writer.Close()
		f.writer = nil
	}
	if f.source != nil {
		_ = f.source.Close()
		f.source = nil
	}
}

// write writes segments into the other side's memory, and returns the first one that was not written: end, or less when
// the writer broke.
func (f *feeder) write(ctx context.Context, seg, end uint32) (uint32, error) {
	if err := f.link.writeFrame(0, writesBegin, nil); err != nil {
		return seg, err
	}
	pieces, word := uint32(0), uint32(writesEnd)
	for seg < end {
		upTo, err := f.Progress.await(ctx, seg)
		if err != nil {
			return seg, err
		}
		n := min(runMax, end-seg, upTo-seg)
		if err := f.put(ctx, seg, n); err != nil {
			if ctx.Err() != nil {
				return seg, context.Cause(ctx)
			}
			f.end()
			f.trouble(err)
			word = writesBroken
			break
		}
		pieces++
		seg += n
		f.Segments.Store(seg)
	}
	return seg, f.link.writeFrame(pieces, word, nil)
}

// put writes one piece.
func (f *feeder) put(ctx context.Context, seg, n uint32) error {
	first, last := f.place(seg), f.place(seg+n-1)
	c := dataplane.Copy{From: int(first.Off), To: int(first.Off), Len: int(last.Off) + last.Len - int(first.Off)}
	if f.staged {
		c.From = 0
		copy(f.source.Bytes(), f.Items[0].Data[first.Off:first.Off+uint64(c.Len)])
	}
	if err := f.writer.Write(ctx, f.source, c, noticeOf(seg, n)); err != nil {
		return err
	}
	f.Counters.Writes.Add(1)
	f.Counters.WrittenBytes.Add(uint64(c.Len))
	return nil
}

// admit lets the upstream side write into the copy's memory, if that is possible, and tells it how.
func (i *Incoming) admit(l *link) error {
	var key []byte
	if i.Sided != nil && i.Sided.Memory != nil && i.Keys == nil && single(i.Receiver.Layout()) &&
		i.Receiver.Missing() > 0 {
		var err error
		if i.region, err = i.Sided.Register(i.Sided.Memory, true); err != nil {
			i.region = nil
			i.Counters.Unsided.Add(1)
			i.Sided.Trouble(err)
		} else {
			key = i.region.Key()
		}
	}
	return l.writeKey(key)
}

// sever ends whoever may write into the copy's memory.
func (i *Incoming) sever() {
	if i.region != nil {
		_ = i.region.Close()
		i.region = nil
	}
}

// ending is what the upstream side says when it has written.
type ending struct {
	pieces, word uint32
	err          error
}

// land takes what is written, until the upstream side says that this was all.
func (i *Incoming) land(l *link) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	said := make(chan ending, 1)
	go func() {
		var e ending
		if e.pieces, e.word, e.err = l.readHead(); e.err == nil {
			e.err = l.end()
		}
		said <- e
		cancel()
	}()
	landed, err := uint32(0), error(nil)
	for err == nil {
		var notice uint32
		if notice, err = i.region.Await(ctx); err != nil {
			break
		}
		if err := i.landed(notice); err != nil {
			_ = l.conn.Close()
			<-said
			return err
		}
		landed++
		_ = l.conn.SetReadDeadline(time.Now().Add(silence)) // the other side is busy, not silent
	}
	e := <-said
	switch {
	case e.err != nil:
		return e.err
	case e.word != writesEnd && e.word != writesBroken:
		return fmt.Errorf("%w: %d instead of an end of writes", ErrForeign, e.word)
	}
	// Their bytes are there; only their notices may be on their way. Those that are lost are asked for again.
	late, stop := context.WithTimeout(context.Background(), noticeTime)
	defer stop()
	for gone := errors.Is(err, dataplane.ErrPeerGone); landed < e.pieces && !gone; landed++ {
		notice, err := i.region.Await(late)
		if err != nil {
			break
		}
		if err := i.landed(notice); err != nil {
			return err
		}
	}
	if e.word == writesBroken || landed < e.pieces {
		i.sever()
	}
	return nil
}

// landed notes that a piece is in memory.
func (i *Incoming) landed(notice uint32) error {
	first, n := runOf(notice)
	total := i.Receiver.Layout().Total()
	if first >= total || n > total-first {
		return fmt.Errorf("%w: written segments %d and %d more", ErrForeign, first, n)
	}
	for seg := first; seg < first+n; seg++ {
		p := i.Receiver.Place(seg)
		if p.List || !i.Receiver.Wants(seg) {
			return fmt.Errorf("%w: segment %d was written, and nobody asked for it", ErrForeign, seg)
		}
		i.Receiver.Arrived(seg)
		i.Counters.LandedBytes.Add(uint64(p.Len))
	}
	i.Counters.Notices.Add(1)
	i.Progress.Set(i.Receiver.Next(0))
	return nil
}

// writeKey tells the upstream side where to write: nowhere, without a key.
func (l *link) writeKey(key []byte) error {
	if len(key) > keyMax {
		key = nil
	}
	return l.write(append([]byte{byte(len(key))}, key...), nil)
}

func (l *link) readKey() ([]byte, error) {
	if err := l.begin(); err != nil {
		return nil, err
	}
	var n [1]byte
	if err := l.read(n[:]); err != nil {
		return nil, err
	}
	key := make([]byte, n[0])
	if err := l.read(key); err != nil {
		return nil, err
	}
	return key, l.end()
}
