package codec_test

import (
	"encoding/binary"
	"errors"
	"testing"
	"time"

	"github.com/khamsin-io/khamsin/vsync/codec"
)

// Line and Order are a usual pair of structs, with a field that travels in every manner a struct has.
type Line struct {
	Item  string
	Price float64
	Count int
}

type Order struct {
	ID     int64
	Who    string
	Lines  []Line
	Parent *Order
	Level  Level
	hidden int
	Local  string `vsync:"-"`
	Tags   []codec.Pair[string, int32]
}

// Level is a registered type that is no struct.
type Level int16

// Tree contains itself without being a struct.
type Tree []Tree

// Link contains itself by a pointer.
type Link struct {
	Value int
	Next  *Link
}

// Signal has nothing to tell.
type Signal struct{}

// Point writes its own encoding: one byte, x in the high half.
type Point struct{ x, y byte }

var (
	errPoint = errors.New("a point has one byte")
	errDoor  = errors.New("a door has six bytes")
)

func (p Point) AppendVsync(b []byte) ([]byte, error) {
	if p.x > 15 || p.y > 15 {
		return nil, errPoint
	}
	return append(b, p.x<<4|p.y), nil
}

func (p *Point) UnmarshalVsync(b []byte) error {
	if len(b) != 1 {
		return errPoint
	}
	p.x, p.y = b[0]>>4, b[0]&15
	return nil
}

// Place has points inside, and so reaches an encoding of its own.
type Place struct {
	Name   string
	At     Point
	Ring   []Point
	Anchor *Point
}

// Door is in the role of a type of the library.
type Door struct {
	Host uint32
	Port uint16
}

func (d Door) AppendBinary(b []byte) ([]byte, error) {
	return binary.LittleEndian.AppendUint16(binary.LittleEndian.AppendUint32(b, d.Host), d.Port), nil
}

func (d *Door) UnmarshalBinary(b []byte) error {
	if len(b) != 6 {
		return errDoor
	}
	d.Host, d.Port = binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint16(b[4:])
	return nil
}

// Everything has a field of every sort that can be one.
type Everything struct {
	Bool     bool
	I8       int8
	I16      int16
	I32      int32
	I64      int64
	I        int
	U8       uint8
	U16      uint16
	U32      uint32
	U64      uint64
	U        uint
	F32      float32
	F64      float64
	Text     string
	Wait     time.Duration
	Bools    []bool
	Bytes    []byte
	I8s      []int8
	I16s     []int16
	Runes    []rune
	Ints     []int
	Uints    []uint
	U64s     []uint64
	F32s     []float32
	F64s     []float64
	Waits    []time.Duration
	Texts    []string
	Blobs    [][]byte
	GridI    [][]int32
	GridF    [][]float32
	GridD    [][]float64
	Hash     [8]byte
	Flags    [3]bool
	Counts   [2]int
	Corners  [2]Line
	Maybe    *int32
	MaybeTxt *string
	Pair     codec.Pair[string, []float64]
	Pairs    []codec.Pair[int32, *Line]
	Levels   []Level
	Level    Level
	Tree     Tree
	Chain    *Link
	Signal   Signal
	Signals  []Signal
	Place    Place
	Places   []*Place
	Door     Door
	Doors    []Door
}

// newRegistry knows all of the types above.
func newRegistry(t testing.TB) *codec.Registry {
	t.Helper()
	r := codec.NewRegistry()
	for _, err := range []error{
		codec.Register[Everything](r, 0),
		codec.Register[Order](r, 1),
		codec.Register[Line](r, 2),
		codec.Register[Level](r, 3),
		codec.Register[Tree](r, 4),
		codec.Register[Link](r, 5),
		codec.Register[Signal](r, 6),
		codec.Register[Point](r, 7),
		codec.Register[Place](r, 127),
		codec.RegisterLibrary[Door](r, 128),
		codec.RegisterShape[codec.Pair[string, int32]](r),
		codec.RegisterShape[[]codec.Pair[string, int32]](r),
		codec.RegisterShape[codec.Pair[Level, Order]](r),
		codec.RegisterShape[[4]uint16](r),
		r.Freeze(),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return r
}

// registries are a registry as it is on this machine, and one with the loops of machines of the other byte order.
func registries(t testing.TB) map[string]*codec.Registry {
	t.Helper()
	portable := newRegistry(t)
	codec.ForcePortable(portable)
	return map[string]*codec.Registry{"native": newRegistry(t), "portable": portable}
}

// mustMarshal encodes values that can be encoded.
func mustMarshal(t testing.TB, r *codec.Registry, vals ...any) []byte {
	t.Helper()
	b, err := r.Marshal(vals...)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func order() Order {
	return Order{
		ID:     -7,
		Who:    "Zoë",
		Lines:  []Line{{"nut", 0.25, 100}, {"bolt", 1e300, -1}},
		Parent: &Order{ID: 1 << 40, Lines: []Line{}, Tags: []codec.Pair[string, int32]{}},
		Level:  -3,
		Tags:   []codec.Pair[string, int32]{{"a", 1}, {"", -1}},
	}
}
