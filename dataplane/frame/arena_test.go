package frame

import (
	"strings"
	"sync"
	"testing"

	"github.com/khamsin-io/khamsin/dataplane/invariant"
)

// open returns an arena that must be whole when the test ends.
func open(t testing.TB, cfg Config) *Arena {
	t.Helper()
	a, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	})
	return a
}

// get takes a frame that must be there.
func get(t testing.TB, p *Pool) Frame {
	t.Helper()
	f, ok := p.Get()
	if !ok {
		t.Fatalf("%s pool is empty", p.name)
	}
	return f
}

// mustFail runs fn, which must trip an assertion whose message has want in it.
func mustFail(t *testing.T, want string, fn func()) {
	t.Helper()
	defer func() {
		t.Helper()
		v, ok := recover().(*invariant.Violation)
		if !ok || !strings.Contains(v.Message, want) {
			t.Errorf("got violation %v, want one with %q", v, want)
		}
	}()
	fn()
}

func TestFreshFrame(t *testing.T) {
	a := open(t, Config{TxChunks: 3, RxRuns: 2, RunChunks: 4, ChunkSize: 1024, Headroom: 100, LargeTx: 2, LargeRx: 1,
		LargeRun: 9})
	for _, tc := range []struct {
		pool *Pool
		size int
	}{{a.Tx(), 1024}, {a.Rx(), 4096}, {a.LargeTx(), 9216}, {a.LargeRx(), 9216}} {
		f := get(t, tc.pool)
		if f.IsZero() || f.Off != 100 || f.Len != 0 || a.Refs(f) != 1 {
			t.Errorf("%s: fresh frame %+v with %d references", tc.pool.name, f, a.Refs(f))
		}
		if got, want := a.Room(f), tc.size-100; got != want {
			t.Errorf("%s: room %d, want %d", tc.pool.name, got, want)
		}
		f.Len = uint32(a.Room(f))
		b := a.Bytes(f)
		if len(b) != int(f.Len) || cap(b) != int(f.Len) {
			t.Errorf("%s: len %d cap %d, want both %d", tc.pool.name, len(b), cap(b), f.Len)
		}
		tc.pool.Release(f)
	}
}

// Every byte of the arena belongs to one chunk or run at most: what is written through one frame is seen through no
// other.
func TestFramesDoNotOverlap(t *testing.T) {
	a := open(t, Config{TxChunks: 5, RxRuns: 3, RunChunks: 3, ChunkSize: 256, Headroom: 10, LargeTx: 3, LargeRx: 2,
		LargeRun: 7})
	var frames []Frame
	for _, p := range []*Pool{a.Tx(), a.Rx(), a.LargeTx(), a.LargeRx()} {
		for p.Free() > 0 {
			f := get(t, p)
			f.Off = 0
			f.Len = uint32(a.Room(f))
			frames = append(frames, f)
		}
	}
	for i, f := range frames {
		for j := range a.Bytes(f) {
			a.Bytes(f)[j] = byte(i + 1)
		}
	}
	for i, f := range frames {
		for j, b := range a.Bytes(f) {
			if b != byte(i+1) {
				t.Fatalf("byte %d of frame %d (%+v) is %d: written through another frame", j, i, f, b)
			}
		}
		a.Release(f)
	}
	if len(frames) != 13 {
		t.Fatalf("%d frames, want 13", len(frames))
	}
}

func TestSubFramesShareTheReferenceCount(t *testing.T) {
	a := open(t, Config{TxChunks: 1, RxRuns: 1, RunChunks: 2, ChunkSize: 1024})
	whole := get(t, a.Rx())
	whole.Len = 900
	copy(a.Bytes(whole), "first...second")
	a.RetainN(whole, 2)
	sub := Frame{Chunk: whole.Chunk, Off: whole.Off + 8, Len: 6}
	if got := string(a.Bytes(sub)); got != "second" {
		t.Fatalf("sub-frame reads %q", got)
	}
	a.Rx().Release(whole)
	a.Release(sub)
	if a.Refs(sub) != 1 || a.Rx().Free() != 0 {
		t.Fatalf("after 2 of 3 releases: %d references, %d free", a.Refs(sub), a.Rx().Free())
	}
	a.Rx().Release(sub)
	if a.Refs(sub) != 0 || a.Rx().Free() != 1 {
		t.Fatalf("after the last release: %d references, %d free", a.Refs(sub), a.Rx().Free())
	}
}

func TestReleaseThroughTheOtherPoolGoesHome(t *testing.T) {
	a := open(t, Config{TxChunks: 1, RxRuns: 1})
	f := get(t, a.Rx())
	a.Tx().Release(f)
	if a.Tx().Free() != 1 || a.Rx().Free() != 1 {
		t.Fatalf("free: tx %d, rx %d, want 1 and 1", a.Tx().Free(), a.Rx().Free())
	}
}

func TestLastFreedIsGotFirst(t *testing.T) {
	a := open(t, Config{TxChunks: 4})
	first, second := get(t, a.Tx()), get(t, a.Tx())
	a.Tx().Release(second)
	a.Tx().Release(first)
	if f := get(t, a.Tx()); f != first {
		t.Fatalf("got %+v, want the frame released last, %+v", f, first)
	}
	a.Tx().Release(first)
}

