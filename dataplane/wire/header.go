// Package wire is the layout of Khamsin's packets: a fixed header of 40 bytes, little-endian, in front of every
// payload. It is pure: it reads and writes bytes and keeps no state.
//
//	 0               1               2               3
//	+---------------+---------------+---------------+---------------+
//	|  magic 'K'    |    version    |s|   kind      |     flags     |
//	+---------------+---------------+---------------+---------------+
//	|            CRC32C of the packet without this field            |
//	+---------------------------------------------------------------+
//	|                            system                             |
//	+---------------------------------------------------------------+
//	|                             group                             |
//	+---------------------------------------------------------------+
//	|                 view, or sender's incarnation                 |
//	|                                                               |
//	+---------------------------------------------------------------+
//	|                           sequence                            |
//	|                                                               |
//	+---------------------------------------------------------------+
//	|          rank, or receiver's incarnation, low 32 bits         |
//	+---------------------------------------------------------------+
//	|                        aux (by kind)                          |
//	+---------------------------------------------------------------+
//
// s is set when the packet is signed: then 32 bytes that authenticate it stand between header and payload.
// The group stands at a fixed offset so that a filter in the kernel can read it.
package wire

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
)

// Sizes and offsets in bytes.
const (
	HeaderLen   = 40
	KindOffset  = 2
	CRCOffset   = 4
	GroupOffset = 12
	magic       = 'K'

	// SignedBit stands in the byte of the kind: what follows the header authenticates the packet. The payload begins
	// behind that.
	SignedBit = 0x80

	// Version is the version of the packet format. Packets of another version are counted and dropped.
	Version = 1
)

// Kind says what a packet is.
type Kind uint8

// The kinds. Kinds from Data to Sync belong to one view of a group and carry view and rank; the others are between two
// processes and carry incarnations.
const (
	KindNone      Kind = iota
	KindData           // numbered packet of a member's stream; aux: how far the sequence is beyond what is stable
	KindRaw            // unnumbered multicast
	KindAck            // what the sender received and delivered of the streams
	KindNak            // packets that the sender misses
	KindSync           // how far the sender's stream goes, and how far it is stable
	KindLink           // packet of a lane between two processes; aux: lane kind and fragment flags
	KindLinkAck        // cumulative acknowledgement of a lane
	KindBeacon         // discovery
	KindHeartbeat      // sign of life
	KindPoison         // the receiver is no longer part of the system
	kinds
)

// Header is the decoded header. For packets between processes View is the sender's incarnation, and Rank the low 32
// bits of the receiver's.
type Header struct {
	Kind   Kind
	Signed bool // see SignedBit; Encode does not write it
	Flags  uint8
	System uint32
	Group  uint32
	View   uint64
	Seq    uint64
	Rank   uint32
	Aux    uint32
}

// Errors of Decode.
var (
	ErrShort   = errors.New("wire: packet shorter than its header")
	ErrMagic   = errors.New("wire: not a Khamsin packet")
	ErrVersion = errors.New("wire: packet of another version")
	ErrCRC     = errors.New("wire: checksum does not match")
	ErrKind    = errors.New("wire: unknown kind of packet")
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli) // immutable: filled once by the standard library

// Encode writes the header into the first HeaderLen bytes of b, without the checksum.
func (h *Header) Encode(b []byte) {
	_ = b[HeaderLen-1]
	b[0], b[1], b[2], b[3] = magic, Version, byte(h.Kind), h.Flags
	binary.LittleEndian.PutUint32(b[CRCOffset:], 0)
	binary.LittleEndian.PutUint32(b[8:], h.System)
	binary.LittleEndian.PutUint32(b[GroupOffset:], h.Group)
	binary.LittleEndian.PutUint64(b[16:], h.View)
	binary.LittleEndian.PutUint64(b[24:], h.Seq)
	binary.LittleEndian.PutUint32(b[32:], h.Rank)
	binary.LittleEndian.PutUint32(b[36:], h.Aux)
}

// Seal computes the checksum of the whole packet and writes it. Nothing of the packet may change afterwards.
func Seal(packet []byte) {
	binary.LittleEndian.PutUint32(packet[CRCOffset:], checksum(packet))
}

// Decode checks a packet and reads its header. The payload is packet[HeaderLen:], unless the packet is signed.
func (h *Header) Decode(packet []byte) error {
	if err := h.Peek(packet); err != nil {
		return err
	}
	if binary.LittleEndian.Uint32(packet[CRCOffset:]) != checksum(packet) {
		return ErrCRC
	}
	return nil
}

// Peek reads the header without verifying the checksum; for packets that this process sealed or checked before.
func (h *Header) Peek(packet []byte) error {
	switch {
	case len(packet) < HeaderLen:
		return ErrShort
	case packet[0] != magic:
		return ErrMagic
	case packet[1] != Version:
		return ErrVersion
	}
	h.Kind, h.Signed = Kind(packet[KindOffset]&^SignedBit), packet[KindOffset]&SignedBit != 0
	if h.Kind == KindNone || h.Kind >= kinds {
		return ErrKind
	}
	h.Flags = packet[3]
	h.System = binary.LittleEndian.Uint32(packet[8:])
	h.Group = binary.LittleEndian.Uint32(packet[GroupOffset:])
	h.View = binary.LittleEndian.Uint64(packet[16:])
	h.Seq = binary.LittleEndian.Uint64(packet[24:])
	h.Rank = binary.LittleEndian.Uint32(packet[32:])
	h.Aux = binary.LittleEndian.Uint32(packet[36:])
	return nil
}

func checksum(packet []byte) uint32 {
	sum := crc32.Update(0, castagnoli, packet[:CRCOffset])
	return crc32.Update(sum, castagnoli, packet[CRCOffset+4:])
}
