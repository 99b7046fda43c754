package frame

import (
	"testing"

	"pgregory.net/rapid"
)

// model is the slow reference: the references to every chunk in use, and the pools' sizes.
type model struct {
	a    *Arena
	refs map[uint32]int
	held []Frame // one entry for each reference
}

// pool draws one of the pools.
func (m *model) pool(rt *rapid.T, label string) *Pool {
	return rapid.SampledFrom(m.pools()).Draw(rt, label)
}

func (m *model) pools() []*Pool { return []*Pool{m.a.Tx(), m.a.Rx(), m.a.LargeTx(), m.a.LargeRx()} }

func (m *model) inUse(p *Pool) int {
	n := 0
	for chunk := range m.refs {
		if m.a.poolOf(chunk) == p {
			n++
		}
	}
	return n
}

func (m *model) get(rt *rapid.T) {
	p := m.pool(rt, "pool")
	f, ok := p.Get()
	if want := m.inUse(p) < p.Cap(); ok != want {
		rt.Fatalf("%s.Get: %v with %d of %d in use", p.name, ok, m.inUse(p), p.Cap())
	}
	if !ok {
		return
	}
	if m.refs[f.Chunk] != 0 {
		rt.Fatalf("%s.Get: %+v is in use", p.name, f)
	}
	m.refs[f.Chunk] = 1
	m.held = append(m.held, f)
}

func (m *model) retain(rt *rapid.T) {
	if len(m.held) == 0 {
		rt.Skip("nothing held")
	}
	f := rapid.SampledFrom(m.held).Draw(rt, "frame")
	n := rapid.IntRange(0, 3).Draw(rt, "n")
	m.a.RetainN(f, n)
	m.refs[f.Chunk] += n
	for range n {
		m.held = append(m.held, f)
	}
}

func (m *model) release(rt *rapid.T) {
	if len(m.held) == 0 {
		rt.Skip("nothing held")
	}
	i := rapid.IntRange(0, len(m.held)-1).Draw(rt, "held")
	f := m.held[i]
	m.held = append(m.held[:i], m.held[i+1:]...)
	if m.refs[f.Chunk]--; m.refs[f.Chunk] == 0 {
		delete(m.refs, f.Chunk)
	}
	if rapid.Bool().Draw(rt, "by arena") {
		m.a.Release(f)
	} else {
		m.pool(rt, "by pool").Release(f)
	}
}

func (m *model) check(rt *rapid.T) {
	if got := m.a.Outstanding(); got != len(m.refs) {
		rt.Fatalf("%d outstanding, want %d", got, len(m.refs))
	}
	for chunk, n := range m.refs {
		if got := m.a.Refs(Frame{Chunk: chunk}); got != n {
			rt.Fatalf("chunk %d has %d references, want %d", chunk, got, n)
		}
	}
	for _, p := range m.pools() {
		if got, want := p.Free(), p.Cap()-m.inUse(p); got != want {
			rt.Fatalf("%s: %d free, want %d", p.name, got, want)
		}
	}
}

func TestArenaAgainstModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		a, err := New(Config{
			ChunkSize: 256,
			Headroom:  8,
			TxChunks:  rapid.IntRange(1, 6).Draw(rt, "tx"),
			RxRuns:    rapid.IntRange(0, 4).Draw(rt, "rx"),
			RunChunks: rapid.IntRange(1, 3).Draw(rt, "run"),
			LargeTx:   rapid.IntRange(0, 3).Draw(rt, "large tx"),
			LargeRx:   rapid.IntRange(0, 3).Draw(rt, "large rx"),
			LargeRun:  rapid.IntRange(1, 4).Draw(rt, "large run"),
		})
		if err != nil {
			rt.Fatal(err)
		}
		m := &model{a: a, refs: map[uint32]int{}}
		rt.Repeat(map[string]func(*rapid.T){
			"get": m.get, "retain": m.retain, "release": m.release, "": m.check,
		})
		for _, f := range m.held {
			a.Release(f)
		}
		if err := a.Close(); err != nil {
			rt.Fatal(err)
		}
	})
}
