package codec

import (
	"encoding"
	"encoding/binary"
	"fmt"
	"reflect"
	"unsafe"
)

// Marshaler is implemented by types that write their own encoding. AppendVsync appends it to dst and returns the longer
// slice; it must not change what is in dst already, nor keep dst. It is called once for each value that is encoded. A
// type with Marshaler must have Unmarshaler too, on the type or on its pointer. The pair comes before
// encoding.BinaryAppender, encoding.BinaryMarshaler and encoding.BinaryUnmarshaler, and those before the encoding of
// fields. As with encoding/gob, a struct inherits the methods of what it embeds.
type Marshaler interface {
	AppendVsync(dst []byte) ([]byte, error)
}

// Unmarshaler is implemented by types that read their own encoding. UnmarshalVsync gets exactly the bytes that
// AppendVsync appended, on a zero value, once for each value that is decoded. The bytes belong to the caller: keep a
// copy. They may come from anywhere: the answer to bad ones is an error.
type Unmarshaler interface {
	UnmarshalVsync(b []byte) error
}

// customOps is a type's own encoding.
type customOps struct {
	encode func(p unsafe.Pointer, b []byte) ([]byte, error) // appends
	decode func(p unsafe.Pointer, b []byte) error
}

var (
	marshalerType   = reflect.TypeFor[Marshaler]()
	unmarshalerType = reflect.TypeFor[Unmarshaler]()
	binAppendType   = reflect.TypeFor[encoding.BinaryAppender]()
	binMarshalType  = reflect.TypeFor[encoding.BinaryMarshaler]()
	binDecodeType   = reflect.TypeFor[encoding.BinaryUnmarshaler]()
)

// hasCustom tells whether a type has any method of an encoding of its own.
func hasCustom(t reflect.Type) bool {
	p := reflect.PointerTo(t)
	for _, i := range []reflect.Type{marshalerType, unmarshalerType, binAppendType, binMarshalType, binDecodeType} {
		if p.Implements(i) {
			return true
		}
	}
	return false
}

// customOf returns the encoding that T brings along, nil if none. Half of a pair is an error.
func customOf[T any]() (*customOps, error) {
	probe := any(new(T))
	_, enc := probe.(Marshaler)
	_, dec := probe.(Unmarshaler)
	if enc != dec {
		return nil, fmt.Errorf("%w: AppendVsync and UnmarshalVsync must come together", ErrUncodable)
	}
	if enc {
		return &customOps{
			encode: func(p unsafe.Pointer, b []byte) ([]byte, error) { return any((*T)(p)).(Marshaler).AppendVsync(b) },
			decode: func(p unsafe.Pointer, b []byte) error { return any((*T)(p)).(Unmarshaler).UnmarshalVsync(b) },
		}, nil
	}
	_, app := probe.(encoding.BinaryAppender)
	_, enc = probe.(encoding.BinaryMarshaler)
	_, dec = probe.(encoding.BinaryUnmarshaler)
	if (app || enc) != dec {
		return nil, fmt.Errorf("%w: MarshalBinary or AppendBinary must come with UnmarshalBinary", ErrUncodable)
	}
	if !dec {
		return nil, nil
	}
	ops := &customOps{decode: func(p unsafe.Pointer, b []byte) error {
		return any((*T)(p)).(encoding.BinaryUnmarshaler).UnmarshalBinary(b)
	}}
	ops.encode = func(p unsafe.Pointer, b []byte) ([]byte, error) {
		return any((*T)(p)).(encoding.BinaryAppender).AppendBinary(b)
	}
	if !app {
		ops.encode = func(p unsafe.Pointer, b []byte) ([]byte, error) {
			own, err := any((*T)(p)).(encoding.BinaryMarshaler).MarshalBinary()
			return append(b, own...), err
		}
	}
	return ops, nil
}

// appendCustom appends the length and the bytes of the type's own encoding.
func (n *node) appendCustom(b []byte, p unsafe.Pointer) ([]byte, error) {
	start := len(b)
	out, err := n.ops.custom.encode(p, append(b, 0))
	if err != nil {
		return b, err
	}
	length := len(out) - start - 1
	if length < 0 {
		return b, fmt.Errorf("%w: the encoder of %s dropped bytes that were there before", ErrUncodable, n.name)
	}
	if length < 0x80 {
		out[start] = byte(length)
		return out, nil
	}
	var head [uvarintMax]byte
	k := binary.PutUvarint(head[:], uint64(length))
	out = append(out, head[:k-1]...)
	copy(out[start+k:], out[start+1:start+1+length])
	copy(out[start:], head[:k])
	return out, nil
}

// decodeCustom reads the length and has the type read its bytes.
func (n *node) decodeCustom(b []byte, p unsafe.Pointer) ([]byte, error) {
	length, rest, err := readLength(b)
	if err != nil {
		return rest, err
	}
	if err := n.ops.custom.decode(p, rest[:length:length]); err != nil {
		return rest, err
	}
	return rest[length:], nil
}
