package codec

import "reflect"

// Shape is the types of a list of values as they are encoded, one after the other. Two lists have the same shape
// exactly if their values have the same types, so that a shape can be the key under which a handler is found.
// Registered types count with the print of their fields.
type Shape string

// ShapeOf returns the shape of values of the given types. It freezes the registry. The error is an *EncodeError that
// names the first type that cannot travel, or that of Freeze.
func (r *Registry) ShapeOf(types ...reflect.Type) (Shape, error) {
	nodes, err := r.nodes(types)
	if err != nil {
		return "", err
	}
	var b []byte
	for _, n := range nodes {
		b = append(b, n.desc...)
	}
	return Shape(b), nil
}

// AppendShape appends the shape of a body to dst, without decoding the values and without allocation. With an error it
// returns dst as it was; the errors are those of Unmarshal.
//
// A map with keys of type Shape is asked by m[Shape(b)] without allocation.
func (r *Registry) AppendShape(dst []byte, body []byte) ([]byte, error) {
	out := dst
	for v, err := range r.Values(body) {
		if err != nil {
			return dst, err
		}
		n, err := descLen(v, 0)
		if err != nil {
			return dst, err
		}
		out = append(out, v[:n]...)
	}
	return out, nil
}

// Types returns the names of the types of a body's values, for people to read. The errors are those of Unmarshal.
func (r *Registry) Types(body []byte) ([]string, error) {
	var names []string
	for v, err := range r.Values(body) {
		if err != nil {
			return nil, err
		}
		t, err := r.load()
		if err != nil {
			return nil, err
		}
		n, _, err := t.next(v)
		if err != nil {
			return nil, err
		}
		names = append(names, n.text())
	}
	return names, nil
}
