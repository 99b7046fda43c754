package demo

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
)

// hash is a SHA-256.
type hash [sha256.Size]byte

// MarshalText returns the hash in hexadecimal.
func (h hash) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, h[:]), nil }

// UnmarshalText reads a hash in hexadecimal.
func (h *hash) UnmarshalText(b []byte) error {
	if len(b) != 2*len(h) {
		return errors.New("a hash has 64 hexadecimal digits")
	}
	_, err := hex.Decode(h[:], b)
	return err
}

// short returns the first digits.
func (h hash) short() string { return hex.EncodeToString(h[:6]) }

// inventory is the replicated state: what the group has in stock, and how it came to it.
type inventory struct {
	Totals  map[string]int64
	Applied map[int]uint64 // rows applied of each share; the next row of share k must be number Applied[k]
	Count   uint64         // messages delivered since the group began
	Order   hash           // of the sequence of these messages
}

func newInventory() *inventory {
	return &inventory{Totals: make(map[string]int64), Applied: make(map[int]uint64)}
}

// movement is what travels in a message: row number Row of a share.
type movement struct {
	share int
	row   uint64
	Movement
}

// append appends the encoded movement.
func (m *movement) append(b []byte) []byte {
	b = binary.AppendUvarint(b, uint64(m.share))
	b = binary.AppendUvarint(b, m.row)
	b = binary.AppendVarint(b, m.Delta)
	return append(b, m.Item...)
}

var errShort = errors.New("malformed movement")

// decode reads an encoded movement.
func (m *movement) decode(b []byte) error {
	share, n := binary.Uvarint(b)
	if n <= 0 || share > 1<<31 {
		return errShort
	}
	b = b[n:]
	row, n := binary.Uvarint(b)
	if n <= 0 {
		return errShort
	}
	b = b[n:]
	delta, n := binary.Varint(b)
	if n <= 0 || len(b) == n {
		return errShort
	}
	*m = movement{share: int(share), row: row, Movement: Movement{Item: string(b[n:]), Delta: delta}}
	return nil
}

// apply takes one message in. An error means that the group broke its promise: a row is missing, twice, or out of
// order.
func (v *inventory) apply(payload []byte) (movement, error) {
	v.Count++
	v.Order = next(v.Order, payload)
	var m movement
	if err := m.decode(payload); err != nil {
		return m, err
	}
	if want := v.Applied[m.share]; m.row != want {
		return m, fmt.Errorf("row %d of share %d delivered, want row %d", m.row, m.share, want)
	}
	v.Applied[m.share]++
	v.Totals[m.Item] += m.Delta
	return m, nil
}

// next returns the hash of a sequence that goes on with one message.
func next(order hash, payload []byte) hash {
	var room [512]byte
	return sha256.Sum256(append(append(room[:0], order[:]...), payload...))
}

// stock returns the hash of the totals.
func (v *inventory) stock() hash { return stockOf(v.Totals) }

func stockOf(totals map[string]int64) hash {
	h := sha256.New()
	for _, item := range slices.Sorted(maps.Keys(totals)) {
		fmt.Fprintf(h, "%s=%d\n", item, totals[item])
	}
	return hash(h.Sum(nil))
}

// chunkBytes is the size of one piece of transferred state.
const chunkBytes = 16 << 10

// save writes the state in pieces.
func (v *inventory) save(put func(piece []byte) error) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	for piece := range slices.Chunk(b, chunkBytes) {
		if err := put(piece); err != nil {
			return err
		}
	}
	return nil
}

// load reads the state that save wrote, all pieces one after the other.
func (v *inventory) load(r io.Reader) error {
	d := json.NewDecoder(r)
	d.DisallowUnknownFields()
	*v = *newInventory()
	if err := d.Decode(v); err != nil {
		return fmt.Errorf("load state: %w", err)
	}
	return nil
}

// share says which rows of the input a process multicasts: row n of the share is row (First + n*Step) modulo the number
// of rows, and there are Rows of them; without an end when Rows is negative.
type share struct {
	Number int
	First  int
	Step   int
	Rows   int64
}

// row returns row n of the share.
func (s share) row(input []Movement, n uint64) Movement {
	total := uint64(len(input))
	return input[(uint64(s.First)+n%total*uint64(s.Step))%total]
}

// expected returns the totals after the first applied[k] rows of every share k.
func expected(input []Movement, shares map[int]share, applied map[int]uint64) (map[string]int64, error) {
	totals := make(map[string]int64)
	for k, n := range applied {
		s, ok := shares[k]
		if !ok {
			return nil, fmt.Errorf("%d rows of share %d, which nobody has", n, k)
		}
		if s.Rows >= 0 && n > uint64(s.Rows) {
			return nil, fmt.Errorf("%d rows of share %d, which has %d", n, k, s.Rows)
		}
		for i := range n {
			m := s.row(input, i)
			totals[m.Item] += m.Delta
		}
	}
	return totals, nil
}
