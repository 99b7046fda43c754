package codec

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"unsafe"
)

// Append appends the encoded values to dst and returns the longer slice. With an error, an *EncodeError, it returns dst
// as it was. It does not keep the values.
func (r *Registry) Append(dst []byte, vals ...any) ([]byte, error) {
	out, err := dst, error(nil)
	for i, v := range vals {
		if out, err = r.appendAny(out, v); err != nil {
			return dst, &EncodeError{Index: i, Type: fmt.Sprintf("%T", v), Err: err}
		}
	}
	return out, nil
}

// marshalRoom is how many bytes Marshal starts with.
const marshalRoom = 64

// Marshal returns the encoded values in a slice of their own: a body.
func (r *Registry) Marshal(vals ...any) ([]byte, error) {
	out, err := r.Append(make([]byte, 0, marshalRoom), vals...)
	if err != nil {
		return nil, err
	}
	return out, nil
}

func (r *Registry) appendAny(b []byte, v any) ([]byte, error) {
	if out, ok := appendBasic(b, v, r.slow()); ok {
		return out, nil
	}
	t, err := r.load()
	if err != nil {
		return b, err
	}
	if v == nil {
		return b, fmt.Errorf("%w: a nil interface has no type", ErrUncodable)
	}
	if raw, ok := v.(Raw); ok {
		return append(b, raw...), t.check(raw)
	}
	n, err := t.of(reflect.TypeOf(v))
	if err != nil {
		return b, err
	}
	b = append(b, n.desc...)
	if n.ops.unbox != nil && n.typ == reflect.TypeOf(v) {
		return n.ops.unbox(n, b, v, r.walk())
	}
	p := boxed(v)
	return n.append(b, p, r.walk().at(p))
}

// boxed copies the value in an interface to the heap.
func boxed(v any) unsafe.Pointer {
	p := reflect.New(reflect.TypeOf(v))
	p.Elem().Set(reflect.ValueOf(v))
	return p.UnsafePointer()
}

// Size returns the length of the body that Marshal would return for the values. Custom encodings are run for it.
func (r *Registry) Size(vals ...any) (int, error) {
	t, err := r.load()
	if err != nil {
		return 0, err
	}
	sum := 0
	for i, v := range vals {
		n, err := r.sizeOf(t, v)
		if err != nil {
			return 0, &EncodeError{Index: i, Type: fmt.Sprintf("%T", v), Err: err}
		}
		sum += n
	}
	return sum, nil
}

func (r *Registry) sizeOf(t *tables, v any) (int, error) {
	if v == nil {
		return 0, fmt.Errorf("%w: a nil interface has no type", ErrUncodable)
	}
	if raw, ok := v.(Raw); ok {
		return len(raw), t.check(raw)
	}
	n, err := t.of(reflect.TypeOf(v))
	if err != nil {
		return 0, err
	}
	p := boxed(v)
	size, err := n.measure(p, r.walk().at(p))
	return len(n.desc) + size, err
}

// Unmarshal decodes a body into the variables that ptrs point at, one for each value, of exactly the values' types; a
// *Raw takes any. The variables share no memory with b. The errors are *CountError, *TypeError, *LayoutError,
// *UnknownIDError, *DecodeError, and those of Freeze; what the variables hold then is not defined.
func (r *Registry) Unmarshal(b []byte, ptrs ...any) error {
	rest := b
	for i, p := range ptrs {
		if len(rest) == 0 {
			return &CountError{Wanted: len(ptrs), Found: i}
		}
		behind, err := r.unmarshalOne(i, b, rest, p)
		if err != nil {
			return err
		}
		rest = behind
	}
	if len(rest) == 0 {
		return nil
	}
	found := len(ptrs)
	for _, err := range r.Values(rest) {
		if err != nil {
			return shift(err, len(ptrs), len(b)-len(rest))
		}
		found++
	}
	return &CountError{Wanted: len(ptrs), Found: found}
}

// unmarshalOne decodes value i of the body b, which is at the front of rest, and returns what is behind it.
func (r *Registry) unmarshalOne(i int, b, rest []byte, ptr any) ([]byte, error) {
	var behind []byte
	n, p, err := r.target(ptr)
	switch {
	case err != nil:
		return rest, &EncodeError{Index: i, Type: fmt.Sprintf("%T", ptr), Err: err}
	case n == nil:
		behind, err = r.rawAt(rest, (*Raw)(p))
	case !bytes.HasPrefix(rest, n.desc):
		err = errOtherType
	default:
		behind, err = n.decode(rest[len(n.desc):], p, r.walk().at(p))
	}
	if err != nil {
		t, _ := r.load()
		return rest, t.explain(fault{i, err, b, rest, behind}, n)
	}
	return behind, nil
}

