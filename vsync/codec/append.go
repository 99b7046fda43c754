package codec

import (
	"encoding/binary"
	"fmt"
	"unsafe"
)

// append appends the payload of the value at p.
func (n *node) append(b []byte, p unsafe.Pointer, w walk) ([]byte, error) {
	switch n.op {
	case opBool, opByte:
		return append(b, *(*byte)(p)), nil
	case op16:
		return binary.LittleEndian.AppendUint16(b, *(*uint16)(p)), nil
	case op32:
		return binary.LittleEndian.AppendUint32(b, *(*uint32)(p)), nil
	case op64:
		return binary.LittleEndian.AppendUint64(b, *(*uint64)(p)), nil
	case opInt:
		return binary.AppendVarint(b, int64(*(*int)(p))), nil
	case opUint:
		return binary.AppendUvarint(b, uint64(*(*uint)(p))), nil
	case opString:
		return appendString(b, *(*string)(p)), nil
	case opBools, opWords, opInts:
		return n.appendVector(b, (*sliceHeader)(p), w), nil
	case opStrings:
		return appendStrings(b, *(*[]string)(p)), nil
	case opBytesList:
		return appendBytesList(b, *(*[][]byte)(p)), nil
	case opGrid:
		return n.appendGrid(b, *(*[]sliceHeader)(p), w)
	case opSlice:
		return n.appendSlice(b, (*sliceHeader)(p), w)
	case opArray:
		return n.appendArray(b, p, w)
	case opPointer:
		return n.appendPointer(b, *(*unsafe.Pointer)(p), w)
	case opPair:
		return n.appendFields(b, p, w)
	case opNamed:
		return n.appendNamed(b, p, w)
	case opStruct:
		return n.appendStruct(b, p, w)
	case opCustom:
		return n.appendCustom(b, w.heap(p))
	}
	return b, ErrUnregistered
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func appendStrings(b []byte, list []string) []byte {
	b = appendCount(b, len(list), list == nil)
	for _, s := range list {
		b = appendString(b, s)
	}
	return b
}

func appendBytes(b, v []byte) []byte {
	return append(appendCount(b, len(v), v == nil), v...)
}

func appendBytesList(b []byte, list [][]byte) []byte {
	b = appendCount(b, len(list), list == nil)
	for _, v := range list {
		b = appendBytes(b, v)
	}
	return b
}

// appendVector appends a slice of scalars of fixed width.
func (n *node) appendVector(b []byte, h *sliceHeader, w walk) []byte {
	b = appendCount(b, h.len, h.data == nil)
	if n.op == opInts {
		return appendInts32(b, h.data, h.len, n.code&0x0F == kindInt)
	}
	return appendWords(b, h.data, h.len, n.width, w.portable)
}

// appendGrid appends a rectangular slice of slices.
func (n *node) appendGrid(b []byte, rows []sliceHeader, w walk) ([]byte, error) {
	b = appendCount(b, len(rows), rows == nil)
	if len(rows) == 0 {
		return b, nil
	}
	columns := rows[0].len
	if columns == 0 {
		return b, fmt.Errorf("%w: row 0 is empty", ErrRagged)
	}
	b = binary.AppendUvarint(b, uint64(columns))
	for i := range rows {
		if rows[i].len != columns {
			return b, fmt.Errorf("%w: row %d has %d elements and row 0 has %d", ErrRagged, i, rows[i].len, columns)
		}
		b = appendWords(b, rows[i].data, columns, n.width, w.portable)
	}
	return b, nil
}

func (n *node) appendSlice(b []byte, h *sliceHeader, w walk) ([]byte, error) {
	b = appendCount(b, h.len, h.data == nil)
	return n.appendElements(b, h.data, h.len, w.at(h.data))
}

func (n *node) appendElements(b []byte, p unsafe.Pointer, count int, w walk) ([]byte, error) {
	var err error
	for i := range count {
		if b, err = n.elem.append(b, unsafe.Add(p, uintptr(i)*n.elem.size), w); err != nil {
			return b, err
		}
	}
	return b, nil
}

func (n *node) appendArray(b []byte, p unsafe.Pointer, w walk) ([]byte, error) {
	if n.width != 0 {
		return appendWords(b, p, n.count, n.width, w.portable), nil
	}
	return n.appendElements(b, p, n.count, w)
}

func (n *node) appendPointer(b []byte, p unsafe.Pointer, w walk) ([]byte, error) {
	if p == nil {
		return append(b, 0), nil
	}
	return n.elem.append(append(b, 1), p, w.at(p))
}

func (n *node) appendFields(b []byte, p unsafe.Pointer, w walk) ([]byte, error) {
	var err error
	for i := range n.fields {
		f := &n.fields[i]
		if b, err = f.node.append(b, unsafe.Add(p, f.offset), w); err != nil {
			return b, err
		}
	}
	return b, nil
}

func (n *node) appendStruct(b []byte, p unsafe.Pointer, w walk) ([]byte, error) {
	w, err := w.down()
	if err != nil {
		return b, err
	}
	if len(n.fields) == 0 {
		return append(b, 0), nil
	}
	return n.appendFields(b, p, w)
}

func (n *node) appendNamed(b []byte, p unsafe.Pointer, w walk) ([]byte, error) {
	w, err := w.down()
	if err != nil {
		return b, err
	}
	return n.elem.append(b, p, w)
}
