package codec

import (
	"encoding/binary"
	"errors"
	"reflect"
	"sync"
)

// tables are what a frozen registry knows.
type tables struct {
	registered map[reflect.Type]*node
	byID       map[uint16]*node
	byType     map[reflect.Type]*node // sealed nodes: built-in, registered and their forms, shapes
	byDesc     map[string]*node       // the same by their encoded type
	others     *sync.Map              // sealed nodes of types met later: as many as the program has
}

// noTables serves a nil registry.
//
// immutable: nobody writes to it
var noTables = &tables{byType: builtins.byType}

func newTables(r *Registry) (*tables, error) {
	t := &tables{
		registered: make(map[reflect.Type]*node),
		byID:       make(map[uint16]*node),
		byType:     make(map[reflect.Type]*node),
		byDesc:     make(map[string]*node),
		others:     new(sync.Map),
	}
	for typ, n := range builtins.byType {
		t.byType[typ] = n
	}
	for _, e := range r.types {
		n := e.newNode()
		t.registered[e.typ], t.byID[e.id] = n, n
	}
	var faults []error
	for _, e := range r.types {
		faults = append(faults, (&builder{known: t.registered}).body(t.registered[e.typ]))
	}
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	for _, e := range r.types {
		n := t.registered[e.typ]
		n.print = uint16(signatureOf([]*node{n}).Hash)
	}
	for _, e := range r.types {
		for _, f := range e.forms {
			faults = append(faults, t.addForm(f))
		}
	}
	for _, f := range r.shapes {
		faults = append(faults, t.addForm(f))
	}
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	return t, nil
}

// addForm makes the node of a type whose operations are known.
func (t *tables) addForm(f form) error {
	n, err := (&builder{known: t.registered}).node(f.typ, "")
	if err != nil {
		return err
	}
	n.ops = f.ops
	n.seal()
	if err := checkDesc(n, f.typ); err != nil {
		return err
	}
	if other := t.byDesc[string(n.desc)]; other != nil || len(n.desc) == 1 {
		return buildError(ErrDuplicate, "", f.typ, "it cannot be told from another type")
	}
	t.byType[f.typ], t.byDesc[string(n.desc)] = n, n
	return nil
}

// of returns the sealed node of a type.
func (t *tables) of(typ reflect.Type) (*node, error) {
	if n := t.byType[typ]; n != nil {
		return n, nil
	}
	if t.others != nil {
		if n, ok := t.others.Load(typ); ok {
			return n.(*node), nil
		}
	}
	n, err := (&builder{known: t.registered}).node(typ, "")
	if err != nil {
		return nil, err
	}
	if n.desc == nil {
		n.seal()
	}
	if err := checkDesc(n, typ); err != nil {
		return nil, err
	}
	if t.others != nil {
		t.others.Store(typ, n)
	}
	return n, nil
}

// checkDesc refuses types whose encoded form a decoder would refuse.
func checkDesc(n *node, typ reflect.Type) error {
	if _, err := descLen(n.desc, 0); err != nil || len(n.desc) > DescriptorMax {
		return buildError(ErrUncodable, "", typ, "the type is too long to stand in front of its values")
	}
	return nil
}

// descDepth is how deep an encoded type may nest.
const descDepth = 16

// descLen returns the length of the encoded type at the front of b.
func descLen(b []byte, depth int) (int, error) {
	if len(b) == 0 {
		return 0, ErrTruncated
	}
	if depth > descDepth {
		return 0, ErrCode
	}
	n := 1
	switch c := b[0]; {
	case c <= UserIDMax:
		n = 3
	case c == codeLibrary:
		n = 2
	case c == codeWide:
		n = 5
	case builtins.byCode[c] != nil:
	case c == codeArray:
		_, rest, err := readUvarint(b[1:])
		if err != nil {
			return 0, err
		}
		n = len(b) - len(rest)
		fallthrough
	case c == codeSlice, c == codePointer:
		k, err := descLen(b[n:], depth+1)
		return n + k, err
	case c == codePair:
		for range 2 {
			k, err := descLen(b[n:], depth+1)
			if err != nil {
				return 0, err
			}
			n += k
		}
	default:
		return 0, ErrCode
	}
	if n > len(b) {
		return 0, ErrTruncated
	}
	return n, nil
}

// next returns the node of the type at the front of b and what is behind that. Nodes that were made for the occasion
// have no operations and serve only to skip.
func (t *tables) next(b []byte) (*node, []byte, error) {
	if len(b) > 0 && builtins.byCode[b[0]] != nil {
		return builtins.byCode[b[0]], b[1:], nil
	}
	k, err := descLen(b, 0)
	if err != nil {
		return nil, b, err
	}
	if k > DescriptorMax {
		return nil, b, ErrCode
	}
	if n := t.byDesc[string(b[:k])]; n != nil {
		return n, b[k:], nil
	}
	n, _, err := t.parse(b[:k])
	if err != nil {
		return nil, b, err
	}
	n.seal()
	return n, b[k:], nil
}

// parse makes a node from an encoded type.
func (t *tables) parse(b []byte) (*node, []byte, error) {
	c := b[0]
	if n := builtins.byCode[c]; n != nil {
		return n, b[1:], nil
	}
	switch c {
	case codeSlice:
		return t.parsePart(&node{op: opSlice, code: c}, b[1:])
	case codePointer:
		return t.parsePart(&node{op: opPointer, code: c}, b[1:])
	case codeArray:
		count, rest, err := readUvarint(b[1:])
		if err != nil || count == 0 || count > arrayMax {
			return nil, b, ErrCode
		}
		return t.parsePart(&node{op: opArray, code: c, count: int(count)}, rest)
	case codePair:
		key, rest, err := t.parse(b[1:])
		if err != nil {
			return nil, b, err
		}
		value, rest, err := t.parse(rest)
		if err != nil {
			return nil, b, err
		}
		return &node{op: opPair, code: c, fields: []field{{node: key}, {node: value}}}, rest, nil
	}
	return t.parseID(b)
}

// parsePart reads the type of the elements of n, and refuses what the builder would refuse or encode otherwise.
func (t *tables) parsePart(n *node, b []byte) (*node, []byte, error) {
	elem, rest, err := t.parse(b)
	if err != nil {
		return nil, b, err
	}
	basic := elem.code&0xF0 == codeScalar && !isRegistered(elem)
	if n.op == opSlice && (elem.isVector() || basic) || n.op == opPointer && (elem.isVector() || elem.op == opPointer) {
		return nil, b, ErrCode
	}
	n.elem = elem
	return n, rest, nil
}

// parseID reads the id of a registered type.
func (t *tables) parseID(b []byte) (*node, []byte, error) {
	id, k := uint16(b[0]), 1
	switch b[0] {
	case codeLibrary:
		if id, k = uint16(b[1]), 2; id < LibraryIDMin {
			return nil, b, ErrCode
		}
	case codeWide:
		if id, k = binary.LittleEndian.Uint16(b[1:]), 3; id < WideIDMin {
			return nil, b, ErrCode
		}
	}
	n := t.byID[id]
	if n == nil {
		return nil, b, &UnknownIDError{ID: id}
	}
	if n.kind == byUser {
		if binary.LittleEndian.Uint16(b[k:]) != n.print {
			return nil, b, &LayoutError{Type: n.text()}
		}
		k += 2
	}
	return n, b[k:], nil
}
