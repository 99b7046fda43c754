package catalog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/khamsin-io/khamsin/vsync/core"
)

// NameMax is the most bytes that a name has.
const NameMax = 255

// Kind is a kind of Command.
type Kind uint8

// The kinds of commands.
const (
	KindHello Kind = 1 + iota
	KindRegister
	KindReplicate
	KindUpdate
	KindHave
	KindCannot
	kindEnd
)

// Command is one change that a member asks for.
type Command struct {
	Kind    Kind
	Hello   Member // KindHello
	Name    string // KindRegister, KindReplicate, KindUpdate
	Size    uint64 // KindRegister
	Digest  Digest // KindRegister, KindUpdate
	Request uint64 // KindReplicate
	List    []core.Address

	Transfer uint64 // KindHave, KindCannot
}

// Apply applies the commands of one message, and settles what follows from them.
func (c *Catalog) Apply(from core.Address, commands []Command) {
	for i := range commands {
		switch k := &commands[i]; k.Kind {
		case KindHello:
			c.Hello(from, k.Hello)
		case KindRegister:
			c.Register(from, k.Name, k.Size, k.Digest)
		case KindReplicate:
			c.Replicate(from, k.Request, k.Name, k.List)
		case KindUpdate:
			c.Update(from, k.Name, k.Digest)
		case KindHave:
			c.Have(from, k.Transfer)
		case KindCannot:
			c.Cannot(from, k.Transfer)
		}
	}
	c.Settle()
}

// Append appends a command to a message.
func (k *Command) Append(b []byte) []byte {
	b = append(b, byte(k.Kind))
	switch k.Kind {
	case KindHello:
		b = appendMember(b, &k.Hello)
	case KindRegister:
		b = appendString(b, k.Name)
		b = binary.AppendUvarint(b, k.Size)
		b = append(b, k.Digest[:]...)
	case KindUpdate:
		b = append(appendString(b, k.Name), k.Digest[:]...)
	case KindReplicate:
		b = appendString(b, k.Name)
		b = binary.AppendUvarint(b, k.Request)
		b = appendAddresses(b, k.List)
	default:
		b = binary.AppendUvarint(b, k.Transfer)
	}
	return b
}

// ErrMalformed means that bytes are no commands, or no state.
var ErrMalformed = errors.New("malformed") // immutable: an error

// Decode returns the commands of a message.
func Decode(b []byte) ([]Command, error) {
	r := reader{b: b}
	var list []Command
	for len(r.b) > 0 && r.err == nil {
		k := Command{Kind: Kind(r.byte())}
		switch {
		case k.Kind == KindHello:
			k.Hello = r.member()
		case k.Kind == KindRegister:
			k.Name, k.Size = r.name(), r.number()
			copy(k.Digest[:], r.bytes(DigestLen))
		case k.Kind == KindReplicate:
			k.Name, k.Request, k.List = r.name(), r.number(), r.addresses()
		case k.Kind == KindUpdate:
			k.Name = r.name()
			copy(k.Digest[:], r.bytes(DigestLen))
		case k.Kind >= KindHave && k.Kind < kindEnd:
			k.Transfer = r.number()
		default:
			r.fail("command of kind %d", k.Kind)
		}
		list = append(list, k)
	}
	return list, r.err
}

// AppendState appends the whole state, but for outcomes that nobody took.
func (c *Catalog) AppendState(b []byte) []byte {
	for _, n := range []uint64{uint64(c.limit), c.gen, c.transfer, c.turn, uint64(len(c.members))} {
		b = binary.AppendUvarint(b, n)
	}
	for i := range c.members {
		b = appendAddress(b, c.members[i].Address)
		b = appendMember(b, &c.members[i])
	}
	b = binary.AppendUvarint(b, uint64(len(c.names)))
	for _, n := range c.names {
		b = appendObject(b, c.objects[n])
	}
	b = binary.AppendUvarint(b, uint64(len(c.transfers)))
	for _, t := range c.transfers {
		for _, n := range []uint64{t.ID, uint64(t.Slot), uint64(t.Unit), flag(t.Cast)} {
			b = binary.AppendUvarint(b, n)
		}
		b = appendAddress(b, t.Source)
		b = appendAddresses(b, t.Path)
		b = appendAddresses(b, t.Targets)
		b = appendItems(b, t.Items)
	}
	return b
}

