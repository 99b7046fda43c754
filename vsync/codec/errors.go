package codec

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
)

// Faults of encoded bytes; a *DecodeError says where.
var (
	// ErrTruncated means that a value or a length claims more bytes than there are.
	ErrTruncated = errors.New("the bytes end early")
	// ErrCanonical means that the bytes are not the one encoding that their value has.
	ErrCanonical = errors.New("not in canonical form")
	// ErrRange means that a number does not fit the type or the machine.
	ErrRange = errors.New("number out of range")
	// ErrCode means that the type of a value is malformed or unknown to this version of the format.
	ErrCode = errors.New("malformed type")
)

// Faults of values and types.
var (
	// ErrDepth means that registered types nest deeper than MaxDepth, in a value or in bytes.
	ErrDepth = errors.New("nested too deep")
	// ErrRagged means that the rows of a two-dimensional slice differ in length, or that its rows are empty.
	ErrRagged = errors.New("not rectangular")
	// ErrUnregistered means that a type must be registered before its values can travel.
	ErrUnregistered = errors.New("not registered")
	// ErrUncodable means that values of a type can never travel.
	ErrUncodable = errors.New("cannot be encoded")
	// ErrDuplicate means that an id or a type is registered already.
	ErrDuplicate = errors.New("registered already")
	// ErrID means that an id is not one that the caller may use.
	ErrID = errors.New("id out of range")
	// ErrFrozen means that the registry is in use and takes no more types.
	ErrFrozen = errors.New("the registry is frozen")
	// ErrSignature means that a text is not a signature.
	ErrSignature = errors.New("malformed signature")
)

// RegisterError says why a type cannot be registered or encoded.
type RegisterError struct {
	Type   string // the Go type
	Field  string // path to the part at fault, as in Items[].Price; empty if it is the type itself
	Reason string
	Err    error // one of the sentinel errors
}

// Error names the type, the field and the reason.
func (e *RegisterError) Error() string {
	where := e.Type
	if e.Field != "" {
		where += ": field " + e.Field
	}
	return fmt.Sprintf("codec: %s: %v: %s", where, e.Err, e.Reason)
}

// Unwrap returns the sentinel error.
func (e *RegisterError) Unwrap() error { return e.Err }

// EncodeError says which value could not be encoded.
type EncodeError struct {
	Index int    // position among the values, from 0
	Type  string // the Go type
	Err   error
}

// Error names the value, its type and the fault.
func (e *EncodeError) Error() string {
	return fmt.Sprintf("codec: value %d (%s): %s", e.Index, e.Type, inner(e.Err))
}

// Unwrap returns the fault.
func (e *EncodeError) Unwrap() error { return e.Err }

// DecodeError says where encoded bytes are at fault.
type DecodeError struct {
	Index  int    // position of the value, from 0
	Type   string // type of the value; empty if it is not known
	Offset int    // bytes of the body before the fault, about
	Err    error
}

// Error names the value, its type, the place and the fault.
func (e *DecodeError) Error() string {
	name := e.Type
	if name == "" {
		name = "unknown type"
	}
	return fmt.Sprintf("codec: value %d (%s), byte %d: %v", e.Index, name, e.Offset, e.Err)
}

// Unwrap returns the fault.
func (e *DecodeError) Unwrap() error { return e.Err }

// TypeError means that a value has another type than the decoder wants.
type TypeError struct {
	Index  int // position of the value, from 0
	Wanted string
	Found  string
}

// Error names the value and both types.
func (e *TypeError) Error() string {
	return fmt.Sprintf("codec: value %d is of type %s, expected %s", e.Index, e.Found, e.Wanted)
}

// CountError means that a body has more or fewer values than the decoder wants.
type CountError struct{ Wanted, Found int }

// Error names both counts.
func (e *CountError) Error() string {
	return fmt.Sprintf("codec: expected %d values, found %d", e.Wanted, e.Found)
}

// LayoutError means that the sender registered a type of other fields under the id of a type of ours.
type LayoutError struct {
	Index int    // position of the value, from 0
	Type  string // our type, with its id
}

// Error names the value and the type.
func (e *LayoutError) Error() string {
	return fmt.Sprintf("codec: value %d: the sender's definition of %s differs from ours", e.Index, e.Type)
}

// UnknownIDError means that a value is of a type that this registry does not hold.
type UnknownIDError struct {
	Index int // position of the value, from 0
	ID    uint16
}

// Error names the value and the id.
func (e *UnknownIDError) Error() string {
	return fmt.Sprintf("codec: value %d: no type is registered with id %d", e.Index, e.ID)
}

// Unwrap returns ErrUnregistered.
func (e *UnknownIDError) Unwrap() error { return ErrUnregistered }

// ReplyError says which of several bodies is at fault.
type ReplyError struct {
	Index int // position among the bodies, from 0
	Err   error
}

// Error names the reply and the fault.
func (e *ReplyError) Error() string { return fmt.Sprintf("codec: reply %d: %s", e.Index, inner(e.Err)) }

// Unwrap returns the fault.
func (e *ReplyError) Unwrap() error { return e.Err }

// inner is the text of an error of this package inside another.
func inner(err error) string { return strings.TrimPrefix(err.Error(), "codec: ") }

// buildError is a fault of a type, on its way to becoming a RegisterError.
func buildError(kind error, path string, t reflect.Type, reason string) error {
	return &RegisterError{Type: t.String(), Field: path, Reason: reason, Err: kind}
}
