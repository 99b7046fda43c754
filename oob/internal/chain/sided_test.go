package chain

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/khamsin-io/khamsin/dataplane/transporttest"
	"github.com/khamsin-io/khamsin/oob/internal/transfer"
)

var errTest = errors.New("as the test wants it") // immutable: an error

// sidedCase is one way in which writes go, or do not.
type sidedCase struct {
	name string
	keys Keys
	cut  int64                              // bytes after which each connection breaks
	set  func(n int, s *transporttest.Side) // side 0 is the source, 1 to 3 are the stops

	writes, frames bool // bytes go so, at the first link
	unsided        bool // some link says that it does not write
}

func sidedCases() []sidedCase {
	small := func(size int) error {
		if size > runMax*Unit {
			return errTest
		}
		return nil
	}
	return []sidedCase{
		{name: "plain", writes: true},
		{name: "sealed", keys: testKeys("k"), frames: true},
		{name: "the source cannot be registered", writes: true, set: func(n int, s *transporttest.Side) {
			if n == 0 {
				s.Refuse = small
			}
		}},
		{name: "no copy can be registered", frames: true, unsided: true, set: func(n int, s *transporttest.Side) {
			if n > 0 {
				s.Refuse = small
			}
		}},
		{name: "nothing can be registered", frames: true, unsided: true, set: func(_ int, s *transporttest.Side) {
			s.Refuse = func(int) error { return errTest }
		}},
		{name: "writers break, and some bytes come late", writes: true, frames: true, unsided: true,
			set: func(_ int, s *transporttest.Side) {
				s.Late = 5 * time.Millisecond
				s.Break = func(n uint64) error {
					if n == 3 {
						return errTest
					}
					return nil
				}
			}},
		{name: "connections break", writes: true, cut: 100},
	}
}

// Bytes of a big object are written from memory to memory along a chain, or go over the connections when something is
// in the way; what a broken writer still writes reaches nothing that was verified.
//
// rows: FUT-04
func TestSidedChain(t *testing.T) {
	for _, tc := range sidedCases() {
		t.Run(tc.name, func(t *testing.T) { tc.run(t) })
	}
}

func (tc *sidedCase) run(t *testing.T) {
	items, lengths := objects(5<<20 + 17)
	layout, err := transfer.NewLayout(Unit, lengths)
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	sides, list, counters := transporttest.NewSides(), make([]*transporttest.Side, 4), make([]Counters, 4)
	for n := range list {
		list[n] = sides.Side()
		if tc.set != nil {
			tc.set(n, list[n])
		}
	}
	stops := newStops(t, layout, items, &Incoming{Direct: true, Keys: tc.keys})
	quiet := func(error) {}
	for n, s := range stops {
		s.in.Counters = &counters[n+1]
		s.in.Sided = &Sided{OneSided: list[n+1], Memory: s.items[0].Data, Trouble: quiet}
		cut := tc.cut
		if cut > 0 { // behind the list of digests
			cut += int64(transfer.ListLen(lengths[0])) + 200
		}
		s.serve(t, &all, cut)
	}
	from, progress := items, NewProgress(layout.Total())
	for n, s := range stops {
		o := &Outgoing{
			Local: netip.MustParseAddr("127.0.0.1"), Peer: s.l.Addr().(*net.TCPAddr).AddrPort(), Layout: layout,
			Items: from, Progress: progress, Keys: tc.keys, Counters: &counters[n],
			Sided: &Sided{OneSided: list[n], Memory: from[0].Data, Trouble: quiet},
		}
		all.Go(func() {
			if err := o.Run(ctx); err != nil && ctx.Err() == nil {
				t.Errorf("feed: %v", err)
			}
		})
		from, progress = s.items, s.in.Progress
	}
	for i, s := range stops {
		select {
		case <-s.done:
		case <-ctx.Done():
			t.Fatalf("stop %d does not get everything: %d of %d segments", i, s.in.Progress.Segments(), layout.Total())
		}
	}
	sides.Wait()
	for i, s := range stops {
		if !bytes.Equal(s.items[0].Data, items[0].Data) {
			t.Errorf("stop %d has it wrong", i)
		}
	}
	time.AfterFunc(50*time.Millisecond, cancel)
	for _, s := range stops {
		_ = s.l.Close()
	}
	all.Wait()
	tc.judge(t, list, counters, lengths[0])
}

