package codec

import (
	"iter"
	"reflect"
)

// Raw is one encoded value, its type included. It is what UnmarshalAny returns for values whose type has no Go type
// that it knows, what Unmarshal stores in a *Raw whatever the type of the value, and what Append writes as it stands
// after checking it. Decode it with Unmarshal or DecodeValue.
type Raw []byte

var rawType = reflect.TypeFor[Raw]()

// one checks the value at the front of b and returns what is behind it.
func (t *tables) one(b []byte) ([]byte, error) {
	n, rest, err := t.next(b)
	if err != nil {
		return b, err
	}
	return n.skip(rest, 0)
}

// check tells why a Raw is not exactly one value.
func (t *tables) check(v Raw) error {
	rest, err := t.one(v)
	if err == nil && len(rest) != 0 {
		err = ErrCanonical
	}
	return err
}

// Values takes a body apart without decoding the values. The slices alias b. An error comes last, as a *DecodeError or
// one of the errors of Unmarshal. The insides of custom encodings are not checked.
func (r *Registry) Values(b []byte) iter.Seq2[Raw, error] {
	return func(yield func(Raw, error) bool) {
		t, err := r.load()
		if err != nil {
			yield(nil, err)
			return
		}
		rest := b
		for i := 0; len(rest) > 0; i++ {
			behind, err := t.one(rest)
			if err != nil {
				yield(nil, t.explain(fault{i, err, b, rest, behind}, nil))
				return
			}
			n := len(rest) - len(behind)
			if !yield(Raw(rest[:n:n]), nil) {
				return
			}
			rest = behind
		}
	}
}
