package catalog

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/khamsin-io/khamsin/vsync/core"
)

// history is a random one, which two members live through.
type history struct {
	rng     *rand.Rand
	a, b    *Catalog
	alive   []int
	next    int
	joined  []int
	request uint64
	news    []news
}

// news is what a target has said, and what has no place in the order yet.
type news struct {
	who  core.Address
	what Command
}

func (h *history) step(f func(c *Catalog)) {
	f(h.a)
	f(h.b)
	h.a.Take()
	h.b.Take()
}

func (h *history) apply(from core.Address, k Command) {
	h.step(func(c *Catalog) { c.Apply(from, []Command{k}) })
}

func (h *history) view() {
	list := addresses(h.alive...)
	h.step(func(c *Catalog) { c.View(list); c.Settle() })
	for _, n := range h.alive {
		if !slices.Contains(h.joined, n) {
			h.joined = append(h.joined, n)
			h.apply(address(n), hello(true))
		}
	}
}

// act lets something happen.
func (h *history) act() {
	who := address(h.alive[h.rng.IntN(len(h.alive))])
	name := fmt.Sprint("o", h.rng.IntN(6))
	switch h.rng.IntN(10) {
	case 0:
		if len(h.alive) > 2 {
			h.alive = slices.Delete(h.alive, 0, 1)
		}
		h.alive = append(h.alive, h.next)
		h.next++
		h.view()
	case 1:
		h.apply(who, register(name, uint64(h.rng.IntN(3<<20))))
	case 2, 3, 4:
		h.request++
		var to []int
		for _, n := range append(slices.Clone(h.alive), 1000) {
			if h.rng.IntN(2) == 0 {
				to = append(to, n)
			}
		}
		h.apply(who, replicate(h.request, name, to...))
	case 5:
		h.target(KindCannot)
	case 6:
		h.apply(who, Command{Kind: KindUpdate, Name: name, Digest: Digest{byte(h.rng.IntN(3))}})
	default:
		h.target(KindHave)
	}
}

// target lets a target of a transfer say something, and what targets have said take its place in the order, sooner or
// later.
func (h *history) target(kind Kind) {
	if all := h.a.Transfers(); len(all) > 0 {
		tr := all[h.rng.IntN(len(all))]
		h.news = append(h.news, news{tr.Targets[h.rng.IntN(len(tr.Targets))], Command{Kind: kind, Transfer: tr.ID}})
	}
	for len(h.news) > 0 && h.rng.IntN(2) == 0 {
		n := h.news[0]
		h.news = h.news[1:]
		h.apply(n.who, n.what)
	}
}

// All members come to the same state, joiners too, and when requests stop every object has the holders of its last one.
//
// rows: OOB-39, OOB-27, OOB-16
func TestRandomHistories(t *testing.T) {
	for seed := range uint64(200) {
		const limit = 3
		h := &history{
			rng: rand.New(rand.NewPCG(seed, 1)), a: New(limit), b: New(limit), alive: []int{1, 2, 3, 4}, next: 5,
		}
		h.view()
		for range 200 {
			h.act()
			check(t, seed, h.a, limit)
			state := h.a.AppendState(nil)
			if !bytes.Equal(state, h.b.AppendState(nil)) {
				t.Fatalf("seed %d: two members differ", seed)
			}
			if h.b = New(1); h.b.Load(state) != nil || !bytes.Equal(state, h.b.AppendState(nil)) {
				t.Fatalf("seed %d: a joiner differs", seed)
			}
		}
		for range 1000 {
			if len(h.a.Transfers()) == 0 {
				break
			}
			arrive(h.a)
		}
		for _, o := range h.a.Objects() {
			if len(missing(o)) > 0 || !o.Settled {
				t.Fatalf("seed %d: not settled: %+v", seed, o)
			}
		}
	}
}
