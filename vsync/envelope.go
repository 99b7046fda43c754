package vsync

import (
	"encoding/binary"
	"sync"

	"github.com/khamsin-io/khamsin/vsync/internal/host"
)

// An envelope is what stands around the arguments of a message:
//
//	+-----------------------+--------+-----------------+---------------+---------------------+
//	| code and flags        | more   | list of members | call          | body                |
//	| 1 to 6 bytes, uvarint | 1 byte | if moreListed   | if flagQuery  | values, or payload  |
//	+-----------------------+--------+-----------------+---------------+---------------------+
//
// The first number is the code as a zigzag number, times 8, plus the flags; codes from 0 to 7 take one byte. More is
// there with flagMore. Everything behind it may be compressed as a whole, and then sealed with the group's key. The
// list is a count and the incarnations of the members that the message is for. The call is the number under which its
// sender expects replies.
const (
	flagTyped = 1 << iota // the body is values in the form of package codec; without it the caller's own bytes
	flagQuery             // the sender waits for replies
	flagMore              // more flags follow
	flagBits  = 3
)

const (
	moreListed     = 1 << iota // for some members only
	moreCompressed             // what follows is compressed
	moreSealed                 // what follows is sealed, after it was compressed
	moreAll        = moreListed | moreCompressed | moreSealed
)

// incarnationLen is the length of a member in a list.
const incarnationLen = 8

// headOf returns the head of a message.
func headOf(c Code, flags, more uint8) host.Head {
	if more != 0 {
		flags |= flagMore
	}
	zigzag := uint64(uint32(c)<<1) ^ uint64(uint32(c>>31))
	v, bytes, n := zigzag<<flagBits|uint64(flags), uint64(0), 0
	for ; v >= 0x80; v >>= 7 { // a uvarint
		bytes |= (v&0x7f | 0x80) << (8 * n)
		n++
	}
	bytes |= v << (8 * n)
	n++
	if more != 0 {
		bytes |= uint64(more) << (8 * n)
		n++
	}
	return host.NewHead(bytes, n)
}

// envelope is a message taken apart. Its slices alias the message.
type envelope struct {
	code  Code
	flags uint8
	more  uint8
	list  []byte // incarnations
	call  uint64
	body  []byte

	inflated []byte // memory for messages that were compressed, one after the other
	opened   []byte // likewise for those that were sealed
}

// origin says what a message must be sealed with and by whom.
type origin struct {
	secret *secret // nil: it must not be sealed
	kind   byte
	from   uint64 // incarnation
}

// open takes a message apart. It returns false when the message is malformed, or not sealed as its origin demands. A
// message that was compressed or sealed takes at most limit bytes of memory, which the next one overwrites.
func (e *envelope) open(b []byte, limit int, o origin) bool {
	whole := b
	v, n := uint64(0), 1
	if len(b) > 0 && b[0] < 0x80 {
		v = uint64(b[0])
	} else if v, n = binary.Uvarint(b); n <= 0 || v>>flagBits > 1<<32-1 {
		return false
	}
	zigzag := uint32(v >> flagBits)
	e.code = Code(zigzag>>1) ^ -Code(zigzag&1)
	e.flags, e.more, e.list, e.call = uint8(v)&(1<<flagBits-1), 0, nil, 0
	b = b[n:]
	if e.flags&flagMore != 0 {
		if len(b) == 0 || b[0] == 0 || b[0]&^moreAll != 0 {
			return false
		}
		e.more, b = b[0], b[1:]
	}
	if (e.more&moreSealed != 0) != (o.secret != nil) {
		return false
	}
	if o.secret != nil {
		var ok bool
		if b, ok = o.secret.open(e.opened[:0], o.kind, o.from, whole[:len(whole)-len(b)], b); !ok {
			return false
		}
		if cap(b) <= bufferMax {
			e.opened = b
		}
	}
	if e.more&moreCompressed != 0 {
		if b = inflate(e.inflated, b, limit); b == nil {
			return false
		}
		if cap(b) <= bufferMax {
			e.inflated = b
		}
	}
	return e.openRest(b)
}

func (e *envelope) openRest(b []byte) bool {
	if e.more&moreListed != 0 {
		count, n := binary.Uvarint(b)
		if n <= 0 || count > uint64(len(b)-n)/incarnationLen {
			return false
		}
		end := n + int(count)*incarnationLen
		e.list, b = b[n:end], b[end:]
	}
	if e.flags&flagQuery != 0 {
		call, n := binary.Uvarint(b)
		if n <= 0 {
			return false
		}
		e.call, b = call, b[n:]
	}
	e.body = b
	return true
}

// names tells whether the list holds an incarnation.
func (e *envelope) names(incarnation uint64) bool {
	for b := e.list; len(b) >= incarnationLen; b = b[incarnationLen:] {
		if binary.LittleEndian.Uint64(b) == incarnation {
			return true
		}
	}
	return false
}

// appendList appends the list of members that a message is for.
func appendList(b []byte, to []Address) []byte {
	b = binary.AppendUvarint(b, uint64(len(to)))
	for i := range to {
		b = binary.LittleEndian.AppendUint64(b, to[i].Incarnation)
	}
	return b
}

// buffer is memory in which a message is put together.
type buffer struct {
	b      []byte
	sealed []byte // of the same message, sealed
	head   [8]byte
	pool   *sync.Pool
}

// bufferMax bounds the memory that an idle buffer keeps.
const bufferMax = 1 << 20

// newBuffer returns an empty buffer.
func (s *System) newBuffer() *buffer {
	if b, ok := s.buffers.Get().(*buffer); ok {
		return b
	}
	return &buffer{pool: &s.buffers}
}

// free gives the buffer back. Nobody may use what is in it any more.
func (b *buffer) free() {
	if cap(b.b)+cap(b.sealed) <= 2*bufferMax {
		b.b, b.sealed = b.b[:0], b.sealed[:0]
		b.pool.Put(b)
	}
}
