package codec_test

import (
	"errors"
	"reflect"
	"testing"

	"github.com/khamsin-io/khamsin/vsync/codec"
)

// Exported fields travel in the order of the declaration; nothing else is between them.
//
// rows: TYP-06
func TestExportedFieldsTravelInOrder(t *testing.T) {
	type Mixed struct {
		B    byte
		note string
		A    byte
		C    []byte
		Skip byte `vsync:"-"`
		D    bool
	}
	r := codec.NewRegistry()
	if err := codec.Register[Mixed](r, 9); err != nil {
		t.Fatal(err)
	}
	b := mustMarshal(t, r, Mixed{B: 1, note: "x", A: 2, C: []byte{7}, Skip: 3, D: true})
	if want := []byte{1, 2, 2, 7, 1}; string(b[3:]) != string(want) {
		t.Fatalf("%x, want %x behind the type", b, want)
	}
	got, err := r.UnmarshalAny(b)
	if want := (Mixed{B: 1, A: 2, C: []byte{7}, D: true}); err != nil || !reflect.DeepEqual(got[0], want) {
		t.Fatalf("%+v, %v", got, err)
	}
}

// rows: TYP-07
func TestUnexportedFieldsArriveAsZero(t *testing.T) {
	r := newRegistry(t)
	sent := Order{ID: 1, hidden: 42, Local: "here"}
	got, rest, err := codec.DecodeValue[Order](r, mustMarshal(t, r, sent))
	if err != nil || len(rest) != 0 || got.ID != 1 || got.hidden != 0 || got.Local != "" {
		t.Fatalf("%+v, %v", got, err)
	}
}

// Recorder sees in what state its decoder finds it.
type Recorder struct{ Before, After int }

func (r *Recorder) AppendVsync(b []byte) ([]byte, error) { return append(b, byte(r.After)), nil }

func (r *Recorder) UnmarshalVsync(b []byte) error {
	r.Before = r.After
	r.After = int(b[0])
	return nil
}

// Decoding begins with a zero value of the type, also in a variable that held another, and fills in what travelled.
//
// rows: TYP-08
func TestDecodingBeginsWithTheZeroValue(t *testing.T) {
	r := codec.NewRegistry()
	if err := errors.Join(codec.Register[Recorder](r, 1), codec.Register[First](r, 2)); err != nil {
		t.Fatal(err)
	}
	used := Recorder{8, 9}
	if err := r.Unmarshal(mustMarshal(t, r, Recorder{0, 5}), &used); err != nil || used != (Recorder{0, 5}) {
		t.Fatalf("%+v, %v", used, err)
	}
	vals, err := r.UnmarshalAny(mustMarshal(t, r, Recorder{1, 5}, []*Recorder{{2, 6}}))
	if err != nil || vals[0] != (Recorder{0, 5}) || *vals[1].([]*Recorder)[0] != (Recorder{0, 6}) {
		t.Fatalf("%+v, %v", vals, err)
	}
}

// A pointer cycle has no end and is refused; so is everything deeper than the limit, and nothing that is not.
func TestDepthIsLimited(t *testing.T) {
	r := newRegistry(t)
	loop := &Link{1, nil}
	loop.Next = loop
	if _, err := r.Marshal(loop); !errors.Is(err, codec.ErrDepth) {
		t.Fatal(err)
	}
	if _, err := r.Size(loop); !errors.Is(err, codec.ErrDepth) {
		t.Fatal(err)
	}
	var chain *Link
	for i := range codec.MaxDepth {
		chain = &Link{i, chain}
	}
	b := mustMarshal(t, r, chain)
	if got, _, err := codec.DecodeValue[*Link](r, b); err != nil || !reflect.DeepEqual(got, chain) {
		t.Fatal(err)
	}
	chain = &Link{0, chain}
	if _, err := r.Marshal(chain); !errors.Is(err, codec.ErrDepth) {
		t.Fatal(err)
	}
	// The decoder must not rely on the encoder: one link more by hand.
	deeper := append(append([]byte{}, b[:len(b)-1]...), 1, 0, 0)
	if _, _, err := codec.DecodeValue[*Link](r, deeper); !errors.Is(err, codec.ErrDepth) {
		t.Fatal(err)
	}
	for _, err := range r.Values(deeper) {
		if !errors.Is(err, codec.ErrDepth) {
			t.Fatal(err)
		}
	}
	tree := Tree{}
	for range codec.MaxDepth {
		tree = Tree{tree}
	}
	if _, err := r.Marshal(tree); !errors.Is(err, codec.ErrDepth) {
		t.Fatal(err)
	}
}

// Values that were decoded do not change when the bytes they came from do.
func TestDecodedValuesDoNotAliasTheInput(t *testing.T) {
	r := newRegistry(t)
	vals := []any{"text", []byte("bytes"), []string{"a", "b"}, [][]byte{{1}, {2}}, []int32{1, 2}, [][]float64{{1}},
		order(), []int8{1}, []bool{true}}
	b := mustMarshal(t, r, vals...)
	got, err := r.UnmarshalAny(b)
	if err != nil {
		t.Fatal(err)
	}
	clear(b)
	if !reflect.DeepEqual(got, vals) {
		t.Fatalf("%#v", got)
	}
}

func TestBorrowedValuesAliasTheInput(t *testing.T) {
	b := mustMarshal(t, nil, []byte("abc"), []byte(nil), "xyz")
	v, rest, err := codec.BorrowBytes(b)
	if err != nil || string(v) != "abc" || cap(v) != 3 {
		t.Fatal(v, err)
	}
	b[2] = 'A'
	if v[0] != 'A' {
		t.Fatal("not borrowed")
	}
	v, rest, err = codec.BorrowBytes(rest)
	if err != nil || v != nil {
		t.Fatal(v, err)
	}
	s, rest, err := codec.BorrowString(rest)
	if err != nil || s != "xyz" || len(rest) != 0 {
		t.Fatal(s, rest, err)
	}
	var typ *codec.TypeError
	if _, _, err := codec.BorrowString(b); !errors.As(err, &typ) || typ.Found != "[]uint8" {
		t.Fatal(err)
	}
	var count *codec.CountError
	if _, _, err := codec.BorrowBytes(nil); !errors.As(err, &count) {
		t.Fatal(err)
	}
	if _, rest, err := codec.BorrowBytes(b[:3]); !errors.Is(err, codec.ErrTruncated) || len(rest) != 3 {
		t.Fatal(err)
	}
}
