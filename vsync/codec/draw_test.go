package codec_test

import (
	"math"
	"time"

	"github.com/khamsin-io/khamsin/vsync/codec"
	"pgregory.net/rapid"
)

// list draws a slice that may be nil or empty.
func list[T any](t *rapid.T, g *rapid.Generator[T]) []T {
	if rapid.IntRange(0, 3).Draw(t, "nil") == 0 {
		return nil
	}
	return append([]T{}, rapid.SliceOfN(g, 0, 4).Draw(t, "list")...)
}

func lists[T any](g *rapid.Generator[T]) *rapid.Generator[[]T] {
	return rapid.Custom(func(t *rapid.T) []T { return list(t, g) })
}

// grid draws a rectangular slice of slices that may be nil or empty.
func grid[T any](t *rapid.T, g *rapid.Generator[T]) [][]T {
	rows, columns := rapid.IntRange(-1, 3).Draw(t, "rows"), rapid.IntRange(1, 3).Draw(t, "columns")
	if rows < 0 {
		return nil
	}
	return append([][]T{}, rapid.SliceOfN(rapid.SliceOfN(g, columns, columns), rows, rows).Draw(t, "grid")...)
}

func grids[T any](g *rapid.Generator[T]) *rapid.Generator[[][]T] {
	return rapid.Custom(func(t *rapid.T) [][]T { return grid(t, g) })
}

func maybe[T any](t *rapid.T, g *rapid.Generator[T]) *T {
	if rapid.Bool().Draw(t, "nil") {
		return nil
	}
	v := g.Draw(t, "value")
	return &v
}

func pairs[K, V any](k *rapid.Generator[K], v *rapid.Generator[V]) *rapid.Generator[codec.Pair[K, V]] {
	return rapid.Custom(func(t *rapid.T) codec.Pair[K, V] {
		return codec.Pair[K, V]{Key: k.Draw(t, "key"), Value: v.Draw(t, "value")}
	})
}

var (
	durations = rapid.Map(rapid.Int64(), func(v int64) time.Duration { return time.Duration(v) })
	levels    = rapid.Map(rapid.Int16(), func(v int16) Level { return Level(v) })
	points    = rapid.Map(rapid.Byte(), func(v byte) Point { return Point{v >> 4, v & 15} })
	doors     = rapid.Custom(func(t *rapid.T) Door {
		return Door{rapid.Uint32().Draw(t, "host"), rapid.Uint16().Draw(t, "port")}
	})
	signals = rapid.Just(Signal{})
	blobs   = lists(rapid.Byte())
	lines   = rapid.Custom(func(t *rapid.T) Line {
		return Line{rapid.String().Draw(t, "item"), rapid.Float64().Draw(t, "price"), rapid.Int().Draw(t, "count")}
	})
	places = rapid.Custom(func(t *rapid.T) Place {
		return Place{rapid.String().Draw(t, "name"), points.Draw(t, "at"), list(t, points), maybe(t, points)}
	})
	tags = pairs(rapid.String(), rapid.Int32())
)

func drawOrder(t *rapid.T, depth int) Order {
	o := Order{
		ID:    rapid.Int64().Draw(t, "id"),
		Who:   rapid.String().Draw(t, "who"),
		Lines: list(t, lines),
		Level: levels.Draw(t, "level"),
		Tags:  list(t, tags),
	}
	if depth > 0 && rapid.Bool().Draw(t, "parent") {
		p := drawOrder(t, depth-1)
		o.Parent = &p
	}
	return o
}

func drawTree(t *rapid.T, depth int) Tree {
	n := rapid.IntRange(-1, 2).Draw(t, "branches")
	if n < 0 {
		return nil
	}
	tree := make(Tree, n)
	for i := range tree {
		if depth > 0 {
			tree[i] = drawTree(t, depth-1)
		}
	}
	return tree
}

func drawLink(t *rapid.T) *Link {
	var l *Link
	for range rapid.IntRange(0, 5).Draw(t, "links") {
		l = &Link{rapid.Int().Draw(t, "value"), l}
	}
	return l
}

// drawScalars fills in the first half of e.
func drawScalars(t *rapid.T, e *Everything) {
	e.Bool, e.Text = rapid.Bool().Draw(t, "bool"), rapid.String().Draw(t, "text")
	e.I8, e.I16 = rapid.Int8().Draw(t, "i8"), rapid.Int16().Draw(t, "i16")
	e.I32, e.I64, e.I = rapid.Int32().Draw(t, "i32"), rapid.Int64().Draw(t, "i64"), rapid.Int().Draw(t, "i")
	e.U8, e.U16 = rapid.Uint8().Draw(t, "u8"), rapid.Uint16().Draw(t, "u16")
	e.U32, e.U64, e.U = rapid.Uint32().Draw(t, "u32"), rapid.Uint64().Draw(t, "u64"), rapid.Uint().Draw(t, "u")
	e.F32, e.F64 = rapid.Float32().Draw(t, "f32"), rapid.Float64().Draw(t, "f64")
	e.Wait = durations.Draw(t, "wait")
	e.Hash = [8]byte(rapid.SliceOfN(rapid.Byte(), 8, 8).Draw(t, "hash"))
	e.Flags = [3]bool(rapid.SliceOfN(rapid.Bool(), 3, 3).Draw(t, "flags"))
	e.Counts = [2]int(rapid.SliceOfN(rapid.Int(), 2, 2).Draw(t, "counts"))
	e.Corners = [2]Line{lines.Draw(t, "corner"), lines.Draw(t, "corner")}
	e.Maybe, e.MaybeTxt = maybe(t, rapid.Int32()), maybe(t, rapid.String())
}

