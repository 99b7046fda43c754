package catalog

import (
	"cmp"
	"slices"

	"github.com/khamsin-io/khamsin/vsync/core"
)

// Settle follows a view, or the commands of one message: it brings the transfers into line with the objects, reports
// the requests that are done, and starts what may start.
func (c *Catalog) Settle() {
	c.mend()
	for _, name := range c.names {
		o := c.objects[name]
		rest := missing(o)
		if len(rest) == 0 && !o.Settled {
			o.Settled = true
			c.tell(Outcome{Kind: Reached, Name: name, Gen: o.Gen, Asker: o.Asker, Request: o.Request})
		}
		unserved := slices.ContainsFunc(rest, func(a core.Address) bool { return !o.serves(a) })
		switch {
		case !unserved:
			o.Since = 0
		case o.Since == 0:
			c.turn++
			o.Since = c.turn
		}
	}
	c.begin()
}

// serves tells whether a transfer brings an object to a target.
func (o *Object) serves(target core.Address) bool {
	return slices.ContainsFunc(o.carriers, func(t *Transfer) bool { return slices.Contains(t.Targets, target) })
}

// link notes at the objects which transfers carry them.
func (c *Catalog) link() {
	for _, name := range c.names {
		c.objects[name].carriers = nil
	}
	for _, t := range c.transfers {
		for _, it := range t.Items {
			if o := c.objects[it.Name]; o != nil && o.Gen == it.Gen {
				o.carriers = append(o.carriers, t)
			}
		}
	}
}

// mend takes out of the transfers what is done or not wanted any more, and ends those whose source cannot go on: what
// they still had to bring gets another one.
func (c *Catalog) mend() {
	keep := c.transfers[:0]
	for _, t := range c.transfers {
		items, targets := t.Items[:0:0], t.Targets[:0:0]
		for _, it := range t.Items {
			o := c.objects[it.Name]
			if o == nil || o.Gen != it.Gen {
				continue
			}
			if !slices.Contains(o.Holders, t.Source) || slices.Contains(o.Stale, t.Source) {
				items = nil
				break
			}
			items = append(items, it)
		}
		for _, a := range t.Targets {
			if slices.ContainsFunc(items, func(it Item) bool { return c.wants(it, a) }) {
				targets = append(targets, a)
			}
		}
		if len(items) == 0 || len(targets) == 0 {
			continue
		}
		t.Targets = targets // items stay: the packets' numbers depend on them
		keep = append(keep, t)
	}
	clear(c.transfers[len(keep):])
	c.transfers = keep
	c.link()
}

// wants tells whether a target still needs an item.
func (c *Catalog) wants(it Item, a core.Address) bool {
	o := c.objects[it.Name]
	return o != nil && o.Gen == it.Gen && slices.Contains(o.Wanted, a) && !slices.Contains(o.Holders, a)
}

// begin starts transfers while there are slots and objects that wait.
func (c *Catalog) begin() {
	for len(c.transfers) < c.limit {
		var queue []*Object
		for _, name := range c.names {
			if o := c.objects[name]; o.Since != 0 {
				queue = append(queue, o)
			}
		}
		slices.SortFunc(queue, func(a, b *Object) int { return cmp.Compare(a.Since, b.Since) })
		if !slices.ContainsFunc(queue, func(o *Object) bool { return c.start(o, queue) }) {
			return
		}
	}
}

// start starts a transfer of an object, with others that wait if they are small and go the same way. It returns false
// when it cannot start yet, because the members have not said where their packets go.
func (c *Catalog) start(o *Object, queue []*Object) bool {
	source := c.source(o)
	if source == nil {
		return false
	}
	targets, unit, cast, sided := c.ready(o), source.Unit, source.Cast, source.Sided && Alone(o.Size)
	if len(targets) == 0 {
		return false
	}
	for _, a := range targets {
		m := c.Member(a)
		unit, cast, sided = min(unit, m.Unit), cast && m.Cast, sided && m.Sided
	}
	c.transfer++
	t := &Transfer{
		ID: c.transfer, Slot: c.slot(), Source: source.Address, Targets: targets, Unit: unit,
		Cast:  cast && !sided, // writes of one member to the next one need neither packets nor repairs of ours
		Path:  append([]core.Address{source.Address}, targets...),
		Items: []Item{{o.Name, o.Gen, o.Size}},
	}
	o.Since = 0
	if bytes := o.Size; bytes <= bundleObject {
		for _, other := range queue {
			if len(t.Items) == bundleObjects {
				break
			}
			if other.Since == 0 || other.Size > bundleObject || bytes+other.Size > bundleBytes ||
				!slices.Contains(other.Holders, source.Address) ||
				slices.Contains(other.Stale, source.Address) || !slices.Equal(c.ready(other), targets) {
				continue
			}
			bytes += other.Size
			other.Since = 0
			t.Items = append(t.Items, Item{other.Name, other.Gen, other.Size})
		}
	}
	c.transfers = append(c.transfers, t)
	for _, it := range t.Items {
		c.objects[it.Name].carriers = append(c.objects[it.Name].carriers, t)
	}
	return true
}

// ready returns the targets of an object that no transfer serves and that can be reached, in the view's order.
func (c *Catalog) ready(o *Object) []core.Address {
	rest := missing(o)
	var list []core.Address
	for i := range c.members {
		m := &c.members[i]
		if m.Unit > 0 && slices.Contains(rest, m.Address) && !o.serves(m.Address) {
			list = append(list, m.Address)
		}
	}
	return list
}

// source returns the holder that has the fewest transfers to send, nil when none can be reached.
func (c *Catalog) source(o *Object) *Member {
	var best *Member
	least := 0
	for i := range c.members {
		m := &c.members[i]
		if m.Unit == 0 || !slices.Contains(o.Holders, m.Address) || slices.Contains(o.Stale, m.Address) {
			continue
		}
		load := 0
		for _, t := range c.transfers {
			if t.Source == m.Address {
				load++
			}
		}
		if best == nil || load < least {
			best, least = m, load
		}
	}
	return best
}

// slot returns the lowest slot that no transfer uses.
func (c *Catalog) slot() int {
	for s := 0; ; s++ {
		if !slices.ContainsFunc(c.transfers, func(t *Transfer) bool { return t.Slot == s }) {
			return s
		}
	}
}

// Upstream returns from whom a target of a chain gets its bytes: the nearest process before it that has them, or is
// getting them.
func (c *Catalog) Upstream(t *Transfer, target core.Address) core.Address {
	up := t.Source
	for _, a := range t.Path {
		if a == target {
			break
		}
		if slices.Contains(t.Targets, a) || c.holdsAll(t, a) {
			up = a
		}
	}
	return up
}

// holdsAll tells whether a process holds everything that a transfer still moves.
func (c *Catalog) holdsAll(t *Transfer, a core.Address) bool {
	for _, it := range t.Items {
		if o := c.objects[it.Name]; o != nil && o.Gen == it.Gen && !slices.Contains(o.Holders, a) {
			return false
		}
	}
	return true
}
