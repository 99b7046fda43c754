package codec

import (
	"encoding/binary"
	"reflect"
	"unsafe"
)

// decode reads a payload into the zero value at p and returns what is behind it; with an error, about where the fault
// is.
func (n *node) decode(b []byte, p unsafe.Pointer, w walk) ([]byte, error) {
	switch n.op {
	case opBool, opByte, op16, op32, op64:
		return n.decodeFixed(b, p)
	case opInt:
		return decodeInt(b, (*int)(p))
	case opUint:
		return decodeUint(b, (*uint)(p))
	case opString:
		return decodeString(b, (*string)(p))
	case opBools, opWords, opInts:
		return n.decodeVector(b, (*sliceHeader)(p), w)
	case opStrings:
		return decodeStrings(b, (*[]string)(p))
	case opBytesList:
		return decodeBytesList(b, (*[][]byte)(p))
	case opGrid:
		return n.decodeGrid(b, (*[]sliceHeader)(p), w)
	case opSlice:
		return n.decodeSlice(b, (*sliceHeader)(p), w)
	case opArray:
		return n.decodeArray(b, p, w)
	case opPointer:
		return n.decodePointer(b, (*unsafe.Pointer)(p), w)
	case opPair:
		return n.decodeFields(b, p, w)
	case opNamed:
		return n.decodeNamed(b, p, w)
	case opStruct:
		return n.decodeStruct(b, p, w)
	case opCustom:
		return n.decodeCustom(b, w.heap(p))
	}
	return b, ErrUnregistered
}

func (n *node) decodeFixed(b []byte, p unsafe.Pointer) ([]byte, error) {
	if len(b) < n.min {
		return b, ErrTruncated
	}
	switch n.op {
	case opBool:
		if b[0] > 1 {
			return b, ErrCanonical
		}
		*(*bool)(p) = b[0] == 1
	case opByte:
		*(*byte)(p) = b[0]
	case op16:
		*(*uint16)(p) = binary.LittleEndian.Uint16(b)
	case op32:
		*(*uint32)(p) = binary.LittleEndian.Uint32(b)
	case op64:
		*(*uint64)(p) = binary.LittleEndian.Uint64(b)
	}
	return b[n.min:], nil
}

func decodeInt(b []byte, p *int) ([]byte, error) {
	v, rest, err := readVarint(b)
	if err == nil && !fitsInt(v) {
		err = ErrRange
	}
	if err != nil {
		return rest, err
	}
	*p = int(v)
	return rest, nil
}

func decodeUint(b []byte, p *uint) ([]byte, error) {
	v, rest, err := readUvarint(b)
	if err == nil && v != uint64(uint(v)) {
		err = ErrRange
	}
	if err != nil {
		return rest, err
	}
	*p = uint(v)
	return rest, nil
}

func decodeString(b []byte, p *string) ([]byte, error) {
	n, rest, err := readLength(b)
	if err != nil {
		return rest, err
	}
	*p = string(rest[:n])
	return rest[n:], nil
}

func decodeStrings(b []byte, p *[]string) ([]byte, error) {
	n, rest, err := readCount(b, 1)
	if err != nil || n < 0 {
		return rest, err
	}
	list := make([]string, n)
	for i := range list {
		if rest, err = decodeString(rest, &list[i]); err != nil {
			return rest, err
		}
	}
	*p = list
	return rest, nil
}

func decodeBytes(b []byte, p *[]byte) ([]byte, error) {
	n, rest, err := readCount(b, 1)
	if err != nil || n < 0 {
		return rest, err
	}
	if n == 0 {
		*p = []byte{}
		return rest, nil
	}
	*p = append([]byte(nil), rest[:n]...)
	return rest[n:], nil
}

func decodeBytesList(b []byte, p *[][]byte) ([]byte, error) {
	n, rest, err := readCount(b, 1)
	if err != nil || n < 0 {
		return rest, err
	}
	list := make([][]byte, n)
	for i := range list {
		if rest, err = decodeBytes(rest, &list[i]); err != nil {
			return rest, err
		}
	}
	*p = list
	return rest, nil
}

// decodeVector reads a slice of scalars of fixed width.
func (n *node) decodeVector(b []byte, h *sliceHeader, w walk) ([]byte, error) {
	count, rest, err := readCount(b, n.width)
	if err != nil || count < 0 {
		return rest, err
	}
	if n.op == opBools && !areBools(rest[:count]) {
		return rest, ErrCanonical
	}
	var data unsafe.Pointer
	if n.op == opInts {
		data = makeWords(count, 4)
		if err := readInts32(data, rest, count, n.code&0x0F == kindInt); err != nil {
			return rest, err
		}
	} else {
		data = cloneWords(rest, count, n.width, w.portable)
	}
	*h = sliceHeader{data, count, count}
	return rest[count*n.width:], nil
}

// readGridSize reads the rows, -1 for nil, and columns of a grid that the rest can hold.
func (n *node) readGridSize(b []byte) (rows, columns int, rest []byte, err error) {
	rows, rest, err = readCount(b, n.width)
	if err != nil || rows <= 0 {
		return rows, 0, rest, err
	}
	c, rest, err := readUvarint(rest)
	switch {
	case err != nil:
		return 0, 0, rest, err
	case c == 0:
		return 0, 0, rest, ErrCanonical
	case c > uint64(len(rest)/n.width) || rows > len(rest)/n.width/int(c):
		return 0, 0, rest, ErrTruncated
	}
	return rows, int(c), rest, nil
}

