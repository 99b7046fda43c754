package codec

import (
	"fmt"
	"iter"
	"reflect"
)

// Each decodes a list of bodies of one value each, the replies to a query for example. It yields exactly once for each
// body and in their order, so that the n-th turn belongs to the n-th sender: the value, or the zero value and a
// *ReplyError. A caller may go on after an error.
func Each[T any](r *Registry, replies [][]byte) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		for i, b := range replies {
			var v T
			err := r.Unmarshal(b, &v)
			if err != nil {
				v, err = *new(T), &ReplyError{Index: i, Err: err}
			}
			if !yield(v, err) {
				return
			}
		}
	}
}

// Columns decodes a list of bodies of the same types into slices: columns points at one slice for each value of a body,
// and entry n of every slice is from body n. The slices are made anew and all have the length of the list. The error is
// a *ReplyError that names the first body at fault, and the slices are then not touched; or an *EncodeError if the
// columns themselves are at fault.
func (r *Registry) Columns(replies [][]byte, columns ...any) error {
	made := make([]reflect.Value, len(columns))
	for i, c := range columns {
		v := reflect.ValueOf(c)
		if v.Kind() != reflect.Pointer || v.IsNil() || v.Elem().Kind() != reflect.Slice {
			return &EncodeError{Index: i, Type: fmt.Sprintf("%T", c),
				Err: fmt.Errorf("%w: a pointer to a slice is wanted", ErrUncodable)}
		}
		made[i] = reflect.MakeSlice(v.Elem().Type(), len(replies), len(replies))
	}
	ptrs := make([]any, len(columns))
	for row, b := range replies {
		for i := range made {
			ptrs[i] = made[i].Index(row).Addr().Interface()
		}
		if err := r.Unmarshal(b, ptrs...); err != nil {
			return &ReplyError{Index: row, Err: err}
		}
	}
	for i, c := range columns {
		reflect.ValueOf(c).Elem().Set(made[i])
	}
	return nil
}
