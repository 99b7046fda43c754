package codec_test

import (
	"bytes"
	"encoding/gob"
	"encoding/json"
	"errors"
	"net/netip"
	"reflect"
	"testing"

	"github.com/khamsin-io/khamsin/vsync/codec"
)

// calls counts the calls of the methods below; a value points at its own, so that nothing is shared.
type calls struct{ own, binary, decode, decodeBinary int }

// Both has its fields, its own pair and the standard library's.
type Both struct {
	Field int
	calls *calls
}

func (b Both) AppendVsync(dst []byte) ([]byte, error) {
	b.calls.own++
	return append(dst, byte(b.Field), 0xEE), nil
}

func (b *Both) UnmarshalVsync(src []byte) error {
	if len(src) != 2 || src[1] != 0xEE {
		return errors.New("not both")
	}
	if b.calls == nil {
		b.calls = new(calls)
	}
	b.Field = int(src[0])
	b.calls.decode++
	return nil
}

func (b Both) MarshalBinary() ([]byte, error) {
	b.calls.binary++
	return nil, nil
}

func (b *Both) UnmarshalBinary([]byte) error {
	b.calls = &calls{decodeBinary: 1}
	return nil
}

// rows: TYP-09
func TestOwnEncodingWinsAndRunsOnce(t *testing.T) {
	r := codec.NewRegistry()
	if err := codec.Register[Both](r, 1); err != nil {
		t.Fatal(err)
	}
	c := &calls{}
	b := mustMarshal(t, r, Both{7, c})
	if *c != (calls{own: 1}) || string(b[len(b)-3:]) != "\x02\x07\xee" {
		t.Fatalf("%+v, %x", *c, b)
	}
	got, _, err := codec.DecodeValue[Both](r, b)
	if err != nil || got.Field != 7 || *got.calls != (calls{decode: 1}) {
		t.Fatalf("%+v, %v", got, err)
	}
	*c = calls{}
	if _, err := codec.AppendValue(r, nil, []Both{{1, c}, {2, c}, {3, c}}); err != nil || *c != (calls{own: 3}) {
		t.Fatalf("%+v, %v", *c, err)
	}
}

// Ledger is encoded by gob, Note by json: slow and long, and good for anything.
type Ledger struct{ Entries map[string][]float64 }

func (l Ledger) MarshalBinary() ([]byte, error) {
	var b bytes.Buffer
	err := gob.NewEncoder(&b).Encode(l.Entries)
	return b.Bytes(), err
}

func (l *Ledger) UnmarshalBinary(b []byte) error {
	return gob.NewDecoder(bytes.NewReader(b)).Decode(&l.Entries)
}

type Note struct{ Any any }

func (n *Note) AppendVsync(b []byte) ([]byte, error) {
	text, err := json.Marshal(n.Any)
	return append(b, text...), err
}

func (n *Note) UnmarshalVsync(b []byte) error { return json.Unmarshal(b, &n.Any) }

// Desk holds both as fields.
type Desk struct {
	Books []Ledger
	Top   Note
}

// rows: TYP-10
func TestOwnEncodingMayUseAGeneralSerializer(t *testing.T) {
	r := codec.NewRegistry()
	err := errors.Join(codec.Register[Ledger](r, 1), codec.Register[Note](r, 2), codec.Register[Desk](r, 3))
	if err != nil {
		t.Fatal(err)
	}
	ledger := Ledger{map[string][]float64{"a": {1, 2}, "b": make([]float64, 100)}}
	note := Note{map[string]any{"k": []any{"v", 1.5, nil}}}
	vals := []any{ledger, note, &note, Desk{[]Ledger{ledger, ledger}, note}}
	got, err := r.UnmarshalAny(mustMarshal(t, r, vals...))
	if err != nil || !reflect.DeepEqual(got, vals) {
		t.Fatalf("%+v, %v", got, err)
	}
}

