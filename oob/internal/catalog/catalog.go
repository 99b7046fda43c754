// Package catalog is what all members of a group agree on about its bulk objects: which there are, who holds them, who
// shall hold them, and which transfers run. It is a state machine that the group's order drives: every member applies
// the same commands and views in the same order, and so comes to the same transfers without asking anybody.
package catalog

import (
	"net/netip"
	"slices"

	"github.com/khamsin-io/khamsin/vsync/core"
)

// DigestLen is the length of an object's digest in bytes.
const DigestLen = 16

// Digest is the digest of an object's bytes.
type Digest [DigestLen]byte

// Limits.
const (
	// bundleObject is the size up to which objects share a transfer with others, bundleBytes how many bytes such a
	// transfer has at most, and bundleObjects how many objects.
	bundleObject  = 1 << 20
	bundleBytes   = 64 << 20
	bundleObjects = 4096
)

// Object is one object of the catalogue.
type Object struct {
	Name    string
	Gen     uint64 // differs between objects of the same name, one after the other
	Size    uint64
	Digest  Digest
	Holders []core.Address // that have it whole
	Stale   []core.Address // holders whose bytes are older than Digest
	Wanted  []core.Address // that shall have it; the holders among them have it already
	Request uint64         // the last request, whose pattern Wanted is; 0: none
	Asker   core.Address   // who made it
	Settled bool           // the request has its outcome
	Since   uint64         // order in which objects wait for a transfer; 0: this one does not

	carriers []*Transfer // that run and hold it
}

// Item is one object of a transfer.
type Item struct {
	Name string
	Gen  uint64
	Size uint64
}

// Transfer moves one or several objects from a process that holds them to some that do not.
type Transfer struct {
	ID      uint64
	Slot    int // which channel it uses: less than the limit of concurrent transfers
	Source  core.Address
	Path    []core.Address // the source, and the targets that there were at its start
	Targets []core.Address // of those, that have not got everything yet
	Items   []Item
	Unit    int  // bytes of data in each packet
	Cast    bool // by multicast; else along the chain of targets, by writes where both ends of a link can
}

// Member is what the catalogue knows of a member of the group.
type Member struct {
	Address core.Address
	IP      netip.Addr // where its bulk packets go
	Sided   bool       // bytes can be written into its memory from outside, and it can write into others'
	TCP     uint16     // port where it is reached as a link of a chain
	Unit    int        // most bytes of data in a packet; 0: it has not said hello yet
	Cast    bool       // it can receive multicasts
}

// Alone tells whether an object of a size has a transfer of its own, so that its bytes can be written into memory from
// outside.
func Alone(size uint64) bool { return size > bundleObject }

// Outcome says what became of a request or an object, at the moment when the last command or view was applied.
type Outcome struct {
	Kind    OutcomeKind
	Name    string
	Gen     uint64
	Asker   core.Address // of a request
	Request uint64
	Failed  []core.Address // targets that could not take a copy

	Transfer uint64 // of Arrived: which brought the copy, and as which of its items
	Item     int
}

// OutcomeKind is a kind of Outcome.
type OutcomeKind uint8

// The kinds of outcomes.
const (
	Registered OutcomeKind = iota // an object is new, or has a new holder that registered it
	Refused                       // a registration was refused: the name is taken by another content
	Reached                       // a request's pattern was reached
	Superseded                    // another request on the same object came before the pattern was reached
	Unknown                       // a request is about an object that there is not
	LastCopy                      // a request would delete every copy before another one is complete
	Arrived                       // a target has its copy
	Removed                       // an object is no more: deleted everywhere
	Lost                          // likewise, because nobody who had it is left
	Changed                       // a holder has other bytes now; the object has another generation
	Dropped                       // a member is no holder any more, because the pattern leaves it out
)

// Catalog is the state. It is not safe for concurrent use.
type Catalog struct {
	limit     int
	gen       uint64
	transfer  uint64
	turn      uint64
	members   []Member // in the view's order
	objects   map[string]*Object
	names     []string // of objects, sorted
	transfers []*Transfer
	outcomes  []Outcome
}

// New returns an empty catalogue that lets limit transfers run at once.
func New(limit int) *Catalog {
	return &Catalog{limit: max(1, limit), objects: make(map[string]*Object)}
}

// Limit returns how many transfers may run at once.
func (c *Catalog) Limit() int { return c.limit }

// Object returns the object of a name, nil without one. It is the catalogue's and must not be changed.
func (c *Catalog) Object(name string) *Object { return c.objects[name] }

// Objects returns all objects, by name. They are the catalogue's.
func (c *Catalog) Objects() []*Object {
	list := make([]*Object, 0, len(c.names))
	for _, n := range c.names {
		list = append(list, c.objects[n])
	}
	return list
}

