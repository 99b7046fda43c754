package pdu

import (
	"encoding/binary"
	"errors"

	"github.com/khamsin-io/khamsin/vsync/core"
)

// ErrMalformed is returned for control messages that do not follow their layout.
var ErrMalformed = errors.New("pdu: malformed control message")

// Writer appends the fields of a control message.
type Writer struct{ B []byte }

// Uint appends an unsigned number as a varint.
func (w *Writer) Uint(v uint64) { w.B = binary.AppendUvarint(w.B, v) }

// Byte appends one byte.
func (w *Writer) Byte(v byte) { w.B = append(w.B, v) }

// Bool appends a truth value.
func (w *Writer) Bool(v bool) {
	if v {
		w.Byte(1)
	} else {
		w.Byte(0)
	}
}

// Bytes appends a byte string with its length.
func (w *Writer) Bytes(v []byte) {
	w.Uint(uint64(len(v)))
	w.B = append(w.B, v...)
}

// String appends a string with its length.
func (w *Writer) String(v string) {
	w.Uint(uint64(len(v)))
	w.B = append(w.B, v...)
}

// Address appends an address.
func (w *Writer) Address(a core.Address) { w.B, _ = a.AppendBinary(w.B) }

// Addresses appends a list of addresses.
func (w *Writer) Addresses(list []core.Address) { w.B = core.AppendAddresses(w.B, list) }

// Seqs appends a list of sequence numbers.
func (w *Writer) Seqs(list []core.Seq) {
	w.Uint(uint64(len(list)))
	for _, s := range list {
		w.Uint(uint64(s))
	}
}

// View appends a view; nil is allowed.
func (w *Writer) View(v *core.View) {
	w.Bool(v != nil)
	if v != nil {
		w.B, _ = v.AppendBinary(w.B)
	}
}

// Reader takes the fields of a control message apart. After the first fault all further fields are zero and Err tells.
type Reader struct {
	b   []byte
	bad bool
}

// NewReader reads from b.
func NewReader(b []byte) *Reader { return &Reader{b: b} }

// Err returns ErrMalformed when any field was faulty.
func (r *Reader) Err() error {
	if r.bad {
		return ErrMalformed
	}
	return nil
}

// End returns Err, and ErrMalformed as well when bytes are left over.
func (r *Reader) End() error {
	if len(r.b) != 0 {
		r.bad = true
	}
	return r.Err()
}

// More tells whether there are bytes left and no fault so far.
func (r *Reader) More() bool { return !r.bad && len(r.b) > 0 }

// Rest returns what is left.
func (r *Reader) Rest() []byte { return r.b }

func (r *Reader) fail() {
	r.bad = true
	r.b = nil
}

// Uint reads a varint.
func (r *Reader) Uint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.fail()
		return 0
	}
	r.b = r.b[n:]
	return v
}

// Count reads a number of elements that take at least size bytes each, and refuses one that the rest cannot hold.
func (r *Reader) Count(size int) int {
	v := r.Uint()
	if v > uint64(len(r.b)/size) {
		r.fail()
		return 0
	}
	return int(v)
}

// Byte reads one byte.
func (r *Reader) Byte() byte {
	if len(r.b) == 0 {
		r.fail()
		return 0
	}
	v := r.b[0]
	r.b = r.b[1:]
	return v
}

// Bool reads a truth value.
func (r *Reader) Bool() bool {
	v := r.Byte()
	if v > 1 {
		r.fail()
	}
	return v == 1
}

// Bytes reads a byte string; it aliases the message.
func (r *Reader) Bytes() []byte {
	n := r.Count(1)
	v := r.b[:n:n]
	r.b = r.b[n:]
	return v
}

// String reads a string.
func (r *Reader) String() string { return string(r.Bytes()) }

// Address reads an address.
func (r *Reader) Address() core.Address {
	var a core.Address
	if len(r.b) < core.AddressLen {
		r.fail()
		return a
	}
	if a.UnmarshalBinary(r.b[:core.AddressLen]) != nil {
		r.fail()
		return a
	}
	r.b = r.b[core.AddressLen:]
	return a
}

// Addresses reads a list of addresses.
func (r *Reader) Addresses() []core.Address {
	list, rest, err := core.DecodeAddresses(r.b)
	if err != nil {
		r.fail()
		return nil
	}
	r.b = rest
	return list
}

// Seqs reads a list of sequence numbers.
func (r *Reader) Seqs() []core.Seq {
	n := r.Count(1)
	list := make([]core.Seq, n)
	for i := range list {
		list[i] = core.Seq(r.Uint())
	}
	return list
}

// View reads a view; nil when none was written.
func (r *Reader) View() *core.View {
	if !r.Bool() {
		return nil
	}
	v := new(core.View)
	rest, err := v.Decode(r.b)
	if err != nil {
		r.fail()
		return nil
	}
	r.b = rest
	return v
}
