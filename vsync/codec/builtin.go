package codec

import (
	"reflect"
	"time"
	"unsafe"
)

// opsOf makes the operations for a type that the compiler knows.
func opsOf[T any]() typeOps {
	return typeOps{
		box:       boxOf[T],
		unbox:     unboxOf[T],
		makeSlice: func(n int) unsafe.Pointer { return unsafe.Pointer(unsafe.SliceData(make([]T, n))) },
		alloc:     func() unsafe.Pointer { return unsafe.Pointer(new(T)) },
	}
}

func boxOf[T any](n *node, b []byte, w walk) (any, []byte, error) {
	v, rest, err := decodeAs[T](n, b, w)
	if err != nil {
		return nil, rest, err
	}
	return v, rest, nil
}

func unboxOf[T any](n *node, b []byte, v any, w walk) ([]byte, error) {
	return appendAs(n, b, v.(T), w)
}

// decodeAs decodes a payload of the node's type, which is laid out as T.
func decodeAs[T any](n *node, b []byte, w walk) (T, []byte, error) {
	if n.leaky {
		v := new(T)
		rest, err := n.decode(b, unsafe.Pointer(v), w.at(unsafe.Pointer(v)))
		return *v, rest, err
	}
	var v T
	rest, err := n.decode(b, unsafe.Pointer(&v), w)
	return v, rest, err
}

// appendAs appends the payload of a value of the node's type, which is laid out as T.
func appendAs[T any](n *node, b []byte, v T, w walk) ([]byte, error) {
	if n.leaky {
		h := new(T)
		*h = v
		return n.append(b, unsafe.Pointer(h), w.at(unsafe.Pointer(h)))
	}
	return n.append(b, unsafe.Pointer(&v), w)
}

// builtinSet holds the nodes of the types that every registry knows.
type builtinSet struct {
	byType map[reflect.Type]*node
	byCode [256]*node // the types of one byte
}

// builtins holds the types that every registry knows.
//
// immutable: filled when the package is initialised
var builtins = newBuiltins()

func newBuiltins() *builtinSet {
	s := &builtinSet{byType: make(map[reflect.Type]*node)}
	addScalar[bool](s, kindBool)
	addScalar[int8](s, kindInt8)
	addScalar[int16](s, kindInt16)
	addScalar[int32](s, kindInt32)
	addScalar[int64](s, kindInt64)
	addScalar[int](s, kindInt)
	addScalar[uint8](s, kindUint8)
	addScalar[uint16](s, kindUint16)
	addScalar[uint32](s, kindUint32)
	addScalar[uint64](s, kindUint64)
	addScalar[uint](s, kindUint)
	addScalar[float32](s, kindFloat32)
	addScalar[float64](s, kindFloat64)
	addScalar[string](s, kindString)
	addScalar[time.Duration](s, kindDuration)
	add[[][]byte](s, &node{op: opBytesList, code: codeBytesList})
	addGrid[int32](s, kindInt32)
	addGrid[float32](s, kindFloat32)
	addGrid[float64](s, kindFloat64)
	return s
}

func add[T any](s *builtinSet, n *node) {
	n.typ = reflect.TypeFor[T]()
	n.size = n.typ.Size()
	n.ops = opsOf[T]()
	n.seal()
	s.byType[n.typ] = n
	s.byCode[n.code] = n
}

// addScalar adds a scalar and the slice of it.
func addScalar[T any](s *builtinSet, kind byte) {
	k := &scalars[kind]
	add[T](s, &node{op: k.op, code: codeScalar + kind, name: k.name})
	add[[]T](s, &node{op: k.vector, code: codeVector + kind, width: k.width})
}

func addGrid[T any](s *builtinSet, kind byte) {
	add[[][]T](s, &node{op: opGrid, code: codeGrid + kind, width: scalars[kind].width})
}

// kindOf returns the kind of scalar that values of a reflect.Kind travel as.
func kindOf(k reflect.Kind) (byte, bool) {
	switch k {
	case reflect.Bool:
		return kindBool, true
	case reflect.Int8:
		return kindInt8, true
	case reflect.Int16:
		return kindInt16, true
	case reflect.Int32:
		return kindInt32, true
	case reflect.Int64:
		return kindInt64, true
	case reflect.Int:
		return kindInt, true
	case reflect.Uint8:
		return kindUint8, true
	case reflect.Uint16:
		return kindUint16, true
	case reflect.Uint32:
		return kindUint32, true
	case reflect.Uint64:
		return kindUint64, true
	case reflect.Uint:
		return kindUint, true
	case reflect.Float32:
		return kindFloat32, true
	case reflect.Float64:
		return kindFloat64, true
	case reflect.String:
		return kindString, true
	}
	return 0, false
}
