package codec

import (
	"bytes"
	"reflect"
	"unsafe"
)

// AppendValue appends one encoded value, as Append does, without boxing it: no allocation besides dst's growth, except
// for types that reach an encoding of the application's own. With an error it returns dst as it was.
func AppendValue[T any](r *Registry, dst []byte, v T) ([]byte, error) {
	if out, ok := appendBasic(dst, any(v), r.slow()); ok {
		return out, nil
	}
	if _, ok := any(v).(Raw); ok {
		return r.Append(dst, v)
	}
	c, err := CoderOf[T](r)
	if err != nil {
		return dst, &EncodeError{Type: reflect.TypeFor[T]().String(), Err: err}
	}
	return c.Append(dst, v)
}

// DecodeValue decodes the value at the front of b, which must be of type T, and returns what is behind it. The errors
// are those of Unmarshal for a body of which b is the beginning.
func DecodeValue[T any](r *Registry, b []byte) (T, []byte, error) {
	var v T
	if code, p := basicTarget(any(&v)); code != 0 {
		rest, err := r.decodeBasic(b, builtins.byCode[code], p)
		return v, rest, err
	}
	if raw, ok := any(&v).(*Raw); ok {
		rest, err := r.decodeRaw(b, raw)
		return v, rest, err
	}
	c, err := CoderOf[T](r)
	if err != nil {
		return v, b, &EncodeError{Type: reflect.TypeFor[T]().String(), Err: err}
	}
	return c.Decode(b)
}

func (r *Registry) decodeRaw(b []byte, p *Raw) ([]byte, error) {
	t, err := r.load()
	if err != nil {
		return b, err
	}
	rest, err := r.rawAt(b, p)
	if err != nil {
		return b, explainOne(t, nil, b, rest, err)
	}
	return rest, nil
}

// decodeBasic decodes the value at the front of b, of a type of one byte, into the zero variable at p.
func (r *Registry) decodeBasic(b []byte, n *node, p unsafe.Pointer) ([]byte, error) {
	if len(b) > 0 && b[0] == n.code {
		rest, err := n.decode(b[1:], p, r.walk())
		if err == nil {
			return rest, nil
		}
		return b, explainOne(noTables, n, b, rest, err)
	}
	t, err := r.load()
	if err != nil {
		return b, err
	}
	return b, explainOne(t, n, b, b, errOtherType)
}

// explainOne is explain for the value at the front of b.
func explainOne(t *tables, wanted *node, b, behind []byte, err error) error {
	if len(b) == 0 {
		return &CountError{Wanted: 1}
	}
	return t.explain(fault{0, err, b, b, behind}, wanted)
}

// Coder encodes and decodes values of type T without looking for the type each time. It comes from CoderOf, and may be
// copied and used by any number of goroutines.
type Coder[T any] struct {
	t *tables
	n *node
	w walk
}

// CoderOf returns the Coder of T. It freezes the registry. The error is a *RegisterError, or that of Freeze.
func CoderOf[T any](r *Registry) (Coder[T], error) {
	t, err := r.load()
	if err != nil {
		return Coder[T]{}, err
	}
	n, err := t.of(reflect.TypeFor[T]())
	if err != nil {
		return Coder[T]{}, err
	}
	return Coder[T]{t, n, r.walk()}, nil
}

// Append appends one encoded value to dst. With an error, an *EncodeError, it returns dst as it was.
func (c Coder[T]) Append(dst []byte, v T) ([]byte, error) {
	out, err := appendAs(c.n, append(dst, c.n.desc...), v, c.w)
	if err != nil {
		return dst, &EncodeError{Type: reflect.TypeFor[T]().String(), Err: err}
	}
	return out, nil
}

// Decode decodes the value at the front of b and returns what is behind it; with an error, b.
func (c Coder[T]) Decode(b []byte) (T, []byte, error) {
	if !bytes.HasPrefix(b, c.n.desc) {
		return *new(T), b, explainOne(c.t, c.n, b, b, errOtherType)
	}
	v, rest, err := decodeAs[T](c.n, b[len(c.n.desc):], c.w)
	if err != nil {
		return *new(T), b, explainOne(c.t, c.n, b, rest, err)
	}
	return v, rest, nil
}

// BorrowBytes returns the []byte at the front of b without copying it, and what is behind it. The slice aliases b and
// is valid as long as b is.
func BorrowBytes(b []byte) (v, rest []byte, err error) {
	n := builtins.byCode[codeBytes]
	if len(b) == 0 || b[0] != codeBytes {
		return nil, b, explainOne(noTables, n, b, b, errOtherType)
	}
	count, rest, err := readCount(b[1:], 1)
	switch {
	case err != nil:
		return nil, b, explainOne(noTables, n, b, rest, err)
	case count < 0:
		return nil, rest, nil
	}
	return rest[:count:count], rest[count:], nil
}

// BorrowString returns the string at the front of b without copying it, and what is behind it. The string aliases b: it
// is valid as long as b is, and b must not change as long as it is in use.
func BorrowString(b []byte) (v string, rest []byte, err error) {
	n := builtins.byCode[codeScalar+kindString]
	if len(b) == 0 || b[0] != n.code {
		return "", b, explainOne(noTables, n, b, b, errOtherType)
	}
	length, rest, err := readLength(b[1:])
	if err != nil {
		return "", b, explainOne(noTables, n, b, rest, err)
	}
	return unsafe.String(unsafe.SliceData(rest), length), rest[length:], nil
}
