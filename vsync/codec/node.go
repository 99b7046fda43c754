package codec

import (
	"encoding/binary"
	"reflect"
	"strconv"
	"unsafe"

	"github.com/khamsin-io/khamsin/dataplane/invariant"
)

// node is the plan for values of one type: what to do, and the nodes of the parts. Nodes are made while a registry is
// frozen, or when a type is first met, and never change once they can be found. A node that was made from encoded bytes
// has no Go type and serves only to skip values.
//
// The methods that take a pointer to a value neither keep it nor hand it to unknown code, so that values may lie on the
// stack; see walk for the one exception.
type node struct {
	op     op
	code   byte           // first byte of the type; unused for registered types
	width  int            // bytes of an element of a vector
	min    int            // the fewest bytes that a payload can have, at least 1; 0 before it is known
	count  int            // elements of an array
	typ    reflect.Type   // nil if made from bytes
	size   uintptr        // of a value in memory
	elem   *node          // of slices, arrays, pointers and named types
	fields []field        // of structs and pairs, in order
	id     uint16         // of registered types
	print  uint16         // of registered types: the low bits of the hash of their definition
	name   string         // of scalars and registered types
	kind   registeredKind // who registered the type, if anyone
	leaky  bool           // a custom encoding may be reached; known once the node is sealed
	desc   []byte         // the type as it is encoded; known once the node is sealed
	ops    typeOps
}

// field is one coded field of a struct, or a half of a pair.
type field struct {
	name   string
	offset uintptr
	node   *node
}

// registeredKind says who registered a type.
type registeredKind byte

const (
	notRegistered registeredKind = iota
	byUser
	byLibrary
)

// typeOps are operations made where the Go type was known to the compiler. Any may be nil: then reflection serves.
type typeOps struct {
	// box decodes a value into an interface.
	box func(n *node, b []byte, w walk) (any, []byte, error)
	// unbox encodes the value in an interface.
	unbox func(n *node, b []byte, v any, w walk) ([]byte, error)
	// makeSlice allocates the elements of a slice.
	makeSlice func(n int) unsafe.Pointer
	// alloc allocates one value.
	alloc func() unsafe.Pointer
	// custom is the type's own encoding.
	custom *customOps
}

// walk is what travels down while a value is encoded or decoded.
type walk struct {
	// base is the object on the heap that holds the value at hand, nil if it lies on a stack. Custom encodings get
	// their pointer from base, since unknown code may keep it; a leaky node therefore never meets a nil base.
	base     unsafe.Pointer
	depth    int32
	portable bool // numbers are copied one by one, whatever the machine
}

// down enters a registered type.
func (w walk) down() (walk, error) {
	w.depth++
	if w.depth > MaxDepth {
		return w, ErrDepth
	}
	return w, nil
}

// at makes p the base.
func (w walk) at(p unsafe.Pointer) walk {
	w.base = p
	return w
}

// heap returns a pointer to the same byte as p that was derived from base.
func (w walk) heap(p unsafe.Pointer) unsafe.Pointer {
	if w.base == nil {
		invariant.Fail("codec: a value on a stack was about to be handed to unknown code, at depth %d", w.depth)
	}
	return unsafe.Add(w.base, int(uintptr(p)-uintptr(w.base)))
}

// sliceHeader is how a slice lies in memory.
type sliceHeader struct {
	data     unsafe.Pointer
	len, cap int
}

// allocate makes a value of the node's type on the heap.
func (n *node) allocate() unsafe.Pointer {
	if n.ops.alloc != nil {
		return n.ops.alloc()
	}
	return reflect.New(n.typ).UnsafePointer()
}

// allocateSlice makes the elements of a slice of the node's type.
func (n *node) allocateSlice(count int) unsafe.Pointer {
	if n.ops.makeSlice != nil {
		return n.ops.makeSlice(count)
	}
	return reflect.MakeSlice(reflect.SliceOf(n.typ), count, count).UnsafePointer()
}

// isVector tells whether the node is a slice of any sort.
func (n *node) isVector() bool {
	switch n.op {
	case opBools, opWords, opInts, opStrings, opBytesList, opGrid, opSlice:
		return true
	}
	return false
}

// text returns the short printable form of the type, as in "[]pair<string,Order#5>".
func (n *node) text() string {
	switch n.op {
	case opBytesList:
		return "[][]uint8"
	case opGrid:
		return "[][]" + scalars[n.code&0x0F].name
	case opBools, opWords, opInts, opStrings:
		return "[]" + scalars[n.code&0x0F].name
	case opSlice:
		return "[]" + n.elem.text()
	case opArray:
		return "[" + strconv.Itoa(n.count) + "]" + n.elem.text()
	case opPointer:
		return "*" + n.elem.text()
	case opPair:
		return "pair<" + n.fields[0].node.text() + "," + n.fields[1].node.text() + ">"
	case opNamed, opStruct, opCustom:
		return n.name + "#" + strconv.Itoa(int(n.id))
	}
	return n.name
}

// appendDesc appends the type as it is encoded.
func (n *node) appendDesc(b []byte) []byte {
	switch n.op {
	case opSlice, opPointer:
		return n.elem.appendDesc(append(b, n.code))
	case opArray:
		return n.elem.appendDesc(binary.AppendUvarint(append(b, n.code), uint64(n.count)))
	case opPair:
		return n.fields[1].node.appendDesc(n.fields[0].node.appendDesc(append(b, n.code)))
	case opNamed, opStruct, opCustom:
		return n.appendID(b)
	}
	return append(b, n.code)
}

func (n *node) appendID(b []byte) []byte {
	switch {
	case n.kind == byLibrary:
		return append(b, codeLibrary, byte(n.id))
	case n.id > UserIDMax:
		b = binary.LittleEndian.AppendUint16(append(b, codeWide), n.id)
	default:
		b = append(b, byte(n.id))
	}
	return binary.LittleEndian.AppendUint16(b, n.print)
}

// minMax bounds the least length that is computed for a type.
const minMax = 1 << 30

// least returns the fewest bytes that a payload can have.
func (n *node) least() int {
	if n.min != 0 {
		return n.min
	}
	n.min = 1
	switch n.op {
	case op16:
		n.min = 2
	case op32:
		n.min = 4
	case op64:
		n.min = 8
	case opNamed:
		n.min = n.elem.least()
	case opArray:
		if each := n.elem.least(); n.count > minMax/each {
			n.min = minMax
		} else {
			n.min = n.count * each
		}
	case opPair, opStruct:
		sum := 0
		for i := range n.fields {
			sum = min(sum+n.fields[i].node.least(), minMax)
		}
		n.min = max(sum, 1)
	}
	return n.min
}

// prepare computes the least lengths of everything that can be met inside a value, and tells whether a custom encoding
// can be met.
func (n *node) prepare(seen map[*node]bool) bool {
	if seen[n] {
		return false
	}
	seen[n] = true
	n.least()
	custom := n.op == opCustom
	if n.elem != nil && n.elem.prepare(seen) {
		custom = true
	}
	for i := range n.fields {
		if n.fields[i].node.prepare(seen) {
			custom = true
		}
	}
	return custom
}

// seal computes what must be known before values are encoded at top level.
func (n *node) seal() {
	n.leaky = n.prepare(make(map[*node]bool))
	n.desc = n.appendDesc(nil)
}