// decodeGrid reads a rectangular slice of slices. All rows lie in one piece of memory.
func (n *node) decodeGrid(b []byte, p *[]sliceHeader, w walk) ([]byte, error) {
	rows, columns, rest, err := n.readGridSize(b)
	if err != nil || rows < 0 {
		return rest, err
	}
	list := make([]sliceHeader, rows)
	if rows == 0 {
		*p = list
		return rest, nil
	}
	total := rows * columns
	data := cloneWords(rest, total, n.width, w.portable)
	for i := range list {
		list[i] = sliceHeader{unsafe.Add(data, i*columns*n.width), columns, columns}
	}
	*p = list
	return rest[total*n.width:], nil
}

func (n *node) decodeSlice(b []byte, h *sliceHeader, w walk) ([]byte, error) {
	count, rest, err := readCount(b, n.elem.min)
	if err != nil || count < 0 {
		return rest, err
	}
	if n.elem.op == opCustom {
		return n.decodeCustomSlice(rest, h, count, w)
	}
	data := n.elem.allocateSlice(count)
	rest, err = n.decodeElements(rest, data, count, w.at(data))
	if err == nil {
		*h = sliceHeader{data, count, count}
	}
	return rest, err
}

// decodeCustomSlice reads a slice whose elements may be much smaller in bytes than in memory: it allocates ahead only
// in proportion to the input, and more as elements prove to be there.
func (n *node) decodeCustomSlice(b []byte, h *sliceHeader, count int, w walk) ([]byte, error) {
	const ahead = 24 // bytes of memory for each byte of input
	room := min(count, 1+ahead*len(b)/int(max(n.elem.size, 1)))
	data := n.elem.allocateSlice(room)
	for done := 0; done < count; done++ {
		if done == room {
			room = min(count, 2*room)
			longer := n.elem.allocateSlice(room)
			reflect.Copy(reflect.SliceAt(n.elem.typ, longer, room), reflect.SliceAt(n.elem.typ, data, done))
			data = longer
		}
		var err error
		if b, err = n.elem.decodeCustom(b, unsafe.Add(data, uintptr(done)*n.elem.size)); err != nil {
			return b, err
		}
	}
	*h = sliceHeader{data, count, count}
	return b, nil
}

func (n *node) decodeElements(b []byte, p unsafe.Pointer, count int, w walk) ([]byte, error) {
	var err error
	for i := range count {
		if b, err = n.elem.decode(b, unsafe.Add(p, uintptr(i)*n.elem.size), w); err != nil {
			return b, err
		}
	}
	return b, nil
}

func (n *node) decodeArray(b []byte, p unsafe.Pointer, w walk) ([]byte, error) {
	if n.width == 0 {
		return n.decodeElements(b, p, n.count, w)
	}
	if len(b)/n.width < n.count {
		return b, ErrTruncated
	}
	length := n.count * n.width
	if n.elem.op == opBool && !areBools(b[:length]) {
		return b, ErrCanonical
	}
	readWords(p, b, n.count, n.width, w.portable)
	return b[length:], nil
}

// readPresence reads the byte in front of what a pointer points at.
func readPresence(b []byte) (bool, []byte, error) {
	switch {
	case len(b) == 0:
		return false, b, ErrTruncated
	case b[0] > 1:
		return false, b, ErrCanonical
	}
	return b[0] == 1, b[1:], nil
}

func (n *node) decodePointer(b []byte, p *unsafe.Pointer, w walk) ([]byte, error) {
	present, rest, err := readPresence(b)
	if err != nil || !present {
		return rest, err
	}
	if len(rest) < n.elem.min {
		return rest, ErrTruncated
	}
	q := n.elem.allocate()
	*p = q
	return n.elem.decode(rest, q, w.at(q))
}

func (n *node) decodeFields(b []byte, p unsafe.Pointer, w walk) ([]byte, error) {
	var err error
	for i := range n.fields {
		f := &n.fields[i]
		if b, err = f.node.decode(b, unsafe.Add(p, f.offset), w); err != nil {
			return b, err
		}
	}
	return b, nil
}

// readEmpty reads the byte that stands for a struct without fields.
func readEmpty(b []byte) ([]byte, error) {
	switch {
	case len(b) == 0:
		return b, ErrTruncated
	case b[0] != 0:
		return b, ErrCanonical
	}
	return b[1:], nil
}

func (n *node) decodeStruct(b []byte, p unsafe.Pointer, w walk) ([]byte, error) {
	w, err := w.down()
	if err != nil {
		return b, err
	}
	if len(n.fields) == 0 {
		return readEmpty(b)
	}
	return n.decodeFields(b, p, w)
}

func (n *node) decodeNamed(b []byte, p unsafe.Pointer, w walk) ([]byte, error) {
	w, err := w.down()
	if err != nil {
		return b, err
	}
	return n.elem.decode(b, p, w)
}
