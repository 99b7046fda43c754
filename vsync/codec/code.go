package codec

import "strconv"

// Limits of the format.
const (
	// MaxDepth is how deep registered types may nest in one value, by pointers or slices. A value that nests deeper, a
	// pointer cycle for example, is refused by both sides with ErrDepth.
	MaxDepth = 256

	// DescriptorMax is the greatest length of the type in front of a value, in bytes.
	DescriptorMax = 64

	// UserIDMax is the greatest id of a registered type that is encoded in one byte.
	UserIDMax = 127

	// LibraryIDMin and LibraryIDMax bound the ids that belong to the library.
	LibraryIDMin, LibraryIDMax = 128, 255

	// WideIDMin is the least id above the library's; ids from here need a Registry made with WideIDs.
	WideIDMin = 256
)

// Type codes: the first byte of a type. Codes 0 to 127 are ids of registered types.
//
//	0 x x x x x x x   registered type with that id, then its print in two bytes
//	1 0 0 0 k k k k   scalar of kind k
//	1 0 0 1 k k k k   slice of scalars of kind k
//	1 0 1 0 k k k k   rectangular slice of slices of kind k, for int32, float32 and float64
//	1 0 1 1 0 0 c c   slice, pair, pointer, array: the types of the parts follow
//	1 1 0 0 0 0 0 w   type of the library (one byte of id), registered type with a wide id (two bytes)
const (
	codeScalar  byte = 0x80
	codeVector  byte = 0x90
	codeGrid    byte = 0xA0
	codeSlice   byte = 0xB0
	codePair    byte = 0xB1
	codePointer byte = 0xB2
	codeArray   byte = 0xB3
	codeLibrary byte = 0xC0
	codeWide    byte = 0xC1

	codeBytes     = codeVector + kindUint8
	codeBytesList = codeVector + 0x0F
)

// Kinds of scalars: the low four bits of their codes.
const (
	kindBool byte = iota
	kindInt8
	kindInt16
	kindInt32
	kindInt64
	kindInt
	kindUint8
	kindUint16
	kindUint32
	kindUint64
	kindUint
	kindFloat32
	kindFloat64
	kindString
	kindDuration
	kinds
)

// op is what there is to do for a node. It follows from the type; several types share one.
type op byte

const (
	opPending   op = iota // named type that is not registered yet; only while registering
	opBool                // one byte, 0 or 1
	opByte                // one byte
	op16                  // two bytes
	op32                  // four bytes
	op64                  // eight bytes
	opInt                 // zigzag varint, held in an int
	opUint                // varint, held in a uint
	opString              // length, bytes
	opBools               // count+1, one byte each; 0 for nil, as for all slices
	opWords               // count+1, elements of fixed width
	opInts                // as opWords, eight bytes each, held in 32-bit ints
	opStrings             // count+1, strings
	opBytesList           // count+1, byte slices
	opGrid                // rows+1, columns, elements of fixed width
	opSlice               // count+1, elements
	opArray               // elements
	opPointer             // 0 for nil; 1, then the value
	opPair                // key, value
	opNamed               // registered type that is no struct: the payload of what it is made of
	opStruct              // registered struct: its fields; one zero byte if there are none
	opCustom              // registered or library type with its own encoding: length, bytes
)

// scalar is what the format knows about a kind.
type scalar struct {
	name   string
	op     op
	vector op  // of the slice of it
	width  int // bytes of an element of a slice; 0 if they differ
}

// scalars is indexed by kind.
//
// immutable: a table
var scalars = [kinds]scalar{
	kindBool:     {"bool", opBool, opBools, 1},
	kindInt8:     {"int8", opByte, opWords, 1},
	kindInt16:    {"int16", op16, opWords, 2},
	kindInt32:    {"int32", op32, opWords, 4},
	kindInt64:    {"int64", op64, opWords, 8},
	kindInt:      {"int", opInt, opOfInts, 8},
	kindUint8:    {"uint8", opByte, opWords, 1},
	kindUint16:   {"uint16", op16, opWords, 2},
	kindUint32:   {"uint32", op32, opWords, 4},
	kindUint64:   {"uint64", op64, opWords, 8},
	kindUint:     {"uint", opUint, opOfInts, 8},
	kindFloat32:  {"float32", op32, opWords, 4},
	kindFloat64:  {"float64", op64, opWords, 8},
	kindString:   {"string", opString, opStrings, 0},
	kindDuration: {"duration", op64, opWords, 8},
}

// opOfInts is opWords where an int has 64 bits and opInts where it has 32.
const opOfInts = opWords + op(2-strconv.IntSize/32)

// isGridKind tells whether slices of slices of the kind can travel.
func isGridKind(k byte) bool { return k == kindInt32 || k == kindFloat32 || k == kindFloat64 }
