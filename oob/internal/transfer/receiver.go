package transfer

import (
	"encoding/binary"
	"math/bits"

	"github.com/zeebo/xxh3"
)

// Receiver is one process's copy of what a transfer moves, while it arrives. It belongs to one goroutine.
type Receiver struct {
	layout *Layout
	items  []Item
	coder  *coder // once there is parity

	have    []uint64   // a word for each block
	missing uint32     // segments
	chunks  [][]uint16 // for each item and chunk: segments that are missing; done when it is verified
	lists   []int32    // for each item: segments of its list that are missing; −1: the list is verified
	left    []int      // for each item: chunks that are not verified
	open    int        // items that are not complete
	rows    map[uint32]*rows
	free    []*rows
	hint    int

	highest uint32 // of the numbers that were seen
	seen    bool
	lost    uint32 // numbers that were left out
	passed  uint32 // segments below it have been sent at least once
	cursor  uint32 // where the next report begins

	touched []uint32 // for each block: number of the last packet of it that came
	told    []uint32 // for each block: number at the last report of it; 0: nothing came of it since

	// Corrupt counts chunks and lists that had arrived whole but were not what was sent.
	Corrupt uint64
	// Useless counts segments that were there already.
	Useless uint64
}

// done stands for a chunk that is verified.
const done = 0xffff

// rows are the parity segments of a block that were received.
type rows struct {
	n    int
	data [ParityMax][]byte
}

// NewReceiver returns a receiver that has nothing yet.
func NewReceiver(l *Layout, items []Item) *Receiver {
	r := &Receiver{
		layout: l, items: items, have: make([]uint64, l.Blocks()), missing: l.total,
		chunks: make([][]uint16, len(items)), lists: make([]int32, len(items)), left: make([]int, len(items)),
		rows: make(map[uint32]*rows), touched: make([]uint32, l.Blocks()), told: make([]uint32, l.Blocks()),
	}
	for i := range l.spans {
		s := &l.spans[i]
		r.chunks[i] = make([]uint16, s.chunk)
		r.left[i] = s.chunk
		for c := range s.chunk {
			first, last := r.segmentsOf(i, c)
			r.chunks[i][c] = uint16(last - first + 1)
		}
		r.lists[i] = int32(s.data - s.list)
		if s.chunk > 0 {
			r.open++
		}
	}
	return r
}

// Adopt takes over what another receiver, which is used no more, has verified of an object: both have it in the same
// memory.
func (r *Receiver) Adopt(item int, old *Receiver, oldItem int) {
	s := &r.layout.spans[item]
	if s.chunk == 0 || s.chunk > 1 && old.lists[oldItem] >= 0 || len(old.chunks[oldItem]) != s.chunk {
		return
	}
	take := func(seg uint32) {
		if !r.Has(seg) {
			r.have[seg/BlockLen] |= 1 << (seg % BlockLen)
			r.missing--
		}
	}
	if s.chunk > 1 {
		r.lists[item] = -1
		for seg := s.list; seg < s.data; seg++ {
			take(seg)
		}
	}
	good := func(c int) bool { return old.chunks[oldItem][c] == done }
	for c := range s.chunk {
		if !good(c) {
			continue
		}
		first, last := r.segmentsOf(item, c)
		for seg := first; seg <= last; seg++ {
			p := r.layout.Locate(seg, item)
			if good(int(p.Off/ChunkLen)) && good(int((p.Off+uint64(p.Len)-1)/ChunkLen)) {
				take(seg)
			}
		}
	}
	for c := range s.chunk {
		r.chunks[item][c] = r.lacking(item, c)
		if good(c) && r.chunks[item][c] == 0 {
			r.chunks[item][c] = done
			if r.left[item]--; r.left[item] == 0 {
				r.open--
			}
		}
	}
}

// segmentsOf returns the first and the last segment with bytes of a chunk.
func (r *Receiver) segmentsOf(item, chunk int) (first, last uint32) {
	s := &r.layout.spans[item]
	from := uint64(chunk) * ChunkLen
	to := min(s.size, from+ChunkLen) - 1
	return s.data + uint32(from/uint64(r.layout.unit)), s.data + uint32(to/uint64(r.layout.unit))
}

// Layout returns the layout.
func (r *Receiver) Layout() *Layout { return r.layout }

// Complete tells whether everything has arrived and is what was sent.
func (r *Receiver) Complete() bool { return r.open == 0 }

// CompleteItem tells whether one object has.
func (r *Receiver) CompleteItem(i int) bool { return r.left[i] == 0 }

// Missing returns how many segments have not arrived.
func (r *Receiver) Missing() uint32 { return r.missing }

// Has tells whether a segment has arrived.
func (r *Receiver) Has(seg uint32) bool { return r.have[seg/BlockLen]&(1<<(seg%BlockLen)) != 0 }

// Wants tells whether a segment exists and has not arrived.
func (r *Receiver) Wants(seg uint32) bool { return seg < r.layout.total && !r.Has(seg) }

