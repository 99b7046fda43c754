// Package transfer moves objects by multicast from one process to several: which packets there are, who sends what
// again, and when everything has arrived. Sender and Receiver are state machines without clocks, sockets and
// goroutines; whoever drives them moves the bytes.
package transfer

import (
	"errors"
	"fmt"
	"slices"

	"github.com/zeebo/xxh3"

	"github.com/khamsin-io/khamsin/oob/internal/catalog"
)

// ChunkLen is how many bytes of an object have one digest.
const ChunkLen = 64 << 10

// sumLen is the length of a chunk's digest.
const sumLen = 8

// BlockLen is how many segments of a transfer, in a row, are repaired together: as many as a word has bits.
const BlockLen = 64

// SegmentsMax is how many segments a transfer has at most.
const SegmentsMax = 1 << 30

// ErrTooBig means that an object has more segments than a transfer can have.
var ErrTooBig = errors.New("the object is too big for its packets") // immutable: an error

// ListLen returns the length of the list of digests of an object's chunks.
func ListLen(size uint64) int { return int((size+ChunkLen-1)/ChunkLen) * sumLen }

// Sum returns the digests of an object's chunks, one after the other, and the digest of that list, which is the
// object's.
func Sum(data []byte) (list []byte, d catalog.Digest) {
	list = make([]byte, 0, ListLen(uint64(len(data))))
	for chunk := range slices.Chunk(data, ChunkLen) {
		s := xxh3.Hash(chunk)
		for i := range sumLen {
			list = append(list, byte(s>>(8*i)))
		}
	}
	return list, DigestOf(list, uint64(len(data)))
}

// DigestOf returns the digest of an object by the list of its chunks' digests and its size.
func DigestOf(list []byte, size uint64) catalog.Digest {
	return xxh3.Hash128Seed(list, size).Bytes()
}

// span is where an object's segments are: first those of its list, if that travels, then those of its bytes.
type span struct {
	size  uint64
	list  uint32 // first segment of the list
	data  uint32 // first segment of the bytes
	end   uint32 // first one behind it
	chunk int    // chunks
}

// Layout says which bytes are in which segment of a transfer.
type Layout struct {
	unit  int
	spans []span
	total uint32
}

// NewLayout lays out objects of some sizes, in segments of unit bytes.
func NewLayout(unit int, sizes []uint64) (*Layout, error) {
	l := &Layout{unit: unit, spans: make([]span, 0, len(sizes))}
	if unit <= 0 {
		return nil, fmt.Errorf("transfer: segments of %d bytes", unit)
	}
	next := uint64(0)
	for _, size := range sizes {
		s := span{size: size, list: uint32(next), chunk: ListLen(size) / sumLen}
		if s.chunk > 1 {
			next += segments(uint64(ListLen(size)), unit)
		}
		s.data = uint32(next)
		next += segments(size, unit)
		if next > SegmentsMax {
			return nil, ErrTooBig
		}
		s.end = uint32(next)
		l.spans = append(l.spans, s)
	}
	l.total = uint32(next)
	return l, nil
}

func segments(bytes uint64, unit int) uint64 { return (bytes + uint64(unit) - 1) / uint64(unit) }

// Total returns the number of segments.
func (l *Layout) Total() uint32 { return l.total }

// Items returns the number of objects.
func (l *Layout) Items() int { return len(l.spans) }

// Unit returns the bytes of a full segment.
func (l *Layout) Unit() int { return l.unit }

// Blocks returns the number of blocks.
func (l *Layout) Blocks() uint32 { return (l.total + BlockLen - 1) / BlockLen }

// BlockSize returns how many segments a block has.
func (l *Layout) BlockSize(block uint32) int { return int(min(BlockLen, l.total-block*BlockLen)) }

// Place is where the bytes of a segment are.
type Place struct {
	Item int
	List bool   // in the list of digests, not in the object's bytes
	Off  uint64 // of the first byte
	Len  int
}

// Locate returns where a segment, which must be below Total, has its bytes. Hint is where the search begins: the item
// of the segment before.
func (l *Layout) Locate(seg uint32, hint int) Place {
	i := hint
	if i >= len(l.spans) || seg < l.spans[i].list || seg >= l.spans[i].end {
		i, _ = slices.BinarySearchFunc(l.spans, seg, func(s span, seg uint32) int {
			if s.end <= seg {
				return -1
			}
			return 1
		})
	}
	s := &l.spans[i]
	p := Place{Item: i, List: seg < s.data}
	whole := s.size
	if p.List {
		p.Off, whole = uint64(seg-s.list)*uint64(l.unit), uint64(s.chunk*sumLen)
	} else {
		p.Off = uint64(seg-s.data) * uint64(l.unit)
	}
	p.Len = int(min(uint64(l.unit), whole-p.Off))
	return p
}

// Item is one object of a transfer as a process has it.
type Item struct {
	Data   []byte
	List   []byte // of ListLen bytes
	Digest catalog.Digest
}

// NewItem returns an item for an object that is to come, whose bytes will be in data.
func NewItem(data []byte, d catalog.Digest) Item {
	return Item{Data: data, List: make([]byte, ListLen(uint64(len(data)))), Digest: d}
}

// Bytes returns the bytes of a place.
func (it *Item) Bytes(p Place) []byte {
	if p.List {
		return it.List[p.Off : p.Off+uint64(p.Len) : p.Off+uint64(p.Len)]
	}
	return it.Data[p.Off : p.Off+uint64(p.Len) : p.Off+uint64(p.Len)]
}
