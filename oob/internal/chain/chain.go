// Package chain moves the objects of a transfer where there is no multicast: over TCP connections, along the targets.
// Each target passes on what it has as it arrives, so that every line carries the objects once, and all at the same
// time. Where both ends of a link can, the bytes of a big object do not go over the connection: the upstream side
// writes them into the memory of the downstream one, and the connection carries what there is to say (see sided.go).
package chain

import (
	"context"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/khamsin-io/khamsin/dataplane"
	"github.com/khamsin-io/khamsin/oob/internal/transfer"
)

// Unit is how many bytes a segment has.
const Unit = transfer.ChunkLen

const (
	greetLen     = 4 + 8 + 8 + 4 + SaltLen
	frameMax     = 4 // segments
	rangesMax    = 1 << 16
	rangeLen     = 8
	headLen      = 8
	tagLen       = 16
	nonceLen     = 12
	greetTime    = 10 * time.Second
	silence      = 30 * time.Second // without a byte, after which a link is given up
	retryMin     = 20 * time.Millisecond
	retryMax     = time.Second
	roundsMax    = 8 // times that a receiver asks again for what was not what was sent
	socketBuffer = 1 << 20
)

// SaltLen is the length of each side's salt.
const SaltLen = 16

// mark begins a greeting, markSided that of a side that can write into the other one's memory.
var (
	mark      = [4]byte{'K', 'H', 'B', 1} // immutable: a name
	markSided = [4]byte{'K', 'H', 'B', 2} // immutable: a name
)

// ErrForeign means that what came over a connection is no link of a transfer of this system.
var ErrForeign = errors.New("no link of a transfer") // immutable: an error

// Keys make the cipher of a link out of both sides' salts. Nil: links are open.
type Keys interface {
	Data(salt []byte) (cipher.AEAD, error)
}

// Counters count what the links of a process do.
type Counters struct {
	SentBytes, ReceivedBytes atomic.Uint64
	Links, Refused, Retries  atomic.Uint64
	Corrupt                  atomic.Uint64

	Writes, WrittenBytes atomic.Uint64 // into others' memory
	Notices, LandedBytes atomic.Uint64 // of others, into this process's memory
	Unsided              atomic.Uint64 // links that should have written, and could not, or not to the end
}

// Progress tells how much of a transfer a process has: all segments below some number.
type Progress struct {
	mu    sync.Mutex
	upTo  uint32
	ended bool
	grown chan struct{}
}

// NewProgress returns a progress of n segments.
func NewProgress(n uint32) *Progress { return &Progress{upTo: n, grown: make(chan struct{})} }

// Set notes that there are n segments.
func (p *Progress) Set(n uint32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n > p.upTo {
		p.upTo = n
		close(p.grown)
		p.grown = make(chan struct{})
	}
}

// Segments returns how many segments there are.
func (p *Progress) Segments() uint32 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.upTo
}

// End notes that there will be no more.
func (p *Progress) End() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.ended {
		p.ended = true
		close(p.grown)
		p.grown = make(chan struct{})
	}
}