// Next returns the first segment from seg on that has not arrived; Total when there is none.
func (r *Receiver) Next(seg uint32) uint32 {
	for seg < r.layout.total {
		rest := ^r.have[seg/BlockLen] >> (seg % BlockLen)
		if rest != 0 {
			return min(r.layout.total, seg+uint32(bits.TrailingZeros64(rest)))
		}
		seg = (seg/BlockLen + 1) * BlockLen
	}
	return r.layout.total
}

// Slot returns the memory of a segment, where its bytes may be put before Arrived is called.
func (r *Receiver) Slot(seg uint32) []byte {
	p := r.Place(seg)
	return r.items[p.Item].Bytes(p)
}

// Place returns where a segment's bytes are.
func (r *Receiver) Place(seg uint32) Place {
	p := r.layout.Locate(seg, r.hint)
	r.hint = p.Item
	return p
}

// Arrived notes that the bytes of a segment, which Wants must have approved, are at their place.
func (r *Receiver) Arrived(seg uint32) {
	r.Mark(seg)
	r.Check(seg)
}

// Mark notes that the bytes of a segment are on their way to their place, so that they need not come again. Check must
// follow when they are there.
func (r *Receiver) Mark(seg uint32) {
	r.have[seg/BlockLen] |= 1 << (seg % BlockLen)
	r.missing--
}

// Check verifies what is complete with a segment that was marked.
func (r *Receiver) Check(seg uint32) {
	p := r.Place(seg)
	if p.List {
		r.lists[p.Item]--
		r.checkList(p.Item)
		return
	}
	first, last := int(p.Off/ChunkLen), int((p.Off+uint64(p.Len)-1)/ChunkLen)
	for c := first; c <= last; c++ {
		if r.chunks[p.Item][c] != done {
			r.chunks[p.Item][c]--
			r.checkChunk(p.Item, c)
		}
	}
}

// checkList verifies a list that is complete, and the chunks that waited for it.
func (r *Receiver) checkList(item int) {
	if r.lists[item] != 0 {
		return
	}
	it, s := &r.items[item], &r.layout.spans[item]
	if DigestOf(it.List, s.size) != it.Digest {
		r.Corrupt++
		r.lists[item] = int32(s.data - s.list)
		r.forget(s.list, s.data-1)
		return
	}
	r.lists[item] = -1
	for c := range r.chunks[item] {
		r.checkChunk(item, c)
	}
}

// checkChunk verifies a chunk that is complete.
func (r *Receiver) checkChunk(item, c int) {
	s := &r.layout.spans[item]
	if r.chunks[item][c] != 0 || s.chunk > 1 && r.lists[item] >= 0 {
		return
	}
	it := &r.items[item]
	from := uint64(c) * ChunkLen
	sum := xxh3.Hash(it.Data[from:min(s.size, from+ChunkLen)])
	if s.chunk == 1 {
		binary.LittleEndian.PutUint64(it.List, sum)
		if DigestOf(it.List, s.size) != it.Digest {
			r.reject(item, c)
			return
		}
	} else if binary.LittleEndian.Uint64(it.List[c*sumLen:]) != sum {
		r.reject(item, c)
		return
	}
	r.chunks[item][c] = done
	if r.left[item]--; r.left[item] == 0 {
		r.open--
	}
}

// reject makes the segments of a chunk missing again.
func (r *Receiver) reject(item, c int) {
	r.Corrupt++
	first, last := r.segmentsOf(item, c)
	r.forget(first, last)
	// Its first and its last segment have bytes of other chunks as well, which must be verified again then.
	for other := max(0, c-1); other <= min(c+1, len(r.chunks[item])-1); other++ {
		n := r.lacking(item, other)
		if r.chunks[item][other] == done {
			if n == 0 {
				continue
			}
			if r.left[item]++; r.left[item] == 1 {
				r.open++
			}
		}
		r.chunks[item][other] = n
	}
}

// lacking returns how many segments of a chunk are missing.
func (r *Receiver) lacking(item, c int) (n uint16) {
	first, last := r.segmentsOf(item, c)
	for seg := first; seg <= last; seg++ {
		if !r.Has(seg) {
			n++
		}
	}
	return n
}

func (r *Receiver) forget(first, last uint32) {
	for seg := first; seg <= last; seg++ {
		if r.Has(seg) {
			r.have[seg/BlockLen] &^= 1 << (seg % BlockLen)
			r.missing++
		}
	}
}

// Parity takes a parity segment of a block, and finds out what is missing of the block when that is possible now. Put
// is called for each segment that was found, with its bytes; Arrived follows.
func (r *Receiver) Parity(block uint32, row int, data []byte, put func(seg uint32, b []byte) error) error {
	if block >= r.layout.Blocks() || row < 0 || row >= ParityMax || len(data) != r.layout.unit {
		return nil
	}
	lacks := r.lacks(block)
	if lacks == 0 {
		r.Useless++
		return nil
	}
	p := r.rows[block]
	if p == nil {
		if n := len(r.free); n > 0 {
			p, r.free = r.free[n-1], r.free[:n-1]
		} else {
			p = &rows{}
		}
		r.rows[block] = p
	}
	if len(p.data[row]) > 0 {
		return nil
	}
	p.data[row] = append(p.data[row], data...)
	p.n++
	return r.repair(block, p, put)
}

