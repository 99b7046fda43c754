package memory

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestPool(t *testing.T) {
	for _, dir := range []string{"", t.TempDir()} {
		p, err := New(dir, Spares{Most: 48 << 20})
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("kind: %s", p.Kind())
		var blocks []*Block
		sizes := []int64{0, 1, 4096, 4097, 64 << 10, 1 << 20, 5 << 20}
		for round := range 300 {
			size := sizes[round%len(sizes)]
			b, err := p.Alloc(size)
			if err != nil {
				t.Fatal(err)
			}
			for i := range b.Data {
				b.Data[i] = byte(round)
			}
			blocks = append(blocks, b)
			if len(blocks) > 40 {
				blocks[0].Free()
				blocks = blocks[1:]
			}
		}
		for _, b := range blocks {
			for i := range b.Data {
				if b.Data[i] != b.Data[0] {
					t.Fatal("two blocks share bytes")
				}
			}
			b.Free()
		}
		if p.Used() != 0 {
			t.Errorf("%d bytes are in use", p.Used())
		}
		p.Close()
		if _, err := p.Alloc(1); !errors.Is(err, ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
	}
}

func TestEditsStayApart(t *testing.T) {
	p, err := New("", Spares{})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	for _, size := range []int64{100, 3 << 20} {
		b, err := p.Alloc(size)
		if err != nil {
			t.Fatal(err)
		}
		if err := b.WriteAt(bytes.Repeat([]byte{7}, int(size)), 0); err != nil {
			t.Fatal(err)
		}
		e, end, err := b.Edit()
		if err != nil {
			t.Fatal(err)
		}
		if e[size-1] != 7 {
			t.Error("the edited bytes do not begin as the block's")
		}
		e[size-1] = 8
		if b.Data[size-1] != 7 {
			t.Error("a change shows in the block")
		}
		end()
		b.Free()
	}
}

func TestMapFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(path, []byte("bytes"), 0o600); err != nil {
		t.Fatal(err)
	}
	b, err := Map(path)
	if err != nil || string(b.Data) != "bytes" {
		t.Fatalf("%q %v", b.Data, err)
	}
	b.Free()
	if _, err := Map(filepath.Dir(path)); err == nil {
		t.Error("a directory is mapped")
	}
	if _, err := Map(path + "x"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}

// What does not fit is refused before anything is filled.
//
// rows: OOB-36
func TestNoSpace(t *testing.T) {
	p, err := New("", Spares{})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if _, err := p.Alloc(1 << 50); !errors.Is(err, ErrNoSpace) {
		t.Errorf("a petabyte: %v", err)
	}
}

// What is given back is kept for the next objects within the limit, the newest first, and goes back to the system when
// that has nothing else.
func TestSpares(t *testing.T) {
	p, err := New("", Spares{Most: 12 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	alloc := func(size int64) *Block {
		t.Helper()
		b, err := p.Alloc(size)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	a, b, big := alloc(8<<20), alloc(6<<20), alloc(16<<20)
	a.Data[5] = 7
	big.Free()
	if len(p.spares) != 0 {
		t.Error("more is kept than is allowed")
	}
	a.Free()
	if a = alloc(7 << 20); a.Fresh() || a.Data[5] != 7 {
		t.Error("what was given back is not used again")
	}
	a.Free()
	b.Free()
	if p.kept != 6<<20 || len(p.spares) != 1 {
		t.Errorf("%d bytes in %d areas are kept, want the newest area only", p.kept, len(p.spares))
	}
	if _, err := p.Alloc(1 << 50); !errors.Is(err, ErrNoSpace) {
		t.Errorf("a petabyte: %v", err)
	}
	if p.kept != 0 || len(p.spares) != 0 {
		t.Error("memory was missing, and spares were kept")
	}
	if b = alloc(6 << 20); !b.Fresh() {
		t.Error("released memory came back")
	}
	b.Free()
}

// lingering is a pool that keeps more than its limit for a while.
type lingering struct {
	*Pool
	t     *testing.T
	heavy int // work that takes long
}

func newLingering(t *testing.T, linger time.Duration) *lingering {
	l := &lingering{t: t}
	p, err := New("", Spares{Most: 4 << 20, Linger: linger, Heavy: func(work func()) {
		work()
		l.mu.Lock()
		l.heavy++
		l.mu.Unlock()
	}})
	if err != nil {
		t.Fatal(err)
	}
	l.Pool = p
	return l
}

func (l *lingering) alloc(size int64) *Block {
	l.t.Helper()
	b, err := l.Alloc(size)
	if err != nil {
		l.t.Fatal(err)
	}
	return b
}

// want checks how many bytes are kept.
func (l *lingering) want(bytes int64) {
	l.t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.kept != bytes {
		l.t.Errorf("%d bytes are kept, want %d", l.kept, bytes)
	}
}

// More than the limit is kept for a while, so that an object that takes another one's place has its memory, unless it
// takes fresh memory: then it goes at once.
func TestSparesLinger(t *testing.T) {
	p := newLingering(t, time.Hour)
	a, b := p.alloc(8<<20), p.alloc(8<<20)
	if end := a.Retire(); end != nil {
		t.Error("memory that is kept has an end")
	}
	b.Free()
	p.want(16 << 20)
	if a = p.alloc(8 << 20); a.Fresh() {
		t.Error("what was given back is not used again")
	}
	if big := p.alloc(32 << 20); !big.Fresh() {
		t.Error("memory came from nowhere")
	}
	p.want(0)
	a.Free()
	p.want(8 << 20)
	p.Close()
	p.want(0)
}

// In the end what is too much goes, on a thread for work that takes long.
func TestSparesGo(t *testing.T) {
	p := newLingering(t, 50*time.Millisecond)
	defer p.Close()
	big, small := p.alloc(32<<20), p.alloc(2<<20)
	big.Free()
	small.Free()
	p.want(34 << 20)
	gone := func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.heavy > 0
	}
	for end := time.Now().Add(10 * time.Second); !gone() && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	if !gone() {
		t.Error("nothing went")
	}
	p.want(2 << 20)
}

// Signals, which the Go runtime sends to its own threads too, do not keep an object from its memory. Linux 6.1 lets
// them end fallocate; 6.18 does not.
func TestSignalsDoNotMatter(t *testing.T) {
	p, err := New("", Spares{})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	pid, thread := unix.Getpid(), unix.Gettid()
	var stop atomic.Bool
	var all sync.WaitGroup
	all.Go(func() {
		for !stop.Load() {
			_ = unix.Tgkill(pid, thread, unix.SIGURG) // of our own
			time.Sleep(time.Microsecond)
		}
	})
	defer all.Wait()
	defer stop.Store(true)
	for range 100 {
		b, err := p.Alloc(64 << 20)
		if err != nil {
			t.Fatal(err)
		}
		b.Free()
	}
}

// The files that small blocks share are kept as well.
func TestSlabsAreKept(t *testing.T) {
	p := newLingering(t, time.Hour)
	defer p.Close()
	const size, blocks = 64 << 10, 130 // two slabs and a bit
	fill := func() (list []*Block) {
		for range blocks {
			list = append(list, p.alloc(size))
		}
		return list
	}
	for _, b := range fill() {
		b.Data[0] = 1
		b.Free()
	}
	p.want(2 * slabLen) // one stays, empty
	for i, b := range fill() {
		if b.Fresh() {
			t.Fatalf("block %d is fresh", i)
		}
	}
	p.want(0)
	if n := p.Reused(); n != 2*slabLen {
		t.Errorf("%d bytes were had again", n)
	}
}
