package transfer

import (
	"fmt"

	"github.com/klauspost/reedsolomon"
)

// ParityMax is how many parity segments a block can have.
const ParityMax = 16

// coder makes parity segments of blocks, and lost segments out of them. Segments that are shorter than the rest count
// as if zeros followed, and a block that has fewer than BlockLen as if segments of zeros did.
type coder struct {
	code   reedsolomon.Encoder
	unit   int
	zero   []byte
	pads   []byte // memory for segments that are short, and for rows
	shards [][]byte
}

// newCoder returns a coder for segments of unit bytes, which must be a multiple of 64.
func newCoder(unit int) (*coder, error) {
	code, err := reedsolomon.New(BlockLen, ParityMax, reedsolomon.WithLeopardGF(true), reedsolomon.WithMaxGoroutines(1))
	if err != nil {
		return nil, fmt.Errorf("transfer: %w", err)
	}
	return &coder{
		code: code, unit: unit, zero: make([]byte, unit), shards: make([][]byte, BlockLen+ParityMax),
		pads: make([]byte, (BlockLen+ParityMax)*unit),
	}, nil
}

func (c *coder) pad(i int) []byte { return c.pads[i*c.unit : (i+1)*c.unit : (i+1)*c.unit] }

// data puts the segments of a block in front of the shards; those that are missing are left empty.
func (c *coder) data(size int, segment func(i int) []byte) {
	for i := range BlockLen {
		if i >= size {
			c.shards[i] = c.zero
			continue
		}
		s := segment(i)
		switch {
		case len(s) == c.unit || len(s) == 0:
			c.shards[i] = s
		default:
			p := c.pad(i)
			clear(p[copy(p, s):])
			c.shards[i] = p
		}
	}
}

// encode returns the parity segments of a block. They are valid until the coder is used again.
func (c *coder) encode(size int, segment func(i int) []byte) ([][]byte, error) {
	c.data(size, segment)
	for i := range ParityMax {
		c.shards[BlockLen+i] = c.pad(BlockLen + i)
	}
	if err := c.code.Encode(c.shards); err != nil {
		return nil, fmt.Errorf("transfer: parity: %w", err)
	}
	return c.shards[BlockLen:], nil
}

// decode finds out the segments of a block that are missing: segment returns nothing for those. The result is valid
// until the coder is used again.
func (c *coder) decode(size int, segment func(i int) []byte, rows [][]byte) ([][]byte, error) {
	c.data(size, segment)
	for i := range BlockLen {
		if len(c.shards[i]) == 0 {
			c.shards[i] = c.pad(i)[:0]
		}
	}
	copy(c.shards[BlockLen:], rows)
	for i := BlockLen; i < len(c.shards); i++ {
		if len(c.shards[i]) == 0 {
			c.shards[i] = nil
		}
	}
	if err := c.code.ReconstructData(c.shards); err != nil {
		return nil, fmt.Errorf("transfer: repair: %w", err)
	}
	return c.shards[:size], nil
}

// Parity makes the parity segments of a transfer that is sent. It belongs to one goroutine.
type Parity struct {
	layout *Layout
	items  []Item
	coder  *coder
}

// NewParity returns a maker of parity segments.
func NewParity(l *Layout, items []Item) (*Parity, error) {
	c, err := newCoder(l.unit)
	if err != nil {
		return nil, err
	}
	return &Parity{layout: l, items: items, coder: c}, nil
}

// Rows returns the parity segments of a block. They are valid until Rows is called again.
func (p *Parity) Rows(block uint32) ([][]byte, error) {
	hint := 0
	return p.coder.encode(p.layout.BlockSize(block), func(i int) []byte {
		at := p.layout.Locate(block*BlockLen+uint32(i), hint)
		hint = at.Item
		return p.items[at.Item].Bytes(at)
	})
}
