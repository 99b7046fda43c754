package codec

import (
	"encoding/binary"
	"math"
	"time"
	"unsafe"
)

// appendBasic appends a value of one of the usual types without looking for its node, and tells whether it could.
func appendBasic(b []byte, v any, slow bool) ([]byte, bool) {
	switch v := v.(type) {
	case bool:
		if v {
			return append(b, codeScalar+kindBool, 1), true
		}
		return append(b, codeScalar+kindBool, 0), true
	case int8:
		return append(b, codeScalar+kindInt8, byte(v)), true
	case int16:
		return binary.LittleEndian.AppendUint16(append(b, codeScalar+kindInt16), uint16(v)), true
	case int32:
		return binary.LittleEndian.AppendUint32(append(b, codeScalar+kindInt32), uint32(v)), true
	case int64:
		return binary.LittleEndian.AppendUint64(append(b, codeScalar+kindInt64), uint64(v)), true
	case int:
		return binary.AppendVarint(append(b, codeScalar+kindInt), int64(v)), true
	case uint8:
		return append(b, codeScalar+kindUint8, v), true
	case uint16:
		return binary.LittleEndian.AppendUint16(append(b, codeScalar+kindUint16), v), true
	case uint32:
		return binary.LittleEndian.AppendUint32(append(b, codeScalar+kindUint32), v), true
	case uint64:
		return binary.LittleEndian.AppendUint64(append(b, codeScalar+kindUint64), v), true
	case uint:
		return binary.AppendUvarint(append(b, codeScalar+kindUint), uint64(v)), true
	case float32:
		return binary.LittleEndian.AppendUint32(append(b, codeScalar+kindFloat32), math.Float32bits(v)), true
	case float64:
		return binary.LittleEndian.AppendUint64(append(b, codeScalar+kindFloat64), math.Float64bits(v)), true
	case string:
		return appendString(append(b, codeScalar+kindString), v), true
	case time.Duration:
		return binary.LittleEndian.AppendUint64(append(b, codeScalar+kindDuration), uint64(v)), true
	case []byte:
		return appendBytes(append(b, codeBytes), v), true
	}
	return appendBasicSlice(b, v, slow)
}

func appendBasicSlice(b []byte, v any, slow bool) ([]byte, bool) {
	switch v := v.(type) {
	case []int32:
		return appendList(append(b, codeVector+kindInt32), v, slow), true
	case []int64:
		return appendList(append(b, codeVector+kindInt64), v, slow), true
	case []uint32:
		return appendList(append(b, codeVector+kindUint32), v, slow), true
	case []uint64:
		return appendList(append(b, codeVector+kindUint64), v, slow), true
	case []float32:
		return appendList(append(b, codeVector+kindFloat32), v, slow), true
	case []float64:
		return appendList(append(b, codeVector+kindFloat64), v, slow), true
	case []string:
		return appendStrings(append(b, codeVector+kindString), v), true
	case [][]byte:
		return appendBytesList(append(b, codeBytesList), v), true
	}
	return b, false
}

// appendList appends a slice of elements that have the same width in memory and in bytes.
func appendList[T any](b []byte, v []T, slow bool) []byte {
	b = appendCount(b, len(v), v == nil)
	return appendWords(b, unsafe.Pointer(unsafe.SliceData(v)), len(v), int(unsafe.Sizeof(*new(T))), slow)
}

// basicTarget returns the type code and the place of a variable of one of the usual types, code 0 if it is another.
func basicTarget(p any) (byte, unsafe.Pointer) {
	switch p := p.(type) {
	case *bool:
		return codeScalar + kindBool, unsafe.Pointer(p)
	case *int8:
		return codeScalar + kindInt8, unsafe.Pointer(p)
	case *int16:
		return codeScalar + kindInt16, unsafe.Pointer(p)
	case *int32:
		return codeScalar + kindInt32, unsafe.Pointer(p)
	case *int64:
		return codeScalar + kindInt64, unsafe.Pointer(p)
	case *int:
		return codeScalar + kindInt, unsafe.Pointer(p)
	case *uint8:
		return codeScalar + kindUint8, unsafe.Pointer(p)
	case *uint16:
		return codeScalar + kindUint16, unsafe.Pointer(p)
	case *uint32:
		return codeScalar + kindUint32, unsafe.Pointer(p)
	case *uint64:
		return codeScalar + kindUint64, unsafe.Pointer(p)
	case *uint:
		return codeScalar + kindUint, unsafe.Pointer(p)
	case *float32:
		return codeScalar + kindFloat32, unsafe.Pointer(p)
	case *float64:
		return codeScalar + kindFloat64, unsafe.Pointer(p)
	case *string:
		return codeScalar + kindString, unsafe.Pointer(p)
	case *time.Duration:
		return codeScalar + kindDuration, unsafe.Pointer(p)
	}
	return basicSliceTarget(p)
}

func basicSliceTarget(p any) (byte, unsafe.Pointer) {
	switch p := p.(type) {
	case *[]byte:
		return codeBytes, unsafe.Pointer(p)
	case *[]int32:
		return codeVector + kindInt32, unsafe.Pointer(p)
	case *[]int64:
		return codeVector + kindInt64, unsafe.Pointer(p)
	case *[]uint32:
		return codeVector + kindUint32, unsafe.Pointer(p)
	case *[]uint64:
		return codeVector + kindUint64, unsafe.Pointer(p)
	case *[]float32:
		return codeVector + kindFloat32, unsafe.Pointer(p)
	case *[]float64:
		return codeVector + kindFloat64, unsafe.Pointer(p)
	case *[]string:
		return codeVector + kindString, unsafe.Pointer(p)
	case *[][]byte:
		return codeBytesList, unsafe.Pointer(p)
	}
	return 0, nil
}
