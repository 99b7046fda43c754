package vsync

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/khamsin-io/khamsin/vsync/core"
)

// Address identifies one run of one process in one system. It is comparable, can be a map key, and prints as
// "(pid:ip/port/port#incarnation)". A process that starts again has another Address.
type Address = core.Address

// NoAddress is the address of nobody.
//
// immutable: a name for the zero value
var NoAddress = core.NoAddress

// ParseAddress reads the printed form of an Address.
func ParseAddress(s string) (Address, error) { return core.ParseAddress(s) }

// GroupID names a group by 16 bytes, a pure function of its name.
type GroupID = core.GroupID

// ViewID numbers the views of a group. It grows from view to view, not always by one.
type ViewID = core.ViewID

// Rank is a member's place in a view: 0 for the oldest member.
type Rank = core.Rank

// NoRank is the rank of a process that is not in the view.
const NoRank = core.NoRank

// Flavour is the ordering and durability of a multicast. Multicasts of one sender are delivered in the order sent,
// whatever their flavours, except Unordered and Raw ones.
type Flavour = core.Flavour

// The flavours.
const (
	Unordered = core.Unordered // reliable, delivered on receipt
	FIFO      = core.FIFO      // reliable, in the sender's order
	Causal    = core.Causal    // after all that its sender had delivered before sending
	Ordered   = core.Total     // in one order at all members
	Safe      = core.Safe      // as Ordered, delivered only when enough members hold it: see WithSafeCopies
	Raw       = core.Raw       // neither acknowledged nor repaired
)

// Code says what a message is about; handlers are registered for codes. Applications use codes from 0; negative ones
// are the library's.
type Code int32

// View is the membership of a group between two changes. It is shared and must not be changed.
type View struct {
	Group   GroupID
	ID      ViewID
	Members []Address // by rank, oldest first
	Joined  []Address // members that were not in the view before, in rank order
	Left    []Address // members of the view before that left or failed, in their former rank order
	me      Rank
	sys     *System // nil in a view that came as an argument
}

func newView(v *core.View, s *System) *View {
	return &View{
		Group: v.Group, ID: v.ID, Members: v.Members, Joined: v.Joined, Left: v.Left, me: v.Rank(s.self), sys: s,
	}
}

// Size returns the number of members.
func (v *View) Size() int { return len(v.Members) }

// MyRank returns the rank of this process; in a view that came as an argument, that of its sender.
func (v *View) MyRank() Rank { return v.me }

// Rank returns the rank of a member, NoRank for everyone else.
func (v *View) Rank(a Address) Rank {
	for i := range v.Members {
		if v.Members[i] == a {
			return Rank(i)
		}
	}
	return NoRank
}

// Contains tells whether a is a member.
func (v *View) Contains(a Address) bool { return v.Rank(a) != NoRank }

// HasFailed tells whether this process believes that a member of the view has failed, because it is silent or a later
// view is without it. Others may not know yet; a later view will be without the member.
func (v *View) HasFailed(a Address) bool { return v.sys != nil && v.sys.suspected(a) }

// AppendBinary appends the encoded view, for sending it as an argument. The error is always nil.
func (v *View) AppendBinary(b []byte) ([]byte, error) {
	b = binary.LittleEndian.AppendUint32(b, uint32(v.me))
	return (&core.View{Group: v.Group, ID: v.ID, Members: v.Members, Joined: v.Joined, Left: v.Left}).AppendBinary(b)
}

// UnmarshalBinary reads an encoded view.
func (v *View) UnmarshalBinary(b []byte) error {
	if len(b) < 4 {
		return errShortView
	}
	var c core.View
	if err := c.UnmarshalBinary(b[4:]); err != nil {
		return err
	}
	*v = View{
		Group: c.Group, ID: c.ID, Members: c.Members, Joined: c.Joined, Left: c.Left,
		me: Rank(binary.LittleEndian.Uint32(b)),
	}
	return nil
}

// errShortView is the error of an encoded view that ends early.
var errShortView = errors.New("vsync: malformed view") // immutable: an error

// String returns one line: the id, the own rank, the members by rank, who joined and who left.
func (v *View) String() string {
	c := core.View{Group: v.Group, ID: v.ID, Members: v.Members, Joined: v.Joined, Left: v.Left}
	return fmt.Sprintf("%v, my rank %d", &c, v.me)
}
