package pdu

import "github.com/khamsin-io/khamsin/vsync/core"

// The flags of a data packet: its flavour, whether it is a piece of a larger message, and whether it is a control
// record of the stream rather than messages.
const (
	flavourMask   = 0x07
	FlagFirst     = 0x08 // first piece of a message; the payload starts with the message's length
	FlagMore      = 0x10 // another piece of the same message follows
	FlagFragment  = 0x20 // a piece of a message that has several
	FlagOrder     = 0x40 // numbers for ordered packets, by rank 0: see package order
	FlagCause     = 0x80 // what must be delivered before the packets behind it: see package order
	controlFlags  = FlagOrder | FlagCause
	fragmentFlags = FlagFirst | FlagMore | FlagFragment
)

// Flags returns the flags of a packet of whole messages.
func Flags(f core.Flavour) uint8 { return uint8(f) }

// FlavourOf returns the flavour in a packet's flags.
func FlavourOf(flags uint8) core.Flavour { return core.Flavour(flags & flavourMask) }

// IsControl tells whether a packet is a record of the stream and carries no message.
func IsControl(flags uint8) bool { return flags&controlFlags != 0 }

// ValidFlags refuses combinations that no sender makes.
func ValidFlags(flags uint8) bool {
	switch {
	case !FlavourOf(flags).Valid() || FlavourOf(flags) == core.Raw:
		return false
	case flags&FlagFragment == 0 && flags&(FlagFirst|FlagMore) != 0:
		return false
	case IsControl(flags):
		return flags&fragmentFlags == 0 && flags&controlFlags != controlFlags && FlavourOf(flags) == core.FIFO
	}
	return true
}