// Load replaces the state by what AppendState returned.
func (c *Catalog) Load(b []byte) error {
	r := reader{b: b}
	n := New(int(min(r.number(), 1<<20)))
	n.gen, n.transfer, n.turn = r.number(), r.number(), r.number()
	for range r.count(core.AddressLen) {
		a := r.address()
		m := r.member()
		m.Address = a
		n.members = append(n.members, m)
	}
	for range r.count(DigestLen) {
		o := r.object()
		if r.err == nil && (n.objects[o.Name] != nil || len(n.names) > 0 && n.names[len(n.names)-1] >= o.Name) {
			r.fail("objects out of order")
		}
		n.names = append(n.names, o.Name)
		n.objects[o.Name] = o
	}
	for range r.count(core.AddressLen) {
		t := &Transfer{ID: r.number()}
		t.Slot, t.Unit, t.Cast = int(min(r.number(), 1<<20)), int(min(r.number(), unitMax)), r.number() != 0
		t.Source, t.Path, t.Targets, t.Items = r.address(), r.addresses(), r.addresses(), r.items()
		n.transfers = append(n.transfers, t)
	}
	if r.err == nil && len(r.b) > 0 {
		r.fail("%d bytes too many", len(r.b))
	}
	if r.err != nil {
		return r.err
	}
	n.link()
	*c = *n
	return nil
}

// unitMax bounds the bytes of data in a packet.
const unitMax = 1 << 16

func flag(b bool) uint64 {
	if b {
		return 1
	}
	return 0
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func appendAddress(b []byte, a core.Address) []byte {
	b, _ = a.AppendBinary(b) // never fails
	return b
}

func appendAddresses(b []byte, list []core.Address) []byte {
	b = binary.AppendUvarint(b, uint64(len(list)))
	for i := range list {
		b = appendAddress(b, list[i])
	}
	return b
}

func appendItems(b []byte, list []Item) []byte {
	b = binary.AppendUvarint(b, uint64(len(list)))
	for _, it := range list {
		b = binary.AppendUvarint(binary.AppendUvarint(appendString(b, it.Name), it.Gen), it.Size)
	}
	return b
}

func appendMember(b []byte, m *Member) []byte {
	ip := m.IP.As16()
	if !m.IP.IsValid() {
		ip = [16]byte{}
	}
	b = append(b, ip[:]...)
	// The first number was a port, always zero, that every version keeps and passes on.
	for _, n := range []uint64{flag(m.Sided), uint64(m.TCP), uint64(m.Unit), flag(m.Cast)} {
		b = binary.AppendUvarint(b, n)
	}
	return b
}

func appendObject(b []byte, o *Object) []byte {
	b = appendString(b, o.Name)
	for _, n := range []uint64{o.Gen, o.Size, o.Request, flag(o.Settled), o.Since} {
		b = binary.AppendUvarint(b, n)
	}
	b = append(b, o.Digest[:]...)
	b = appendAddress(b, o.Asker)
	b = appendAddresses(appendAddresses(b, o.Holders), o.Stale)
	return appendAddresses(b, o.Wanted)
}

// reader takes bytes apart. Once something is wrong it returns zero values.
type reader struct {
	b   []byte
	err error
}

func (r *reader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf("%w: "+format, append([]any{ErrMalformed}, args...)...)
	}
	r.b = nil
}

func (r *reader) bytes(n int) []byte {
	if len(r.b) < n {
		r.fail("cut short")
		return make([]byte, n)
	}
	out := r.b[:n]
	r.b = r.b[n:]
	return out
}

func (r *reader) byte() byte { return r.bytes(1)[0] }

func (r *reader) number() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.fail("no number")
		return 0
	}
	r.b = r.b[n:]
	return v
}

// count returns how many things follow, each of which takes size bytes or more.
func (r *reader) count(size int) int {
	n := r.number()
	if n > uint64(len(r.b)/size) {
		r.fail("%d things in %d bytes", n, len(r.b))
		return 0
	}
	return int(n)
}

func (r *reader) name() string {
	n := r.count(1)
	if n == 0 || n > NameMax {
		r.fail("name of %d bytes", n)
		return ""
	}
	return string(r.bytes(n))
}

func (r *reader) address() (a core.Address) {
	if err := a.UnmarshalBinary(r.bytes(core.AddressLen)); err != nil {
		r.fail("address: %v", err)
	}
	return a
}

func (r *reader) addresses() []core.Address {
	n := r.count(core.AddressLen)
	list := make([]core.Address, 0, n)
	for range n {
		list = append(list, r.address())
	}
	return list
}

func (r *reader) items() []Item {
	n := r.count(3)
	list := make([]Item, 0, n)
	for range n {
		list = append(list, Item{Name: r.name(), Gen: r.number(), Size: r.number()})
	}
	return list
}

func (r *reader) member() (m Member) {
	if ip := netip.AddrFrom16([16]byte(r.bytes(16))).Unmap(); !ip.IsUnspecified() {
		m.IP = ip
	}
	m.Sided, m.TCP = r.number() != 0, uint16(r.number())
	m.Unit, m.Cast = int(min(r.number(), unitMax)), r.number() != 0
	return m
}

func (r *reader) object() *Object {
	o := &Object{Name: r.name(), Gen: r.number(), Size: r.number(), Request: r.number()}
	o.Settled, o.Since = r.number() != 0, r.number()
	copy(o.Digest[:], r.bytes(DigestLen))
	o.Asker, o.Holders, o.Stale, o.Wanted = r.address(), r.addresses(), r.addresses(), r.addresses()
	return o
}
