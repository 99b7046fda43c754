//go:build cgo && rdma

package rdma

import (
	"bytes"
	"context"
	"errors"
	"math"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/khamsin-io/khamsin/dataplane"
)

// within returns a context that ends when the test's patience does.
func within(tb testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), peersPatience)
	tb.Cleanup(cancel)
	return ctx
}

// openRegion opens a region that is closed when the test ends.
func openRegion(tb testing.TB, tr *Transport, size int) dataplane.Region {
	tb.Helper()
	r, err := tr.OpenRegion(size)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := r.Close(); err != nil {
			tb.Error(err)
		}
	})
	return r
}

// connect connects a writer that is closed when the test ends.
func connect(tb testing.TB, tr *Transport, key []byte) dataplane.Writer {
	tb.Helper()
	w, err := tr.Connect(within(tb), key)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := w.Close(); err != nil {
			tb.Error(err)
		}
	})
	return w
}

// Writes land where they are told to, notices come in order behind them, and two writers share a region.
func TestOneSidedWrites(t *testing.T) {
	a, b := openUntilEnd(t, nil), openUntilEnd(t, nil)
	const size = 3<<20 + 17
	source, target := openRegion(t, a, size), openRegion(t, b, size)
	for i := range source.Bytes() {
		source.Bytes()[i] = byte(i * 3)
	}
	writers := []dataplane.Writer{connect(t, a, target.Key()), connect(t, a, target.Key())}
	if writers[0].Size() != size {
		t.Errorf("size %d", writers[0].Size())
	}
	number := uint32(0)
	for _, w := range []dataplane.Copy{
		{Len: 1}, {From: 5, To: size - 100, Len: 100}, {From: 1, To: 1, Len: pieceMax + 1}, {Len: size}, {To: size},
	} {
		clear(target.Bytes())
		number++
		if err := writers[number%2].Write(within(t), source, w, number); err != nil {
			t.Fatalf("%+v: %v", w, err)
		}
		if got, err := target.Await(within(t)); got != number || err != nil {
			t.Fatalf("notice %d, %v, want %d", got, err, number)
		}
		want := make([]byte, size)
		copy(want[w.To:], source.Bytes()[w.From:w.From+w.Len])
		if !bytes.Equal(target.Bytes(), want) {
			t.Errorf("%+v: other bytes than those were written", w)
		}
	}
	for _, w := range []dataplane.Copy{
		{From: -1, Len: 1}, {Len: -1}, {To: -1, Len: 1}, {From: size, Len: 1}, {To: size, Len: 1}, {Len: size + 1},
		{From: 1, Len: size}, {From: math.MaxInt, Len: 2}, {To: math.MaxInt, Len: 2},
	} {
		if err := writers[0].Write(within(t), source, w, 1); err == nil {
			t.Errorf("%+v is written", w)
		}
	}
	if err := writers[0].Write(within(t), target, dataplane.Copy{Len: 1}, 1); err == nil {
		t.Error("a region of another transport is a source")
	}
	if err := writers[0].Write(within(t), source, dataplane.Copy{Len: 9}, 99); err != nil {
		t.Errorf("after refusals: %v", err)
	}
	if got, err := target.Await(within(t)); got != 99 || err != nil {
		t.Errorf("notice %d, %v", got, err)
	}
}

// Memory that the caller has mapped is a region until it is closed: an open one can be written into, by others than its
// process; one that is not open has no key, and is a source. Afterwards the memory is the caller's as before.
func TestOneSidedRegister(t *testing.T) {
	a, b := openUntilEnd(t, nil), openUntilEnd(t, nil)
	const size = 1 << 20
	var memory [2][]byte
	for i := range memory {
		var err error
		memory[i], err = unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_ANON)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = unix.Munmap(memory[i]) }()
	}
	for i := range memory[0] {
		memory[0][i] = byte(i * 7)
	}
	source, err := a.Register(memory[0], false)
	if err != nil {
		t.Fatal(err)
	}
	if key := source.Key(); key != nil {
		t.Errorf("a region that is not open has a key of %d bytes", len(key))
	}
	for round := range 2 { // the same memory again
		target, err := b.Register(memory[1], true)
		if err != nil {
			t.Fatal(err)
		}
		again, err := b.Register(memory[1], false) // to pass it on, meanwhile
		if err != nil {
			t.Fatal(err)
		}
		clear(memory[1])
		w := connect(t, a, target.Key())
		if err := w.Write(within(t), source, dataplane.Copy{Len: size}, 3); err != nil {
			t.Fatal(err)
		}
		if got, err := target.Await(within(t)); got != 3 || err != nil || !bytes.Equal(memory[0], memory[1]) {
			t.Errorf("round %d: notice %d, %v; equal: %v", round, got, err, bytes.Equal(memory[0], memory[1]))
		}
		key := target.Key()
		if err := errors.Join(target.Close(), again.Close()); err != nil {
			t.Error(err)
		}
		memory[1][0] = 99
		if err := w.Write(within(t), source, dataplane.Copy{Len: 1}, 4); err == nil || memory[1][0] != 99 {
			t.Errorf("a write after Close: %v; the memory has %d", err, memory[1][0])
		}
		if _, err := a.Connect(within(t), key); err == nil {
			t.Error("the key of a region that was closed still opens it")
		}
	}
	if err := source.Close(); err != nil || memory[0][1] != 7 {
		t.Errorf("%v; the source has %d", err, memory[0][1])
	}
	if _, err := a.Register(nil, false); err == nil {
		t.Error("a region of nothing")
	}
}

