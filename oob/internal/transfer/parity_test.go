package transfer

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

// Whatever is lost of a block can be worked out of as many parity segments, whichever those are.
func TestParity(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 9))
	c := newCoder(192)
	for range 500 {
		size := 1 + rng.IntN(BlockLen)
		block := make([][]byte, size)
		for i := range block {
			block[i] = randomBytes(rng, 1+rng.IntN(192))
		}
		var parity [ParityMax][]byte
		for j, row := range c.encode(size, 0, ParityMax, func(i int) []byte { return block[i] }) {
			parity[j] = slices.Clone(row)
		}
		if again := c.encode(size, 3, 2, func(i int) []byte { return block[i] }); !bytes.Equal(again[1], parity[4]) {
			t.Fatal("a row depends on how many are made")
		}
		n := min(size, 1+rng.IntN(ParityMax))
		lost := rng.Perm(size)[:n]
		slices.Sort(lost)
		for _, j := range rng.Perm(ParityMax)[n:] {
			parity[j] = nil
		}
		found, err := c.decode(size, lost, func(i int) []byte {
			if slices.Contains(lost, i) {
				t.Fatal("a lost segment is read")
			}
			return block[i]
		}, parity[:])
		if err != nil {
			t.Fatal(err)
		}
		for k, i := range lost {
			if !bytes.Equal(found[k][:len(block[i])], block[i]) {
				t.Fatalf("segment %d of %d is wrong, %d lost", i, size, n)
			}
		}
	}
	if _, err := c.decode(2, []int{0, 1}, nil, [][]byte{make([]byte, 192)}); err == nil {
		t.Error("one parity segment is enough for two losses")
	}
}

func randomBytes(rng *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return b
}

func BenchmarkParity(b *testing.B) {
	rng := rand.New(rand.NewPCG(1, 9))
	c := newCoder(1408)
	block := make([][]byte, BlockLen)
	for i := range block {
		block[i] = randomBytes(rng, 1408)
	}
	segment := func(i int) []byte { return block[i] }
	for _, n := range []int{1, 3, 5, 8} {
		var parity [ParityMax][]byte
		for j, row := range c.encode(BlockLen, 0, n, segment) {
			parity[j] = slices.Clone(row)
		}
		b.Run(fmt.Sprint("encode/", n), func(b *testing.B) {
			b.SetBytes(BlockLen * 1408)
			for b.Loop() {
				c.encode(BlockLen, 0, n, segment)
			}
		})
		b.Run(fmt.Sprint("decode/", n), func(b *testing.B) {
			b.SetBytes(BlockLen * 1408)
			lost := rng.Perm(BlockLen)[:n]
			slices.Sort(lost)
			for b.Loop() {
				if _, err := c.decode(BlockLen, lost, segment, parity[:]); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