// await waits until there is a segment, and returns up to which there are some.
func (p *Progress) await(ctx context.Context, seg uint32) (uint32, error) {
	for {
		p.mu.Lock()
		n, ended, grown := p.upTo, p.ended, p.grown
		p.mu.Unlock()
		switch {
		case n > seg:
			return n, nil
		case ended:
			return 0, errors.New("the upstream copy has ended")
		}
		select {
		case <-grown:
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
	}
}

// Greeting is what the upstream side of a link says first.
type Greeting struct {
	Transfer uint64
	From     uint64
	Total    uint32
	Salt     [SaltLen]byte
	Sided    bool // it can write into memory
}

func (g *Greeting) append(b []byte) []byte {
	if g.Sided {
		b = append(b, markSided[:]...)
	} else {
		b = append(b, mark[:]...)
	}
	b = binary.LittleEndian.AppendUint64(b, g.Transfer)
	b = binary.LittleEndian.AppendUint64(b, g.From)
	b = binary.LittleEndian.AppendUint32(b, g.Total)
	return append(b, g.Salt[:]...)
}

// ReadGreeting reads what the other side of a new connection says first.
func ReadGreeting(c net.Conn) (Greeting, error) {
	var b [greetLen]byte
	if err := c.SetReadDeadline(time.Now().Add(greetTime)); err != nil {
		return Greeting{}, err
	}
	if _, err := io.ReadFull(c, b[:]); err != nil {
		return Greeting{}, err
	}
	m := [4]byte(b[:4])
	if m != mark && m != markSided {
		return Greeting{}, ErrForeign
	}
	return Greeting{
		Sided:    m == markSided,
		Transfer: binary.LittleEndian.Uint64(b[4:]), From: binary.LittleEndian.Uint64(b[12:]),
		Total: binary.LittleEndian.Uint32(b[20:]), Salt: [SaltLen]byte(b[24:]),
	}, nil
}

// Outgoing is the upstream side of a link.
type Outgoing struct {
	Local    netip.Addr // this process's address, which connections come from
	Peer     netip.AddrPort
	Transfer uint64
	Self     uint64
	Layout   *transfer.Layout
	Items    []transfer.Item
	Progress *Progress
	Keys     Keys
	Counters *Counters
	Sided    *Sided // nil: bytes go over the connection

	// Segments is up to which one the other side was fed.
	Segments atomic.Uint32
}

// Run feeds the other side until it has everything, or ctx ends. Connections that break are made again.
func (o *Outgoing) Run(ctx context.Context) error {
	for wait := retryMin; ; wait = min(2*wait, retryMax) {
		before := o.Counters.SentBytes.Load() + o.Counters.WrittenBytes.Load()
		done, err := o.once(ctx)
		if o.Counters.SentBytes.Load()+o.Counters.WrittenBytes.Load() > before+greetLen {
			wait = retryMin
		}
		if done {
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			o.Counters.Retries.Add(1)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(wait):
		}
	}
}

func (o *Outgoing) once(ctx context.Context) (done bool, err error) {
	d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(o.Local, 0)), Timeout: greetTime}
	c, err := d.DialContext(ctx, "tcp", o.Peer.String())
	if err != nil {
		return false, err
	}
	defer func() { _ = c.Close() }()
	defer context.AfterFunc(ctx, func() { _ = c.Close() })()
	o.Counters.Links.Add(1)
	l, err := o.greet(c)
	if err != nil {
		return false, err
	}
	f := feeder{Outgoing: o, link: l}
	defer f.end()
	if o.sided() {
		if err := f.begin(ctx); err != nil {
			return false, err
		}
	}
	for {
		ranges, err := l.readRanges(o.Layout.Total())
		if err != nil || len(ranges) == 0 {
			return err == nil, err
		}
		for _, r := range ranges {
			if err := f.feed(ctx, r[0], r[1]); err != nil {
				return false, err
			}
		}
		if err := l.writeFrame(0, 0, nil); err != nil {
			return false, err
		}
	}
}

// greet says who calls, and hears the other side's salt.
func (o *Outgoing) greet(c net.Conn) (*link, error) {
	tune(c)
	g := Greeting{Transfer: o.Transfer, From: o.Self, Total: o.Layout.Total(), Sided: o.sided()}
	_, _ = rand.Read(g.Salt[:]) // never fails
	if _, err := c.Write(g.append(nil)); err != nil {
		return nil, err
	}
	var salt [SaltLen]byte
	if err := c.SetReadDeadline(time.Now().Add(silence)); err != nil {
		return nil, err
	}
	if _, err := io.ReadFull(c, salt[:]); err != nil {
		return nil, err
	}
	l := &link{conn: c, counters: o.Counters}
	return l, l.cipher(o.Keys, g.Salt, salt)
}

// feeder is the upstream side of one connection.
type feeder struct {
	*Outgoing
	link  *link
	parts net.Buffers
	hint  int

	writer dataplane.Writer // nil: bytes go over the connection
	source dataplane.Region
	staged bool // what is written is first copied to source
}