// A key that is wrong in any way opens nothing, and harms nobody who has the right one.
func TestOneSidedKeys(t *testing.T) {
	a, b := openUntilEnd(t, nil), openUntilEnd(t, nil)
	source, target := openRegion(t, a, 4096), openRegion(t, b, 4096)
	change := func(at int) []byte {
		key := bytes.Clone(target.Key())
		key[at] ^= 1
		return key
	}
	for _, key := range [][]byte{nil, target.Key()[1:], change(0), append(target.Key(), 0)} {
		if _, err := a.Connect(within(t), key); !errors.Is(err, errBadKey) {
			t.Errorf("key %x: %v", key, err)
		}
	}
	if _, err := a.Connect(within(t), change(25)); !errors.Is(err, ErrRefused) {
		t.Errorf("another token: %v", err)
	}
	for _, at := range []int{keyBytes - 1, keyBytes - 13} { // the remote key; the size, and so the bounds
		w := connect(t, a, change(at))
		n := w.Size()
		whole := dataplane.Copy{Len: min(n, 4096), To: max(0, n-4096)}
		if err := w.Write(within(t), source, whole, 1); err == nil && at == keyBytes-1 {
			t.Errorf("a wrong key writes")
		}
		if err := w.Write(within(t), source, dataplane.Copy{Len: 8}, 1); at == keyBytes-1 && err == nil {
			t.Error("a writer goes on after a failure")
		}
		if _, err := target.Await(within(t)); at == keyBytes-1 && !errors.Is(err, dataplane.ErrPeerGone) {
			t.Errorf("the region is not told of a connection that failed: %v", err)
		}
	}
	w := connect(t, a, target.Key())
	if err := w.Write(within(t), source, dataplane.Copy{Len: 8}, 5); err != nil {
		t.Errorf("the right key: %v", err)
	}
}

// Calls that speak another protocol, or none, are ended and change nothing; closing does not wait for them long.
func TestOneSidedStrangers(t *testing.T) {
	b := openUntilEnd(t, nil)
	target := openRegion(t, b, 4096)
	k, err := parseKey(target.Key())
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range [][]byte{bytes.Repeat([]byte{0xff}, helloBytes), bytes.Repeat([]byte{0}, 3*helloBytes), nil} {
		conn, err := net.Dial("tcp", k.host.String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if len(text) == 0 {
			continue // it says nothing, and Close must end it
		}
		if _, err := conn.Write(text); err != nil {
			t.Fatal(err)
		}
		_ = conn.SetReadDeadline(time.Now().Add(peersPatience))
		if n, err := conn.Read(make([]byte, 10)); n != 0 || err == nil {
			t.Errorf("an answer of %d bytes, %v", n, err)
		}
	}
	began := time.Now()
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took > exchangeLimit-time.Second {
		t.Errorf("Close took %v", took)
	}
}

// A region that nobody asks for its notices holds its writer up, for as long as the writer's context lets it.
func TestOneSidedBackPressure(t *testing.T) {
	a, b := openUntilEnd(t, nil), openUntilEnd(t, nil)
	source, target := openRegion(t, a, 4096), openRegion(t, b, 4096)
	w := connect(t, a, target.Key())
	var err error
	wrote := uint32(0)
	for ; err == nil && wrote < 10*noticesMax; wrote++ {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		err = w.Write(ctx, source, dataplane.Copy{Len: 8}, wrote)
		cancel()
	}
	if !errors.Is(err, context.DeadlineExceeded) || wrote < noticesMax {
		t.Fatalf("after %d writes: %v", wrote, err)
	}
	for i := range uint32(noticesMax) {
		if got, err := target.Await(within(t)); got != i || err != nil {
			t.Fatalf("notice %d, %v, want %d", got, err, i)
		}
	}
}

// Closing a transport ends everything that waits.
func TestOneSidedClose(t *testing.T) {
	a, b := openUntilEnd(t, nil), openUntilEnd(t, nil)
	target := openRegion(t, b, 4096)
	_ = connect(t, a, target.Key())
	waiting := make(chan error)
	go func() {
		_, err := target.Await(context.Background())
		waiting <- err
	}()
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	if err := <-waiting; !errors.Is(err, dataplane.ErrClosed) && !errors.Is(err, dataplane.ErrPeerGone) {
		t.Errorf("Await: %v", err)
	}
	if _, err := b.OpenRegion(1); !errors.Is(err, dataplane.ErrClosed) {
		t.Errorf("OpenRegion: %v", err)
	}
	if _, err := b.Connect(within(t), target.Key()); !errors.Is(err, dataplane.ErrClosed) {
		t.Errorf("Connect: %v", err)
	}
	for _, size := range []int{0, -1, regionMax + 1} {
		if _, err := a.OpenRegion(size); err == nil {
			t.Errorf("a region of %d bytes", size)
		}
	}
}
