package codec_test

import (
	"testing"

	"github.com/khamsin-io/khamsin/vsync/codec"
)

func benchmark[T any](b *testing.B, name string, v T) {
	r := newRegistry(b)
	c, err := codec.CoderOf[T](r)
	if err != nil {
		b.Fatal(err)
	}
	body := mustMarshal(b, r, v)
	b.Run(name+"/AppendValue", func(b *testing.B) {
		b.ReportAllocs()
		b.SetBytes(int64(len(body)))
		dst := make([]byte, 0, len(body))
		for b.Loop() {
			dst, _ = codec.AppendValue(r, dst[:0], v)
		}
	})
	b.Run(name+"/Append", func(b *testing.B) {
		b.ReportAllocs()
		dst := make([]byte, 0, len(body))
		for b.Loop() {
			dst, _ = r.Append(dst[:0], v)
		}
	})
	b.Run(name+"/Coder.Append", func(b *testing.B) {
		b.ReportAllocs()
		dst := make([]byte, 0, len(body))
		for b.Loop() {
			dst, _ = c.Append(dst[:0], v)
		}
	})
	b.Run(name+"/DecodeValue", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_, _, _ = codec.DecodeValue[T](r, body)
		}
	})
	b.Run(name+"/Coder.Decode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_, _, _ = c.Decode(body)
		}
	})
	b.Run(name+"/UnmarshalAny", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_, _ = r.UnmarshalAny(body)
		}
	})
}

func BenchmarkInt32(b *testing.B) { benchmark(b, "int32", int32(7)) }
func BenchmarkString(b *testing.B) {
	benchmark(b, "string", "forty-two characters of text, more or less")
}
func BenchmarkLine(b *testing.B)  { benchmark(b, "Line", Line{"item", 1.5, 20}) }
func BenchmarkOrder(b *testing.B) { benchmark(b, "Order", order()) }
func BenchmarkLines(b *testing.B) { benchmark(b, "1000Lines", make([]Line, 1000)) }
func BenchmarkInts(b *testing.B)  { benchmark(b, "1e6int32", make([]int32, 1e6)) }