func TestEmptyPool(t *testing.T) {
	a := open(t, Config{TxChunks: 2})
	if f, ok := a.Rx().Get(); ok || !f.IsZero() {
		t.Fatalf("a pool of none gave %+v", f)
	}
	f, g := get(t, a.Tx()), get(t, a.Tx())
	if h, ok := a.Tx().Get(); ok || !h.IsZero() {
		t.Fatalf("an empty pool gave %+v", h)
	}
	a.Release(f) // by the ring: Get must look there when the stack is empty
	if h := get(t, a.Tx()); h.Chunk != f.Chunk {
		t.Fatalf("got chunk %d, want %d from the ring", h.Chunk, f.Chunk)
	}
	a.Release(f)
	a.Release(g)
}

func TestMisuseTripsAssertions(t *testing.T) {
	a := open(t, Config{TxChunks: 2, RxRuns: 2, RunChunks: 2, ChunkSize: 1024})
	free := get(t, a.Tx())
	a.Tx().Release(free)
	inside := get(t, a.Rx())
	defer a.Release(inside)
	inside.Chunk++ // a chunk inside the run
	alien := Frame{Chunk: 99}
	for _, f := range []Frame{free, {}, inside, alien} {
		mustFail(t, "not in use", func() { a.Release(f) })
		mustFail(t, "not in use", func() { a.Tx().Release(f) })
		mustFail(t, "not in use", func() { a.Rx().Release(f) })
		mustFail(t, "not in use", func() { a.Retain(f) })
		mustFail(t, "not in use", func() { a.Bytes(f) })
		mustFail(t, "not in use", func() { a.Room(f) })
	}
	mustFail(t, "not in use", func() { a.Refs(alien) })
	inside.Chunk--
	mustFail(t, "reaches beyond", func() { a.Bytes(Frame{Chunk: inside.Chunk, Off: 2000, Len: 49}) })
	mustFail(t, "reaches beyond", func() { a.Bytes(Frame{Chunk: inside.Chunk, Off: 1 << 31, Len: 1 << 31}) })
	mustFail(t, "reaches beyond", func() { a.Room(Frame{Chunk: inside.Chunk, Off: 2049}) })
}

func TestCloseNamesWhatIsOutstanding(t *testing.T) {
	a, err := New(Config{TxChunks: 4, RxRuns: 4})
	if err != nil {
		t.Fatal(err)
	}
	f, g, h := get(t, a.Tx()), get(t, a.Tx()), get(t, a.Rx())
	if got := a.Outstanding(); got != 3 {
		t.Fatalf("%d outstanding, want 3", got)
	}
	err = a.Close()
	if err == nil || !strings.Contains(err.Error(), "3 frames outstanding (tx 2, rx 1)") {
		t.Fatalf("Close: %v, want it to name 3 frames", err)
	}
	for _, late := range []Frame{f, g, h} { // a late release must not touch the memory
		a.Release(late)
	}
	if err := a.Close(); err != nil || a.Outstanding() != 0 {
		t.Fatalf("second Close: %v, outstanding %d", err, a.Outstanding())
	}
}

// Frames got by the owner and released by others, the last reference anywhere, all come home.
func TestReleaseFromManyGoroutines(t *testing.T) {
	const workers, rounds = 4, 2000
	a := open(t, Config{TxChunks: 32, ChunkSize: 256, Headroom: 16})
	frames := make(chan Frame, 64)
	var wg sync.WaitGroup
	for range workers {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for f := range frames {
				if string(a.Bytes(f)) != "payload" {
					t.Errorf("frame %+v reads %q", f, a.Bytes(f))
				}
				a.Release(f)
			}
		}()
	}
	for sent := 0; sent < rounds; {
		f, ok := a.Tx().Get()
		if !ok {
			continue
		}
		f.Len = 7
		copy(a.Bytes(f), "payload")
		a.RetainN(f, 2)
		frames <- f
		frames <- f
		a.Tx().Release(f)
		_ = a.Outstanding() // may be read at any time
		sent++
	}
	close(frames)
	wg.Wait()
	if a.Outstanding() != 0 || a.Tx().Free() != 32 {
		t.Fatalf("outstanding %d, free %d, want 0 and 32", a.Outstanding(), a.Tx().Free())
	}
}

func TestPoisonCatchesUseAfterRelease(t *testing.T) {
	if !invariant.Costly {
		t.Skip("needs -tags khamsin_invariants")
	}
	a, err := New(Config{TxChunks: 1})
	if err != nil {
		t.Fatal(err)
	}
	f := get(t, a.Tx())
	f.Len = 4
	stale := a.Bytes(f)
	copy(stale, "data")
	a.Tx().Release(f)
	if stale[0] != poisonByte || stale[3] != poisonByte {
		t.Fatalf("freed bytes read %x, want poison", stale)
	}
	stale[2] = 'x'
	mustFail(t, "written after its release", func() { a.Tx().Get() })
	if err := a.Close(); err != nil && !strings.Contains(err.Error(), "outstanding") {
		t.Fatal(err)
	}
}

func TestNoAllocation(t *testing.T) {
	a := open(t, Config{TxChunks: 8, RxRuns: 8})
	if n := testing.AllocsPerRun(1000, func() {
		f, _ := a.Tx().Get()
		f.Len = 100
		a.Bytes(f)[0] = 1
		a.Retain(f)
		a.Release(f)
		a.Rx().Release(f)
		_ = a.Tx().Free()
	}); n != 0 {
		t.Fatalf("%v allocations per frame, want 0", n)
	}
}
