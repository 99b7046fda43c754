package vsync

import (
	"bytes"

	"github.com/khamsin-io/khamsin/vsync/codec"
)

// Two is a reply of two values, as from a handler that returns (A, B) or (A, B, error).
type Two[A, B any] struct {
	First  A
	Second B
}

// Three is a reply of three values.
type Three[A, B, C any] struct {
	First  A
	Second B
	Third  C
}

// Nothing is a reply without a value, as from a handler that returns an error only.
type Nothing struct{}

// Values is a reply of any values.
type Values []any

// Encoded is a reply as it came: a body in the form of package codec, which codec.Each and Registry.Columns read.
type Encoded []byte

// replyDecoder is what a pointer to a reply of several values can do.
type replyDecoder interface {
	decodeReply(types *codec.Registry, body []byte) error
}

func (t *Two[A, B]) decodeReply(types *codec.Registry, body []byte) error {
	return types.Unmarshal(body, &t.First, &t.Second)
}

func (t *Three[A, B, C]) decodeReply(types *codec.Registry, body []byte) error {
	return types.Unmarshal(body, &t.First, &t.Second, &t.Third)
}

func (*Nothing) decodeReply(types *codec.Registry, body []byte) error { return types.Unmarshal(body) }

func (v *Values) decodeReply(types *codec.Registry, body []byte) (err error) {
	*v, err = types.UnmarshalAny(body)
	return err
}

func (e *Encoded) decodeReply(_ *codec.Registry, body []byte) error {
	*e = bytes.Clone(body)
	return nil
}

// decodeReply returns a reply's value.
func decodeReply[R any](types *codec.Registry, r reply) (R, error) {
	var v R
	p := any(&v)
	if r.kind == replyBytes {
		if b, ok := p.(*[]byte); ok {
			*b = r.body
			return v, nil
		}
		return v, &codec.TypeError{Wanted: typeName[R](), Found: "bytes as they are"}
	}
	if d, ok := p.(replyDecoder); ok {
		return v, d.decodeReply(types, r.body)
	}
	err := types.Unmarshal(r.body, p)
	return v, err
}
