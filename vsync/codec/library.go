package codec

import (
	"encoding"
	"fmt"
	"reflect"
)

// LibraryType is what a pointer to a type of the library must have.
type LibraryType[T any] interface {
	*T
	encoding.BinaryAppender
	encoding.BinaryUnmarshaler
}

// RegisterLibrary makes a type of the library itself known, an address or a view for example. It is for the packages of
// this module only: ids from LibraryIDMin to LibraryIDMax belong to them, are part of the protocol, and must mean the
// same in all versions that can meet; applications use Register. The type's own binary form travels behind its length.
func RegisterLibrary[T any, P LibraryType[T]](r *Registry, id uint16) error {
	if id < LibraryIDMin || id > LibraryIDMax {
		return buildError(ErrID, "", reflect.TypeFor[T](),
			fmt.Sprintf("id %d: the library has %d to %d", id, LibraryIDMin, LibraryIDMax))
	}
	return register[T](r, id, byLibrary)
}
