package main

import "sort"

// item is one thing on the shelves.
type item struct {
	name  string
	stock int
	low   int // stock at which it is ordered again
	lot   int // pieces in a delivery
	sale  int // most pieces in a sale
}

// warehouse makes movements. Popular items come first in items.
type warehouse struct {
	items  []item
	upTo   []uint64 // upTo[i] is the weight of items 0 to i together
	opened int      // items that have had their first delivery
	random source
}

func newWarehouse(items int, seed uint64) *warehouse {
	w := &warehouse{random: source{state: seed}}
	names := itemNames(&w.random)
	var total uint64
	for i := range items {
		// The weight of the item in place n is 1/(n+5), in whole millionths.
		total += 1_000_000 / uint64(i+6)
		w.upTo = append(w.upTo, total)
		sale := 1 + w.random.below(12)
		lot := sale * (10 + 10*w.random.below(8))
		w.items = append(w.items, item{name: names[i], low: 2 * sale, lot: lot, sale: sale})
	}
	return w
}

// move returns the next movement.
func (w *warehouse) move() (name string, delta int) {
	if w.opened < len(w.items) && (w.opened == 0 || w.random.below(8) == 0) {
		w.opened++
		return w.deliver(&w.items[w.opened-1])
	}
	it := w.choose()
	if it.stock <= it.low {
		return w.deliver(it)
	}
	delta = -(1 + w.random.below(it.sale))
	if w.random.below(50) == 0 {
		delta = 1 // a piece comes back
	}
	it.stock += delta
	return it.name, delta
}

// deliver brings one lot of an item, or two.
func (w *warehouse) deliver(it *item) (name string, delta int) {
	delta = it.lot * (1 + w.random.below(4)/3)
	it.stock += delta
	return it.name, delta
}

// choose returns one of the items on the shelves, the popular ones more often.
func (w *warehouse) choose() *item {
	point := w.random.next() % w.upTo[w.opened-1]
	return &w.items[sort.Search(w.opened, func(i int) bool { return w.upTo[i] > point })]
}

// The names of items: what it is, what it is made of, and how large.
var (
	// immutable: names of things
	things = []string{
		"anchor", "bolt", "bracket", "chisel", "clamp", "dowel", "drill", "file", "gasket", "hammer", "hinge", "hook",
		"latch", "nail", "nut", "pipe", "pliers", "rivet", "saw", "screw", "spanner", "spring", "valve", "washer",
	}
	// immutable: names of materials
	materials = []string{"brass", "copper", "iron", "nylon", "steel", "zinc"}
	// immutable: names of sizes
	grades = []string{"xs", "s", "m", "l", "xl"}
)

// itemsMax is how many names there are.
const itemsMax = 24 * 6 * 5

// itemNames returns all names, shuffled.
func itemNames(random *source) []string {
	var names []string
	for _, thing := range things {
		for _, material := range materials {
			for _, grade := range grades {
				names = append(names, material+"-"+thing+"-"+grade)
			}
		}
	}
	for i := len(names) - 1; i > 0; i-- {
		j := random.below(i + 1)
		names[i], names[j] = names[j], names[i]
	}
	return names
}

// source is the SplitMix64 generator. It is written out here, so that no other version of a library changes the data.
type source struct{ state uint64 }

func (s *source) next() uint64 {
	s.state += 0x9e3779b97f4a7c15
	z := s.state
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// below returns a number from 0 to n-1.
func (s *source) below(n int) int { return int(s.next() % uint64(n)) }
