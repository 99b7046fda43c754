package codec_test

import (
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/khamsin-io/khamsin/vsync/codec"
)

type (
	First  struct{ A int }
	Second struct{ B First }
	Third  struct{ C []*Second }
)

// rows: TYP-02
func TestIDsOfTheApplication(t *testing.T) {
	for id, want := range map[uint16]error{
		0: nil, 1: nil, 127: nil, 128: codec.ErrID, 255: codec.ErrID, 256: codec.ErrID, 65535: codec.ErrID,
	} {
		if err := codec.Register[First](codec.NewRegistry(), id); !errors.Is(err, want) {
			t.Errorf("id %d: %v", id, err)
		}
	}
	for id, want := range map[uint16]error{0: codec.ErrID, 127: codec.ErrID, 128: nil, 255: nil, 256: codec.ErrID} {
		if err := codec.RegisterLibrary[Door](codec.NewRegistry(), id); !errors.Is(err, want) {
			t.Errorf("library's id %d: %v", id, err)
		}
	}
	r := newRegistry(t)
	if b := mustMarshal(t, r, Everything{}); b[0] != 0 {
		t.Errorf("id 0 is encoded as %x", b[:3])
	}
	if b := mustMarshal(t, r, Place{}); b[0] != 127 {
		t.Errorf("id 127 is encoded as %x", b[:3])
	}
}

// rows: FUT-19
func TestWideIDs(t *testing.T) {
	for _, id := range []uint16{127, 256, 300, 65535} {
		r := codec.NewRegistry(codec.WideIDs())
		if err := codec.Register[First](r, id); err != nil {
			t.Fatal(err)
		}
		vals := []any{First{1}, []First{{2}}, &First{3}}
		back, err := r.UnmarshalAny(mustMarshal(t, r, vals...))
		if err != nil || !reflect.DeepEqual(back, vals) {
			t.Errorf("id %d: %v, %v", id, back, err)
		}
	}
	for _, id := range []uint16{128, 200, 255} {
		if err := codec.Register[First](codec.NewRegistry(codec.WideIDs()), id); !errors.Is(err, codec.ErrID) {
			t.Errorf("id %d: %v", id, err)
		}
	}
}

// rows: TYP-04
func TestIDsAndTypesAreRegisteredOnce(t *testing.T) {
	r := codec.NewRegistry()
	if err := codec.Register[First](r, 5); err != nil {
		t.Fatal(err)
	}
	err := codec.Register[Line](r, 5)
	if !errors.Is(err, codec.ErrDuplicate) || !strings.Contains(err.Error(), "id 5 belongs to codec_test.First") {
		t.Errorf("same id: %v", err)
	}
	err = codec.Register[First](r, 6)
	if !errors.Is(err, codec.ErrDuplicate) || !strings.Contains(err.Error(), "its id is 5") {
		t.Errorf("same type: %v", err)
	}
	if err := codec.Register[First](r, 5); !errors.Is(err, codec.ErrDuplicate) {
		t.Errorf("same type and id: %v", err)
	}
	if err := codec.Register[Line](r, 6); err != nil {
		t.Errorf("the failures left a trace: %v", err)
	}
	if err := codec.RegisterShape[[3]int](r); err != nil {
		t.Fatal(err)
	}
	if err := codec.RegisterShape[[3]int](r); !errors.Is(err, codec.ErrDuplicate) {
		t.Errorf("same shape: %v", err)
	}
}

// Once the registry is in use it takes no more types.
func TestFrozenRegistry(t *testing.T) {
	byHand, byUse := codec.NewRegistry(), codec.NewRegistry()
	if err := byHand.Freeze(); err != nil {
		t.Fatal(err)
	}
	mustMarshal(t, byUse, [2]int{})
	for _, r := range []*codec.Registry{byHand, byUse} {
		if err := codec.Register[First](r, 1); !errors.Is(err, codec.ErrFrozen) {
			t.Errorf("%v", err)
		}
		if err := codec.RegisterLibrary[Door](r, 128); !errors.Is(err, codec.ErrFrozen) {
			t.Errorf("%v", err)
		}
		if err := codec.RegisterShape[[2]int](r); !errors.Is(err, codec.ErrFrozen) {
			t.Errorf("%v", err)
		}
		if err := r.Freeze(); err != nil {
			t.Error(err)
		}
	}
}

// Types may be registered in any order; what is missing in the end is named, and can still be added.
func TestOrderOfRegistrationDoesNotMatter(t *testing.T) {
	r := new(codec.Registry)
	if err := errors.Join(codec.Register[Third](r, 3), codec.Register[Second](r, 2)); err != nil {
		t.Fatal(err)
	}
	err := r.Freeze()
	var e *codec.RegisterError
	if !errors.As(err, &e) || e.Err != codec.ErrUnregistered || e.Type != "codec_test.Second" || e.Field != "B" {
		t.Fatal(err)
	}
	if err := codec.Register[First](r, 1); err != nil {
		t.Fatal(err)
	}
	other := codec.NewRegistry()
	if err := errors.Join(codec.Register[First](other, 1), codec.Register[Second](other, 2),
		codec.Register[Third](other, 3)); err != nil {
		t.Fatal(err)
	}
	v := Third{[]*Second{nil, {First{7}}}}
	got, err := other.UnmarshalAny(mustMarshal(t, r, v))
	if err != nil || !reflect.DeepEqual(got[0], v) {
		t.Fatal(got, err)
	}
}

