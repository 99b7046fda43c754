package codec

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"reflect"
	"strconv"
	"strings"
)

// Signature is a deep description of a list of types, as of the arguments of a handler. It is the same in every process
// that defines the types alike, whatever the machine, the version of the compiler and the order of registration, and
// two lists have equal signatures exactly if they have the same text. Signatures can be compared with ==.
//
// The text lists the types in parentheses. A registered type stands with its name and id, and where it is met first,
// from left to right, with what it is made of:
//
//	(int32,[]string,pair<string,Order#5{ID int64;Lines []Line#6{Item string;Price float64};Parent *Order#5}>)
//
// In the braces, {=int32} is a type that is no struct, {custom} one with an encoding of its own, {library} one of the
// library's. Names are without their package.
type Signature struct {
	Hash uint64 // the first eight bytes of SHA-256 of Text, little-endian
	Text string
}

// String returns the text.
func (s Signature) String() string { return s.Text }

func sign(text string) Signature {
	sum := sha256.Sum256([]byte(text))
	return Signature{Hash: binary.LittleEndian.Uint64(sum[:8]), Text: text}
}

// SignatureOf returns the signature of the arguments of a function. It freezes the registry.
func (r *Registry) SignatureOf(fn any) (Signature, error) {
	t := reflect.TypeOf(fn)
	if t == nil || t.Kind() != reflect.Func || t.IsVariadic() {
		return Signature{}, fmt.Errorf("codec: %T: %w: no function of a fixed number of arguments", fn, ErrUncodable)
	}
	types := make([]reflect.Type, t.NumIn())
	for i := range types {
		types[i] = t.In(i)
	}
	return r.SignatureOfTypes(types...)
}

// SignatureOfTypes returns the signature of a list of types. It freezes the registry. The error names the first type
// that cannot travel, by an *EncodeError, or is ErrSignature for more than SignatureMax bytes of text.
func (r *Registry) SignatureOfTypes(types ...reflect.Type) (Signature, error) {
	nodes, err := r.nodes(types)
	if err != nil {
		return Signature{}, err
	}
	s := signatureOf(nodes)
	if len(s.Text) > SignatureMax {
		return Signature{}, fmt.Errorf("%w: it has %d bytes, the limit is %d", ErrSignature, len(s.Text), SignatureMax)
	}
	return s, nil
}

// nodes returns the sealed nodes of the types.
func (r *Registry) nodes(types []reflect.Type) ([]*node, error) {
	t, err := r.load()
	if err != nil {
		return nil, err
	}
	nodes := make([]*node, len(types))
	for i, typ := range types {
		if nodes[i], err = t.of(typ); err != nil {
			return nil, &EncodeError{Index: i, Type: typ.String(), Err: err}
		}
	}
	return nodes, nil
}

// signatureOf describes nodes whose parts are all there; they need not be sealed.
func signatureOf(nodes []*node) Signature {
	d := describer{seen: make(map[*node]bool)}
	d.WriteByte('(')
	for i, n := range nodes {
		if i > 0 {
			d.WriteByte(',')
		}
		d.describe(n)
	}
	d.WriteByte(')')
	return sign(d.String())
}

// describer writes the text of a signature.
type describer struct {
	strings.Builder
	seen map[*node]bool // registered types that are described already
}

func (d *describer) describe(n *node) {
	switch {
	case isRegistered(n):
		d.registered(n)
	case n.op == opSlice:
		d.WriteString("[]")
		d.describe(n.elem)
	case n.op == opArray:
		d.WriteString("[" + strconv.Itoa(n.count) + "]")
		d.describe(n.elem)
	case n.op == opPointer:
		d.WriteByte('*')
		d.describe(n.elem)
	case n.op == opPair:
		d.WriteString("pair<")
		d.describe(n.fields[0].node)
		d.WriteByte(',')
		d.describe(n.fields[1].node)
		d.WriteByte('>')
	default:
		d.WriteString(n.text())
	}
}

func (d *describer) registered(n *node) {
	d.WriteString(n.text())
	if d.seen[n] {
		return
	}
	d.seen[n] = true
	d.WriteByte('{')
	switch {
	case n.kind == byLibrary:
		d.WriteString("library")
	case n.op == opCustom:
		d.WriteString("custom")
	case n.op == opNamed:
		d.WriteByte('=')
		d.describe(n.elem)
	default:
		for i, f := range n.fields {
			if i > 0 {
				d.WriteByte(';')
			}
			d.WriteString(f.name + " ")
			d.describe(f.node)
		}
	}
	d.WriteByte('}')
}