// judge compares what was counted with what should have been.
func (tc *sidedCase) judge(t *testing.T, list []*transporttest.Side, counters []Counters, size uint64) {
	unsided := uint64(0)
	for n := range list {
		if open := list[n].Open.Load(); open != 0 {
			t.Errorf("side %d: %d regions are open", n, open)
		}
		unsided += counters[n].Unsided.Load()
	}
	c, down := &counters[0], &counters[1]
	if c.Writes.Load() != list[0].Writes.Load() || c.WrittenBytes.Load() != list[0].Bytes.Load() {
		t.Errorf("%d writes of %d bytes are counted, of %d and %d", c.Writes.Load(), c.WrittenBytes.Load(),
			list[0].Writes.Load(), list[0].Bytes.Load())
	}
	wrote, framed := c.WrittenBytes.Load() > 0, c.SentBytes.Load() > size/2
	if wrote != tc.writes || framed != tc.frames || (unsided > 0) != tc.unsided {
		t.Errorf("%d bytes written, %d sent, %d links without writes; want %v, %v, %v", c.WrittenBytes.Load(),
			c.SentBytes.Load(), unsided, tc.writes, tc.frames, tc.unsided)
	}
	if tc.writes && !tc.frames && tc.cut == 0 && (c.WrittenBytes.Load() != size || down.LandedBytes.Load() != size ||
		down.Notices.Load() != c.Writes.Load()) {
		t.Errorf("%d of %d bytes were written, %d came", c.WrittenBytes.Load(), size, down.LandedBytes.Load())
	}
}

// Nobody can write into a copy any more when it is said to be complete, nor when its connection is over.
//
// rows: FUT-04
func TestSidedRegionEnds(t *testing.T) {
	items, lengths := objects(3 << 20)
	layout, err := transfer.NewLayout(Unit, lengths)
	if err != nil {
		t.Fatal(err)
	}
	sides := transporttest.NewSides()
	up, down := sides.Side(), sides.Side()
	mine := []transfer.Item{transfer.NewItem(make([]byte, lengths[0]), items[0].Digest)}
	in := &Incoming{
		Receiver: transfer.NewReceiver(layout, mine), Direct: true, Progress: NewProgress(0), Counters: &Counters{},
		Sided: &Sided{OneSided: down, Memory: mine[0].Data, Trouble: func(err error) { t.Error(err) }},
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	half := NewProgress(layout.Total() / 2)
	o := &Outgoing{
		Local: netip.MustParseAddr("127.0.0.1"), Peer: l.Addr().(*net.TCPAddr).AddrPort(), Layout: layout, Items: items,
		Progress: half, Counters: &Counters{},
		Sided: &Sided{OneSided: up, Memory: items[0].Data, Trouble: func(err error) { t.Error(err) }},
	}
	serve := func(ctx context.Context, during func()) error {
		ended := make(chan error, 1)
		go func() { ended <- o.Run(ctx) }()
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		g, err := ReadGreeting(c)
		if err != nil || !g.Sided {
			t.Fatalf("%+v, %v", g, err)
		}
		go during()
		err = in.Serve(c, g, func() {
			if n := down.Open.Load(); n != 0 {
				t.Errorf("%d regions are open when the copy is complete", n)
			}
		})
		_ = c.Close()
		<-ended
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	err = serve(ctx, func() { // the upstream side ends when half of it is there
		for in.Progress.Segments() < layout.Total()/2 {
			time.Sleep(time.Millisecond) // between two looks
		}
		cancel()
	})
	if n := down.Open.Load(); err == nil || n != 0 {
		t.Errorf("%v; %d regions are open", err, n)
	}
	half.Set(layout.Total())
	if err := serve(t.Context(), func() {}); err != nil || !in.Receiver.Complete() {
		t.Errorf("the second link: %v", err)
	}
	if n := up.Open.Load() + down.Open.Load(); n != 0 {
		t.Errorf("%d regions are open", n)
	}
	if !bytes.Equal(mine[0].Data, items[0].Data) {
		t.Error("the copy is wrong")
	}
}

// Notices that name what was not asked for end the link, whatever they say.
func TestSidedNotices(t *testing.T) {
	for _, run := range [][2]uint32{{0, 1}, {5, runMax}, {sidedMax - 1, 1}} {
		if first, n := runOf(noticeOf(run[0], run[1])); first != run[0] || n != run[1] {
			t.Errorf("%v travels as %d, %d", run, first, n)
		}
	}
	items, lengths := objects(10 * Unit)
	layout, err := transfer.NewLayout(Unit, lengths)
	if err != nil {
		t.Fatal(err)
	}
	in := &Incoming{
		Receiver: transfer.NewReceiver(layout, []transfer.Item{transfer.NewItem(items[0].Data, items[0].Digest)}),
		Progress: NewProgress(0), Counters: &Counters{},
	}
	if err := in.landed(noticeOf(1, 3)); err != nil {
		t.Error(err)
	}
	for _, bad := range []uint32{noticeOf(0, 1), noticeOf(3, 1), noticeOf(10, 8), noticeOf(11, 1), 0xffffffff} {
		if err := in.landed(bad); !errors.Is(err, ErrForeign) {
			t.Errorf("notice %x: %v", bad, err)
		}
	}
}
