package frame

import "testing"

func BenchmarkGetRelease(b *testing.B) {
	a := open(b, Config{TxChunks: 64})
	for b.Loop() {
		f, _ := a.Tx().Get()
		a.Tx().Release(f)
	}
}

func BenchmarkGetReleaseByRing(b *testing.B) {
	a := open(b, Config{TxChunks: 64})
	for b.Loop() {
		f, _ := a.Tx().Get()
		a.Release(f)
	}
}

func BenchmarkRetainRelease(b *testing.B) {
	a := open(b, Config{TxChunks: 64})
	f, _ := a.Tx().Get()
	for b.Loop() {
		a.Retain(f)
		a.Release(f)
	}
	a.Tx().Release(f)
}

func BenchmarkBytes(b *testing.B) {
	a := open(b, Config{TxChunks: 64})
	f, _ := a.Tx().Get()
	f.Len = 1400
	n := 0
	for b.Loop() {
		n += len(a.Bytes(f))
	}
	a.Tx().Release(f)
}
