package core

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// View is the membership of a group at one point of its life. It is immutable once made: all members of a view share
// the same value, and nobody may change its slices.
type View struct {
	Group   GroupID
	ID      ViewID
	Members []Address // by rank, oldest first
	Joined  []Address // members that were not in the view before, in rank order
	Left    []Address // members of the view before that are not in this one, in their former rank order
}

// MembersMax is the largest number of members of a view that an encoded view may claim.
const MembersMax = 1 << 16

// Size returns the number of members.
func (v *View) Size() int { return len(v.Members) }

// Rank returns the rank of a member, NoRank for everyone else.
func (v *View) Rank(a Address) Rank { return Rank(slices.Index(v.Members, a)) }

// Contains tells whether a is a member.
func (v *View) Contains(a Address) bool { return v.Rank(a) != NoRank }

// String returns one line: the id, the members by rank, who joined and who left.
func (v *View) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "view %d: %d members %v", v.ID, len(v.Members), v.Members)
	if len(v.Joined) > 0 {
		fmt.Fprintf(&b, " joined %v", v.Joined)
	}
	if len(v.Left) > 0 {
		fmt.Fprintf(&b, " left %v", v.Left)
	}
	return b.String()
}

// Next returns the view that follows v with the given id, without the members in gone and with the newcomers behind the
// others. Newcomers that are members already, or named twice, are taken once.
func (v *View) Next(id ViewID, gone map[Address]bool, newcomers []Address) *View {
	n := &View{Group: v.Group, ID: id}
	for _, m := range v.Members {
		if gone[m] {
			n.Left = append(n.Left, m)
		} else {
			n.Members = append(n.Members, m)
		}
	}
	seen := make(map[Address]bool, len(n.Members)+len(newcomers))
	for _, m := range n.Members {
		seen[m] = true
	}
	for _, a := range newcomers {
		if !seen[a] {
			seen[a] = true
			n.Members = append(n.Members, a)
			n.Joined = append(n.Joined, a)
		}
	}
	return n
}

var errBadView = errors.New("core: malformed view")

// AppendBinary appends the encoded view. The error is always nil.
func (v *View) AppendBinary(b []byte) ([]byte, error) {
	b = append(b, v.Group[:]...)
	b = binary.LittleEndian.AppendUint64(b, uint64(v.ID))
	for _, list := range [][]Address{v.Members, v.Joined, v.Left} {
		b = AppendAddresses(b, list)
	}
	return b, nil
}

// MarshalBinary returns the encoded view.
func (v *View) MarshalBinary() ([]byte, error) { return v.AppendBinary(nil) }

// UnmarshalBinary reads an encoded view and refuses one with duplicate members, or with bytes left over.
func (v *View) UnmarshalBinary(b []byte) error {
	rest, err := v.Decode(b)
	if err == nil && len(rest) != 0 {
		err = errBadView
	}
	return err
}

// Decode reads an encoded view from the front of b and returns what is behind it.
func (v *View) Decode(b []byte) ([]byte, error) {
	var n View
	if len(b) < 24 {
		return nil, errBadView
	}
	copy(n.Group[:], b)
	n.ID = ViewID(binary.LittleEndian.Uint64(b[16:]))
	b = b[24:]
	for _, list := range []*[]Address{&n.Members, &n.Joined, &n.Left} {
		var err error
		if *list, b, err = DecodeAddresses(b); err != nil {
			return nil, err
		}
	}
	seen := make(map[Address]bool, len(n.Members))
	for _, m := range n.Members {
		if m.IsZero() || seen[m] {
			return nil, errBadView
		}
		seen[m] = true
	}
	*v = n
	return b, nil
}

// AppendAddresses appends a counted list of addresses.
func AppendAddresses(b []byte, list []Address) []byte {
	b = binary.LittleEndian.AppendUint32(b, uint32(len(list)))
	for _, a := range list {
		b, _ = a.AppendBinary(b)
	}
	return b
}

// DecodeAddresses reads a counted list of addresses from the front of b and returns what is behind it. The list is nil
// when empty.
func DecodeAddresses(b []byte) ([]Address, []byte, error) {
	if len(b) < 4 {
		return nil, nil, errBadView
	}
	n := int(binary.LittleEndian.Uint32(b))
	b = b[4:]
	if n > MembersMax || n*AddressLen > len(b) {
		return nil, nil, errBadView
	}
	if n == 0 {
		return nil, b, nil
	}
	list := make([]Address, n)
	for i := range list {
		if err := list[i].UnmarshalBinary(b[:AddressLen]); err != nil {
			return nil, nil, err
		}
		b = b[AddressLen:]
	}
	return list, b, nil
}
