package codec_test

import (
	"bytes"
	"encoding/hex"
	"flag"
	"fmt"
	"math"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/khamsin-io/khamsin/vsync/codec"
)

var rewrite = flag.Bool("rewrite", false, "write the golden files anew")

// golden are values whose bytes are kept in testdata/golden.txt: the format must not change by accident.
func golden() []any {
	return []any{
		true, int8(-2), int16(0x1234), int32(0x12345678), int64(0x123456789abcdef0), -1, 300,
		byte(0xfe), uint16(0x1234), uint32(0x12345678), uint64(0x123456789abcdef0), uint(300),
		float32(1.5), math.Pi, "Zoë", time.Second,
		[]bool{true, false}, []int8{-1, 2}, []int16{0x1234, -1}, []int32{0x12345678, -1}, []int64{1, -1}, []int{1, -1},
		[]byte{1, 2}, []uint16{0x1234}, []uint32{0x12345678}, []uint64{1}, []uint{1}, []float32{1.5}, []float64{-0.5},
		[]string{"a", ""}, []time.Duration{1}, [][]byte{nil, {}, {9}},
		[]int32(nil), []int32{}, [][]int32{{1, 2}, {3, 4}}, [][]float32{{1}}, [][]float64{{1}, {2}}, [][]float64{},
		Line{"nut", 0.25, 100}, []Line{{"a", 1, 1}, {"b", 2, -2}}, &Line{"p", 0, 0}, (*Line)(nil),
		Level(-2), []Level{1, 2}, Tree{{}, nil}, Signal{}, Point{1, 2}, Door{0x01020304, 0x0506},
		codec.Pair[string, int32]{Key: "k", Value: 7}, []codec.Pair[string, int32]{{Key: "k", Value: 7}},
		[4]uint16{1, 2, 3, 4}, order(),
	}
}

// rows: MSG-17
func TestGoldenBytes(t *testing.T) {
	const file = "testdata/golden.txt"
	if *rewrite {
		var out strings.Builder
		for _, v := range golden() {
			fmt.Fprintf(&out, "%T: %x\n", v, mustMarshal(t, newRegistry(t), v))
		}
		if err := os.WriteFile(file, []byte(out.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	if len(lines) != len(golden()) {
		t.Fatalf("%s has %d lines for %d values", file, len(lines), len(golden()))
	}
	for name, r := range registries(t) {
		for i, v := range golden() {
			_, kept, _ := strings.Cut(lines[i], ": ")
			want, err := hex.DecodeString(kept)
			if err != nil {
				t.Fatal(err)
			}
			if got := mustMarshal(t, r, v); !bytes.Equal(got, want) {
				t.Errorf("%s: %#v is %x, kept as %x", name, v, got, want)
			}
			if back, err := r.UnmarshalAny(want); err != nil || !reflect.DeepEqual(back[0], v) {
				t.Errorf("%s: %x became %#v, %v", name, want, back, err)
			}
		}
	}
}