// target returns the node and the place of a variable, which it makes zero. The node is nil for a *Raw.
func (r *Registry) target(ptr any) (*node, unsafe.Pointer, error) {
	if code, p := basicTarget(ptr); p != nil {
		n := builtins.byCode[code]
		if n.isVector() {
			*(*sliceHeader)(p) = sliceHeader{}
		}
		return n, p, nil
	}
	t, err := r.load()
	if err != nil {
		return nil, nil, err
	}
	v := reflect.ValueOf(ptr)
	if v.Kind() != reflect.Pointer || v.IsNil() {
		return nil, nil, fmt.Errorf("%w: a pointer to a variable is wanted", ErrUncodable)
	}
	if raw, ok := ptr.(*Raw); ok {
		return nil, unsafe.Pointer(raw), nil
	}
	n, err := t.of(v.Type().Elem())
	if err != nil {
		return nil, nil, err
	}
	v.Elem().SetZero()
	return n, v.UnsafePointer(), nil
}

// rawAt copies the value at the front of b.
func (r *Registry) rawAt(b []byte, p *Raw) ([]byte, error) {
	t, err := r.load()
	if err != nil {
		return b, err
	}
	behind, err := t.one(b)
	if err == nil {
		*p = bytes.Clone(b[:len(b)-len(behind)])
	}
	return behind, err
}

// UnmarshalAny decodes a body into values of the types that were encoded: of registered types T, []T, *T and []*T, of
// the built-in types, and of the shapes that the registry knows. Other types are returned as Raw. Errors are those of
// Unmarshal.
func (r *Registry) UnmarshalAny(b []byte) ([]any, error) {
	t, err := r.load()
	if err != nil {
		return nil, err
	}
	var vals []any
	for rest := b; len(rest) > 0; {
		v, behind, err := r.anyAt(t, rest)
		if err != nil {
			return nil, t.explain(fault{len(vals), err, b, rest, behind}, nil)
		}
		vals = append(vals, v)
		rest = behind
	}
	return vals, nil
}

func (r *Registry) anyAt(t *tables, b []byte) (any, []byte, error) {
	n, payload, err := t.next(b)
	if err != nil {
		return nil, b, err
	}
	if n.ops.box != nil {
		return n.ops.box(n, payload, r.walk())
	}
	behind, err := n.skip(payload, 0)
	if err != nil {
		return nil, behind, err
	}
	return Raw(bytes.Clone(b[:len(b)-len(behind)])), behind, nil
}

// errOtherType means that the type in front of a value is not the wanted one.
var errOtherType = errors.New("another type")

// fault is where and why a body could not be decoded.
type fault struct {
	index  int
	err    error
	body   []byte
	value  []byte // from the value at fault on
	behind []byte // from about the fault on
}

// explain makes the error that the caller of the package sees. The node is what was wanted, nil if anything.
func (t *tables) explain(f fault, wanted *node) error {
	if t == nil {
		t = noTables
	}
	found, _, err := t.next(f.value)
	if f.err == errOtherType {
		f.err, f.behind = err, f.value
		unknown, ok := err.(*UnknownIDError)
		switch {
		case err == nil:
			return &TypeError{Index: f.index, Wanted: wanted.text(), Found: found.text()}
		case ok:
			name := fmt.Sprintf("#%d, which is not registered", unknown.ID)
			return &TypeError{Index: f.index, Wanted: wanted.text(), Found: name}
		}
	}
	switch e := f.err.(type) {
	case *UnknownIDError:
		return &UnknownIDError{Index: f.index, ID: e.ID}
	case *LayoutError:
		return &LayoutError{Index: f.index, Type: e.Type}
	}
	name := ""
	if err == nil {
		name = found.text()
	}
	return &DecodeError{Index: f.index, Type: name, Offset: len(f.body) - len(f.behind), Err: f.err}
}

// shift moves an error to where it stands in a longer body.
func shift(err error, index, offset int) error {
	switch e := err.(type) {
	case *UnknownIDError:
		e.Index += index
	case *LayoutError:
		e.Index += index
	case *DecodeError:
		e.Index += index
		e.Offset += offset
	}
	return err
}