// Transfers returns the transfers that run, oldest first. They are the catalogue's.
func (c *Catalog) Transfers() []*Transfer { return c.transfers }

// Member returns what is known of a member, nil for other processes.
func (c *Catalog) Member(a core.Address) *Member {
	for i := range c.members {
		if c.members[i].Address == a {
			return &c.members[i]
		}
	}
	return nil
}

// Waiting returns how many objects wait for a transfer.
func (c *Catalog) Waiting() (n int) {
	for _, o := range c.objects { // in any order: it only counts
		if o.Since != 0 {
			n++
		}
	}
	return n
}

// Take returns what has become of requests and objects since it was last called.
func (c *Catalog) Take() []Outcome {
	out := c.outcomes
	c.outcomes = nil
	return out
}

func (c *Catalog) tell(o Outcome) { c.outcomes = append(c.outcomes, o) }

// View applies a view: members that are gone hold nothing any more, and new ones hold nothing yet.
func (c *Catalog) View(members []core.Address) {
	next := make([]Member, 0, len(members))
	for _, a := range members {
		if m := c.Member(a); m != nil {
			next = append(next, *m)
		} else {
			next = append(next, Member{Address: a})
		}
	}
	c.members = next
	gone := func(a core.Address) bool { return c.Member(a) == nil }
	for _, name := range slices.Clone(c.names) {
		o := c.objects[name]
		o.Holders = slices.DeleteFunc(o.Holders, gone)
		o.Wanted = slices.DeleteFunc(o.Wanted, gone)
		o.Stale = slices.DeleteFunc(o.Stale, gone)
		c.fresh(o)
	}
	for _, t := range c.transfers {
		t.Targets = slices.DeleteFunc(t.Targets, gone)
	}
}

// Hello notes where a member's bulk packets go.
func (c *Catalog) Hello(from core.Address, m Member) {
	if known := c.Member(from); known != nil && m.Unit > 0 {
		m.Address = from
		*known = m
	}
}

// Register enters an object, or a further holder of the same content.
func (c *Catalog) Register(from core.Address, name string, size uint64, digest Digest) {
	if c.Member(from) == nil {
		return
	}
	o := c.objects[name]
	switch {
	case o == nil:
		c.gen++
		o = &Object{Name: name, Gen: c.gen, Size: size, Digest: digest, Settled: true}
		c.objects[name] = o
		at, _ := slices.BinarySearch(c.names, name)
		c.names = slices.Insert(c.names, at, name)
	case o.Size != size || o.Digest != digest || slices.Contains(o.Holders, from):
		c.tell(Outcome{Kind: Refused, Name: name, Gen: o.Gen, Asker: from})
		return
	}
	o.Holders = append(o.Holders, from)
	if o.Request != 0 && !slices.Contains(o.Wanted, from) {
		o.Wanted = append(o.Wanted, from)
	}
	c.tell(Outcome{Kind: Registered, Name: name, Gen: o.Gen, Asker: from})
}

// Update notes that a holder has changed its bytes: what is copied from now on is those. Copies that others have stay
// as they are; those that are under way begin anew.
func (c *Catalog) Update(from core.Address, name string, digest Digest) {
	o := c.objects[name]
	if o == nil || !slices.Contains(o.Holders, from) {
		return
	}
	is := func(a core.Address) bool { return a == from }
	if o.Digest == digest {
		o.Stale = slices.DeleteFunc(o.Stale, is)
		return
	}
	o.Digest = digest
	o.Stale = slices.DeleteFunc(slices.Clone(o.Holders), is)
	c.gen++
	o.Gen = c.gen // what is under way is about bytes that nobody wants any more
	c.tell(Outcome{Kind: Changed, Name: name, Gen: o.Gen, Asker: from})
}

