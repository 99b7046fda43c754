package main

import (
	"bytes"
	"encoding/gob"
	"fmt"
	"os"
	"reflect"
	"testing"

	"github.com/fxamacker/cbor/v2"
	"github.com/khamsin-io/khamsin/vsync/codec"
	"github.com/vmihailenco/msgpack/v5"
)

// library encodes values of type T to its buffer and decodes them from bytes.
type library[T any] struct {
	name   string
	encode func(v *T) []byte
	decode func(b []byte, v *T)
}

func libraries[T any](r *codec.Registry) []library[T] {
	return []library[T]{ours[T](r), overGob[T](), overMsgpack[T](), overCBOR[T]()}
}

func ours[T any](r *codec.Registry) library[T] {
	var buf []byte
	return library[T]{
		name: "vsync/codec",
		encode: func(v *T) []byte {
			var err error
			buf, err = codec.AppendValue(r, buf[:0], *v)
			check(err)
			return buf
		},
		decode: func(b []byte, v *T) {
			var err error
			*v, _, err = codec.DecodeValue[T](r, b)
			check(err)
		},
	}
}

func overGob[T any]() library[T] {
	var buf bytes.Buffer
	return library[T]{
		name: "encoding/gob",
		encode: func(v *T) []byte {
			buf.Reset()
			check(gob.NewEncoder(&buf).Encode(v))
			return buf.Bytes()
		},
		decode: func(b []byte, v *T) { check(gob.NewDecoder(bytes.NewReader(b)).Decode(v)) },
	}
}

func overMsgpack[T any]() library[T] {
	var buf bytes.Buffer
	enc := msgpack.NewEncoder(&buf)
	return library[T]{
		name: "msgpack v5",
		encode: func(v *T) []byte {
			buf.Reset()
			check(enc.Encode(v))
			return buf.Bytes()
		},
		decode: func(b []byte, v *T) { check(msgpack.Unmarshal(b, v)) },
	}
}

func overCBOR[T any]() library[T] {
	var buf bytes.Buffer
	mode, err := cbor.EncOptions{}.UserBufferEncMode()
	check(err)
	// The library's default limit is below the largest case.
	read, err := cbor.DecOptions{MaxArrayElements: 1 << 24}.DecMode()
	check(err)
	return library[T]{
		name: "cbor v2",
		encode: func(v *T) []byte {
			buf.Reset()
			check(mode.MarshalToBuffer(v, &buf))
			return buf.Bytes()
		},
		decode: func(b []byte, v *T) { check(read.Unmarshal(b, v)) },
	}
}

func check(err error) {
	if err != nil {
		fail(err)
	}
}

// measure runs all libraries with one value, after seeing that each returns it unchanged.
func measure[T any](r *codec.Registry, v T) []result {
	var list []result
	for _, lib := range libraries[T](r) {
		b := bytes.Clone(lib.encode(&v))
		var back T
		if lib.decode(b, &back); !reflect.DeepEqual(back, v) {
			fmt.Fprintf(os.Stderr, "compare: %s changes the value\n", lib.name)
			os.Exit(1)
		}
		list = append(list, result{
			library: lib.name,
			size:    len(b),
			encode:  fastest(func() { lib.encode(&v) }),
			decode: fastest(func() {
				var fresh T
				lib.decode(b, &fresh)
			}),
		})
	}
	return list
}

// fastest measures f several times and returns the fastest run: others may use the machine too.
func fastest(f func()) testing.BenchmarkResult {
	const runs = 3
	var best testing.BenchmarkResult
	for i := range runs {
		got := testing.Benchmark(func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				f()
			}
		})
		if i == 0 || got.NsPerOp() < best.NsPerOp() {
			best = got
		}
	}
	return best
}
