package transfer

import "encoding/binary"

// Every packet begins with a head of 16 bytes, little-endian:
//
//	0   1   2       4           8           12         16
//	+---+---+-------+-----------+-----------+----------+
//	| M | T |session| transfer  | index     | number   |
//	+---+---+-------+-----------+-----------+----------+
//
// M is 0xB7, T the type. The session is drawn by the sender for each transfer, so that two senders of one transfer, one
// after the other, are told apart. Index is the segment, or the block times 256 plus the row of a parity segment, or
// the receiver of a feedback. Number counts the sender's packets.
const HeadLen = 16

const magic = 0xB7

// Type is a type of packet.
type Type uint8

// The types of packets.
const (
	TypeData     Type = 1 + iota // a segment's bytes follow
	TypeParity                   // a parity segment follows
	TypeProbe                    // the sender wants a feedback: a Probe follows
	TypeFeedback                 // a Feedback follows
)

// Head is the head of a packet.
type Head struct {
	Type     Type
	Session  uint16
	Transfer uint32
	Index    uint32
	Number   uint32
}

// Put writes the head to the first HeadLen bytes of b.
func (h *Head) Put(b []byte) {
	_ = b[HeadLen-1]
	b[0], b[1] = magic, byte(h.Type)
	binary.LittleEndian.PutUint16(b[2:], h.Session)
	binary.LittleEndian.PutUint32(b[4:], h.Transfer)
	binary.LittleEndian.PutUint32(b[8:], h.Index)
	binary.LittleEndian.PutUint32(b[12:], h.Number)
}

// ParseHead reads the head of a packet.
func ParseHead(b []byte) (h Head, ok bool) {
	if len(b) < HeadLen || b[0] != magic || b[1] < byte(TypeData) || b[1] > byte(TypeFeedback) {
		return Head{}, false
	}
	return Head{
		Type: Type(b[1]), Session: binary.LittleEndian.Uint16(b[2:]), Transfer: binary.LittleEndian.Uint32(b[4:]),
		Index: binary.LittleEndian.Uint32(b[8:]), Number: binary.LittleEndian.Uint32(b[12:]),
	}, true
}

// ProbeLen is the length of a Probe.
const ProbeLen = 4 + 4 + 2

// Probe asks for a feedback. In its packet, Number is the last number that was sent before.
type Probe struct {
	Total  uint32 // segments of the transfer, which both sides must agree on
	Passed uint32 // segments below it have been sent at least once
	Unit   uint16 // bytes of a full segment
}

// Append appends the probe.
func (p *Probe) Append(b []byte) []byte {
	b = binary.LittleEndian.AppendUint32(b, p.Total)
	b = binary.LittleEndian.AppendUint32(b, p.Passed)
	return binary.LittleEndian.AppendUint16(b, p.Unit)
}

// ParseProbe reads a probe.
func ParseProbe(b []byte) (p Probe, ok bool) {
	if len(b) != ProbeLen {
		return Probe{}, false
	}
	return Probe{
		Total: binary.LittleEndian.Uint32(b), Passed: binary.LittleEndian.Uint32(b[4:]),
		Unit: binary.LittleEndian.Uint16(b[8:]),
	}, true
}

// EntriesMax is how many entries fit in a feedback of about 1,400 bytes.
const EntriesMax = 100

// Entry says what a receiver lacks of a block.
type Entry struct {
	Block uint32
	Rows  uint8  // parity segments that it has
	Lacks uint64 // a bit for each segment
}

// Feedback is what a receiver tells the sender.
type Feedback struct {
	Receiver uint64 // who it is: the incarnation of its address
	Number   uint32 // the highest number that it saw
	Missing  uint32 // segments that it has not got
	Lost     uint32 // packets that it knows were lost
	Window   uint32 // packets that it has room for
	Done     bool
	More     bool // another feedback of the same moment follows, with other entries
	Entries  []Entry
}

const (
	feedbackLen = 8 + 4*4 + 1
	entryLen    = 4 + 1 + 8
)

// FeedbackLenMax is the length of the longest feedback.
const FeedbackLenMax = feedbackLen + EntriesMax*entryLen

// Append appends the feedback.
func (f *Feedback) Append(b []byte) []byte {
	b = binary.LittleEndian.AppendUint64(b, f.Receiver)
	for _, n := range []uint32{f.Number, f.Missing, f.Lost, f.Window} {
		b = binary.LittleEndian.AppendUint32(b, n)
	}
	flags := byte(0)
	if f.Done {
		flags |= 1
	}
	if f.More {
		flags |= 2
	}
	b = append(b, flags)
	for _, e := range f.Entries {
		b = binary.LittleEndian.AppendUint32(b, e.Block)
		b = append(b, e.Rows)
		b = binary.LittleEndian.AppendUint64(b, e.Lacks)
	}
	return b
}

// Parse reads a feedback into f.
func (f *Feedback) Parse(b []byte) bool {
	if len(b) < feedbackLen || (len(b)-feedbackLen)%entryLen != 0 || len(b) > FeedbackLenMax {
		return false
	}
	f.Receiver = binary.LittleEndian.Uint64(b)
	for i, p := range []*uint32{&f.Number, &f.Missing, &f.Lost, &f.Window} {
		*p = binary.LittleEndian.Uint32(b[8+4*i:])
	}
	f.Done, f.More = b[24]&1 != 0, b[24]&2 != 0
	f.Entries = f.Entries[:0]
	for b = b[feedbackLen:]; len(b) > 0; b = b[entryLen:] {
		f.Entries = append(f.Entries, Entry{
			Block: binary.LittleEndian.Uint32(b), Rows: b[4], Lacks: binary.LittleEndian.Uint64(b[5:]),
		})
	}
	return true
}
