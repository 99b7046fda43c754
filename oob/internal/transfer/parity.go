package transfer

import (
	"errors"

	"github.com/klauspost/reedsolomon"
)

// ParityMax is how many parity segments a block can have.
const ParityMax = 16

// coder makes parity segments of blocks, and lost segments out of them: a Reed-Solomon code over GF(2⁸) whose matrix is
// Cauchy's. A library does the arithmetic on segments. What it offers as whole codes is slower for this purpose: either
// it inverts a matrix as large as the block for each pattern of losses, or its work does not depend on how few segments
// are lost. Here the matrix is as large as the loss: see docs/decisions/0007-parity.md.
//
// Segments that are shorter than the rest count as if zeros followed.
type coder struct {
	math   reedsolomon.LowLevel
	unit   int
	times  *[256][256]byte // the field's products
	over   [256]byte       // its inverses
	matrix [ParityMax][BlockLen]byte
	memory []byte
	rows   [][]byte // of unit bytes each: what is worked out
	sums   [][]byte
}

// newCoder returns a coder for segments of unit bytes.
func newCoder(unit int) *coder {
	c := &coder{unit: unit, times: new([256][256]byte), memory: make([]byte, (ParityMax+ParityMax)*unit)}
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	for i := range 256 {
		c.math.GalMulSlice(byte(i), all, c.times[i][:])
		for j := range 256 {
			if c.times[i][j] == 1 {
				c.over[i] = byte(j)
			}
		}
	}
	for j := range ParityMax {
		for i := range BlockLen {
			c.matrix[j][i] = c.over[byte(BlockLen+j)^byte(i)]
		}
	}
	for i := range ParityMax {
		c.rows = append(c.rows, c.memory[i*unit:(i+1)*unit:(i+1)*unit])
		c.sums = append(c.sums, c.memory[(ParityMax+i)*unit:(ParityMax+i+1)*unit:(ParityMax+i+1)*unit])
	}
	return c
}

// encode returns n parity segments of a block, from row first on. They are valid until the coder is used again.
func (c *coder) encode(size, first, n int, segment func(i int) []byte) [][]byte {
	for j := range n {
		clear(c.rows[j])
	}
	for i := range size {
		s := segment(i)
		for j := range n {
			c.math.GalMulSliceXor(c.matrix[first+j][i], s, c.rows[j][:len(s)])
		}
	}
	return c.rows[:n]
}

var errParity = errors.New("transfer: parity segments that contradict each other") // immutable: an error

// decode finds out the segments of a block that are missing, in lost, by as many of the parity segments. The result is
// in the order of lost, and valid until the coder is used again.
func (c *coder) decode(size int, lost []int, segment func(i int) []byte, parity [][]byte) ([][]byte, error) {
	n := len(lost)
	var used [ParityMax]int
	k := 0
	for j := range parity {
		if len(parity[j]) == c.unit && k < n {
			used[k] = j
			copy(c.sums[k], parity[j])
			k++
		}
	}
	if k < n {
		return nil, errParity
	}
	next := 0
	for i := range size {
		if next < n && lost[next] == i {
			next++
			continue
		}
		s := segment(i)
		for j := range n {
			c.math.GalMulSliceXor(c.matrix[used[j]][i], s, c.sums[j][:len(s)])
		}
	}
	inverse, ok := c.invert(used[:n], lost)
	if !ok {
		return nil, errParity
	}
	for l := range n {
		clear(c.rows[l])
		for j := range n {
			c.math.GalMulSliceXor(inverse[l][j], c.sums[j], c.rows[l])
		}
	}
	return c.rows[:n], nil
}

type square [ParityMax][ParityMax]byte

// invert inverts the part of the matrix that joins rows and lost segments.
func (c *coder) invert(used, lost []int) (out square, ok bool) {
	var m square
	n := len(lost)
	for j := range n {
		for l := range n {
			m[j][l] = c.matrix[used[j]][lost[l]]
		}
		out[j][j] = 1
	}
	for col := range n {
		pivot := col
		for pivot < n && m[pivot][col] == 0 {
			pivot++
		}
		if pivot == n {
			return out, false
		}
		m[col], m[pivot] = m[pivot], m[col]
		out[col], out[pivot] = out[pivot], out[col]
		scale := &c.times[c.over[m[col][col]]]
		for i := range n {
			m[col][i], out[col][i] = scale[m[col][i]], scale[out[col][i]]
		}
		for row := range n {
			if row == col || m[row][col] == 0 {
				continue
			}
			times := &c.times[m[row][col]]
			for i := range n {
				m[row][i] ^= times[m[col][i]]
				out[row][i] ^= times[out[col][i]]
			}
		}
	}
	return out, true
}

// Parity makes the parity segments of a transfer that is sent. It belongs to one goroutine.
type Parity struct {
	layout *Layout
	items  []Item
	coder  *coder
}

// NewParity returns a maker of parity segments.
func NewParity(l *Layout, items []Item) *Parity {
	return &Parity{layout: l, items: items, coder: newCoder(l.unit)}
}

// Rows returns n parity segments of a block, from row first on. They are valid until Rows is called again.
func (p *Parity) Rows(block uint32, first, n int) [][]byte {
	hint := 0
	return p.coder.encode(p.layout.BlockSize(block), first, n, func(i int) []byte {
		at := p.layout.Locate(block*BlockLen+uint32(i), hint)
		hint = at.Item
		return p.items[at.Item].Bytes(at)
	})
}
