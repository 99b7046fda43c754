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
		p, err := New(dir, 48<<20)
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
	p, err := New("", 0)
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
	p, err := New("", 0)
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
	p, err := New("", 12<<20)
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

// Signals, which the Go runtime sends to its own threads too, do not keep an object from its memory. Linux 6.1 lets
// them end fallocate; 6.18 does not.
func TestSignalsDoNotMatter(t *testing.T) {
	p, err := New("", 0)
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
