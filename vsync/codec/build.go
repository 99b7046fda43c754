package codec

import (
	"fmt"
	"reflect"
	"strings"
)

// builder makes nodes from Go types.
type builder struct {
	known map[reflect.Type]*node // registered types
	// probe accepts named types that could still be registered.
	probe bool
	busy  []reflect.Type // unregistered types being built, to find recursion
}

// node returns the node of a type. The path leads to it from the type at the top.
func (bl *builder) node(t reflect.Type, path string) (*node, error) {
	if n := bl.known[t]; n != nil {
		return n, nil
	}
	if n := builtins.byType[t]; n != nil {
		return n, nil
	}
	for _, outer := range bl.busy {
		if outer == t {
			return bl.unresolved(t, path, "a type that contains itself must be registered")
		}
	}
	bl.busy = append(bl.busy, t)
	defer func() { bl.busy = bl.busy[:len(bl.busy)-1] }()
	switch {
	case t == rawType:
		return nil, buildError(ErrUncodable, path, t, "a Raw is a whole value and cannot be part of one")
	case isPair(t):
		return bl.pair(t, path)
	case hasCustom(t):
		return bl.unresolved(t, path, "it has its own encoding and no id")
	case t.Kind() == reflect.Struct:
		return bl.unresolved(t, path, "register the struct first")
	}
	return bl.unnamed(t, path)
}

// unresolved answers for a type that must be registered and is not.
func (bl *builder) unresolved(t reflect.Type, path, reason string) (*node, error) {
	if err := checkName(t); err != nil {
		return nil, buildError(ErrUncodable, path, t, "such a type cannot be registered: "+err.Error())
	}
	if bl.probe {
		return &node{op: opPending, min: 1, typ: t, size: t.Size()}, nil
	}
	return nil, buildError(ErrUnregistered, path, t, reason)
}

// unnamed returns the node of a type by what it is made of, whatever its name and methods.
func (bl *builder) unnamed(t reflect.Type, path string) (*node, error) {
	if kind, ok := kindOf(t.Kind()); ok {
		return builtins.byCode[codeScalar+kind], nil
	}
	switch t.Kind() {
	case reflect.Slice:
		return bl.slice(t, path)
	case reflect.Array:
		return bl.array(t, path)
	case reflect.Pointer:
		return bl.pointer(t, path)
	case reflect.Map:
		return nil, buildError(ErrUncodable, path, t, "maps have no order; use a slice of Pair")
	}
	return nil, buildError(ErrUncodable, path, t, fmt.Sprintf("values of kind %v cannot travel", t.Kind()))
}

func (bl *builder) slice(t reflect.Type, path string) (*node, error) {
	elem, err := bl.node(t.Elem(), path+"[]")
	if err != nil {
		return nil, err
	}
	switch kind := elem.code & 0x0F; {
	case elem.op == opPending || isRegistered(elem):
		// An id says it all.
	case elem.code&0xF0 == codeScalar:
		return builtins.byCode[codeVector+kind], nil
	case elem.code == codeBytes:
		return builtins.byCode[codeBytesList], nil
	case elem.code&0xF0 == codeVector && isGridKind(kind):
		return builtins.byCode[codeGrid+kind], nil
	case elem.isVector():
		return nil, buildError(ErrUncodable, path, t,
			"slices of slices are limited to [][]byte, [][]int32, [][]float32 and [][]float64")
	}
	return &node{op: opSlice, code: codeSlice, typ: t, size: t.Size(), elem: elem}, nil
}

// arrayMax is the greatest number of elements of an array.
const arrayMax = 1 << 24

func (bl *builder) array(t reflect.Type, path string) (*node, error) {
	elem, err := bl.node(t.Elem(), path+"[]")
	if err != nil {
		return nil, err
	}
	if t.Len() < 1 || t.Len() > arrayMax {
		return nil, buildError(ErrUncodable, path, t, fmt.Sprintf("arrays have 1 to %d elements", arrayMax))
	}
	n := &node{op: opArray, code: codeArray, typ: t, size: t.Size(), elem: elem, count: t.Len()}
	switch elem.op {
	case opBool, opByte, op16, op32, op64:
		n.width = elem.min
	}
	return n, nil
}

func (bl *builder) pointer(t reflect.Type, path string) (*node, error) {
	elem, err := bl.node(t.Elem(), path)
	if err != nil {
		return nil, err
	}
	if elem.op == opPointer || elem.isVector() {
		return nil, buildError(ErrUncodable, path, t, "pointers to pointers and to slices cannot travel")
	}
	return &node{op: opPointer, code: codePointer, typ: t, size: t.Size(), elem: elem}, nil
}

func (bl *builder) pair(t reflect.Type, path string) (*node, error) {
	n := &node{op: opPair, code: codePair, typ: t, size: t.Size()}
	for i := range 2 {
		f := t.Field(i)
		elem, err := bl.node(f.Type, join(path, f.Name))
		if err != nil {
			return nil, err
		}
		n.fields = append(n.fields, field{f.Name, f.Offset, elem})
	}
	return n, nil
}

// structFields returns the coded fields of a struct.
func (bl *builder) structFields(t reflect.Type) ([]field, error) {
	var fields []field
	for i := range t.NumField() {
		f := t.Field(i)
		switch tag, ok := f.Tag.Lookup("vsync"); {
		case ok && tag == "-":
			continue
		case ok:
			return nil, buildError(ErrUncodable, f.Name, t, fmt.Sprintf("tag %q is not \"-\", the only one", tag))
		case !f.IsExported():
			continue
		}
		n, err := bl.node(f.Type, f.Name)
		if err != nil {
			return nil, err
		}
		fields = append(fields, field{f.Name, f.Offset, n})
	}
	if len(fields) == 0 && t.NumField() > 0 {
		return nil, buildError(ErrUncodable, "", t, "none of its fields is exported, so nothing would travel")
	}
	return fields, nil
}

// body fills in the node of a registered type. A fault names the type as the one at fault, and the field.
func (bl *builder) body(n *node) error {
	err := bl.fill(n)
	if re, ok := err.(*RegisterError); ok && re.Type != n.typ.String() {
		re.Reason = re.Type + ": " + re.Reason
		re.Type = n.typ.String()
	}
	return err
}

func (bl *builder) fill(n *node) (err error) {
	switch {
	case n.ops.custom != nil:
		n.op = opCustom
	case n.typ.Kind() == reflect.Struct:
		n.op = opStruct
		n.fields, err = bl.structFields(n.typ)
	default:
		n.op = opNamed
		n.elem, err = bl.unnamed(n.typ, "")
	}
	return err
}

func isRegistered(n *node) bool { return n.kind != notRegistered }

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// shortName is the name of a type without its package and type arguments.
func shortName(t reflect.Type) string {
	name, _, _ := strings.Cut(t.Name(), "[")
	return name
}
