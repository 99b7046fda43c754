package codec

import "unsafe"

// skip checks a payload as decode does, without making a value, and returns what is behind it. The bytes of custom
// encodings are not looked into.
func (n *node) skip(b []byte, depth int) ([]byte, error) {
	switch n.op {
	case opBool, opByte, op16, op32, op64:
		return n.skipFixed(b)
	case opInt:
		var v int
		return decodeInt(b, &v)
	case opUint:
		var v uint
		return decodeUint(b, &v)
	case opString, opCustom:
		length, rest, err := readLength(b)
		return rest[length:], err
	case opBools, opWords, opInts:
		return n.skipVector(b)
	case opStrings, opBytesList:
		return n.skipByteStrings(b)
	case opGrid:
		rows, columns, rest, err := n.readGridSize(b)
		return rest[max(rows, 0)*columns*n.width:], err
	case opSlice:
		count, rest, err := readCount(b, n.elem.min)
		if err != nil {
			return rest, err
		}
		return n.skipElements(rest, count, depth)
	case opArray:
		return n.skipElements(b, n.count, depth)
	case opPointer:
		present, rest, err := readPresence(b)
		if err != nil || !present {
			return rest, err
		}
		return n.elem.skip(rest, depth)
	case opPair:
		return n.skipFields(b, depth)
	case opNamed, opStruct:
		return n.skipRegistered(b, depth+1)
	}
	return b, ErrUnregistered
}

func (n *node) skipFixed(b []byte) ([]byte, error) {
	switch {
	case len(b) < n.min:
		return b, ErrTruncated
	case n.op == opBool && b[0] > 1:
		return b, ErrCanonical
	}
	return b[n.min:], nil
}

func (n *node) skipVector(b []byte) ([]byte, error) {
	count, rest, err := readCount(b, n.width)
	if err != nil || count < 0 {
		return rest, err
	}
	if n.op == opBools && !areBools(rest[:count]) {
		return rest, ErrCanonical
	}
	if n.op == opInts {
		var v uint32
		for i := range count {
			if err := readInts32(unsafe.Pointer(&v), rest[i*8:], 1, n.code&0x0F == kindInt); err != nil {
				return rest, err
			}
		}
	}
	return rest[count*n.width:], nil
}

func (n *node) skipByteStrings(b []byte) ([]byte, error) {
	count, rest, err := readCount(b, 1)
	for i := 0; i < count && err == nil; i++ {
		var length int
		if n.op == opStrings {
			length, rest, err = readLength(rest)
		} else {
			length, rest, err = readCount(rest, 1)
		}
		if err == nil {
			rest = rest[max(length, 0):]
		}
	}
	return rest, err
}

func (n *node) skipElements(b []byte, count, depth int) ([]byte, error) {
	var err error
	for i := 0; i < count && err == nil; i++ {
		b, err = n.elem.skip(b, depth)
	}
	return b, err
}

func (n *node) skipFields(b []byte, depth int) ([]byte, error) {
	var err error
	for i := 0; i < len(n.fields) && err == nil; i++ {
		b, err = n.fields[i].node.skip(b, depth)
	}
	return b, err
}

func (n *node) skipRegistered(b []byte, depth int) ([]byte, error) {
	switch {
	case depth > MaxDepth:
		return b, ErrDepth
	case n.op == opNamed:
		return n.elem.skip(b, depth)
	case len(n.fields) == 0:
		return readEmpty(b)
	}
	return n.skipFields(b, depth)
}
