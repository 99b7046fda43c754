// Command bigstate lets a process join a group whose state is large, without holding the group up: it fetches nearly
// all of the state beforehand, by queries, while updates go on, and the state transfer at the join brings only what
// changed since. Each part of the state carries the number of the update that changed it last; that is all it takes.
//
//	go run ./examples/bigstate
package main

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"sync"
	"time"

	"github.com/khamsin-io/khamsin/vsync"
)

// The request codes: of the store, and of the group in which its members serve those who prepare to join it.
const (
	codeWrite vsync.Code = iota // block, byte
	codeFetch                   // block: its bytes, and the number of updates so far
	codeKnow                    // the number of updates that the asker has
)

// The size of the state: 64 MiB.
const (
	blocks    = 1024
	blockSize = 64 << 10
	hot       = 100 // blocks that are written again and again
)

// member is one process of the store.
type member struct {
	store, help *vsync.Group

	mu      sync.Mutex // the two groups run their handlers on goroutines of their own
	data    [blocks][]byte
	changed [blocks]int // the update that wrote the block last
	updates int
	knows   map[vsync.Address]int // how many updates those who prepare to join have
	loaded  int                   // blocks that came with the join
}

func main() {
	if err := run(context.Background(), os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "bigstate:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out io.Writer, opts ...vsync.Option) error {
	first, err := start(ctx, opts)
	if err != nil {
		return err
	}
	defer first.store.System().Close()
	if err := errors.Join(first.help.Join(ctx), first.store.Join(ctx)); err != nil {
		return err
	}
	stop, writing := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- first.write(stop) }()
	second, err := start(ctx, opts)
	if err != nil {
		writing()
		return err
	}
	defer second.store.System().Close()
	fetched, err := second.prepare(ctx)
	err = errors.Join(err, second.store.Join(ctx))
	writing()
	if err = errors.Join(err, <-done); err != nil {
		return err
	}
	if err := errors.Join(first.store.Flush(ctx), second.catchUp(ctx, first)); err != nil {
		return err
	}
	fmt.Fprintf(out, "fetched %d blocks beforehand, %d more with the join\n", fetched, second.loaded)
	a, b := first.sum(), second.sum()
	fmt.Fprintf(out, "the copies are equal: %v\n", a == b)
	if a != b {
		return errors.New("the copies differ")
	}
	return nil
}

// start starts a process that is in no group yet.
func start(ctx context.Context, opts []vsync.Option) (*member, error) {
	sys, err := vsync.Start(ctx, opts...)
	if err != nil {
		return nil, err
	}
	m := &member{store: sys.NewGroup("store"), help: sys.NewGroup("store: help"), knows: map[vsync.Address]int{}}
	for i := range m.data {
		m.data[i] = make([]byte, blockSize)
	}
	return m, errors.Join(
		m.store.Handle(codeWrite, m.onWrite), m.store.OnMakeState(m.makeState), m.store.OnLoadState(m.load),
		m.store.OnLoadState(func(updates int) { m.updates = updates }),
		m.help.Handle(codeFetch, m.onFetch), m.help.Handle(codeKnow, m.onKnow),
	)
}

// onWrite fills a block: what an update does.
func (m *member) onWrite(block int, value byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.updates++
	m.changed[block] = m.updates
	for i := range m.data[block] {
		m.data[block][i] = value
	}
}

// onFetch serves a block as it is now.
func (m *member) onFetch(block int) ([]byte, int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]byte(nil), m.data[block]...), m.updates, nil
}

// onKnow notes what a process that is about to join has already.
func (m *member) onKnow(msg *vsync.Message, updates int) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.knows[msg.From] = updates
	return updates, nil
}

// prepare fetches the state, and tells every member how much of it this process has: what changed before the first
// block was asked for need not come again.
func (m *member) prepare(ctx context.Context) (fetched int, err error) {
	if err := m.help.Join(ctx); err != nil {
		return 0, err
	}
	known := -1
	oldest := m.help.View().Members[0]
	for i := range m.data {
		reply, err := vsync.Ask[vsync.Two[[]byte, int]](ctx, m.help, oldest, codeFetch, i)
		if err != nil {
			return i, err
		}
		if m.data[i] = reply.First; known < 0 {
			known = reply.Second
		}
	}
	_, err = vsync.Query[int](ctx, m.help, vsync.All, codeKnow, known)
	return blocks, err
}

// makeState writes the blocks that some joiner lacks. A joiner that has not prepared lacks all.
func (m *member) makeState(_ context.Context, v *vsync.View, w *vsync.StateWriter) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	least := m.updates
	for _, a := range v.Joined {
		least = min(least, m.knows[a])
	}
	for i := range m.data {
		if m.changed[i] > least {
			if err := w.Put(i, m.changed[i], m.data[i]); err != nil {
				return err
			}
		}
	}
	return w.Put(m.updates)
}

// load takes one block of the transferred state.
func (m *member) load(block, changed int, data []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.data[block], m.changed[block] = append([]byte(nil), data...), changed
	m.loaded++
}

// write updates one block after the other until ctx ends.
func (m *member) write(ctx context.Context) error {
	pace := time.NewTicker(2 * time.Millisecond)
	defer pace.Stop()
	for i := 0; ; i++ {
		select {
		case <-ctx.Done():
			return nil
		case <-pace.C:
		}
		err := m.store.OrderedSend(ctx, codeWrite, i%hot, byte(i))
		if err != nil && ctx.Err() == nil {
			return err
		}
	}
}

// catchUp waits until this member has handled as many updates as the other one.
func (m *member) catchUp(ctx context.Context, other *member) error {
	for {
		m.mu.Lock()
		mine := m.updates
		m.mu.Unlock()
		other.mu.Lock()
		theirs := other.updates
		other.mu.Unlock()
		if mine == theirs {
			return nil
		}
		if err := m.store.Flush(ctx); err != nil {
			return err
		}
	}
}

// sum returns a checksum of the state.
func (m *member) sum() uint32 {
	m.mu.Lock()
	defer m.mu.Unlock()
	sum := uint32(m.updates)
	for _, b := range m.data {
		sum = crc32.Update(sum, crc32.IEEETable, b)
	}
	return sum
}
