package codec

import (
	"unsafe"
)

// measure returns the length that append would add. Custom encodings are run for it.
func (n *node) measure(p unsafe.Pointer, w walk) (int, error) {
	switch n.op {
	case opBool, opByte, op16, op32, op64:
		return n.min, nil
	case opInt:
		return uvarintLen(zigzag(int64(*(*int)(p)))), nil
	case opUint:
		return uvarintLen(uint64(*(*uint)(p))), nil
	case opString:
		return measureString(len(*(*string)(p))), nil
	case opBools, opWords, opInts:
		h := (*sliceHeader)(p)
		return measureCount(h.len, h.data == nil) + h.len*n.width, nil
	case opStrings:
		list := *(*[]string)(p)
		sum := measureCount(len(list), list == nil)
		for _, s := range list {
			sum += measureString(len(s))
		}
		return sum, nil
	case opBytesList:
		list := *(*[][]byte)(p)
		sum := measureCount(len(list), list == nil)
		for _, v := range list {
			sum += measureCount(len(v), v == nil) + len(v)
		}
		return sum, nil
	case opGrid:
		return n.measureGrid(*(*[]sliceHeader)(p))
	case opSlice:
		h := (*sliceHeader)(p)
		sum, err := n.measureElements(h.data, h.len, w.at(h.data))
		return sum + measureCount(h.len, h.data == nil), err
	case opArray:
		return n.measureElements(p, n.count, w)
	case opPointer:
		q := *(*unsafe.Pointer)(p)
		if q == nil {
			return 1, nil
		}
		sum, err := n.elem.measure(q, w.at(q))
		return sum + 1, err
	case opPair:
		return n.measureFields(p, w)
	case opNamed, opStruct:
		return n.measureRegistered(p, w)
	case opCustom:
		b, err := n.appendCustom(nil, w.heap(p))
		return len(b), err
	}
	return 0, ErrUnregistered
}

func measureString(n int) int { return uvarintLen(uint64(n)) + n }

func measureCount(n int, isNil bool) int {
	if isNil {
		return 1
	}
	return uvarintLen(uint64(n) + 1)
}

func (n *node) measureGrid(rows []sliceHeader) (int, error) {
	sum := measureCount(len(rows), rows == nil)
	if len(rows) == 0 {
		return sum, nil
	}
	columns := rows[0].len
	for i := range rows {
		if rows[i].len != columns || columns == 0 {
			return 0, ErrRagged
		}
	}
	return sum + uvarintLen(uint64(columns)) + len(rows)*columns*n.width, nil
}

func (n *node) measureElements(p unsafe.Pointer, count int, w walk) (int, error) {
	if n.op == opArray && n.width != 0 {
		return count * n.width, nil
	}
	sum := 0
	for i := range count {
		one, err := n.elem.measure(unsafe.Add(p, uintptr(i)*n.elem.size), w)
		if err != nil {
			return 0, err
		}
		sum += one
	}
	return sum, nil
}

func (n *node) measureFields(p unsafe.Pointer, w walk) (int, error) {
	sum := 0
	for i := range n.fields {
		f := &n.fields[i]
		one, err := f.node.measure(unsafe.Add(p, f.offset), w)
		if err != nil {
			return 0, err
		}
		sum += one
	}
	return sum, nil
}

func (n *node) measureRegistered(p unsafe.Pointer, w walk) (int, error) {
	w, err := w.down()
	switch {
	case err != nil:
		return 0, err
	case n.op == opNamed:
		return n.elem.measure(p, w)
	case len(n.fields) == 0:
		return 1, nil
	}
	return n.measureFields(p, w)
}