func drawEverything(t *rapid.T) Everything {
	var e Everything
	drawScalars(t, &e)
	e.Bools, e.Bytes = list(t, rapid.Bool()), list(t, rapid.Byte())
	e.I8s, e.I16s = list(t, rapid.Int8()), list(t, rapid.Int16())
	e.Runes, e.Ints, e.Uints = list(t, rapid.Int32()), list(t, rapid.Int()), list(t, rapid.Uint())
	e.U64s, e.F32s, e.F64s = list(t, rapid.Uint64()), list(t, rapid.Float32()), list(t, rapid.Float64())
	e.Waits, e.Texts, e.Blobs = list(t, durations), list(t, rapid.String()), list(t, blobs)
	e.GridI, e.GridF, e.GridD = grid(t, rapid.Int32()), grid(t, rapid.Float32()), grid(t, rapid.Float64())
	e.Pair = pairs(rapid.String(), lists(rapid.Float64())).Draw(t, "pair")
	e.Pairs = list(t, pairs(rapid.Int32(), rapid.Custom(func(t *rapid.T) *Line { return maybe(t, lines) })))
	e.Levels, e.Level, e.Tree, e.Chain = list(t, levels), levels.Draw(t, "level"), drawTree(t, 3), drawLink(t)
	e.Signals, e.Place = list(t, signals), places.Draw(t, "place")
	e.Door, e.Doors = doors.Draw(t, "door"), list(t, doors)
	e.Places = list(t, rapid.Custom(func(t *rapid.T) *Place { return maybe(t, places) }))
	return e
}

// anything draws a value of any type that UnmarshalAny returns as it was.
func anything() *rapid.Generator[any] {
	orders := rapid.Custom(func(t *rapid.T) Order { return drawOrder(t, 2) })
	all := rapid.Custom(drawEverything)
	return rapid.OneOf(
		rapid.Bool().AsAny(), rapid.Int8().AsAny(), rapid.Int16().AsAny(), rapid.Int32().AsAny(), rapid.Int64().AsAny(),
		rapid.Int().AsAny(), rapid.Byte().AsAny(), rapid.Uint16().AsAny(), rapid.Uint32().AsAny(),
		rapid.Uint64().AsAny(), rapid.Uint().AsAny(), rapid.Float32().AsAny(), rapid.Float64().AsAny(),
		rapid.String().AsAny(),
		durations.AsAny(),
		rapid.Just(math.Inf(-1)).AsAny(), rapid.Just(math.Copysign(0, -1)).AsAny(),
		lists(rapid.Bool()).AsAny(), lists(rapid.Int8()).AsAny(), lists(rapid.Int16()).AsAny(),
		lists(rapid.Int32()).AsAny(),
		lists(rapid.Int64()).AsAny(), lists(rapid.Int()).AsAny(), blobs.AsAny(), lists(rapid.Uint16()).AsAny(),
		lists(rapid.Uint32()).AsAny(), lists(rapid.Uint64()).AsAny(), lists(rapid.Uint()).AsAny(),
		lists(rapid.Float32()).AsAny(), lists(rapid.Float64()).AsAny(), lists(rapid.String()).AsAny(),
		lists(durations).AsAny(), lists(blobs).AsAny(),
		grids(rapid.Int32()).AsAny(), grids(rapid.Float32()).AsAny(), grids(rapid.Float64()).AsAny(),
		orders.AsAny(), lists(orders).AsAny(), all.AsAny(), levels.AsAny(), lists(levels).AsAny(),
		rapid.Custom(func(t *rapid.T) *Order { return maybe(t, orders) }).AsAny(),
		lists(rapid.Custom(func(t *rapid.T) *Order { return maybe(t, orders) })).AsAny(),
		rapid.Custom(func(t *rapid.T) Tree { return drawTree(t, 3) }).AsAny(), rapid.Custom(drawLink).AsAny(),
		signals.AsAny(), lists(signals).AsAny(), points.AsAny(), lists(points).AsAny(), places.AsAny(),
		lists(places).AsAny(),
		doors.AsAny(), lists(doors).AsAny(), tags.AsAny(), lists(tags).AsAny(), pairs(levels, orders).AsAny(),
		rapid.Map(rapid.SliceOfN(rapid.Uint16(), 4, 4), func(v []uint16) [4]uint16 { return [4]uint16(v) }).AsAny(),
	)
}