// HasRows tells whether parity segments of a block wait for others.
func (r *Receiver) HasRows(block uint32) bool { return len(r.rows) > 0 && r.rows[block] != nil }

// Restart forgets the numbers of the sender: another one begins.
func (r *Receiver) Restart() { r.seen, r.highest, r.lost = false, 0, 0 }

// TakeCorrupt returns Corrupt and makes it zero.
func (r *Receiver) TakeCorrupt() uint64 {
	n := r.Corrupt
	r.Corrupt = 0
	return n
}

// Repair finds out what is missing of a block if parity segments that came before allow that by now.
func (r *Receiver) Repair(block uint32, put func(seg uint32, b []byte) error) error {
	if p := r.rows[block]; p != nil {
		return r.repair(block, p, put)
	}
	return nil
}

func (r *Receiver) repair(block uint32, p *rows, put func(seg uint32, b []byte) error) error {
	lacks := r.lacks(block)
	if bits.OnesCount64(lacks) > p.n {
		return nil
	}
	size := r.layout.BlockSize(block)
	var err error
	if lacks != 0 {
		if r.coder == nil {
			r.coder = newCoder(r.layout.unit)
		}
		lost := make([]int, 0, ParityMax)
		for rest := lacks; rest != 0; rest &= rest - 1 {
			lost = append(lost, bits.TrailingZeros64(rest))
		}
		var found [][]byte
		found, err = r.coder.decode(size, lost, func(i int) []byte { return r.Slot(block*BlockLen + uint32(i)) },
			p.data[:])
		for i := 0; i < len(lost) && err == nil; i++ {
			seg := block*BlockLen + uint32(lost[i])
			if err = put(seg, found[i][:r.Place(seg).Len]); err == nil {
				r.Arrived(seg)
			}
		}
	}
	for i := range p.data {
		p.data[i] = p.data[i][:0]
	}
	p.n = 0
	delete(r.rows, block)
	r.free = append(r.free, p)
	return err
}

// lacks returns the segments of a block that are missing, one bit each.
func (r *Receiver) lacks(block uint32) uint64 {
	all := ^uint64(0)
	if n := r.layout.BlockSize(block); n < BlockLen {
		all = 1<<n - 1
	}
	return all &^ r.have[block]
}

// Saw notes the number of a packet, from which follow the losses.
func (r *Receiver) Saw(number uint32) {
	if !r.seen {
		r.seen, r.highest = true, number
		return
	}
	if d := int32(number - r.highest); d > 0 {
		r.lost += uint32(d - 1)
		r.highest = number
	} else if d < 0 && r.lost > 0 {
		r.lost-- // late, not lost
	}
}

// Touched notes that a packet of a block came.
func (r *Receiver) Touched(block, number uint32) {
	if block < uint32(len(r.told)) {
		r.touched[block], r.told[block] = number, 0
	}
}

// Passed notes that all segments below seg have been sent.
func (r *Receiver) Passed(seg uint32) { r.passed = max(r.passed, min(seg, r.layout.total)) }

// What a report leaves out, unless everything shall be told: blocks of which packets may be on their way, and those
// that it told of not long ago.
const (
	settleAfter = 45      // packets behind the last one of a block
	tellAgain   = 1 << 13 // packets after which a block is told of again, in case the report was lost
)

// Report calls tell with what the sender must know: the blocks that lack something, among those that were sent whole,
// in a few packets of entriesMax at most. With all it tells of everything.
func (r *Receiver) Report(f *Feedback, entriesMax int, all bool, tell func()) {
	for i := range reportMax {
		r.fill(f, entriesMax, all)
		more := f.More
		if f.More = more && i < reportMax-1; !f.More {
			tell()
			return
		}
		tell()
	}
}

// reportMax is how many packets one report has at most.
const reportMax = 4

func (r *Receiver) fill(f *Feedback, entriesMax int, all bool) {
	f.Number, f.Lost, f.Missing, f.Done, f.More = r.highest, r.lost, r.missing, r.Complete(), false
	f.Entries = f.Entries[:0]
	if r.missing == 0 {
		return
	}
	full := r.passed / BlockLen
	if r.passed == r.layout.total {
		full = r.layout.Blocks()
	}
	if full == 0 {
		return
	}
	at := r.cursor % full
	for range full {
		if lacks := r.lacks(at); lacks != 0 && (all || r.due(at)) {
			if len(f.Entries) == entriesMax {
				f.More = true
				break
			}
			e := Entry{Block: at, Lacks: lacks}
			if p := r.rows[at]; p != nil {
				e.Rows = uint8(p.n)
			}
			f.Entries = append(f.Entries, e)
			r.told[at] = max(1, r.highest)
		}
		if at++; at == full {
			at = 0
		}
	}
	r.cursor = at
}

// due tells whether a block that lacks something should be told of.
func (r *Receiver) due(block uint32) bool {
	if told := r.told[block]; told != 0 {
		return r.highest-told > tellAgain
	}
	return int32(r.highest-r.touched[block]) >= settleAfter
}
