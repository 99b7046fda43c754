package codec_test

import (
	"errors"
	"testing"

	"github.com/khamsin-io/khamsin/vsync/codec"
)

// What people read when something is wrong.
func TestErrorTexts(t *testing.T) {
	r, theirs := newRegistry(t), codec.NewRegistry()
	type Line struct{ Item string }
	if err := errors.Join(codec.Register[Line](theirs, 2), codec.Register[First](theirs, 99)); err != nil {
		t.Fatal(err)
	}
	fail := func(_ any, err error) error { return err }
	stranger, line := mustMarshal(t, theirs, First{}), mustMarshal(t, theirs, Line{})
	for _, c := range []struct {
		err  error
		want string
	}{
		{fail(r.Marshal(1, First{})),
			"codec: value 1 (codec_test.First): codec_test.First: not registered: register the struct first"},
		{fail(r.UnmarshalAny([]byte("\x8d\x05"))), "codec: value 0 (string), byte 2: the bytes end early"},
		{fail(r.UnmarshalAny([]byte("\x86\x05\xff"))), "codec: value 1 (unknown type), byte 2: malformed type"},
		{fail(r.UnmarshalAny(stranger)), "codec: value 0: no type is registered with id 99"},
		{fail(r.UnmarshalAny(line)), "codec: value 0: the sender's definition of Line#2 differs from ours"},
		{r.Unmarshal(stranger, new(int)), "codec: value 0 is of type #99, which is not registered, expected int"},
		{r.Unmarshal(mustMarshal(t, r, 1, 2, 3), new(int)), "codec: expected 1 values, found 3"},
		{r.Columns([][]byte{mustMarshal(t, r, 1), mustMarshal(t, r, "x")}, new([]int)),
			"codec: reply 1: value 0 is of type string, expected int"},
		{codec.Register[WithMap](codec.NewRegistry(), 1),
			"codec: codec_test.WithMap: field M: cannot be encoded: " +
				"map[string]int: maps have no order; use a slice of Pair"},
		{codec.Register[First](codec.NewRegistry(), 200),
			"codec: codec_test.First: id out of range: " +
				"id 200: the application has 0 to 127, and from 256 with WideIDs"},
	} {
		if c.err == nil || c.err.Error() != c.want {
			t.Errorf("got  %v\nwant %s", c.err, c.want)
		}
	}
}