type (
	hidden   struct{ A int }
	Closed   struct{ a, b int }
	WithMap  struct{ M map[string]int }
	WithChan struct {
		Deep []codec.Pair[int, [2]chan int]
	}
	WithFunc  struct{ F func() }
	WithAny   struct{ A any }
	WithErr   struct{ E error }
	WithCplx  struct{ C complex128 }
	WithRaw   struct{ R codec.Raw }
	WithAnon  struct{ S struct{ A int } }
	WithHid   struct{ H hidden }
	WithPP    struct{ P **int }
	WithGrid  struct{ G [][]int64 }
	WithEmpty struct{ A [0]int }
	WithTag   struct {
		A int `vsync:"omit"`
	}
	WithPtr    struct{ U uintptr }
	Chan       chan int
	Iface      interface{ M() }
	Half       struct{ A int }
	HalfOwn    struct{ A int }
	Box[T any] struct{ V T }
)

// A struct literal, since nothing else uses the fields.
var _ = Closed{a: 1, b: 2}

func (Half) MarshalBinary() ([]byte, error)           { return nil, nil }
func (HalfOwn) AppendVsync(b []byte) ([]byte, error)  { return b, nil }
func (*HalfOwn) UnmarshalBinary([]byte) error         { return nil }
func (*HalfOwn) MarshalBinary() (b []byte, err error) { return nil, nil }

func refuse[T any](t *testing.T, field, reason string) {
	t.Helper()
	r := codec.NewRegistry()
	err := codec.Register[T](r, 1)
	var e *codec.RegisterError
	if !errors.As(err, &e) || !errors.Is(err, codec.ErrUncodable) {
		t.Errorf("%T: %v", *new(T), err)
		return
	}
	if e.Field != field || !strings.Contains(e.Error(), reason) || e.Type != reflect.TypeFor[T]().String() {
		t.Errorf("%T: field %q expected, and %q in: %v", *new(T), field, reason, e)
	}
	if err := codec.Register[First](r, 1); err != nil {
		t.Errorf("the refused type left a trace: %v", err)
	}
}

// rows: TYP-11
func TestTypesThatCannotTravelAreRefusedAtRegistration(t *testing.T) {
	refuse[hidden](t, "", "not exported")
	refuse[Closed](t, "", "none of its fields is exported")
	refuse[WithMap](t, "M", "use a slice of Pair")
	refuse[WithChan](t, "Deep[].Value[]", "kind chan")
	refuse[WithFunc](t, "F", "kind func")
	refuse[WithAny](t, "A", "kind interface")
	refuse[WithErr](t, "E", "kind interface")
	refuse[WithCplx](t, "C", "kind complex128")
	refuse[WithPtr](t, "U", "kind uintptr")
	refuse[WithRaw](t, "R", "whole value")
	refuse[WithAnon](t, "S", "only named types")
	refuse[WithHid](t, "H", "not exported")
	refuse[WithPP](t, "P", "pointers to pointers")
	refuse[WithGrid](t, "G", "slices of slices")
	refuse[WithEmpty](t, "A", "arrays have 1")
	refuse[WithTag](t, "A", `tag "omit"`)
	refuse[Chan](t, "", "kind chan")
	refuse[Iface](t, "", "interfaces")
	refuse[Half](t, "", "UnmarshalBinary")
	refuse[HalfOwn](t, "", "UnmarshalVsync")
	refuse[*First](t, "", "register the type")
	refuse[[]First](t, "", "only named types")
	refuse[struct{ A int }](t, "", "only named types")
	refuse[int](t, "", "only named types")
	refuse[time.Duration](t, "", "built in")
	refuse[codec.Pair[int, int]](t, "", "built in")
	refuse[codec.Raw](t, "", "built in")
	refuse[io.Reader](t, "", "interfaces")
	refuse[error](t, "", "interfaces")
}

func TestShapesThatAreRefused(t *testing.T) {
	r := codec.NewRegistry()
	for _, err := range []error{
		codec.RegisterShape[chan int](r), codec.RegisterShape[Line](r), codec.RegisterShape[[0]int](r),
		codec.RegisterShape[codec.Pair[string, any]](r),
	} {
		if !errors.Is(err, codec.ErrUncodable) {
			t.Error(err)
		}
	}
	// Two shapes of one encoding cannot be told apart.
	type Text string
	if err := errors.Join(codec.RegisterShape[[2]Text](r), codec.RegisterShape[[2]string](r)); err != nil {
		t.Fatal(err)
	}
	if err := r.Freeze(); !errors.Is(err, codec.ErrDuplicate) {
		t.Fatal(err)
	}
}

// Instances of a generic type are types of their own; their name is the generic one.
func TestGenericTypes(t *testing.T) {
	r := codec.NewRegistry()
	if err := errors.Join(codec.Register[Box[int]](r, 1), codec.Register[Box[string]](r, 2)); err != nil {
		t.Fatal(err)
	}
	vals := []any{Box[int]{1}, Box[string]{"x"}}
	got, err := r.UnmarshalAny(mustMarshal(t, r, vals...))
	if err != nil || !reflect.DeepEqual(got, vals) {
		t.Fatal(got, err)
	}
	s, err := r.SignatureOf(func(Box[int], Box[string]) {})
	if want := "(Box#1{V int},Box#2{V string})"; err != nil || s.Text != want {
		t.Fatal(s, err)
	}
}

// Any number of registries live side by side, with different meanings of an id.
func TestRegistriesAreIndependent(t *testing.T) {
	a, b := codec.NewRegistry(), codec.NewRegistry()
	if err := errors.Join(codec.Register[First](a, 1), codec.Register[Line](b, 1)); err != nil {
		t.Fatal(err)
	}
	body := mustMarshal(t, a, First{1})
	var layout *codec.LayoutError
	if _, err := b.UnmarshalAny(body); !errors.As(err, &layout) || layout.Type != "Line#1" {
		t.Fatal(err)
	}
	if got, err := a.UnmarshalAny(body); err != nil || got[0] != (First{1}) {
		t.Fatal(got, err)
	}
}
