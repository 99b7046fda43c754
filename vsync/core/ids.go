package core

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
)

// GroupID names a group without its string name. It is a pure function of the name, so it is the same on every machine
// and in every run, and may be stored.
type GroupID [16]byte

// GroupIDOf returns the identifier of the group called name: the first 16 bytes of the name's SHA-256.
func GroupIDOf(name string) GroupID {
	sum := sha256.Sum256([]byte(name))
	return GroupID(sum[:16])
}

// AppendBinary appends the identifier. The error is always nil.
func (g GroupID) AppendBinary(b []byte) ([]byte, error) { return append(b, g[:]...), nil }

// UnmarshalBinary reads an identifier.
func (g *GroupID) UnmarshalBinary(b []byte) error {
	if len(b) != len(g) {
		return errShortGroupID
	}
	copy(g[:], b)
	return nil
}

// errShortGroupID is returned for encoded identifiers of the wrong length.
var errShortGroupID = errors.New("core: an encoded group identifier has 16 bytes") // immutable: an error

// Short returns the 32-bit form that packet headers carry. It is not unique; a packet is matched to a group by the
// short form and the view together, and the membership service refuses a group whose short form is taken.
func (g GroupID) Short() uint32 { return binary.LittleEndian.Uint32(g[:4]) | 1 }

// String returns the identifier in hexadecimal.
func (g GroupID) String() string { return hex.EncodeToString(g[:]) }

// ViewID numbers the views of one group. It grows along the group's chain of views, not always by one: a proposal that
// was overtaken by a failure uses up its number. The first view has a number above zero.
type ViewID uint64

// Rank is a member's place in a view: 0 for the oldest member, Size-1 for the youngest.
type Rank int32

// NoRank is the rank of a process that is not in the view.
const NoRank Rank = -1

// Seq numbers the packets of one sender in one view, starting at 1.
type Seq uint64

// SystemID tells the packets of one system (one ORACLE and all that it admitted) from those of others. It is drawn at
// random by the founder; zero means that the sender is in no system yet.
type SystemID uint32

// Flavour is a multicast's ordering and durability.
type Flavour uint8

// The flavours. One sender's multicasts in a group are delivered in the order sent, whatever their flavours, except
// Unordered and Raw.
const (
	Unordered Flavour = iota // reliable, delivered on receipt
	FIFO                     // Send: in the sender's order
	Causal                   // CausalSend: after all that its sender had delivered before sending
	Total                    // OrderedSend: in one order at all members
	Safe                     // SafeSend: as Total, delivered only when the acceptors hold it
	Raw                      // RawSend: neither acknowledged nor repaired
	flavours
)

// Valid tells whether f is one of the flavours.
func (f Flavour) Valid() bool { return f < flavours }

// Ordered tells whether f takes part in the total order.
func (f Flavour) Ordered() bool { return f == Total || f == Safe }

// String returns the name of the operation that sends this flavour.
func (f Flavour) String() string {
	switch f {
	case Unordered:
		return "UnorderedSend"
	case FIFO:
		return "Send"
	case Causal:
		return "CausalSend"
	case Total:
		return "OrderedSend"
	case Safe:
		return "SafeSend"
	case Raw:
		return "RawSend"
	}
	return fmt.Sprintf("Flavour(%d)", uint8(f))
}
