package codec_test

import (
	"reflect"
	"testing"

	"github.com/khamsin-io/khamsin/vsync/codec"
	"github.com/khamsin-io/khamsin/vsync/core"
)

// Addresses and views are values like any other: arguments, fields, elements, keys.
//
// rows: MSG-15
func TestAddressesAndViews(t *testing.T) {
	type Ticket struct {
		Owner core.Address
		Seen  *core.View
		Queue []core.Address
	}
	r := codec.NewRegistry()
	for _, err := range []error{
		codec.RegisterLibrary[core.Address](r, 128),
		codec.RegisterLibrary[core.View](r, 129),
		codec.Register[Ticket](r, 1),
		codec.RegisterShape[codec.Pair[core.Address, string]](r),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	a := core.Address{PID: 6751, Port: 1556, AckPort: 1557, Incarnation: 7}
	b := core.Address{PID: 6752, Port: 1558, AckPort: 1559, Incarnation: 8}
	view := core.View{ID: 3, Members: []core.Address{a, b}, Joined: []core.Address{b}}
	vals := []any{
		a, core.NoAddress, []core.Address{a, b}, view, &view, (*core.View)(nil),
		Ticket{b, &view, []core.Address{b, a}}, codec.Pair[core.Address, string]{Key: a, Value: "x"},
	}
	got, err := r.UnmarshalAny(mustMarshal(t, r, vals...))
	if err != nil || !reflect.DeepEqual(got, vals) {
		t.Fatalf("%+v, %v", got, err)
	}
	forged := mustMarshal(t, r, a)
	if v, err := r.UnmarshalAny(append(forged[:2:2], "\x03abc"...)); err == nil {
		t.Fatal(v)
	}
}