// feed sends segments, as they are there.
func (f *feeder) feed(ctx context.Context, seg, end uint32) (err error) {
	for seg < end {
		if f.writer != nil && !f.place(seg).List {
			seg, err = f.write(ctx, seg, end)
		} else {
			seg, err = f.send(ctx, seg, end)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (f *feeder) place(seg uint32) transfer.Place {
	p := f.Layout.Locate(seg, f.hint)
	f.hint = p.Item
	return p
}

// send sends a few segments over the connection, and returns which one comes next.
func (f *feeder) send(ctx context.Context, seg, end uint32) (uint32, error) {
	upTo, err := f.Progress.await(ctx, seg)
	if err != nil {
		return seg, err
	}
	n := uint32(0)
	f.parts = f.parts[:0]
	for ; n < frameMax && seg+n < min(end, upTo); n++ {
		p := f.place(seg + n)
		if n > 0 && f.writer != nil && !p.List {
			break
		}
		f.parts = append(f.parts, f.Items[p.Item].Bytes(p))
	}
	if err := f.link.writeFrame(seg, n, f.parts); err != nil {
		return seg, err
	}
	f.Segments.Store(seg + n)
	return seg + n, nil
}

// Incoming is the downstream side: a copy that arrives, over one connection after the other.
type Incoming struct {
	Receiver *transfer.Receiver
	Direct   bool
	Write    func(item int, b []byte, off int64) error
	Progress *Progress
	Keys     Keys
	Counters *Counters
	Sided    *Sided // nil: bytes come over the connection

	mu     sync.Mutex // held by the connection that feeds
	now    atomic.Pointer[net.Conn]
	stop   atomic.Bool
	region dataplane.Region // that the upstream side writes into; guarded by mu
}

// Stop ends the copy: no connection feeds it any more when Stop returns.
func (i *Incoming) Stop() {
	i.stop.Store(true)
	if c := i.now.Load(); c != nil {
		_ = (*c).Close()
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.Progress.End()
}

// Serve takes what a connection brings, whose greeting was read. It returns nil when everything has arrived; complete
// was called before the other side is told. A connection takes over from the one before.
func (i *Incoming) Serve(c net.Conn, g Greeting, complete func()) error {
	if old := i.now.Swap(&c); old != nil {
		_ = (*old).Close()
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.stop.Load() || i.now.Load() != &c {
		return net.ErrClosed
	}
	tune(c)
	if g.Total != i.Receiver.Layout().Total() {
		return fmt.Errorf("%w: %d segments, want %d", ErrForeign, g.Total, i.Receiver.Layout().Total())
	}
	var salt [SaltLen]byte
	_, _ = rand.Read(salt[:]) // never fails
	if _, err := c.Write(salt[:]); err != nil {
		return err
	}
	l := &link{conn: c, counters: i.Counters}
	if err := l.cipher(i.Keys, g.Salt, salt); err != nil {
		return err
	}
	l.swap()
	defer func() { i.Counters.Corrupt.Add(i.Receiver.TakeCorrupt()) }()
	if g.Sided {
		defer i.sever()
		if err := i.admit(l); err != nil {
			return err
		}
	}
	for range roundsMax {
		ranges := i.missing()
		if len(ranges) == 0 {
			i.sever()
			complete()
			return l.writeRanges(nil)
		}
		if err := l.writeRanges(ranges); err != nil {
			return err
		}
		if err := i.take(l); err != nil {
			return err
		}
	}
	return fmt.Errorf("the bytes that come are not what was registered, %d times in a row", roundsMax)
}

// missing returns the runs of segments that have not arrived.
func (i *Incoming) missing() (ranges [][2]uint32) {
	total := i.Receiver.Layout().Total()
	for seg := i.Receiver.Next(0); seg < total && len(ranges) < rangesMax; seg = i.Receiver.Next(seg) {
		first := seg
		for seg < total && !i.Receiver.Has(seg) {
			seg++
		}
		ranges = append(ranges, [2]uint32{first, seg})
	}
	return ranges
}

// take takes frames until the other side has sent what it was asked for.
func (i *Incoming) take(l *link) error {
	for {
		first, n, err := l.readHead()
		if err != nil {
			return err
		}
		switch {
		case n == 0:
			return l.end()
		case n == writesBegin && i.region != nil:
			err = l.end()
			if err == nil {
				err = i.land(l)
			}
		default:
			err = i.frame(l, first, n)
		}
		if err != nil {
			return err
		}
	}
}

// frame takes segments that come over the connection.
func (i *Incoming) frame(l *link, first, n uint32) error {
	total := i.Receiver.Layout().Total()
	if n > frameMax || first >= total || n > total-first {
		return fmt.Errorf("%w: segments %d and %d more", ErrForeign, first, n)
	}
	for seg := first; seg < first+n; seg++ {
		p := i.Receiver.Place(seg)
		if !p.List {
			i.sever() // what comes this way is not written into
		}
		useful := i.Receiver.Wants(seg)
		if useful && (i.Direct || p.List) {
			if err := l.read(i.Receiver.Slot(seg)); err != nil {
				return err
			}
		} else {
			b := l.scratch(p.Len)
			if err := l.read(b); err != nil {
				return err
			}
			if useful {
				if err := i.Write(p.Item, b, int64(p.Off)); err != nil {
					return err
				}
			}
		}
		if useful {
			i.Receiver.Arrived(seg)
		}
	}
	if err := l.end(); err != nil {
		return err
	}
	i.Progress.Set(i.Receiver.Next(0))
	return nil
}

// tune makes a connection carry bulk.
func tune(c net.Conn) {
	if t, ok := c.(*net.TCPConn); ok {
		_ = t.SetNoDelay(true)
		_ = t.SetWriteBuffer(socketBuffer)
		_ = t.SetReadBuffer(socketBuffer)
	}
}