// Replicate sets who shall hold an object: those of the list that are members. Holders that are not among them lose it
// at once. An empty list removes the object.
func (c *Catalog) Replicate(from core.Address, request uint64, name string, list []core.Address) {
	o := c.objects[name]
	if o == nil {
		c.tell(Outcome{Kind: Unknown, Name: name, Asker: from, Request: request})
		return
	}
	var wanted []core.Address
	for _, a := range list {
		if c.Member(a) != nil && !slices.Contains(wanted, a) {
			wanted = append(wanted, a)
		}
	}
	if why, refused := o.refuses(wanted); refused && len(list) > 0 {
		c.tell(Outcome{Kind: why, Name: name, Gen: o.Gen, Asker: from, Request: request})
		return
	}
	if !o.Settled {
		c.tell(Outcome{Kind: Superseded, Name: name, Gen: o.Gen, Asker: o.Asker, Request: o.Request})
	}
	o.Request, o.Asker, o.Settled, o.Wanted = request, from, false, wanted
	if len(list) == 0 {
		o.Settled = true
		c.tell(Outcome{Kind: Reached, Name: name, Gen: o.Gen, Asker: from, Request: request})
		c.remove(o, Removed)
		return
	}
	for _, a := range slices.Clone(o.Holders) {
		if !slices.Contains(wanted, a) {
			is := func(h core.Address) bool { return h == a }
			o.Holders, o.Stale = slices.DeleteFunc(o.Holders, is), slices.DeleteFunc(o.Stale, is)
			c.tell(Outcome{Kind: Dropped, Name: name, Gen: o.Gen, Asker: a})
		}
	}
}

// refuses tells whether a pattern cannot be reached: because no holder of the latest bytes is in it, or because there
// is none any more and it asks for copies of them.
func (o *Object) refuses(wanted []core.Address) (OutcomeKind, bool) {
	fresh, kept, copies := false, false, false
	for _, a := range o.Holders {
		if !slices.Contains(o.Stale, a) {
			fresh = true
			kept = kept || slices.Contains(wanted, a)
		}
	}
	for _, a := range wanted {
		copies = copies || !slices.Contains(o.Holders, a)
	}
	if !fresh && len(wanted) > 0 {
		return Lost, copies
	}
	return LastCopy, !kept
}

// Have notes that a target has got everything that a transfer moves. What a process says of a transfer that it is no
// target of any more does not count: it may have been told to give its copy up meanwhile, and be getting another one.
func (c *Catalog) Have(from core.Address, transfer uint64) {
	t := c.target(from, transfer)
	if t == nil {
		return
	}
	for i, it := range t.Items {
		o := c.objects[it.Name]
		if !c.wants(it, from) {
			continue
		}
		o.Holders = append(o.Holders, from)
		c.tell(Outcome{Kind: Arrived, Name: o.Name, Gen: o.Gen, Asker: from, Transfer: transfer, Item: i})
	}
}

// Cannot notes that a target cannot take what a transfer moves: it is not wanted as a holder any more.
func (c *Catalog) Cannot(from core.Address, transfer uint64) {
	t := c.target(from, transfer)
	if t == nil {
		return
	}
	for _, it := range t.Items {
		o := c.objects[it.Name]
		if !c.wants(it, from) {
			continue
		}
		o.Wanted = slices.DeleteFunc(o.Wanted, func(a core.Address) bool { return a == from })
		if !o.Settled {
			o.Settled = true
			c.tell(Outcome{
				Kind: Reached, Name: o.Name, Gen: o.Gen, Asker: o.Asker, Request: o.Request,
				Failed: []core.Address{from},
			})
		}
	}
}

// target returns a transfer that runs and of which a process is a target; else nil.
func (c *Catalog) target(a core.Address, transfer uint64) *Transfer {
	at := slices.IndexFunc(c.transfers, func(t *Transfer) bool { return t.ID == transfer })
	if at < 0 || !slices.Contains(c.transfers[at].Targets, a) {
		return nil
	}
	return c.transfers[at]
}

// fresh deals with an object that has lost a holder. Without any it is lost. When only older bytes are left, copies
// that were asked for cannot be made any more.
func (c *Catalog) fresh(o *Object) {
	switch {
	case len(o.Holders) == 0:
		c.remove(o, Lost)
	case len(o.Stale) == len(o.Holders):
		failed := missing(o)
		o.Wanted = slices.Clone(o.Holders)
		if !o.Settled {
			o.Settled = true
			c.tell(Outcome{
				Kind: Reached, Name: o.Name, Gen: o.Gen, Asker: o.Asker, Request: o.Request, Failed: failed,
			})
		}
	}
}

// remove takes an object out.
func (c *Catalog) remove(o *Object, why OutcomeKind) {
	if !o.Settled {
		o.Settled = true
		c.tell(Outcome{Kind: Lost, Name: o.Name, Gen: o.Gen, Asker: o.Asker, Request: o.Request})
	}
	delete(c.objects, o.Name)
	at, _ := slices.BinarySearch(c.names, o.Name)
	c.names = slices.Delete(c.names, at, at+1)
	c.tell(Outcome{Kind: why, Name: o.Name, Gen: o.Gen})
}

// missing returns who shall get an object.
func missing(o *Object) []core.Address {
	var list []core.Address
	for _, a := range o.Wanted {
		if !slices.Contains(o.Holders, a) {
			list = append(list, a)
		}
	}
	return list
}