// Types of the standard library travel by their own binary form once they are registered, and not before.
func TestTypesOfOthers(t *testing.T) {
	type Peer struct{ Addr netip.AddrPort }
	r := codec.NewRegistry()
	if err := codec.Register[Peer](r, 1); err != nil {
		t.Fatal(err)
	}
	if err := r.Freeze(); !errors.Is(err, codec.ErrUnregistered) {
		t.Fatal(err)
	}
	if err := codec.Register[netip.AddrPort](r, 2); err != nil {
		t.Fatal(err)
	}
	want := Peer{netip.MustParseAddrPort("[fe80::1%lo]:80")}
	got, _, err := codec.DecodeValue[Peer](r, mustMarshal(t, r, want))
	if err != nil || got != want {
		t.Fatal(got, err)
	}
}

func TestFaultsOfOwnEncodings(t *testing.T) {
	r := newRegistry(t)
	if b, err := r.Append([]byte("x"), Place{Ring: []Point{{16, 0}}}); !errors.Is(err, errPoint) || string(b) != "x" {
		t.Fatal(b, err)
	}
	if _, err := r.Size(Point{16, 0}); !errors.Is(err, errPoint) {
		t.Fatal(err)
	}
	b := mustMarshal(t, r, 1, Point{1, 2})
	b[len(b)-2] = 0 // its length
	var e *codec.DecodeError
	_, err := r.UnmarshalAny(b[:len(b)-1])
	if !errors.As(err, &e) || !errors.Is(err, errPoint) || e.Index != 1 || e.Type != "Point#7" {
		t.Fatal(err)
	}
}

// Thief drops the bytes that were there before it.
type Thief struct{}

func (Thief) AppendVsync(b []byte) ([]byte, error) { return b[:0], nil }
func (*Thief) UnmarshalVsync([]byte) error         { return nil }

func TestOwnEncoderThatDropsBytes(t *testing.T) {
	r := codec.NewRegistry()
	if err := codec.Register[Thief](r, 1); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Append([]byte("body"), Thief{}); !errors.Is(err, codec.ErrUncodable) {
		t.Fatal(err)
	}
}

// Bulky is small in bytes and big in memory.
type Bulky struct {
	text   string
	filler [4000]byte
}

func (b Bulky) AppendVsync(dst []byte) ([]byte, error) { return append(dst, b.text...), nil }

func (b *Bulky) UnmarshalVsync(src []byte) error {
	if string(src) == "bad" {
		return errPoint
	}
	b.text = string(src)
	b.filler[0] = 1
	return nil
}

// Memory for such types is taken as their values prove to be there.
func TestBulkyElements(t *testing.T) {
	r := codec.NewRegistry()
	if err := codec.Register[Bulky](r, 1); err != nil {
		t.Fatal(err)
	}
	list := make([]Bulky, 300)
	for i := range list {
		list[i].text = string(rune('a' + i%26))
	}
	b := mustMarshal(t, r, list)
	got, _, err := codec.DecodeValue[[]Bulky](r, b)
	if err != nil || len(got) != 300 || got[299].text != list[299].text || got[0].text != "a" {
		t.Fatal(len(got), err)
	}
	list[0].text = "bad"
	b = mustMarshal(t, r, list)
	if n := allocatesTooMuch(len(b)+4000, func() { _, err = r.UnmarshalAny(b) }); n > 0 || !errors.Is(err, errPoint) {
		t.Fatal(n, err)
	}
}

// Long is encoded in as many bytes as it says, to reach every length of the length.
type Long struct{ N int }

func (l Long) AppendVsync(b []byte) ([]byte, error) {
	return append(b, bytes.Repeat([]byte{7}, l.N)...), nil
}

func (l *Long) UnmarshalVsync(b []byte) error {
	if len(bytes.Trim(b, "\x07")) != 0 {
		return errors.New("the bytes are not those that were written")
	}
	l.N = len(b)
	return nil
}

func TestLengthsOfOwnEncodings(t *testing.T) {
	r := codec.NewRegistry()
	if err := codec.Register[Long](r, 1); err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{0, 1, 127, 128, 129, 16383, 16384, 1 << 21} {
		got, err := r.UnmarshalAny(mustMarshal(t, r, Long{n}, "behind", []Long{{n}, {1}}))
		if want := []any{Long{n}, "behind", []Long{{n}, {1}}}; err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%d: %v, %v", n, got, err)
		}
	}
}
